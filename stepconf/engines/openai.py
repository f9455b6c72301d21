"""A client of OpenAI-compatible chat endpoints (vLLM, SGLang, llama.cpp, hosted ones). For critics only.

The standard library does it: a POST per conversation from a few threads. Redirects are not followed, because
they would carry the key to another host. The key comes from the environment at each call and is kept nowhere.
"""

import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from stepconf.core.documents import read_json
from stepconf.errors import StepconfError

Messages = list[dict[str, str]]
MAX_REPLY_BYTES = 4 << 20
CUT_OFF = "reply cut off at max_tokens"
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 60.0
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_AWAY = {429, 502, 503, 504, 529}  # it may be back in minutes
_LEAST_WAIT_S = 0.1  # counted for a wait, however short: "Retry-After: 0" must not go on for ever
_NETWORK = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that a critic replies to.

    Args:
        messages: the conversation.
        temperature: of sampling; 0 is greedy.
        seed: of sampling.
        schema: JSON Schema that the reply is held to.
    """

    messages: Messages
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Args:
        text: what the model wrote.
        failure: why no reply came; to ask again would not help.
        flaw: why a reply that came cannot be used (cut off, a refusal); another seed may help.
        seconds: of every attempt and wait.
        tokens_read: tokens of the prompt, 0 where unknown.
        tokens_written: tokens of the reply, thinking included, 0 where unknown.
    """

    text: str
    failure: str = ""
    flaw: str = ""
    seconds: float = 0.0
    tokens_read: int = 0
    tokens_written: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    Args:
        base_url: up to and with `/v1`; no user, password or query, which would end up in recipes.
        model: the name that the endpoint knows.
        api_key_env: environment variable that holds the key; None sends none.
        timeout_s: wall clock of one attempt, from connecting to the last byte.
        attempts: how often a request is sent at most; where the server is away, more often:
        patience_s: how long to wait in all for a server that is down or refuses for the rate, before it is
            given up. Once it is, the others have their `attempts` only, until it answers again.
        concurrency: requests in flight.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    max_tokens: int = 2048
    timeout_s: float = 120.0
    attempts: int = 4
    patience_s: float = 0.0
    concurrency: int = 16
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False)
    _given_up: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def check(self) -> None:
        """Ask for the list of models, once, before any work.

        Raises:
            StepconfError: the URL is malformed, the key is absent or refused, or nobody answers.
        """
        self._headers()
        try:
            status, _, _ = self._exchange("GET", "/models", None)
        except _NETWORK as error:
            raise StepconfError(
                f"no answer from the critic's endpoint {self.base_url}: {_named(error)}.",
                "Start the server, or correct verify.critic.base_url.",
            ) from error
        if status in (401, 403):
            raise StepconfError(
                f"{self.base_url} refuses the key: HTTP {status}.",
                f"Set verify.critic.api_key_env to the variable that holds it (now {self.api_key_env!r}).",
            )

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question, in order."""
        with ThreadPoolExecutor(self.concurrency) as threads:
            return list(threads.map(self._ask_one, questions))

    def _ask_one(self, question: Question) -> Reply:
        started = time.monotonic()
        data, reply = json.dumps(self._body(question)).encode(), Reply("")
        waited = 0.0
        for attempt in count():
            wait = None
            try:
                status, headers, answer = self._exchange("POST", "/chat/completions", data)
            except _NETWORK as error:
                reply, away = Reply("", _named(error)), isinstance(error, ConnectionError)
            else:
                reply = _content(status, answer)
                if status not in _AGAIN:
                    self._given_up.clear()
                    break
                wait, away = _retry_after(headers.get("Retry-After")), status in _AWAY
            if attempt + 1 >= self.attempts and not (away and self._still_waits(waited)):
                break
            pause = _pause(attempt) if wait is None else wait
            waited += max(pause, _LEAST_WAIT_S)
            self.sleep(pause)
        return replace(reply, seconds=time.monotonic() - started)

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": question.messages,
            "temperature": question.temperature,
            "max_tokens": self.max_tokens,
        }
        if question.temperature > 0:
            body["seed"] = question.seed
        if question.schema is not None:
            form = {"name": "verdicts", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    def _still_waits(self, waited: float) -> bool:
        if waited >= self.patience_s:
            self._given_up.set()
        return not self._given_up.is_set()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key_env:
            key = os.environ.get(self.api_key_env, "").strip()
            if not key:
                raise StepconfError(
                    f"the environment variable {self.api_key_env} is not set.",
                    f"Type: export {self.api_key_env}=...; or leave verify.critic.api_key_env out.",
                )
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, Any, bytes]:
        """Send one request; status, headers and body (at most `MAX_REPLY_BYTES` + 1 of it)."""
        connection, target = self._connection(path)
        late = threading.Event()
        alarm: threading.Timer | None = None
        try:
            connection.connect()
            # The socket's own timeout starts anew with every byte: a server that drips would never end.
            alarm = threading.Timer(self.timeout_s, _hang_up, [connection.sock, late])
            alarm.daemon = True
            alarm.start()
            connection.request(method, target, body, self._headers())
            response = connection.getresponse()
            data = response.read(MAX_REPLY_BYTES + 1)
            if response.length and len(data) <= MAX_REPLY_BYTES:
                raise http.client.IncompleteRead(data, response.length)
        except _NETWORK as error:
            raise TimeoutError if late.is_set() else error from None
        finally:
            if alarm is not None:
                alarm.cancel()
            connection.close()
        if late.is_set():
            raise TimeoutError
        return response.status, response.headers, data

    def _connection(self, path: str) -> tuple[http.client.HTTPConnection, str]:
        """An unopened connection, through the environment's proxy if it names one, and what to ask it for."""
        url = split_url(self.base_url)
        host, secure = url.hostname or "", url.scheme == "https"
        target = url.path.rstrip("/") + path
        proxy = None if proxy_bypass(host) else getproxies().get(url.scheme)
        place = urlsplit(proxy) if proxy else url
        where, port = place.hostname or host, place.port or (443 if place is url and secure else 80)
        if not secure:
            plain = http.client.HTTPConnection(where, port, timeout=self.timeout_s)
            return plain, target if place is url else f"http://{url.netloc}{target}"
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(where, port, timeout=self.timeout_s, context=context)
        if place is not url:
            connection.set_tunnel(host, url.port or 443)
        return connection, target


