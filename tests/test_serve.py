"""`stepconf serve`, by the official client, on a real tiny model."""

import asyncio
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from stepconf.core.ids import problem_id
from stepconf.core.records import Problem, TokenScores
from stepconf.engines.base import Engine, SampleRequest, Sampling
from stepconf.errors import StepconfError
from stepconf.evaluation.infer import answers, open_pool
from stepconf.inference.base import Result
from stepconf.inference.run import Clock
from stepconf.recipe import Recipe, load_recipe
from stepconf.serving import connection
from stepconf.serving.access import Access, access_of
from stepconf.serving.app import App, bind
from stepconf.serving.chat import Refused
from stepconf.serving.completions import read_completion
from stepconf.serving.serve import served_name
from stepconf.serving.service import Service
from stepconf.stages.models import open_engine
from tests.tiny import stepconf, tiny_model

PATIENCE_S = 120
LONG = {"strategy": "cat", "k": 64, "tau": 0, "stop_early": False, "max_steps": 1000}
MANY = 200
MANY_TEXTS = [f"What is {i} + {i % 7}?" for i in range(MANY)]


def recipe_of(**options: Any) -> Recipe:
    small = {"sampling.max_tokens": 24, "sampling.temperature": 1.0, "infer.k": 2, "infer.tau": 0}
    own = {"model": str(tiny_model(chat=True)), "engine.name": "transformers", "serve.port": 0}
    return load_recipe(None, small | own | options)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(recipe_of())


@contextmanager
def serving(
    engine: Engine, key: str | None = None, host: str = "127.0.0.1", **options: Any
) -> Iterator[tuple[str, Service]]:
    """A server in threads of this process: its address, and what answers."""
    recipe = recipe_of(**options)
    ready: list[str] = []
    is_ready = threading.Event()

    def tell(url: str, name: str) -> None:
        assert name == "tiny"
        ready.append(url)
        is_ready.set()

    with open_pool(recipe) as pool, bind(host, 0) as address:
        access = access_of(recipe.serve, address.getsockname()[0], key)
        service = Service(engine, pool, recipe)
        app = App(service, recipe, served_name(recipe.model), access)
        answering = threading.Thread(target=service.run, args=(app.end,))
        speaking = threading.Thread(target=app.run, args=(address, tell))
        answering.start()
        speaking.start()
        try:
            assert is_ready.wait(PATIENCE_S)
            yield ready[0], service
        finally:
            app.end()
            speaking.join(PATIENCE_S)
            service.live.stop()
            answering.join(PATIENCE_S)
            assert not speaking.is_alive() and not answering.is_alive()


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with serving(engine) as (address, _):
        yield address


def client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE_S)


def asked(text: str, **options: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "extra_body": options}


def as_infer_answers(
    engine: Engine, strategy: str, texts: list[str], kind: str = "math", **options: Any
) -> list[Result]:
    recipe = recipe_of(**options)
    problems = [Problem(problem_id(text, None), text, None, kind, "typed", "") for text in texts]
    with open_pool(recipe) as pool:
        found = {one.key: one for one in answers(engine, pool, problems, strategy, recipe, Clock())}
    return [found[problem.problem_id] for problem in problems]


STRATEGIES = ["cat", "beam", "greedy", "cot", "self-consistency", "dipt", "best-of-n", "deepconf"]
STRATEGIES += ["cisc", "adaptive", "cges", "gate", "particle", "deepconf-online"]


