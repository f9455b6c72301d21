"""Models at servers: `stepconf serve` against the engine in this process, and servers that misbehave."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepconf.demo_model import resolve_model
from stepconf.engines.base import Completion, Engine, EngineCrashed, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.classes import open_transformers
from stepconf.engines.server import ServerEngine
from stepconf.errors import StepconfError
from stepconf.kinds import STRATEGIES
from stepconf.recipe import Recipe, load_recipe
from tests.invariants import rows_of
from tests.test_pipeline import write_jsonl
from tests.test_serve import engine, serving
from tests.tiny import VOCABULARY, needs_demo_model, stepconf, tiny_model
from tests.verifiers.chat_server import ChatServer, Handler, chat_server
from tests.verifiers.test_critic import vllm_server

__all__ = ["engine"]  # fixture
TINY = str(tiny_model(chat=True))
GREEDY, HOT = Sampling(0.0, 12), Sampling(1.0, 12, top_p=0.9, stop=("zz",))
REQUESTS = [
    SampleRequest("greedy", [1, 2, 3], 1, 0, GREEDY),
    SampleRequest("hot", [5, 6], 3, 7, HOT),
    SampleRequest("until", [9], 2, 1, Sampling(1.0, 12, until=("a", "\n"))),
]


def recipe_of(url: str | list[str], **options: Any) -> Recipe:
    known = {"model": TINY, "engine.name": "openai", "engine.base_url": url, "engine.attempts": 1}
    return load_recipe(None, known | options)


@contextmanager
def opened(url: str | list[str], **options: Any) -> Iterator[ServerEngine]:
    with closing(ServerEngine(TINY, recipe_of(url, **{"engine.patience_s": 0, **options}))) as found:
        yield found


def sampled(engine: Engine, requests: list[SampleRequest]) -> dict[str, list[Completion]]:
    return {request.key: found for request, found in engine.sample(requests)}


def test_a_server_of_ours_is_the_engine_it_runs(engine: Engine) -> None:
    expected = sampled(engine, REQUESTS)
    with serving(engine) as (url, _), opened(url) as found:
        assert found.info == engine.info
        got = sampled(found, [*REQUESTS, None])  # type: ignore[list-item]
    assert got.keys() == expected.keys()
    for key, completions in expected.items():
        for one, other in zip(got[key], completions, strict=True):
            assert (one.token_ids, one.pieces, one.finish_reason) == (
                other.token_ids,
                other.pieces,
                other.finish_reason,
            )
            assert one.n_sampled == other.n_sampled
            assert one.scores.entropies == pytest.approx(other.scores.entropies, abs=1e-6)
            assert one.scores.max_probs == pytest.approx(other.scores.max_probs, abs=1e-6)


def test_several_servers_are_one_engine(engine: Engine) -> None:
    with serving(engine) as (one, _), serving(engine) as (other, _), opened([one, other]) as found:
        assert sampled(found, REQUESTS).keys() == {"greedy", "hot", "until"}


def test_a_server_does_not_score(engine: Engine) -> None:
    with (
        serving(engine) as (url, _),
        opened(url) as found,
        pytest.raises(StepconfError, match="does not score"),
    ):
        list(found.score([ScoreRequest("s", [1], [2])]))


def test_no_server_is_named() -> None:
    with pytest.raises(StepconfError, match="needs a server"):
        ServerEngine(TINY, load_recipe(None, {"model": TINY, "engine.name": "openai"}))


# A stand-in for a stock server: the tokens 60, 61, ... with the same five likeliest tokens each time.
FIRST = 60
LIKELIEST = [log(0.5), log(0.2), log(0.1), log(0.05), log(0.01)]


def choice_of(body: dict[str, Any], **change: Any) -> dict[str, Any]:
    n = body["max_tokens"]
    rows = [{f"token_id:{i}": x for i, x in enumerate(LIKELIEST)} for _ in range(n)]
    logprobs = {"tokens": [""] * n, "token_logprobs": [LIKELIEST[0]] * n, "top_logprobs": rows}
    ids = list(range(FIRST, FIRST + n))
    return {"text": "x" * n, "finish_reason": "length", "token_ids": ids, "logprobs": logprobs} | change


@contextmanager
def stock(
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: {}, **card: Any
) -> Iterator[ChatServer]:
    """A server with one model, whose choices are changed once it has been looked at."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        first = len(handler.server.bodies) == 1
        handler.send(200, {"choices": [choice_of(body, **({} if first else change(body)))]})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 256} | card]
        yield server


