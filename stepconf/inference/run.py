"""Many searches in one stream of requests: a question that waits for nothing holds nobody up."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stepconf.engines.base import Completion, Engine, SampleRequest
from stepconf.inference.base import Ask, Result, Search

T = TypeVar("T")


@dataclass(slots=True)
class Clock:
    """Where the time went. `seconds` in all; `own` of them outside the engine, in searches and bookkeeping.

    `under_way_seconds`: continuations under way, added up over time; divided by `seconds`, how full the
    engine's batch was on average. `peak_under_way`: most of them at once.
    """

    seconds: float = 0.0
    own: float = 0.0
    under_way_seconds: float = 0.0
    peak_under_way: int = 0

    @property
    def occupancy(self) -> float:
        """Continuations under way, on average."""
        return self.under_way_seconds / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Open:
    """A search that waits for `missing` results."""

    search: Search
    started: float
    asks: list[Ask] = field(default_factory=list)
    missing: int = 0
    results: list[list[Completion]] = field(default_factory=list)


def answer(
    engine: Engine,
    searches: Iterable[Search | None],
    clock: Clock | None = None,
    abandoned: Callable[[], Iterable[Search]] | None = None,
) -> Iterator[Result]:
    """Run searches over one engine; yields each result as it comes, in any order.

    A search is started when the engine has room and no other search has a request to make.

    With `abandoned` it is a server's stream, which somebody waits for at each search: all are started as they
    come, and take turns at making requests. A `None` among the searches means that none is there for now; with
    none under way either, this ends. `abandoned` is asked at every step of the engine for searches that nobody
    waits for any more: they are closed and have no result.
    """
    stream = _Stream(iter(searches), clock or Clock(), abandoned)
    requests = stream.requests()
    answers = engine.sample(requests, stream.dropped) if abandoned else engine.sample(requests)
    try:
        while True:
            found = next(answers, None)
            stream.enter()
            if found is not None:
                stream.take(*found)
            done = list(stream.finished)
            stream.finished.clear()
            stream.leave()
            yield from done
            stream.resume()
            if found is None:
                return
    finally:
        stream.stop()


class _Stream:
    def __init__(
        self,
        searches: Iterator[Search | None],
        clock: Clock,
        abandoned: Callable[[], Iterable[Search]] | None,
    ) -> None:
        self._searches, self._clock = searches, clock
        self._fair, self._abandoned = abandoned is not None, abandoned or tuple
        self._ready: dict[str, deque[tuple[str, Ask]]] = {}  # of each search, in the order of their turns
        self._open: dict[str, _Open] = {}
        self._count = self._under_way = 0
        self.finished: deque[Result] = deque()
        self._started = self._seen = time.perf_counter()
        self._entered = 0.0

    def enter(self) -> None:
        """Our own work begins."""
        self._entered = self._tally()

    def leave(self) -> None:
        """Our own work ends."""
        self._clock.own += self._tally() - self._entered

    def resume(self) -> None:
        """What the caller did with its results is on neither clock."""
        self._seen = time.perf_counter()

    def stop(self) -> None:
        """Close what was not answered."""
        for one in self._open.values():
            one.search.close()

    def _tally(self) -> float:
        now = time.perf_counter()
        self._clock.under_way_seconds += self._under_way * (now - self._seen)
        self._clock.seconds += now - self._seen
        self._seen = now
        return now

    def requests(self) -> Iterator[SampleRequest | None]:
        """The engine's stream: what is ready, else another search, else nothing for now."""
        while True:
            self.enter()
            while (self._fair or not self._ready) and (search := next(self._searches, None)) is not None:
                self._begin(search)
            request = self._request(*self._next()) if self._ready else None
            idle = request is None and not self._open
            self.leave()
            if idle:
                return
            yield request

    def take(self, request: SampleRequest, completions: list[Completion]) -> None:
        """Put a result where it is waited for."""
        name, _, part = request.key.partition("/")
        self._under_way -= request.n
        waiting = self._open[name]
        waiting.results[int(part)] = completions
        waiting.missing -= 1
        if not waiting.missing:
            self._advance(name, waiting)

    def dropped(self) -> list[str]:
        """Close the searches that nobody waits for; the keys of their requests that the engine has."""
        keys: list[str] = []
        self.enter()
        for search in self._abandoned():
            name = next((name for name, one in self._open.items() if one.search is search), None)
            if name is not None:  # else it was answered in the meantime
                keys += self._drop(name)
        self.leave()
        return keys

    def _drop(self, name: str) -> list[str]:
        waiting = self._open.pop(name)
        waiting.search.close()
        unsent = {key for key, _ in self._ready.pop(name, ())}
        sent = []
        for part, ask in enumerate(waiting.asks):
            key = f"{name}/{part}"
            if key not in unsent and not waiting.results[part]:
                self._under_way -= ask.n
                sent.append(key)
        return sent

    def _begin(self, search: Search) -> None:
        name = str(self._count)
        self._count += 1
        self._open[name] = _Open(search, time.perf_counter())
        self._advance(name, self._open[name])

    def _advance(self, name: str, waiting: _Open) -> None:
        """Send a search its results; queue what it asks for next."""
        try:
            asks = waiting.search.send(waiting.results) if waiting.results else next(waiting.search)
        except StopIteration as end:
            del self._open[name]
            result: Result = end.value
            self.finished.append(replace(result, seconds=time.perf_counter() - waiting.started))
            return
        waiting.asks, waiting.results, waiting.missing = asks, [[] for _ in asks], len(asks)
        self._ready[name] = deque((f"{name}/{part}", ask) for part, ask in enumerate(asks))

    def _next(self) -> tuple[str, Ask]:
        """The next request of the search whose turn it is."""
        name = next(iter(self._ready))
        found = self._ready[name].popleft()
        if not self._ready[name]:
            del self._ready[name]
        elif self._fair:
            self._ready[name] = self._ready.pop(name)
        return found

    def _request(self, key: str, ask: Ask) -> SampleRequest:
        self._under_way += ask.n
        self._clock.peak_under_way = max(self._clock.peak_under_way, self._under_way)
        return SampleRequest(key, ask.prefix_ids, ask.n, ask.seed, ask.sampling)
