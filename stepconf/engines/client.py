"""A client of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, hosted, `stepconf serve`), by the `openai` package.

Requests run on an event loop in a thread of its own, so that any number may be in flight and any may be cancelled:
closing a connection is how a server learns that nobody waits. Redirects are not followed, because they would carry
the key to another host. The key comes from the environment and is kept nowhere else.
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from stepconf.core.documents import read_json
from stepconf.engines.base import none_dropped
from stepconf.errors import StepconfError

MAX_REPLY_BYTES = 64 << 20  # 32k tokens with twenty log-probabilities each are 30 MB
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 60.0
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_AWAY = {429, 502, 503, 504, 529}  # it may be back in minutes
_LEAST_WAIT_S = 0.1  # counted for a wait, however short: "Retry-After: 0" must not go on for ever
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Servers:
    """Where and how to ask.

    Args:
        base_urls: up to and with `/v1`; no user, password or query, which would end up in recipes. A request goes
            to the one with the fewest in flight of those that are not away.
        api_key_env: environment variable that holds the key; None sends none.
        timeout_s: wall clock of one attempt, from connecting to the last byte.
        attempts: how often a request is sent at most; where the server is away, more often:
        patience_s: how long to wait in all while every server is down or refuses for the rate, before they are
            given up. Once they are, the others have their `attempts` only, until one answers again.
        concurrency: requests in flight, at each server.
        part: of the recipe that names the servers; for error messages.
    """

    base_urls: tuple[str, ...]
    api_key_env: str | None = None
    timeout_s: float = 120.0
    attempts: int = 4
    patience_s: float = 0.0
    concurrency: int = 16
    part: str = "engine"


@dataclass(frozen=True, slots=True)
class Post:
    """A request: `key` is the caller's and may come several times, `tag` is the caller's, too."""

    key: str
    kind: Literal["completions", "chat"]
    body: dict[str, Any]
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the JSON object `data`, or the `failure`. `seconds` counts every attempt and wait.

    `status`: of HTTP; 0 where no answer came.
    """

    data: dict[str, Any]
    failure: str = ""
    status: int = 0
    seconds: float = 0.0