def split_url(base_url: str) -> Any:
    """The parts of an endpoint's URL.

    Raises:
        StepconfError: it is no http(s) URL, or carries a user, a password or a query.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        # The URL is not shown: what is wrong with it may be the password in it.
        raise StepconfError(
            "verify.critic.base_url is not a plain http(s) URL.",
            "Write it like http://127.0.0.1:8000/v1; a key belongs into the variable of api_key_env.",
        )
    return url


def _content(status: int, data: bytes) -> Reply:
    """The reply in a chat completion, or why there is none."""
    if status != 200:
        name = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        return Reply("", f"HTTP {status} {name}".strip())
    if len(data) > MAX_REPLY_BYTES:
        return Reply("", f"reply is larger than {MAX_REPLY_BYTES >> 20} MiB")
    try:
        whole = read_json(data)
        choice = whole["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text, refusal, usage = message.get("content"), message.get("refusal"), whole.get("usage") or {}
        read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Reply("", "not a chat completion")
    text = text if isinstance(text, str) else ""
    flaw = "" if text.strip() else "empty reply"
    if refusal or ended == "content_filter":
        flaw = "refused"
    elif ended == "length":
        flaw = CUT_OFF
    return Reply(text, flaw=flaw, tokens_read=read, tokens_written=written)


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


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
    """Exponential back-off with full jitter: the threads must not come back all at once."""
    return random.uniform(0.0, min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10)))  # noqa: S311  not a secret


def _hang_up(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):  # closed at this very moment
        sock.shutdown(socket.SHUT_RDWR)


def _named(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return f"connection failed: {type(error).__name__}"