@pytest.fixture(scope="module")
def expected(engine: Engine) -> dict[str, list[Result]]:
    """What `infer` answers; asked before a server has the engine."""
    found = {strategy: as_infer_answers(engine, strategy, ["What is 3 + 4?"]) for strategy in STRATEGIES}
    # Code, since any text is an answer then: each question has one of its own.
    short = {"sampling.max_tokens": 10, "infer.k": 1}
    return found | {"many": as_infer_answers(engine, "best-of-n", MANY_TEXTS, "code", **short)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_answer_is_that_of_infer(strategy: str, expected: dict[str, list[Result]], url: str) -> None:
    [theirs] = expected[strategy]
    found = client(url).chat.completions.create(**asked("What is 3 + 4?", strategy=strategy))
    message, said = found.choices[0].message, found.choices[0].message.stepconf  # type: ignore[attr-defined]
    assert message.content == (theirs.text if theirs.answer is not None else None)
    assert (said["strategy"], said["answer"], said["failure"]) == (strategy, theirs.answer, theirs.failure)
    assert message.refusal == (theirs.failure or None)
    assert [step["text"] for step in said["steps"]] == [step.text for step in theirs.steps]
    assert [step["confidence"] for step in said["steps"]] == [step.confidence for step in theirs.steps]
    assert said["spent"]["tokens"] == theirs.spent.tokens == found.usage.completion_tokens  # type: ignore[union-attr]
    assert found.usage.prompt_tokens == len(theirs.prompt_ids)  # type: ignore[union-attr]
    assert len(said["samples"]) == len(theirs.samples)


@pytest.mark.parametrize(
    "strategy", ["cat", *(pytest.param(s, marks=pytest.mark.slow) for s in ("beam", "greedy", "best-of-n"))]
)
def test_a_stream_holds_the_same_step_by_step(strategy: str, url: str) -> None:
    for number in range(6):
        how = asked(f"What is {number} + 4?", strategy=strategy)
        whole = client(url).chat.completions.create(**how).choices[0].message
        chunks = list(
            client(url).chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
        )
        *parts, usage = chunks
        assert usage.choices == [] and usage.usage is not None and usage.usage.completion_tokens > 0
        deltas = [chunk.choices[0].delta for chunk in parts]
        assert deltas[0].role == "assistant" and len({chunk.id for chunk in chunks}) == 1
        steps = [delta.stepconf["step"] for delta in deltas[1:-1]]  # type: ignore[attr-defined]
        assert [delta.content for delta in deltas[1:-1]] == [step["text"] for step in steps]
        last = deltas[-1].stepconf  # type: ignore[attr-defined]
        assert parts[-1].choices[0].finish_reason in ("stop", "length")
        if whole.content is None:
            assert last["failure"] == whole.refusal
            continue
        assert "".join(step["text"] for step in steps) == whole.content
        theirs = whole.stepconf  # type: ignore[attr-defined]
        assert steps == theirs["steps"] and last["answer"] == theirs["answer"]


def test_two_hundred_at_once_none_lost_none_crossed(expected: dict[str, list[Result]], url: str) -> None:
    async def ask_all() -> list[tuple[str, str | None]]:
        async with openai.AsyncOpenAI(
            base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S
        ) as many:

            async def ask(i: int) -> tuple[str, str | None]:
                how = asked(MANY_TEXTS[i], strategy="best-of-n", k=1, max_tokens=10, answer_type="code")
                if i % 2:
                    one = await many.chat.completions.create(**how)
                    return one.id, one.choices[0].message.content
                stream = await many.chat.completions.create(**how, stream=True)
                chunks = [chunk async for chunk in stream]
                failed = chunks[-1].choices[0].delta.stepconf["failure"]  # type: ignore[attr-defined]
                text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                return chunks[0].id, None if failed else text

            return await asyncio.gather(*(ask(i) for i in range(MANY)))

    found = asyncio.run(ask_all())
    assert len({name for name, _ in found}) == MANY
    theirs = [one.text for one in expected["many"]]
    assert [text for _, text in found] == theirs
    assert len(set(theirs)) == MANY, "all differ, so that crossed ones are seen"


@pytest.mark.parametrize("stream", [False, True])
def test_steps_have_the_fitted_confidence(
    stream: bool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a step's length and place, so that every number can be foretold."""

    def of_step(scores: TokenScores, index: int) -> float:
        return len(scores) / (100 + index)

    fitted = SimpleNamespace(steps=1, answers=1, of_step=of_step, of_answer=lambda scores: 0.125)
    loader = SimpleNamespace(load_confidence=lambda path, model, force: fitted)
    monkeypatch.setitem(sys.modules, "stepconf.calibration.fitted", loader)
    how = asked("What is 3 + 4?", strategy="best-of-n", answer_type="code", k=3, max_tokens=40)
    with serving(engine, confidence="confidence.json") as (url, _):
        chat = client(url).chat.completions
        if stream:
            deltas = [chunk.choices[0].delta for chunk in chat.create(**how, stream=True)]
            steps = [delta.stepconf["step"] for delta in deltas[1:-1]]
            said = deltas[-1].stepconf
        else:
            said = chat.create(**how).choices[0].message.stepconf  # type: ignore[union-attr]
            steps = said["steps"]
    assert steps and said["confidence"] == pytest.approx(steps[-1]["cumulative_confidence"])
    assert [sample["confidence"] for sample in said["samples"]] == [0.125] * 3
    cumulative = 1.0
    for index, step in enumerate(steps):
        cumulative *= step["n_tokens"] / (100 + index)
        assert step["confidence"] == step["n_tokens"] / (100 + index)
        assert step["cumulative_confidence"] == pytest.approx(cumulative)
        assert step["entropy_mean"] > 0


def test_models_and_health(url: str) -> None:
    [model] = client(url).models.list().data
    assert model.id == "tiny" and client(url).models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="not served"):
        client(url).models.retrieve("gpt-4")
    health = httpx.get(url.removesuffix("/v1") + "/health")
    assert health.status_code == 200 and health.json()["status"] == "ok"
    assert httpx.get(url + "/nothing").json()["error"]["code"] == "no_such_route"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "gpt-4"}, 404, "not served"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "question is empty"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, 400, "last message"),
        ({"messages": [{"role": "owner", "content": "hi"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "x" * 4000}]}, 400, "context is 256"),
        ({"strategy": "mcts"}, 400, "unknown strategy 'mcts'"),
        ({"startegy": "cat"}, 400, "Did you mean strategy?"),
        ({"k": 0}, 400, "k: "),
        ({"k": 65}, 400, "exceeds this server's 64"),
        ({"tau": 1.5}, 400, "tau: "),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 100_000}, 400, "exceeds this server's 4096"),
        ({"max_completion_tokens": 100_000}, 400, "exceeds this server's 4096"),
        ({"strategy": "best-of-n", "k": 64, "max_tokens": 4096 * 2}, 400, "exceeds"),
        ({"temperature": -1}, 400, "temperature"),
        ({"seed": 1 << 63}, 400, "seed"),
        ({"n": 2}, 400, "n: "),
        ({"tools": []}, 400, "tools is not supported"),
        ({"tau_run": "/etc"}, 400, "tau_run is not supported"),
        ({"confidence": "/etc/passwd"}, 400, "confidence is not supported"),
        ({"tau_quantile": 0.5}, 400, "tau_quantile is not supported"),
        ({"tau_run": "/etc", "tau_quantile": 0.5}, 400, "tau_quantile is not supported"),
        ({"user": "me"}, 400, "user is not supported"),
        ({"metadata": {"a": "b"}}, 400, "metadata is not supported"),
        ({"store": True}, 400, "store"),
        ({"logprobs": True}, 400, "logprobs is not supported"),
        ({"stream_options": {"include_obfuscation": True}}, 400, "stream_options.include_obfuscation"),
        (
            {"messages": [{"role": "user", "content": "hi", "name": "x"}]},
            400,
            "messages.0.name is not supported",
        ),
        (
            {"messages": [{"role": "user", "content": "hi", "tool_calls": [{}]}]},
            400,
            "messages.0.tool_calls is not supported",
        ),
        ({"stop": [""]}, 400, "stop takes"),
        ({"answer_type": "essay"}, 400, "answer_type"),
        ({"stream": "perhaps"}, 400, "stream"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused(change: dict[str, Any], status: int, said: str, stream: bool, url: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "3 + 4?"}], "stream": stream} | change
    found = httpx.post(f"{url}/chat/completions", json=body, timeout=PATIENCE_S)
    assert found.status_code == status and said in found.json()["error"]["message"], found.text
    assert found.json()["error"]["type"] == "invalid_request_error"
    if said.endswith(" is not supported"):
        assert found.json()["error"]["param"] == said.removesuffix(" is not supported")