class Client:
    """Asks one or several servers of the same model; not safe to call from two threads at once.

    Args:
        servers: where and how.
        sleep: waits between attempts, in the client's thread.

    Raises:
        StepconfError: a URL is malformed, or the key is absent.
    """

    def __init__(self, servers: Servers, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        key = _key(servers)
        for url in servers.base_urls:
            check_url(url, servers.part)
        self._servers, self._sleep = servers, sleep
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="client")
        self._thread.start()
        self._places = [_Place(url, _opened(url, key, servers), _headers(key)) for url in servers.base_urls]
        self._given_up = False

    def models(self) -> list[dict[str, Any]]:
        """The cards of the models that every server has, as its `/models` gives them; asked once, before any work.

        Raises:
            StepconfError: a server does not answer, refuses the key, or answers something else.
        """
        found = [self._wait(self._models(place)) for place in self._places]
        known = {card["id"] for card in found[0]}.intersection(
            *({card["id"] for card in one} for one in found)
        )
        return [card for card in found[0] if card["id"] in known]

    def post(self, post: Post) -> Reply:
        """The reply to one request."""
        return cast(Reply, self._wait(self._ask(post)))

    def post_each(
        self, posts: Iterable[Post | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[Post, Reply]]:
        """The reply to each request, in the order in which they come; requests are taken as there is room.

        A `None` means that nothing is to be added now. `dropped` gives keys of requests that are no longer wanted.
        """
        done: SimpleQueue[tuple[int, Post, Reply | Exception]] = SimpleQueue()
        under_way: dict[int, tuple[str, Future[None]]] = {}
        coming, numbers, more = iter(posts), count(), True
        try:
            while True:
                room = self._servers.concurrency * len(_not_away(self._places))
                while more and len(under_way) < room:
                    post = next(coming, _END)
                    if post is _END:
                        more = False
                    elif post is None:
                        break
                    else:
                        number = next(numbers)
                        asked = self._answer(number, post, done)
                        under_way[number] = post.key, asyncio.run_coroutine_threadsafe(asked, self._loop)
                if not under_way and not more:
                    return
                self._cancel(under_way, dropped())
                try:
                    number, post, reply = done.get(timeout=_POLL_S)
                except Empty:
                    continue
                if under_way.pop(number, None) is None:
                    continue
                if isinstance(reply, Exception):
                    raise reply
                yield post, reply
        finally:
            self._cancel(under_way, {key for key, _ in under_way.values()})

    def close(self) -> None:
        """Close the connections and end the thread."""
        for place in self._places:
            self._wait(place.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _cancel(self, under_way: dict[int, tuple[str, Future[None]]], keys: Collection[str]) -> None:
        for number in [number for number, (key, _) in under_way.items() if key in keys] if keys else ():
            under_way.pop(number)[1].cancel()

    def _wait(self, asked: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    async def _models(self, place: "_Place") -> list[dict[str, Any]]:
        import openai

        try:
            status, data, failure = await self._once(
                place.client.models.with_raw_response.list(extra_headers=place.headers)
            )
        except (openai.OpenAIError, _AttemptError) as error:
            status, data, failure = getattr(error, "status_code", 0), {}, _named(error)
        if status in (401, 403):
            raise StepconfError(
                f"{place.url} refuses the key: HTTP {status}.",
                f"Set {self._servers.part}.api_key_env to the variable that holds it "
                f"(now {self._servers.api_key_env!r}).",
            )
        cards = data.get("data")
        if failure or not isinstance(cards, list):
            raise StepconfError(
                f"no answer from {place.url}/models: {failure or 'not a list of models'}.",
                f"Start the server, or correct {self._servers.part}.base_url.",
            )
        return [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]

    async def _answer(
        self, number: int, post: Post, done: "SimpleQueue[tuple[int, Post, Reply | Exception]]"
    ) -> None:
        try:
            done.put((number, post, await self._ask(post)))
        except Exception as error:  # noqa: BLE001  raised where the reply is waited for
            done.put((number, post, error))

    async def _ask(self, post: Post) -> Reply:
        import openai

        started, waited, status, failure = time.monotonic(), 0.0, 0, ""
        data: dict[str, Any] = {}
        attempts, untried = 0, self._places  # since it last waited
        while True:
            place = min(_not_away(untried), key=lambda one: one.in_flight)
            place.in_flight += 1
            wait = None
            try:
                status, data, failure = await self._once(_sent(place, post))
                away = False
            except openai.APIStatusError as error:
                status, failure = error.status_code, _phrase(error.status_code)
                wait, away = _retry_after(error.response.headers.get("Retry-After")), status in _AWAY
            except (openai.OpenAIError, _AttemptError) as error:
                status, failure, away = 0, _named(error), isinstance(error, openai.APIConnectionError)
                away = away and not isinstance(error, openai.APITimeoutError)
            finally:
                place.in_flight -= 1
            place.note(away, wait)
            if status not in {*_AGAIN, 0}:
                self._given_up = False
                break
            untried = [one for one in untried if one is not place]
            if away and any(not one.is_away for one in untried):
                continue
            attempts, untried = attempts + 1, self._places
            if attempts >= self._servers.attempts and not (away and self._still_waits(waited)):
                break
            pause = _pause(attempts - 1) if wait is None else wait
            waited += max(pause, _LEAST_WAIT_S)
            await self._sleep(pause)
        return Reply(data, failure, status, time.monotonic() - started)

    async def _once(self, ask: Awaitable[Any]) -> tuple[int, dict[str, Any], str]:
        """Status, object and failure of one attempt; raises what the package raises."""
        try:
            async with asyncio.timeout(self._servers.timeout_s):
                response = await ask
        except TimeoutError as error:
            raise _AttemptError("timeout") from error
        try:
            data = read_json(response.content)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return response.status_code, {}, "not an object of JSON"
        return response.status_code, data, ""

    def _still_waits(self, waited: float) -> bool:
        if waited >= self._servers.patience_s:
            self._given_up = True
        return not self._given_up


@dataclass(slots=True, eq=False)
class _Place:
    url: str
    client: Any
    headers: dict[str, Any]
    in_flight: int = 0
    failures: int = 0  # in a row; those that were in flight together are one
    back_at: float = 0.0

    @property
    def is_away(self) -> bool:
        return time.monotonic() < self.back_at

    def note(self, away: bool, wait: float | None) -> None:
        """Leave it out for a time where it was away: it fails at once, so it would have the fewest in flight."""
        if not away:
            self.failures, self.back_at = 0, 0.0
        elif not self.is_away:
            back_off = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(self.failures, 10)) if wait is None else wait
            self.failures += 1
            self.back_at = time.monotonic() + back_off


def _not_away(places: list[_Place]) -> list[_Place]:
    """Those that are not away; all where all are."""
    return [one for one in places if not one.is_away] or places


class _AttemptError(Exception):
    """Why an attempt was given up on this side."""


_END: Any = object()


def counted(tokens: Any) -> int:
    """A count of tokens out of an answer's `usage`; 0 where it is none."""
    return tokens if type(tokens) is int and tokens > 0 else 0


def check_url(base_url: str, part: str) -> None:
    """Raise StepconfError where a URL is no http(s) URL, or carries a user, a password or a query."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        # The URL is not shown: what is wrong with it may be the password in it.
        raise StepconfError(
            f"{part}.base_url is not a plain http(s) URL.",
            "Write it like http://127.0.0.1:8000/v1; a key belongs into the variable of api_key_env.",
        )


def _key(servers: Servers) -> str:
    if not servers.api_key_env:
        return ""
    key = os.environ.get(servers.api_key_env, "").strip()
    if not key:
        raise StepconfError(
            f"the environment variable {servers.api_key_env} is not set.",
            f"Type: export {servers.api_key_env}=...; or leave {servers.part}.api_key_env out.",
        )
    return key


def _headers(key: str) -> dict[str, Any]:
    """Without what the package takes from the environment: it belongs to another host."""
    from openai import Omit

    kept: dict[str, Any] = {
        "OpenAI-Organization": Omit(),
        "OpenAI-Project": Omit(),
        "Accept-Encoding": "identity",
    }
    return kept if key else kept | {"Authorization": Omit()}


def _opened(url: str, key: str, servers: Servers) -> Any:
    import openai

    connections = openai.DefaultAsyncHttpxClient(
        follow_redirects=False, event_hooks={"response": [_limit]}, timeout=servers.timeout_s
    )
    return openai.AsyncOpenAI(
        api_key=key or "none",
        base_url=url,
        max_retries=0,  # `_ask` repeats: it knows a server that is away from one that refuses
        http_client=connections,
    )


def _sent(place: _Place, post: Post) -> Awaitable[Any]:
    """The request on its way; fields that the package does not know are sent as they are."""
    client = place.client
    create = (client.completions if post.kind == "completions" else client.chat.completions).with_raw_response
    named = "prompt" if post.kind == "completions" else "messages"
    rest = {name: value for name, value in post.body.items() if name not in ("model", named)}
    own = {named: post.body[named], "extra_body": rest, "extra_headers": place.headers}
    sent = create.create(model=post.body["model"], **own)
    return cast(Awaitable[Any], sent)


async def _limit(response: Any) -> None:
    """Let the body of a response end at `MAX_REPLY_BYTES`; packed ones, which may unfold to any size, are refused."""
    import httpx2

    if response.headers.get("content-encoding", "identity") != "identity":
        raise _AttemptError("reply is packed")
    stream = response.stream

    class Limited(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in stream:
                size += len(part)
                if size > MAX_REPLY_BYTES:
                    raise _AttemptError(f"reply is larger than {MAX_REPLY_BYTES >> 20} MiB")
                yield part

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Limited()


def _phrase(status: int) -> str:
    name = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return f"HTTP {status} {name}".strip()


def _named(error: Exception) -> str:
    import openai

    if isinstance(error, openai.APIStatusError):
        return _phrase(error.status_code)
    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    for one in (error, error.__cause__):
        if isinstance(one, _AttemptError):
            return str(one)
    return f"connection failed: {type(error.__cause__ or error).__name__}"


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, at most `MAX_WAIT_S`; None where it says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_WAIT_S) if seconds == seconds else None


def _pause(attempt: int) -> float:
    """Exponential back-off with full jitter: the requests must not come back all at once."""
    return random.uniform(0.0, min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10)))  # noqa: S311  not a secret