def test_the_likeliest_tokens_give_bounds_and_no_entropy() -> None:
    with stock() as server, opened(server.url) as found:
        got = sampled(found, REQUESTS[1:2])["hot"]
    assert sorted(body["seed"] for body in server.bodies[1:]) == [7, 8, 9]
    assert {(body["n"], body["return_token_ids"], body["top_p"]) for body in server.bodies[1:]} == {
        (1, True, 0.9)
    }
    for body in server.bodies[1:]:  # else a server takes those that the model comes with
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
    for one in got:
        assert (
            one.token_ids == list(range(FIRST, FIRST + 12)) and len(one.scores) == 0 and one.topk is not None
        )
        known = -sum(exp(x) * x for x in LIKELIEST)
        assert one.topk.entropies == pytest.approx([known] * 12)
        rest = 1 - sum(map(exp, LIKELIEST))
        high = known - rest * log(rest / (VOCABULARY - 5))
        assert one.topk.highs == pytest.approx([high] * 12) and one.topk.lows[0] > known


def test_a_text_has_one_token_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server adds it to any text, also to one that begins with it."""
    with stock(lambda body: {}) as server, opened(server.url) as found:
        for front, sent in (([1], [2, 3]), ([], [1, 2, 3]), ([7], [1, 2, 3]), ([1, 2], [1, 2, 3])):
            monkeypatch.setattr(found.tokenizer, "encode_prompt", lambda text, front=front: front)
            assert found._text([1, 2, 3]) == found.tokenizer.decode(sent)


@pytest.mark.parametrize("known", [None, "many", 0])
def test_a_card_that_says_no_vocabulary_is_refused(known: object, engine: Engine) -> None:
    card = {"tokenizer": engine.tokenizer.digest, "vocabulary": known}
    with stock(stepconf=card) as server, pytest.raises(StepconfError, match="does not say how many tokens"):
        ServerEngine(TINY, recipe_of(server.url))


def test_a_server_without_token_ids_gives_text() -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, {"choices": [{"text": "4", "finish_reason": "stop"}]})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny"}]
        with opened(server.url, **{"engine.max_model_len": 64}) as found:
            (one,) = sampled(found, REQUESTS[:1])["greedy"]
            with pytest.raises(StepconfError, match="cannot be continued from a step"):
                sampled(found, REQUESTS[2:])
    assert (one.token_ids, one.pieces, one.finish_reason, one.n_sampled) == ([], ["4"], "stop", 0)
    assert server.bodies[-1]["prompt"] == found.tokenizer.decode([1, 2, 3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token_ids": [VOCABULARY + 5] * 12}, "the tokenizer does not have"),
        ({"token_ids": [-1] * 12}, "the tokenizer does not have"),
        ({"token_ids": None}, "the tokenizer does not have"),
        ({"token_ids": [1, 2]}, "log-probabilities of 12 tokens for 2"),
        ({"logprobs": None}, "TypeError"),
        ({"logprobs": {"top_logprobs": [{"a": "high"}] * 12}}, "ValueError"),
        ({"logprobs": {"top_logprobs": [{"a": float("nan")}] * 12}}, "not finite"),
        ({"logprobs": {"top_logprobs": [{"a": 10**400}] * 12}}, "OverflowError"),
        ({"logprobs": {"top_logprobs": [{"a": 1000}] * 12}}, "a statistic is 1000, not from -inf to 0"),
        ({"logprobs": {"top_logprobs": [{"a": 5.0}] * 12}}, "a statistic is 5, not from -inf to 0"),
        ({"logprobs": {"top_logprobs": [None] * 12}}, "AttributeError"),
    ],
)
def test_an_answer_that_lacks_something_ends_the_run(change: dict[str, Any], said: str) -> None:
    with (
        stock(lambda body: change) as server,
        opened(server.url) as found,
        pytest.raises(StepconfError, match=said) as ended,
    ):
        sampled(found, REQUESTS[:1])
    assert "same command again" in ended.value.hint


def test_what_rounding_made_of_a_certain_token_is_certain() -> None:
    rows = {"logprobs": {"top_logprobs": [{"a": 1e-5}] * 12}}
    with stock(lambda body: rows) as server, opened(server.url) as found:
        (one,) = sampled(found, REQUESTS[:1])["greedy"]
    assert one.topk is not None and one.topk.entropies == one.topk.highs == [0.0] * 12


@contextmanager
def server_of_ours(engine: Engine, **statistics: float) -> Iterator[ChatServer]:
    """One that gives each of 12 tokens the same statistics."""
    usual = {"logprobs": -1.0, "entropies": 1.0, "max_probs": 0.5}
    usual |= {"varentropies": 0.1, "mean_logprobs": -9.0, "second_probs": 0.4}
    own = {name: [value] * 12 for name, value in (usual | statistics).items()}
    choice = {"token_ids": [FIRST] * 12, "stepconf": own | {"finish_reason": "length", "n_sampled": 12}}
    with chat_server(lambda handler, body: handler.send(200, {"choices": [choice]})) as server:
        card = {"tokenizer": engine.tokenizer.digest, "vocabulary": VOCABULARY}
        server.models = [{"id": "tiny", "max_model_len": 256, "stepconf": card}]
        yield server


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", 0.5),
        ("entropies", -1.0),
        ("entropies", log(VOCABULARY) + 1),
        ("max_probs", 2.0),
        ("varentropies", -1.0),
        ("mean_logprobs", 1.0),
        ("second_probs", 0.6),
    ],
)
def test_statistics_that_no_model_has_end_the_run(name: str, value: float, engine: Engine) -> None:
    with server_of_ours(engine) as server, opened(server.url) as found:
        (one,) = sampled(found, REQUESTS[:1])["greedy"]
        assert one.scores.entropies == [1.0] * 12
    said = pytest.raises(StepconfError, match="a statistic is")
    with server_of_ours(engine, **{name: value}) as server, opened(server.url) as found, said:
        sampled(found, REQUESTS[:1])


def test_fewer_choices_than_asked_end_the_run() -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        first = len(handler.server.bodies) == 1
        handler.send(200, {"choices": [choice_of(body)] if first else []})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 64}]
        with opened(server.url) as found, pytest.raises(StepconfError, match="0 choices where 1"):
            sampled(found, REQUESTS[:1])


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, EngineCrashed, "refuses a request: HTTP 400"),
        (500, StepconfError, "no answer from the server of tiny: HTTP 500"),
        (429, StepconfError, "no answer from the server of tiny: HTTP 429"),
        (401, StepconfError, "HTTP 401"),
    ],
)
def test_a_refused_request_is_one_loss_a_server_that_fails_ends_the_run(
    status: int, error: type[StepconfError], said: str
) -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if len(handler.server.bodies) == 1:
            handler.send(200, {"choices": [choice_of(body)]})
        else:
            handler.send(status, {"error": "no"}, Retry_After="0")

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 64}]
        with opened(server.url) as found, pytest.raises(StepconfError, match=said) as ended:
            sampled(found, REQUESTS[:1])
    assert type(ended.value) is error


def test_a_server_that_lists_no_model_and_fails_over_an_empty_list_of_stops() -> None:
    """As `transformers serve` does."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        choice = {"index": 0, "text": "4", "finish_reason": "stop"}
        failed = body.get("stop") == []
        handler.send(500 if failed else 200, b"Internal Server Error" if failed else {"choices": [choice]})

    with chat_server(behave) as server, opened(server.url, **{"engine.max_model_len": 64}) as found:
        server.models = []
        assert sampled(found, REQUESTS[:1])["greedy"][0].pieces == ["4"]


