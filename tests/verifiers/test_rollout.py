"""Rollouts: a scripted policy of known solvability, exact prefixes, and a real tiny model end to end."""

import random
from collections.abc import Iterable, Iterator
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.interval import exact_interval
from stepconf.core.records import Solved, TokenScores, Verdict
from stepconf.engines.base import Completion, EngineInfo, SampleRequest, ScoreRequest
from stepconf.engines.transformers import TransformersEngine
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe
from stepconf.stages.model_verifiers import open_rollout
from stepconf.verifiers.pool import Pool
from stepconf.verifiers.rollout import RolloutOptions, RolloutVerifier
from tests.tiny import stepconf, tiny_model
from tests.verifiers.solutions import solved

CONTEXT = 100
INFO = EngineInfo("scripted", "1", "policy", "", "float32", "cpu", "script", 256, CONTEXT)


class Policy:
    """An `Engine` whose tokens are characters, and which reaches the answer 7 with a known probability.

    A prefix that ends in "<p>" (p one digit) is solved in p cases out of ten. `batch` requests are held at a
    time and come back in any order, as from an engine with a batch; `None` among the requests is counted.
    """

    def __init__(self, batch: int = 5, cut: float = 0.0, seed: int = 0) -> None:
        self.info, self.tokenizer = INFO, Characters()
        self.asked: list[SampleRequest] = []
        self.nothing_to_add = 0
        self._batch, self._cut, self._order = batch, cut, random.Random(seed)

    def sample(
        self, requests: Iterable[SampleRequest | None]
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        source, held, ended = iter(requests), list[SampleRequest](), False
        while held or not ended:
            while not ended and len(held) < self._batch:
                request = next(source, "end")
                if request is None:
                    self.nothing_to_add += 1
                    assert held, "nothing to add and nothing in flight: an engine would spin"
                    break
                if isinstance(request, str):
                    ended = True
                else:
                    self.asked.append(request)
                    held.append(request)
            if held:
                done = held.pop(self._order.randrange(len(held)))
                yield done, [self._completion(done, done.seed + i) for i in range(done.n)]

    def _completion(self, request: SampleRequest, seed: int) -> Completion:
        assert len(request.prompt_ids) + request.sampling.max_tokens <= CONTEXT
        rng = random.Random(seed)
        text = "".join(map(chr, request.prompt_ids))
        solvable = int(text[-2]) / 10
        said = f"the answer is {7 if rng.random() < solvable else rng.randrange(100, 999)}"
        cut = rng.random() < self._cut
        ids = [ord(c) for c in (said[:3] if cut else said)]
        none = [0.0] * len(ids)
        return Completion(
            ids, [chr(i) for i in ids], TokenScores(none, none, none), "length" if cut else "stop"
        )

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[Any]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Characters:
    """A tokenizer whose tokens are characters."""

    digest = "characters"

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        return [ord(c) for c in text], list(range(len(text)))


def chain(solvable: list[int], end: str = "the answer is 7", tokens: bool = True) -> Solved:
    """Steps behind which the policy succeeds with these probabilities (in tenths), and a last step."""
    texts = [f"step {i}:<{p}>" for i, p in enumerate(solvable)] + [end]
    whole = "".join(texts)
    if not tokens:
        return solved("q?", texts, "7")
    ids = [ord(c) for c in whole]
    return solved(
        "q?",
        texts,
        "7",
        prompt_ids=[81, 58],
        token_ids=ids,
        token_starts=list(range(len(ids))),
        finish_reason="stop",
    )


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as made:
        yield made


def rollout(pool: Pool, policy: Any, **options: Any) -> RolloutVerifier:
    return RolloutVerifier(
        policy, pool, RolloutOptions(**({"max_tokens": 20} | options)), lambda p: [80, 58], "policy"
    )


def run(pool: Pool, policy: Any, many: list[Solved], **options: Any) -> list[list[Verdict]]:
    rows = rollout(pool, policy, **options).verify(many)
    return [[v for v in row if v is not None] for row in rows]


def bounds(verdict: Verdict) -> tuple[float, float]:
    low, high = verdict.reason.split("interval ")[1].split(";")[0].split(" to ")
    return float(low), float(high)


# The interval


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_interval_inverts_the_binomial_tails(successes: int, failures: int, error: float) -> None:
    n = successes + failures
    low, high = exact_interval(successes, n, error)
    assert 0 <= low <= (successes / n if n else 1) <= high <= 1

    def tail(p: float, ks: range) -> float:
        return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in ks)

    if successes:
        assert tail(low, range(successes, n + 1)) == pytest.approx(error / 2, abs=1e-9)
    if failures:
        assert tail(high, range(successes + 1)) == pytest.approx(error / 2, abs=1e-9)


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize(("n", "wave"), [(8, 4), (8, 8), (12, 3), (5, 2)])
def test_the_interval_covers_as_stated_however_one_stops(labels: str, n: int, wave: int) -> None:
    """Exact: every outcome of every wave, weighed, at 99 solvabilities."""
    looks, error = -(-n // wave), 0.05
    for percent in range(1, 100):
        p, weights, covered = percent / 100, {0: 1.0}, 0.0
        for look in range(1, looks + 1):
            before, now = (look - 1) * wave, min(look * wave, n)
            after: dict[int, float] = {}
            for k, weight in weights.items():
                for j in range(now - before + 1):
                    chance = comb(now - before, j) * p**j * (1 - p) ** (now - before - j)
                    after[k + j] = after.get(k + j, 0.0) + weight * chance
            weights = {}
            for k, weight in after.items():
                low, high = exact_interval(k, now, error / looks)
                decided = k > 0 if labels == "hard" else low > 0.5 or high < 0.5
                if decided or look == looks:
                    covered += weight * (low <= p <= high)
                else:
                    weights[k] = weight
        assert covered >= 1 - error


# A policy of known solvability


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_estimates_lie_in_their_intervals_at_the_stated_rate(pool: Pool, labels: str) -> None:
    rng = random.Random(5)
    many = [
        chain([rng.randrange(10) for _ in range(4)] + [i % 10], f"{i} the answer is 7") for i in range(60)
    ]
    policy = Policy()
    rows = run(pool, policy, many, labels=labels)
    inside, of = 0, 0
    for one, row in zip(many, rows, strict=True):
        for step, verdict in zip(one.steps[:-1], row, strict=False):
            low, high = bounds(verdict)
            inside += low <= int(step.text[-2]) / 10 <= high
            of += 1
            assert verdict.score is not None and low <= verdict.score <= high
    assert of == 300
    assert inside / of >= 0.95
    assert policy.nothing_to_add  # waves were waited for
    if labels == "hard":
        assert len(policy.asked) < 2 * of  # and many a second one was not needed


def test_hard_labels_ask_whether_any_completion_is_right(pool: Pool) -> None:
    policy = Policy()
    (row,) = run(pool, policy, [chain([9, 5, 0])], n=8, wave=2)
    assert [v.label for v in row] == ["correct", "correct", "incorrect", "correct"]
    assert row[2].score == 0.0 and row[2].reason == "0 of 8 right, 95% interval 0.00 to 0.47"
    asked = [request for request in policy.asked if chr(request.prompt_ids[-2]) == "0"]
    assert [request.n for request in asked] == [2, 2, 2, 2]
    assert [request.seed - asked[0].seed for request in asked] == [0, 2, 4, 6]
    assert row[3].reason == "its own answer"


def test_soft_labels_are_decided_by_the_interval(pool: Pool) -> None:
    (row,) = run(pool, Policy(), [chain([9, 5, 0])], n=24, wave=8, labels="soft", threshold=0.5)
    assert [v.label for v in row] == ["correct", "unknown", "incorrect", "correct"]
    assert row[1].score is not None and "of 24 right" in row[1].reason


def test_prefixes_are_the_sampled_tokens(pool: Pool) -> None:
    policy, one = Policy(batch=99), chain([3, 4])
    run(pool, policy, [one], n=1, wave=1)
    text = one.solution.text
    assert [request.prompt_ids for request in policy.asked] == [
        [81, 58] + [ord(c) for c in text[: step.char_end]] for step in one.steps[:-1]
    ]


def test_an_imported_solution_is_tokenised(pool: Pool) -> None:
    policy, one = Policy(batch=99), chain([3, 4], tokens=False)
    run(pool, policy, [one], n=1, wave=1)
    text = one.solution.text
    assert ["".join(map(chr, request.prompt_ids)) for request in policy.asked] == [
        "P:" + text[: step.char_end] for step in one.steps[:-1]
    ]


def test_the_same_solution_twice_and_any_batch_give_the_same(pool: Pool) -> None:
    many = [chain([2, 5]), chain([2, 5]), chain([1])]
    found = [run(pool, Policy(batch=b, seed=b), many, n=6, wave=3) for b in (1, 2, 50)]
    plain = [[[(v.label, v.score, v.reason) for v in row] for row in rows] for rows in found]
    assert plain[0] == plain[1] == plain[2]
    assert plain[0][0] == plain[0][1]


def test_the_end_of_a_solution_is_its_answer(pool: Pool) -> None:
    policy = Policy()
    rows = run(
        pool, policy, [chain([], "the answer is 7"), chain([], "the answer is 8"), chain([], "nothing")]
    )
    assert [row[0].label for row in rows] == ["correct", "incorrect", "incorrect"]
    assert not policy.asked


def test_a_solution_that_was_cut_off_is_continued_at_its_end(pool: Pool) -> None:
    text = "half a step<9>"
    cut = solved(
        "q?", [text], "7", prompt_ids=[81], token_ids=[ord(c) for c in text],
        token_starts=list(range(len(text))), finish_reason="length",
    )  # fmt: skip
    ((verdict,),) = run(pool, Policy(), [cut])
    assert verdict.label == "correct" and "right" in verdict.reason


def test_what_cannot_be_told_is_unknown(pool: Pool) -> None:
    policy = Policy(cut=1.0)
    no_gold = solved("q?", ["a", "b"], None)
    long = chain([5] * 12)
    rows = run(pool, policy, [no_gold, long, chain([0])])
    assert [(v.label, v.reason) for v in rows[0]] == [("unknown", "no gold answer")] * 2
    by_room = [v.reason for v in rows[1][:-1]]
    assert by_room[-1] == "prefix fills the context" and "cut off" in by_room[0]
    assert {v.label for v in rows[1][:-1]} == {"unknown"}
    assert rows[2][0].label == "unknown" and rows[2][0].score is None and "8 cut off" in rows[2][0].reason


def test_nothing_to_judge(pool: Pool) -> None:
    assert run(pool, Policy(), []) == []


# A real model


def test_a_real_model_end_to_end(pool: Pool) -> None:
    engine = TransformersEngine(str(tiny_model()))
    text = "1 + 2 = 3\nThe answer is 3\n"
    ids, starts = engine.tokenizer.encode_with_starts(text)
    one = solved(
        "1 + 2?", ["1 + 2 = 3\n", "The answer is 3\n"], "3", prompt_ids=engine.tokenizer.encode("1 + 2?\n"),
        token_ids=ids, token_starts=starts, finish_reason="stop",
    )  # fmt: skip
    first, again = (
        RolloutVerifier(
            engine, pool, RolloutOptions(n=4, wave=2, max_tokens=12), lambda p: [], "tiny"
        ).verify([one])
        for _ in range(2)
    )
    assert first[0][0] is not None and again[0][0] is not None and first[0][1] is not None
    assert first[0][0].reason == again[0][0].reason and "interval" in first[0][0].reason
    assert first[0][1].label == "correct"


def test_generate_and_verify_with_rollouts(tmp_path: Any) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        '{"question": "What is 1 + 2?", "answer": "3"}\n{"question": "3 + 4?", "answer": "7"}\n'
    )
    options = [
        "--engine", "transformers", "--model", str(tiny_model()), "--set", "chunk=1", "--max-tokens", "16",
        "--samples", "2", "--set", "verify.rollout.n=2", "--set", "verify.rollout.wave=1",
    ]  # fmt: skip
    made = stepconf(
        "generate", "--problems", problems, "--out", tmp_path / "a", "--verify", "final,rollout", *options
    )
    assert made.code == 0, made.err
    assert "steps by rollout" in made.out
    again = stepconf(
        "verify",
        tmp_path / "a",
        "--verify",
        "rollout",
        "--out",
        tmp_path / "b",
        "--set",
        "verify.rollout.n=2",
    )
    assert again.code == 0, again.err


def test_tokens_of_another_tokenizer_are_not_continued(pool: Pool) -> None:
    with pytest.raises(StepconfError, match="the tokenizers differ"):
        open_rollout(Recipe(), Policy(), pool, "another digest")