def test_what_the_client_sends_of_itself_is_taken(url: str) -> None:
    """An answer as the next request's turn, and fields that ask for what holds anyway."""
    question: Any = {"role": "user", "content": "3 + 4?"}
    how: Any = {"model": "tiny", "n": 1, "store": False, "stop": None, "temperature": None}
    plain = {"strategy": "best-of-n", "k": 1, "answer_type": "code", "max_tokens": 8}
    first = client(url).chat.completions.create(**how, messages=[question], extra_body=plain)
    turns = [question, first.choices[0].message, question]
    again = client(url).chat.completions.create(**how, messages=turns, extra_body=plain)
    assert first.usage is not None and again.usage is not None
    assert again.usage.prompt_tokens > first.usage.prompt_tokens


def test_bodies_that_are_none(url: str) -> None:
    place, json_ = f"{url}/chat/completions", {"Content-Type": "application/json"}
    for body, status in (
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b" " * (1 << 21), 413),
    ):
        found = httpx.post(place, content=body, headers=json_)
        assert found.status_code == status and found.json()["error"]["message"], found.text
    assert httpx.post(place, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert httpx.get(place).status_code == 405
    stranger = httpx.get(f"{url}/models", headers={"Host": "evil.example"})
    assert stranger.status_code == 400 and stranger.json()["error"]["code"] == "unknown_host"
    assert client(url).chat.completions.create(**asked("3 + 4?", strategy="greedy")).id


def test_conversations_follow_the_template(url: str) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": [{"type": "text", "text": "and 5 + 5?"}]},
    ]
    alone: Any = turns[-1:]
    whole: Any = turns
    longer = client(url).chat.completions.create(model="tiny", messages=whole, extra_body={"instruction": ""})
    short = client(url).chat.completions.create(model="tiny", messages=alone, extra_body={"instruction": ""})
    assert longer.usage is not None and short.usage is not None
    assert longer.usage.prompt_tokens > short.usage.prompt_tokens


