"""HTTP for `stepconf serve`: the one module of FastAPI and uvicorn."""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from math import ceil
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from stepconf.errors import StepconfError
from stepconf.inference.base import Result, StepScore
from stepconf.recipe import Recipe
from stepconf.serving.access import Access
from stepconf.serving.chat import Asked, Head, Refused, read_request
from stepconf.serving.completions import CompletionHead, read_completion
from stepconf.serving.connection import Connection
from stepconf.serving.service import Event, Service

_BODY_S = 30.0  # how long a client may take to send its request
_LINGER_S = 5.0  # how long it may take to read an answer, once the server is asked to end
_CLIENT_GONE = 499


class App:
    """The endpoints, and what ends them.

    Args:
        service: answers the requests.
        recipe: its `serve` has the limits.
        name: what clients call the model.
        access: decides whom it answers.
    """

    def __init__(self, service: Service, recipe: Recipe, name: str, access: Access) -> None:
        self._service, self._recipe, self._limits = service, recipe, recipe.serve
        self._name, self._access = name, access
        self._created = int(time.time())
        self._waiting: dict[str, asyncio.Queue[Event | None]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: _Server | None = None

    def run(self, address: socket.socket, ready: Callable[[str, str], None]) -> None:
        """Serve at a bound socket until a signal or the engine's end."""
        config = uvicorn.Config(
            self.routes(),
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=2 * self._limits.max_concurrent + 64,
            timeout_graceful_shutdown=ceil(self._limits.grace_s + _LINGER_S),
        )
        host, port = address.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        self._server = _Server(config, lambda: self._started(lambda: ready(url, self._name)), self._stop)
        self._server.run(sockets=[address])

    @property
    def signalled(self) -> bool:
        """Whether a signal has asked for the end."""
        return self._server is not None and self._server.signalled

    def end(self) -> None:
        """Stop serving, now. May be called from any thread."""
        if self._loop is not None and self._server is not None:
            self._loop.call_soon_threadsafe(self._server.end)

    def routes(self) -> FastAPI:
        """The ASGI application."""
        app = FastAPI(title="stepconf", openapi_url=None)
        app.add_api_route("/health", self._health, methods=["GET"])
        app.add_api_route("/v1/models", self._models, methods=["GET"])
        app.add_api_route("/v1/models/{name:path}", self._model, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"], response_model=None)
        app.add_api_route("/v1/completions", self._complete, methods=["POST"], response_model=None)
        app.add_exception_handler(Refused, _refused)
        app.add_exception_handler(HTTPException, _no_such_route)
        app.add_exception_handler(Exception, _internal)
        app.add_middleware(_HostCheck, access=self._access)
        return app

    async def _health(self) -> JSONResponse:
        status = "stopping" if self._stopping else "failed" if self._service.live.fault else "ok"
        return JSONResponse(
            {"status": status, "requests": len(self._waiting)}, 200 if status == "ok" else 503
        )

    async def _models(self, request: Request) -> dict[str, Any]:
        self._check_key(request)
        return {"object": "list", "data": [self._card()]}

    async def _model(self, name: str, request: Request) -> dict[str, Any]:
        self._check_key(request)
        if name != self._name:
            raise Refused(404, f"the model {name!r} is not served.", "model_not_found", "model")
        return self._card()

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "stepconf",
            "max_model_len": self._service.info.max_model_len,
            "stepconf": {
                "tokenizer": self._service.digest,
                **asdict(self._service.info),
                "model": self._name,
            },
        }

    async def _chat(self, request: Request) -> Response:
        self._check_key(request)
        asked = read_request(await self._body(request), self._recipe, self._name)
        self._check_room()
        head = Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self._name)
        events = self._waiting_for(head.id, request, lambda tell: self._service.ask(head.id, asked, tell))
        streams = False
        try:
            event = await events.get()
            if isinstance(event, str) and asked.stream:
                streams = True
                return StreamingResponse(
                    self._chunks(head, asked, events),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
                )
            while isinstance(event, str | StepScore):
                event = await events.get()
        finally:
            if not streams:
                self._leave(head.id)
        if isinstance(event, Exception):
            raise self._refusal(event) or event
        if not isinstance(event, Result):
            return Response(status_code=_CLIENT_GONE)
        return JSONResponse(head.completion(event))

    async def _complete(self, request: Request) -> Response:
        self._check_key(request)
        ask = read_completion(await self._body(request), self._recipe, self._name, self._service.info)
        self._check_room()
        head = CompletionHead(f"cmpl-{uuid.uuid4().hex}", int(time.time()), self._name)
        events = self._waiting_for(head.id, request, lambda tell: self._service.complete(head.id, ask, tell))
        try:
            event = await events.get()
        finally:
            self._leave(head.id)
        if isinstance(event, Exception):
            raise self._refusal(event) or event
        if not isinstance(event, tuple):
            return Response(status_code=_CLIENT_GONE)
        return JSONResponse(head.completion(len(ask.prefix_ids), event))

    async def _chunks(
        self, head: Head, asked: Asked, events: "asyncio.Queue[Event | None]"
    ) -> AsyncIterator[str]:
        """The answer as server-sent events, a chunk a step."""
        try:
            yield _sse(head.chunk({"role": "assistant", "content": ""}))
            sent = 0
            while isinstance(event := await events.get(), StepScore):
                sent += 1
                yield _sse(head.step(event))
            if isinstance(event, Result):
                for step in event.steps[sent:]:
                    yield _sse(head.step(step))
                yield _sse(head.end(event))
                if asked.with_usage:
                    yield _sse(head.usage(event))
                yield "data: [DONE]\n\n"
            elif isinstance(event, Exception):
                refusal = self._refusal(event)
                yield _sse((refusal or _INTERNAL).body())
                if refusal is None:
                    raise event
        finally:
            self._leave(head.id)

    def _refusal(self, event: object) -> Refused | None:
        """What a client reads of an exception; None where it is a fault of ours."""
        if isinstance(event, Refused):
            return event
        if event is self._service.live.fault:
            return Refused(503, "the engine has failed.", "engine_failed")
        if isinstance(event, StepconfError):
            return Refused(400, str(event), "invalid_value", "messages")
        return None

    def _waiting_for(
        self, key: str, request: Request, begin: Callable[[Callable[[Event], None]], None]
    ) -> "asyncio.Queue[Event | None]":
        """Begin a request; what the service gives for it arrives in the queue, None if the client has left."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._waiting[key] = events
        watcher = loop.create_task(self._watch(key, request))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        begin(tell)
        return events

    async def _watch(self, key: str, request: Request) -> None:
        """Wait until the client has left, or has its answer."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._leave(key)

    def _leave(self, key: str, why: Event | None = None) -> None:
        """Nobody waits for this answer any more; nothing happens where it has been given."""
        events = self._waiting.pop(key, None)
        if events is not None:
            self._service.live.give_up(key)
            events.put_nowait(why)

    def _check_key(self, request: Request) -> None:
        if not self._access.has_key(request.headers.get("authorization", "")):
            raise Refused(401, "the API key is missing or wrong.", "invalid_api_key")

    def _check_room(self) -> None:
        if self._stopping:
            raise _stopping()
        if len(self._waiting) >= self._limits.max_concurrent:
            most = self._limits.max_concurrent
            raise Refused(429, f"{most} requests are under way, which is the limit.", "too_many_requests")

    async def _body(self, request: Request) -> bytes:
        """The request's body.

        Raises:
            Refused: it is not declared as JSON (which keeps web pages out), too long, or does not come.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "send Content-Type: application/json.", "unsupported_media_type")
        most, body = self._limits.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise Refused(413, f"the body exceeds {most} bytes.", "body_too_large")
        except ClientDisconnect as error:
            raise Refused(_CLIENT_GONE, "the client has left.", "client_gone") from error
        except TimeoutError as error:
            raise Refused(408, f"the body did not come within {_BODY_S:.0f} s.", "timeout") from error
        return bytes(body)

    def _started(self, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        if self._service.live.fault is not None and self._server is not None:
            self._server.end()
        ready()

    def _stop(self, again: bool) -> None:
        """Take no more requests; those under way have the grace period, or, at a second signal, no more."""
        if self._loop is None:
            return
        self._stopping = True
        self._loop.call_soon_threadsafe(
            self._loop.call_later, 0.0 if again else self._limits.grace_s, self._give_up_all
        )

    def _give_up_all(self) -> None:
        for key in list(self._waiting):
            self._leave(key, _stopping())


class _HostCheck:
    """Refuses requests whose Host header names another server."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        answers: ASGIApp = self._app
        if not self._access.knows_host(host):
            message = f"the Host header names {host!r}, which is not this server; serve.names adds a name."
            answers = JSONResponse(Refused(400, message, "unknown_host").body(), 400)
        await answers(scope, receive, send)


