"""The page over a whole run: a small HTTP server for one person, on loopback only."""

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from stepconf.errors import StepconfError
from stepconf.report.explorer import Explorer
from stepconf.report.filters import parse_filter
from stepconf.report.html import page
from stepconf.report.source import Source, missing_notes
from stepconf.report.token_texts import TokenTexts, token_notes

_LONGEST = 500  # characters of a search
_PAGE = re.compile(r"[0-9]{1,9}")
_SILENT_S = 10.0  # how long a connection may send nothing, or take nothing of its answer
_MOST_WAITING = 64  # connections without a request; a browser opens some ahead


class Viewer:
    """Answers the page's questions about one source.

    The index is read in the background from the start; the tokenizer once the first page of problems is out, so
    that it does not hold that up.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._once = threading.RLock()
        self._tokenizer = threading.RLock()

    @cached_property
    def _explorer(self) -> Explorer:
        return Explorer(self._source)

    def explorer(self) -> Explorer:
        """The index: the first request reads it, others wait."""
        with self._once:
            return self._explorer

    @cached_property
    def _token_texts(self) -> TokenTexts:
        return self.explorer().token_texts()

    def texts(self) -> TokenTexts:
        """The tokenizer: the first request opens it, others wait."""
        with self._tokenizer:
            return self._token_texts

    @cached_property
    def page(self) -> bytes:
        """The page without data: it asks for them."""
        notes = missing_notes(self._source)
        return page({"served": True, "name": self._source.name, "notes": notes}).encode()

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """What is to be sent as JSON; None where there is no such thing.

        Raises:
            StepconfError: the query makes no sense, or a shard cannot be read.
        """
        questions: dict[str, Callable[[dict[str, str]], Any]] = {
            "/api/overview": self._overview,
            "/api/problems": self._problems,
            "/api/problem": self._problem,
            "/api/solution": self._solution,
        }
        return questions[path](query) if path in questions else None

    def _overview(self, query: dict[str, str]) -> Any:
        from stepconf.report.write import first_part  # what it imports is not needed for the first page

        return first_part(self.explorer(), self._source)["overview"]

    def _problems(self, query: dict[str, str]) -> Any:
        page_number = query.get("page", "0")
        if not _PAGE.fullmatch(page_number) or len(query.get("q", "")) > _LONGEST:
            raise StepconfError("no such page, or a search of more than 500 characters.")
        found = self.explorer().list_problems(parse_filter(query), int(page_number))
        threading.Thread(target=self.texts, daemon=True).start()
        return found

    def _problem(self, query: dict[str, str]) -> Any:
        explorer = self.explorer()
        problem = explorer.index.find_problem(query.get("id", ""))
        return None if problem < 0 else explorer.problem(problem)

    def _solution(self, query: dict[str, str]) -> Any:
        explorer = self.explorer()
        solution = explorer.index.find_solution(query.get("id", ""))
        if solution < 0:
            return None
        texts = self.texts()
        return {"steps": explorer.steps([solution], texts)[0], "notes": token_notes(texts)}


class ViewServer(ThreadingHTTPServer):
    """Bound to 127.0.0.1, at `port` or any free one (0). Requests for another host are refused."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, source: Source, port: int) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise StepconfError(f"port {port} is taken.", "Give another --port, or 0 for any.") from error
        self.viewer = Viewer(source)
        self._waiting: dict[Any, None] = {}  # sockets, the oldest first
        self._changing = threading.Lock()
        threading.Thread(target=self._read_ahead, daemon=True).start()

    @property
    def address(self) -> str:
        """What to open."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread; the one that has sent no request for longest makes room for it."""
        with self._changing:
            self._waiting[request] = None
            oldest = next(iter(self._waiting)) if len(self._waiting) > _MOST_WAITING else None
        if oldest is not None:
            self.has_asked(oldest)
            with suppress(OSError):  # its thread has closed it
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def has_asked(self, request: Any) -> None:
        """A connection has sent its request, or has ended."""
        with self._changing:
            self._waiting.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.has_asked(request)
        super().shutdown_request(request)

    def _read_ahead(self) -> None:
        try:
            self.viewer.explorer()
        except StepconfError:
            return  # each request reports it


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    timeout = _SILENT_S

    def do_GET(self) -> None:
        self.server.has_asked(self.connection)
        try:
            parts = urlsplit(self.path)
        except ValueError:  # `http://[::1`
            self._send(HTTPStatus.BAD_REQUEST, b"This is not the address of anything.", "text/plain")
            return
        port = self.server.server_address[1]
        # A page of another site whose name was made to lead here (DNS rebinding) asks for its own host.
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.FORBIDDEN, b"This server answers 127.0.0.1 only.", "text/plain")
        elif parts.path == "/":
            self._send(HTTPStatus.OK, self.server.viewer.page, "text/html")
        else:
            self._answer(parts.path, dict(parse_qsl(parts.query)))

    def _answer(self, path: str, query: dict[str, str]) -> None:
        status, body = HTTPStatus.OK, cast(Any, None)
        try:
            body = self.server.viewer.answer(path, query)
        except StepconfError as error:
            status, body = HTTPStatus.BAD_REQUEST, {"error": f"{error.problem} {error.hint}".strip()}
        if body is None:
            status, body = HTTPStatus.NOT_FOUND, {"error": "There is no such thing here."}
        self._send(status, json.dumps(body, separators=(",", ":")).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return  # the page has asked something else meanwhile, or takes nothing

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what is asked is nobody's business."""
