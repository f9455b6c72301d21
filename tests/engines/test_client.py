"""The client of OpenAI-compatible servers, against servers that misbehave."""

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from stepconf.engines import client as module
from stepconf.engines.client import Client, Post, Reply, Servers
from stepconf.errors import StepconfError
from tests.verifiers.chat_server import ChatServer, Handler, chat_server

ASK = Post("k", "completions", {"model": "m", "prompt": [1, 2], "logprobs": 3, "odd": {"a": 1}})


async def at_once(seconds: float) -> None:
    """No test waits."""


@contextmanager
def asked_of(
    behave: Callable[[Handler, dict[str, Any]], None], **options: Any
) -> Iterator[tuple[Client, ChatServer]]:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    with chat_server(behave) as server:
        servers = Servers((server.url,), **{"timeout_s": 5.0, "attempts": 3, **options})
        with closing(Client(servers, note)) as client:
            server.waits = waits  # type: ignore[attr-defined]
            yield client, server


def reply_to(behave: Callable[[Handler, dict[str, Any]], None], **options: Any) -> tuple[Reply, ChatServer]:
    with asked_of(behave, **options) as (client, server):
        return client.post(ASK), server


def test_a_body_arrives_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, and without what the environment holds for another host."""
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    reply, server = reply_to(lambda handler, body: handler.send(200, {"choices": []}))
    assert (reply.data, reply.failure, reply.status) == ({"choices": []}, "", 200)
    assert server.bodies == [ASK.body]
    assert not any("secret" in value for value in server.seen[0].values())


def test_the_key_comes_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc")
    _, server = reply_to(lambda handler, body: handler.send(200, {}), api_key_env="MY_KEY")
    assert server.seen[0]["authorization"] == "Bearer abc"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(StepconfError, match="MY_KEY is not set"):
        Client(Servers(("http://127.0.0.1:1/v1",), api_key_env="MY_KEY"))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_failure_that_may_pass_is_asked_again(status: int) -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        first = len(handler.server.bodies) < 3
        handler.send(status, {"error": "busy"}, Retry_After="7") if first else handler.send(200, {"a": 1})

    reply, server = reply_to(behave)
    assert reply.data == {"a": 1} and len(server.bodies) == 3
    assert server.waits == [7.0, 7.0]  # type: ignore[attr-defined]


def test_what_will_not_pass_is_not_asked_again() -> None:
    reply, server = reply_to(lambda handler, body: handler.send(400, {"error": "no"}))
    assert (reply.failure, reply.status, len(server.bodies)) == ("HTTP 400 Bad Request", 400, 1)


def test_a_redirect_is_not_followed() -> None:
    reply, server = reply_to(lambda handler, body: handler.send(307, {}, Location="http://127.0.0.1:1/v1"))
    assert reply.failure == "HTTP 307 Temporary Redirect" and len(server.bodies) == 1


@pytest.mark.parametrize("data", [b"<html>", b"", b"[" * 100_000, b"[1]", b'"text"', b"\xff\xfe"])
def test_what_is_no_object_of_json_is_named(data: bytes) -> None:
    reply, _ = reply_to(lambda handler, body: handler.send(200, data))
    assert reply.failure == "not an object of JSON" and reply.status == 200


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_of_any_size_is_cut(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 1 << 20)
    reply, _ = reply_to(lambda handler, body: handler.send(status, b" " * (2 << 20)))
    assert reply.failure == "reply is larger than 1 MiB"


def test_a_packed_reply_is_refused() -> None:
    packed = gzip.compress(json.dumps({"a": 1}).encode())
    reply, _ = reply_to(lambda handler, body: handler.send(200, packed, Content_Encoding="gzip"))
    assert reply.failure == "reply is packed"


def test_a_server_that_hangs_is_given_up() -> None:
    reply, server = reply_to(
        lambda handler, body: handler.server.released.wait() and None, timeout_s=0.2, attempts=2
    )
    assert (reply.failure, len(server.bodies)) == ("timeout", 2)


def test_a_server_that_drips_is_given_up() -> None:
    def drip(handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not handler.server.released.wait(0.05):
            handler.wfile.write(b" ")

    assert reply_to(drip, timeout_s=0.3, attempts=1)[0].failure == "timeout"


def test_a_cut_stream_is_a_failed_connection() -> None:
    def cut(handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")

    reply, server = reply_to(cut)
    assert reply.failure.startswith("connection failed") and len(server.bodies) == 3


def free_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize("n", [1, 3])
def test_servers_that_are_down_are_waited_for_once(n: int) -> None:
    """The first request waits `patience_s` in all; those after it have their attempts only."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(max(seconds, 0.1))

    with closing(Client(Servers((free_url(),) * n, attempts=2, patience_s=30.0), note)) as client:
        assert client.post(ASK).failure.startswith("connection failed")
        assert sum(waits) >= 30
        waits.clear()
        assert client.post(ASK).failure.startswith("connection failed")
        assert len(waits) == 1


