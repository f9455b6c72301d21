"""Attacks on the servers, at length: they must go on answering others, within bounded time."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from stepconf.report.server import ViewServer
from stepconf.report.source import open_source
from tests.edited_run import good_run
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow
PATIENCE_S = 120
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server in a process of its own, with the limits that it comes with; its port."""
    words = ["serve", "--model", tiny_model(chat=True), "--engine", "transformers", "--port", "0"]
    started = subprocess.Popen(
        [sys.executable, "-m", "stepconf", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        assert line.startswith("Serving tiny at http://127.0.0.1:"), line
        yield line.split()[-1].removesuffix("/v1")
        assert started.poll() is None
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def connect(stack: ExitStack, server: str) -> socket.socket:
    host, port = server.removeprefix("http://").split(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))


def check_answers(server: str) -> None:
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "3 + 4?"}],
        "strategy": "greedy",
        "max_tokens": 8,
    }
    found = httpx.post(f"{server}/v1/chat/completions", json=asked, timeout=PATIENCE_S)
    assert found.status_code == 200, found.text


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 99\r\n\r\n{",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "no body"],
)
def test_six_hundred_half_open_connections(server: str, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(620):
            connect(stack, server).sendall(sent)
        check_answers(server)


def test_silent_connections_are_ended(server: str) -> None:
    """Each by the server, without anybody else coming."""
    with ExitStack() as stack:
        opened = [connect(stack, server) for _ in range(300)]
        for one in opened:
            one.sendall(HEAD)
        for one in opened:
            assert one.recv(1) == b""
    check_answers(server)


def test_heads_without_end(server: str) -> None:
    """A head of any size is refused before it fills the memory."""
    for line in (b"X-Filler: " + b"a" * 1000 + b"\r\n", b"a" * 1000):
        with ExitStack() as stack:
            one = connect(stack, server)
            try:
                one.sendall(HEAD)
                for _ in range(20_000):
                    one.sendall(line)
            except ConnectionError:
                continue
            pytest.fail("20 MB of a head were taken")
    check_answers(server)


def test_view_ends_silent_connections() -> None:
    with ViewServer(open_source(str(good_run()), False), 0) as view, ExitStack() as stack:
        threading.Thread(target=view.serve_forever, daemon=True).start()
        stack.callback(view.shutdown)
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: "):
            one = connect(stack, view.address.removesuffix("/"))
            one.sendall(sent)
            assert one.recv(1) == b""