def test_the_key_is_asked_for(engine: Engine, expected: dict[str, list[Result]]) -> None:
    with serving(engine, key="secret") as (url, _):
        with pytest.raises(openai.AuthenticationError):
            client(url, "wrong").models.list()
        with pytest.raises(openai.AuthenticationError):
            client(url, "wrong").chat.completions.create(**asked("3 + 4?"))
        for sent in ("secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secret2", "Bearer \xe9"):
            found = httpx.get(f"{url}/models", headers={"Authorization": sent.encode("latin-1")})
            assert found.status_code == 401 and found.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{url}/models").status_code == 401
        assert client(url, "secret").models.list().data


def test_other_machines_need_a_key(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    """Or the word that they do not; this machine does not. The key is not told to anybody."""
    for host in ("0.0.0.0", "::"):
        words = ["serve", "--model", tiny_model(), "--engine", "transformers", "--port", "0", "--host", host]
        ended = stepconf(*words, columns=1000)
        assert ended.code == 1 and "no key is asked of them" in ended.err, ended.err
        assert "--set serve.api_key_env=STEPCONF_KEY" in ended.err and "--insecure" in ended.err
    with serving(engine, "Geheim-7", "0.0.0.0", **{"serve.host": "0.0.0.0"}) as (url, _):
        with pytest.raises(openai.AuthenticationError) as refused:
            client(url, "wrong").chat.completions.create(**asked("3 + 4?"))
        assert "Geheim-7" not in str(refused.value)
        assert client(url, "Geheim-7").chat.completions.create(**asked("3 + 4?", strategy="greedy")).id
    with serving(engine, None, "0.0.0.0", **{"serve.host": "0.0.0.0", "serve.insecure": True}) as (url, _):
        assert client(url).models.list().data
    assert "Geheim-7" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("address", "host", "known"),
    [
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "localhost.", True),
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "127.8.9.1", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("::1", "[::1]", True),
        ("::1", "[::ffff:127.0.0.1]", True),
        ("127.0.0.1", "192.168.1.5:8000", False),
        ("127.0.0.1", "0.0.0.0:8000", False),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "[::1].evil.example", False),
        ("127.0.0.1", "[evil.example]", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "box.lan", True),
        ("0.0.0.0", "box.lan:8000", True),
        ("0.0.0.0", "192.168.1.5:8000", True),
        ("::", "[fd00::5]:8000", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "evil.box.lan", False),
        ("0.0.0.0", "", False),
    ],
)
def test_the_host_header_names_this_server(address: str, host: str, known: bool) -> None:
    """DNS rebinding: a page sends the name that it made to lead here."""
    assert Access(address, ["Box.LAN"]).knows_host(host) is known