def test_html_is_no_answer() -> None:
    with chat_server(lambda handler, body: handler.send(200, b"<html>")) as server:
        server.models = [{"id": "tiny", "max_model_len": 64}]
        with pytest.raises(StepconfError, match="not an object of JSON"), opened(server.url):
            pass


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([{"id": "a"}, {"id": "b"}], "has no model .*: a, b"),
        ([{"id": "tiny"}], "does not say how many tokens"),
        (
            [{"id": "tiny", "max_model_len": 64, "stepconf": {"tokenizer": "0"}}],
            "tokenizer of tiny is not that",
        ),
    ],
)
def test_a_server_of_other_models_is_refused(models: list[dict[str, Any]], said: str) -> None:
    with stock() as server:
        server.models = models
        with pytest.raises(StepconfError, match=said), opened(server.url):
            pass


def test_a_stock_server_with_another_tokenizer_is_refused() -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, {"choices": [choice_of(body, prompt_token_ids=[1, 2, 3])]})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 64}]
        with pytest.raises(StepconfError, match="tokenizer of tiny is not that"), opened(server.url):
            pass


def test_a_folder_names_the_model_that_is_served(tmp_path: Path) -> None:
    with stock(id="else") as server, opened(server.url) as found:
        assert sampled(found, REQUESTS[:1]) and server.bodies[-1]["model"] == "else"