@pytest.mark.parametrize("url", ["ftp://a/v1", "http://user:pw@a/v1", "http://a/v1?key=b", "127.0.0.1:8000"])
def test_a_url_with_more_than_a_place_is_refused(url: str) -> None:
    with pytest.raises(StepconfError, match=r"verify.critic.base_url is not a plain http") as refused:
        Client(Servers((url,), part="verify.critic"))
    assert "pw" not in str(refused.value)


def test_models_are_asked_for_before_any_work() -> None:
    with asked_of(lambda handler, body: None) as (client, server):
        assert client.models() == []
        server.welcomes = False
        with pytest.raises(StepconfError, match="refuses the key: HTTP 401"):
            client.models()
    with (
        closing(Client(Servers((free_url(),)))) as client,
        pytest.raises(StepconfError, match="no answer from http"),
    ):
        client.models()


def test_two_hundred_requests_are_in_flight_at_once() -> None:
    """None is answered before all have come."""
    all_here = threading.Barrier(200, timeout=30)

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        all_here.wait()
        handler.send(200, {"echo": body["prompt"]})

    with asked_of(behave, concurrency=200, timeout_s=60.0) as (client, _):
        posts = [Post(str(i), "completions", {"model": "m", "prompt": [i]}) for i in range(200)]
        found = {post.key: (reply.failure, reply.data) for post, reply in client.post_each(posts)}
    assert found == {str(i): ("", {"echo": [i]}) for i in range(200)}


def test_servers_share_the_requests() -> None:
    """Each has as many as its concurrency before any is answered."""
    all_here = threading.Barrier(8, timeout=30)

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        all_here.wait()
        handler.send(200, {})

    with (
        chat_server(behave) as one,
        chat_server(behave) as other,
        closing(Client(Servers((one.url, other.url), concurrency=4), at_once)) as client,
    ):
        assert len(list(client.post_each([ASK] * 8))) == 8
        assert len(one.bodies) == len(other.bodies) == 4


async def unwanted(seconds: float) -> None:
    raise AssertionError("a request waits, though a server is up")


def test_a_server_that_is_down_leaves_its_requests_to_the_others() -> None:
    """It fails at once, so that it always has the fewest in flight. Requests lose neither an attempt nor time."""
    with chat_server(lambda handler, body: handler.send(200, {})) as live:
        servers = Servers((free_url(), live.url, free_url()), attempts=1, concurrency=4)
        with closing(Client(servers, unwanted)) as client:
            replies = [reply for _, reply in client.post_each([ASK] * 60)]
    assert [reply.failure for reply in replies] == [""] * 60 and len(live.bodies) == 60


def test_a_server_is_left_out_for_as_long_as_it_says() -> None:
    """As many as are in flight at once find out."""
    with (
        chat_server(lambda handler, body: handler.send(503, {}, Retry_After="60")) as away,
        chat_server(lambda handler, body: handler.send(200, {})) as live,
        closing(Client(Servers((away.url, live.url), attempts=1, concurrency=4), unwanted)) as client,
    ):
        assert [reply.failure for _, reply in client.post_each([ASK] * 60)] == [""] * 60
        assert 1 <= len(away.bodies) <= 4


def test_a_server_that_may_be_back_is_asked_again() -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        first = len(handler.server.bodies) == 1
        handler.send(503, {}, Retry_After="0") if first else handler.send(200, {})

    with (
        chat_server(behave) as back,
        chat_server(lambda handler, body: handler.send(200, {})) as live,
        closing(Client(Servers((back.url, live.url), attempts=1), unwanted)) as client,
    ):
        assert [client.post(ASK).failure, client.post(ASK).failure] == ["", ""]
        assert (len(back.bodies), len(live.bodies)) == (2, 1)


def test_a_request_that_is_no_longer_wanted_is_cancelled() -> None:
    """Its connection closes; the others are answered."""
    gone, arrived = threading.Event(), threading.Event()

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if body["prompt"] == [0]:
            arrived.set()
            handler.connection.settimeout(30)
            gone.set() if handler.connection.recv(1) == b"" else None
        else:
            gone.wait(30)
            handler.send(200, {})

    with asked_of(behave, timeout_s=60.0) as (client, _):
        posts = [Post(str(i), "completions", {"model": "m", "prompt": [i]}) for i in range(3)]
        found = client.post_each(posts, lambda: {"0"} if arrived.is_set() else ())
        assert sorted(post.key for post, _ in found) == ["1", "2"]
        assert gone.is_set()