def half_open(stack: ExitStack, url: str, sent: bytes) -> socket.socket:
    """A connection that has sent this much."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    one = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
    one.sendall(sent)
    return one


HALF = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SILENT = [b"", HALF, HALF + b"Content-Length: 9\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nG"]


@pytest.mark.parametrize("sent", SILENT, ids=["nothing", "half a head", "no body", "half the next head"])
def test_half_open_connections_do_not_keep_others_out(engine: Engine, sent: bytes) -> None:
    """Three times as many as the server takes."""
    with serving(engine, **{"serve.max_concurrent": 8}) as (url, _), ExitStack() as stack:
        for _ in range(240):
            half_open(stack, url, sent)
        for _ in range(3):
            assert client(url).chat.completions.create(**asked("3 + 4?", strategy="greedy")).id


@pytest.mark.parametrize("sent", [SILENT[0], SILENT[1], SILENT[3]])
def test_a_head_that_does_not_end_is_not_waited_for(
    engine: Engine, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a byte of it comes; a client that sends whole ones goes on."""
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    with serving(engine) as (url, _), ExitStack() as stack, httpx.Client() as good:
        one = half_open(stack, url, sent)
        for _ in range(PATIENCE_S * 10):
            assert good.get(url.removesuffix("/v1") + "/health").status_code == 200
            if select.select([one], [], [], 0.1)[0] and not _received(one):
                break
            with suppress(ConnectionError):
                one.sendall(b"G")
        else:
            pytest.fail("it is still open")


def _received(one: socket.socket) -> bytes:
    """What has come; nothing where the server has closed."""
    try:
        return one.recv(65536)
    except ConnectionError:
        return b""


def test_one_too_many_is_told_so_and_a_client_that_leaves_makes_room(engine: Engine) -> None:
    """Both, streaming and not: their trees are closed, and the next question is answered."""
    with serving(engine, **{"serve.max_concurrent": 2}) as (url, service):
        place = f"{url}/chat/completions"
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "3 + 4?"}],
            "max_tokens": 200,
        } | LONG
        with httpx.Client(timeout=PATIENCE_S) as other:
            host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
            raw = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            quiet = socket.create_connection((host, int(port)))
            quiet.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
            with other.stream("POST", place, json=body | {"stream": True}) as streaming:
                lines = streaming.iter_lines()
                assert next(lines).startswith("data: ")
                while httpx.get(url.removesuffix("/v1") + "/health").json()["requests"] < 2:
                    pass
                with pytest.raises(openai.RateLimitError, match="2 requests are under way"):
                    client(url).chat.completions.create(**asked("3 + 4?"))
            quiet.close()
        while httpx.get(url.removesuffix("/v1") + "/health").json()["requests"]:
            pass
        assert client(url).chat.completions.create(**asked("3 + 4?", strategy="greedy")).choices
        assert not service.live._open