class _Server(uvicorn.Server):
    """Uvicorn, whose end by a signal is an ordinary return, so that the engine is closed after it."""

    def __init__(
        self, config: uvicorn.Config, started: Callable[[], None], stop: Callable[[bool], None]
    ) -> None:
        super().__init__(config)
        self._on_started, self._on_stop, self.signalled = started, stop, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop(self.should_exit)
        self.should_exit = self.signalled = True

    def end(self) -> None:
        """End without a signal."""
        self._on_stop(True)
        self.should_exit = True


def _stopping() -> Refused:
    return Refused(503, "the server is stopping.", "stopping")


_INTERNAL = Refused(500, "internal error.", "internal_error")


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address, which does not listen yet.

    Raises:
        StepconfError: the address cannot be had.
    """
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise StepconfError(
            f"cannot listen at {host}:{port}: {error.strerror or error}.", "Give another --port, or --port 0."
        ) from error
    return found


def _sse(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, allow_nan=False)}\n\n"


async def _refused(request: Request, error: Exception) -> JSONResponse:
    known = error if isinstance(error, Refused) else _INTERNAL
    headers = {"Retry-After": "1"} if known.status in (429, 503) else None
    return JSONResponse(known.body(), known.status, headers)


async def _no_such_route(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 404
    refused = Refused(status, f"{request.method} {request.url.path}: {error}", "no_such_route")
    return JSONResponse(refused.body(), status)


async def _internal(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_INTERNAL.body(), _INTERNAL.status)