def test_a_run_through_a_server_of_ours_has_the_rows_of_a_run_here(engine: Engine, tmp_path: Path) -> None:
    problems = write_jsonl(
        tmp_path / "p.jsonl", [{"problem": f"{i} + 2?", "answer": str(i + 2)} for i in range(6)]
    )
    common = ["generate", "--problems", problems, "--model", TINY, "--samples", "2", "--max-tokens", "20"]
    here = stepconf(*common, "--engine", "transformers", "--out", tmp_path / "here")
    assert here.code == 0, here.err
    with serving(engine, **{"serve.max_tokens": 64}) as (url, _):
        server = ["--engine", "openai", "--set", f"engine.base_url={url}"]
        there = stepconf(*common, *server, "--out", tmp_path / "there")
    assert there.code == 0, there.err
    for table, key in (("solutions", "solution_id"), ("steps", "step_id")):
        one, other = ({row[key]: row for row in rows_of(tmp_path / run, table)} for run in ("here", "there"))
        assert one.keys() == other.keys() and one
        for name in one:
            check_close(other[name], one[name])


@pytest.mark.parametrize("how", [["rollout"], ["critic", "--set", "verify.critic.max_tokens=8"]])
def test_a_run_does_not_say_where_requests_and_keys_go(
    how: list[str], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be somebody else's. Whoever names a server reaches that one, with the key that they name."""
    monkeypatch.setenv("THEIR_PICK", "secret")
    with stock() as theirs:
        run = run_at(theirs, tmp_path / "r", "--set", "branch.where=[]")
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe["engine"] |= {"base_url": theirs.url, "api_key_env": "THEIR_PICK"}
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        theirs.seen.clear()
        command = ["verify", run, "--out", tmp_path / "v", "--verify", *how]
        refused = stepconf(*command, columns=1000)
        assert refused.code == 1 and "made at a server" in refused.err
        assert f"--engine openai --set engine.base_url=URL; or --model {TINY}" in refused.err
        unnamed = stepconf(*command, "--engine", "openai")
        assert unnamed.code == 1 and "needs a server" in unnamed.err
        with stock() as mine:
            named = ["--engine", "openai", "--set", f"engine.base_url={mine.url}"]
            done = stepconf(*command, *named)
        assert done.code == 0, done.err
        assert not theirs.seen and mine.bodies
        assert not any("authorization" in headers for headers in mine.seen)


@contextmanager
def serve_process(port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`stepconf serve` in a process that can be killed, and its URL."""
    asked = ["serve", "--model", TINY, "--engine", "transformers", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "stepconf", *asked, "--set", "serve.max_tokens=256"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Serving"), line
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_leaves_the_rows_of_a_run_here(tmp_path: Path) -> None:
    n = 80
    problems = write_jsonl(
        tmp_path / "p.jsonl", [{"problem": f"{i} + 2?", "answer": str(i + 2)} for i in range(n)]
    )
    common = ["generate", "--problems", problems, "--model", TINY, "--samples", "2", "--max-tokens", "60"]
    common += ["--set", "chunk=1", "--set", "branch.where=[]"]
    here = stepconf(*common, "--engine", "transformers", "--out", tmp_path / "here")
    assert here.code == 0, here.err

    with serve_process() as (server, url):
        at = ["--engine", "openai", "--set", f"engine.base_url={url}", "--set", "engine.patience_s=1"]
        at += ["--set", "engine.concurrency=2"]
        there = [*common, *at, "--set", "engine.attempts=1", "--out", tmp_path / "there"]
        manifests = tmp_path / "there" / "manifests"
        command = [sys.executable, "-m", "stepconf", *map(str, there)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            while run.poll() is None and len(list(manifests.glob("*.json"))) < 2:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(0.02)
            server.kill()
            assert run.stderr is not None
            said = run.stderr.read()
    assert run.returncode == 1 and "Error" in said, said
    kept = len(list(manifests.glob("*.json")))
    assert 2 <= kept < n

    with serve_process(int(url.removesuffix("/v1").rpartition(":")[2])):
        again = stepconf(*there)
    assert again.code == 0, again.err
    for table, key in (("solutions", "solution_id"), ("steps", "step_id")):
        one, other = ([*rows_of(tmp_path / run, table)] for run in ("here", "there"))
        assert len(one) == len(other) > 0
        there_by_key = {row[key]: row for row in other}
        for row in one:
            check_close(there_by_key[row[key]], row)


def check_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Verdicts have times of their own."""
    for column, value in expected.items():
        if isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
            assert found[column] == pytest.approx(value, abs=1e-5), column
        elif column != "verdicts":
            assert found[column] == value, column


def run_at(server: ChatServer, folder: Path, *options: object) -> Path:
    """A run of two problems sampled at a server."""
    folder.mkdir()
    rows = [{"problem": f"{i} + 2?", "answer": str(i + 2)} for i in range(2)]
    problems = write_jsonl(folder / "p.jsonl", rows)
    at = ["--engine", "openai", "--set", f"engine.base_url={server.url}", "--set", "engine.max_model_len=256"]
    sampling = ["--samples", "2", "--max-tokens", "9", *options]
    made = stepconf(
        "generate", "--problems", problems, "--model", TINY, *at, *sampling, "--out", folder / "run"
    )
    assert made.code == 0, made.err
    return folder / "run"


def test_a_run_at_a_stock_server_has_bounds_of_entropy(tmp_path: Path) -> None:
    with stock() as server:
        run = run_at(server, tmp_path / "r", "--set", "branch.where=[]")
    steps = rows_of(run, "steps")
    assert steps and all(step["entropy_mean"] is None and step["token_entropies"] == [] for step in steps)
    for step in steps:
        assert 0 < step["entropy_topk"] < step["entropy_low"] < step["entropy_high"]
    assert all(solution["token_ids"] for solution in rows_of(run, "solutions"))
    checked = stepconf("check", run)
    assert checked.code == 0, checked.err


def test_a_run_of_texts_makes_no_pairs_and_says_what_it_lacks(tmp_path: Path) -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        answer = 2 + len(handler.server.bodies) % 3
        handler.send(200, {"choices": [{"text": f"The answer is {answer}.", "finish_reason": "stop"}]})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny"}]
        run = run_at(server, tmp_path / "r")
    assert all(solution["predicted_answer"] for solution in rows_of(run, "solutions"))
    assert stepconf("check", run).code == 0
    for strategy in ("caspo", "dpo-vp"):
        ended = stepconf("pairs", run, "--strategy", strategy)
        assert ended.code == 1 and "token ids" in ended.err, ended.err + ended.out


@pytest.mark.parametrize(
    ("usage", "drawn"),
    [
        ({"completion_tokens": 7, "prompt_tokens": 3}, 7), ({"completion_tokens": 0}, 0), (None, 0), ([7], 0),
        ({"completion_tokens": -1}, 0), ({"completion_tokens": True}, 0), ({"completion_tokens": 2.5}, 0),
        ({"completion_tokens": 10**400}, 0), ({}, 0),
    ],
)  # fmt: skip
def test_the_tokens_of_a_text_are_those_that_the_server_counts(usage: Any, drawn: int) -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        choice = {"text": "The answer is 5.", "finish_reason": "stop"}
        handler.send(200, {"choices": [choice], "usage": usage})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 256}]
        with opened(server.url) as found:
            three = sampled(found, REQUESTS[1:2])["hot"]
        assert [one.n_sampled for one in three] == [drawn] * 3
        assert [body.get("n", 1) for body in server.bodies] == [1] * len(server.bodies)
        at = ["--model", TINY, "--engine", "openai", "--set", f"engine.base_url={server.url}", "--json"]
        ended = stepconf("infer", "What is 2 + 3?", *at, "--k", 3, "--strategy", "self-consistency")
    assert ended.code == 0 and json.loads(ended.out)["tokens"] == 3 * drawn, ended.err