def test_sigterm_finishes_what_it_can_and_says_so_to_the_rest() -> None:
    arguments = ["serve", "--model", str(tiny_model(chat=True)), "--engine", "transformers", "--port", "0"]
    arguments += ["--set", "serve.grace_s=1", "--set", "sampling.max_tokens=16", "--k", "2"]
    server = subprocess.Popen(
        [sys.executable, "-m", "stepconf", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Serving tiny at http://127.0.0.1:"), line
        url = line.split()[-1]
        statuses = asyncio.run(_ask_and_terminate(url, server))
        assert server.wait(PATIENCE_S) == 0
        assert server.stderr is not None and server.stderr.read() == ""
    finally:
        server.kill()
        server.wait()
        for pipe in (server.stdout, server.stderr):
            if pipe is not None:
                pipe.close()
    assert statuses["long"] == statuses["stream"] == 503
    short = [status for name, status in statuses.items() if name not in ("long", "stream")]
    assert len(short) == 20 and set(short) <= {200, 503}


async def _ask_and_terminate(url: str, server: "subprocess.Popen[str]") -> dict[str, int]:
    """Two that take longer than the grace period, twenty that do not, and a signal once all are under way."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "3 + 4?"}]}
    place = f"{url}/chat/completions"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:

        async def ask(**options: Any) -> int:
            return (await http.post(place, json=body | options)).status_code

        async def stream() -> int:
            async with http.stream(
                "POST", place, json=body | LONG | {"stream": True, "max_tokens": 200}
            ) as found:
                lines = [line async for line in found.aiter_lines() if line]
            last = json.loads(lines[-1].removeprefix("data: "))
            return 503 if last["error"]["code"] == "stopping" else 200

        tasks = {
            "long": asyncio.create_task(ask(**LONG, max_tokens=200)),
            "stream": asyncio.create_task(stream()),
        }
        while (await http.get(url.removesuffix("/v1") + "/health")).json()["requests"] < 2:
            pass
        tasks |= {str(i): asyncio.create_task(ask(strategy="greedy")) for i in range(20)}
        short = [task for name, task in tasks.items() if name.isdecimal()]
        while not all(task.done() for task in short):
            if (await http.get(url.removesuffix("/v1") + "/health")).json()["requests"] == len(tasks):
                break
        server.send_signal(signal.SIGTERM)
        done = await asyncio.gather(*tasks.values())
    return dict(zip(tasks, done, strict=True))


def test_what_cannot_be_served() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        ended = stepconf("serve", "--model", tiny_model(), "--engine", "transformers", "--port", port)
        assert ended.code == 1 and f"cannot listen at 127.0.0.1:{port}" in ended.err
    with pytest.raises(StepconfError, match="cannot listen at no"):
        bind("no.such.host.invalid", 0)
    ended = stepconf("serve", "--model", "demo", "--set", "serve.api_key_env=STEPCONF_NO_SUCH_KEY")
    assert ended.code == 1 and "STEPCONF_NO_SUCH_KEY, which is not set" in ended.err
    assert stepconf("serve", "--port", 70000).code == 1
    tau = ["--set", "infer.tau_run=no/such/run", "--set", "infer.tau_quantile=0.05"]
    ended = stepconf("serve", "--model", tiny_model(), "--engine", "transformers", "--port", 0, *tau)
    assert ended.code == 1 and "no/such/run" in ended.err


RAW = {"model": "tiny", "prompt": [1, 2, 3], "n": 3, "seed": 5, "max_tokens": 9, "temperature": 1.0}


def test_raw_completions_are_those_of_the_engine(engine: Engine) -> None:
    """The same tokens and numbers as from the engine in this process, by the official client."""
    request = SampleRequest("r", RAW["prompt"], 3, 5, Sampling(1.0, 9, until=("a",)))
    ((_, expected),) = engine.sample([request])
    with serving(engine) as (url, _), openai.OpenAI(base_url=url, api_key="none") as client:
        rest = {"return_token_ids": True, "stepconf": {"until": ["a"]}}
        given = {name: value for name, value in RAW.items() if name != "prompt"}
        found = client.completions.create(prompt=RAW["prompt"], **given, extra_body=rest)
        card = client.models.retrieve("tiny").stepconf  # type: ignore[attr-defined]
    assert card["tokenizer"] == engine.tokenizer.digest and card["vocabulary"] == engine.info.vocabulary
    for choice, one in zip(found.choices, expected, strict=True):
        assert choice.text == "".join(one.pieces)
        assert choice.token_ids == one.token_ids  # type: ignore[attr-defined]
        own = choice.stepconf  # type: ignore[attr-defined]
        assert own["entropies"] == pytest.approx(one.scores.entropies, abs=1e-6)
        assert own["logprobs"] == pytest.approx(one.scores.logprobs, abs=1e-6)
        assert own["max_probs"] == pytest.approx(one.scores.max_probs, abs=1e-6)
        assert (own["finish_reason"], own["n_sampled"]) == (one.finish_reason, one.n_sampled)


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": "text"}, 400, "prompt"),
        ({"prompt": [-1]}, 400, "the model has the tokens 0 to"),
        ({"prompt": [10**9]}, 400, "the model has the tokens 0 to"),
        ({"prompt": [1] * 100_000}, 400, "the model's context is"),
        ({"model": "other"}, 404, "other"),
        ({"seed": 1 << 62}, 400, "seed"),
        ({"n": 65}, 400, "n: 65 exceeds this server's 64"),
        ({"max_tokens": 10**6}, 400, "max_tokens"),
        ({"stop": [""]}, 400, "no empty string"),
        ({"logprobs": 5}, 400, "logprobs is not supported"),
        ({"stream": True}, 400, "stream"),
        ({"stepconf": {"untill": []}}, 400, "stepconf.untill is not supported"),
    ],
)
def test_a_raw_completion_that_is_not_given_says_why(
    change: dict[str, Any], status: int, named: str, engine: Engine
) -> None:
    with pytest.raises(Refused, match=re.escape(named)) as refused:
        read_completion(json.dumps(RAW | change).encode(), recipe_of(), "tiny", engine.info)
    assert refused.value.status == status


def test_a_seed_that_no_engine_takes_ends_nothing(engine: Engine) -> None:
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "3 + 4?"}]}
    with serving(engine) as (url, service):
        for kind, body in (("completions", RAW), ("chat/completions", chat)):
            for seed, status in ((1 << 63, 400), (1 << 64, 400), (10**400, 400), ((1 << 62) - 1, 200)):
                found = httpx.post(f"{url}/{kind}", json=body | {"seed": seed}, timeout=PATIENCE_S)
                assert found.status_code == status and (status == 200 or "seed" in found.text), found.text
        assert service.live.fault is None


def test_a_client_that_leaves_ends_its_raw_completion(engine: Engine) -> None:
    with serving(engine) as (url, service):
        place = url.removeprefix("http://").removesuffix("/v1").split(":")
        body = json.dumps(RAW | {"n": 64, "max_tokens": 24}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection((place[0], int(place[1]))) as leaving:
            leaving.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        # The next one is answered, and nobody is waited for.
        assert httpx.post(f"{url}/completions", json=RAW, timeout=PATIENCE_S).status_code == 200
        assert httpx.get(url.removesuffix("/v1") + "/health", timeout=PATIENCE_S).json()["requests"] == 0
        assert service.live.fault is None
