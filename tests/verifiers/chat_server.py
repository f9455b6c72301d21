"""A chat endpoint on loopback that behaves, or misbehaves, as told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What the server does with a request's body; it writes the answer through the handler.
Behaviour = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Hands every POST to the server's behaviour."""

    server: "ChatServer"

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send(200 if self.server.welcomes else 401, {"data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        with self.server.lock:
            self.server.bodies.append(body)
        self.server.behave(self, body)

    def send(self, status: int, body: Any, **headers: str) -> None:
        """Answer with JSON (or, given bytes, with those)."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def say(
        self, text: Any, finish_reason: str = "stop", usage: dict[str, int] | None = None, **message: Any
    ) -> None:
        """Answer with a chat completion."""
        choice = {
            "message": {"role": "assistant", "content": text, **message},
            "finish_reason": finish_reason,
        }
        self.send(200, {"choices": [choice]} | ({"usage": usage} if usage else {}))

    def log_message(self, format: str, *args: Any) -> None:
        pass


class ChatServer(ThreadingHTTPServer):
    """`bodies` of requests; `seen`: their headers, names in small letters; `released` ends those that hang."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, behave: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.seen: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.welcomes = True
        self.models: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients hang up on purpose


@contextmanager
def chat_server(behave: Behaviour) -> Iterator[ChatServer]:
    """A server in threads of this process."""
    with ChatServer(behave) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
