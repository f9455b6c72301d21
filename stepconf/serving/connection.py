"""One client's connection to `stepconf serve`: what has sent no request may not keep others out."""

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_S = 10.0  # from the connection, or the answer before, to a whole request head


class Connection(H11Protocol):
    """HTTP/1.1 whose request heads must come within `HEAD_S`; uvicorn itself waits for them for ever.

    Where `limit_concurrency` leaves no room for a new connection, the one that has been without a whole request
    for longest is ended.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # With a limit of its own, uvicorn answers 503 to everybody once silent connections have reached it.
        self._most, self.limit_concurrency = config.limit_concurrency, None
        self._waits_since = 0.0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client has come."""
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._watch_head()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or several requests."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """The answer has been written; another request may follow."""
        super().on_response_complete()
        self._waits_since = self.loop.time()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._stop_timer()

    def _watch_head(self) -> None:
        """Let the clock run from the first to the last byte of a head, however often a byte comes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _make_room(self) -> None:
        if self._most is None or len(self.connections) < self._most:
            return
        waiting = [one for one in self.connections if isinstance(one, Connection) and one._waits]
        oldest = min(
            waiting, key=lambda one: one._waits_since
        )  # this one, where all others are being answered
        self.connections.discard(oldest)  # now: asyncio reports the loss later
        oldest.transport.abort()

    @property
    def _waits(self) -> bool:
        """Whether the client has yet to send a whole request, head and body."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body