def test_without_scores_votes_are_counted_and_confidences_refused() -> None:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, {"choices": [{"text": "The answer is 5.", "finish_reason": "stop"}]})

    with chat_server(behave) as server:
        server.models = [{"id": "tiny", "max_model_len": 256}]
        at = [
            "--model",
            TINY,
            "--engine",
            "openai",
            "--set",
            f"engine.base_url={server.url}",
            "--k",
            3,
            "--json",
        ]
        for strategy in STRATEGIES.built_in:
            ended = stepconf("infer", "What is 2 + 3?", *at, "--strategy", strategy)
            if STRATEGIES.load(strategy).by_confidence:
                assert ended.code == 1 and f"{strategy} goes by confidences" in ended.err
            else:
                found = json.loads(ended.out)
                assert (found["answer"], found["confidence"]) == ("5", None)
                assert {step["cumulative_confidence"] for step in found["steps"]} == {None}
                assert {one["confidence"] for one in found["samples"]} == {None}
        budget = ["--strategy", "greedy", "--set", "infer.reasoning_max_tokens=8"]
        refused = stepconf("infer", "What is 2 + 3?", *at, *budget)
        assert refused.code == 1 and "gives text alone" in refused.err


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_demo_model
def test_a_stock_vllm_server_gives_the_models_tokens_and_bounds_that_hold(tmp_path: Path) -> None:
    """64 prompts, greedily: each token is the likeliest, and its exact entropy is within the bounds."""
    pytest.importorskip("vllm")
    model = resolve_model("demo")
    with vllm_server(model, tmp_path / "log") as url:
        recipe = load_recipe(None, {"model": model, "engine.name": "openai", "engine.base_url": url})
        with closing(ServerEngine(model, recipe)) as found:
            assert found.info.runner == "tokens"
            encode = found.tokenizer.encode_prompt
            prompts = [encode(f"Question: What is {i} + {2 * i}?\nAnswer:") for i in range(64)]
            requests = [SampleRequest(str(i), ids, 1, 0, Sampling(0.0, 12)) for i, ids in enumerate(prompts)]
            completions = {key: one[0] for key, one in sampled(found, requests).items()}
    asked = [
        ScoreRequest(str(i), ids, completions[str(i)].token_ids)
        for i, ids in enumerate(prompts)
        if completions[str(i)].token_ids
    ]
    assert len(asked) > 50
    with closing(open_transformers(model, load_recipe(None, {"model": model}))) as exact:
        for request, scores in exact.score(asked):
            topk = completions[request.key].topk
            assert topk is not None
            for h, low, high, known in zip(
                scores.entropies, topk.lows, topk.highs, topk.entropies, strict=True
            ):
                assert known <= low and low - 2e-3 <= h <= high + 2e-3
            # Two tokens may be nearly alike, and the server's sums are its own.
            assert min(log(p) - x for p, x in zip(scores.max_probs, scores.logprobs, strict=True)) >= -1e-6
            assert max(log(p) - x for p, x in zip(scores.max_probs, scores.logprobs, strict=True)) < 0.01
