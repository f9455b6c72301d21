"""Every strategy on a real model, in the reference engine."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from stepconf.core.segment import SegmentOptions
from stepconf.engines.base import Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.transformers import TransformersEngine
from stepconf.inference.base import Question, Result, Setting
from stepconf.inference.run import answer
from stepconf.inference.strategies import search
from stepconf.kinds import STRATEGIES
from stepconf.recipe import InferRecipe, SamplingRecipe
from tests.tiny import tiny_model


class Counting:
    """The engine, with every sequence that it was asked for counted by hand."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.n_sampled = engine, 0

    def sample(self, requests):  # type: ignore[no-untyped-def]
        for request, completions in self.engine.sample(requests):
            self.n_sampled += sum(one.n_sampled for one in completions)
            yield request, completions


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with closing(TransformersEngine(str(tiny_model()))) as loaded:
        yield loaded


def run(engine: Engine, strategy: str, **infer: object) -> tuple[list[Result], int]:
    setting = Setting(
        InferRecipe(k=3, tau=0, max_steps=6, **infer),  # type: ignore[arg-type]
        SamplingRecipe(temperature=1.0, max_tokens=40),
        SegmentOptions(),
        (),
        engine.info.max_model_len,
        lambda kind: lambda a, b: a == b,
    )
    prompts = tuple(engine.tokenizer.encode(f"Step {i}: 3 + 4 =") for i in range(2))
    asked = [Question(str(i), str(i), prompts) for i in range(3)]
    counting = Counting(engine)
    found = list(answer(counting, [search(strategy, one, setting) for one in asked]))  # type: ignore[arg-type]
    return found, counting.n_sampled


@pytest.mark.parametrize("strategy", STRATEGIES.built_in)
def test_every_strategy(engine: Engine, strategy: str) -> None:
    found, drawn = run(engine, strategy)
    assert sum(one.spent.tokens for one in found) == drawn > 0
    for one in found:
        assert bool(one.failure) == (one.answer is None)
        assert "".join(step.text for step in one.steps) == one.text
        assert [t for step in one.steps for t in step.token_ids] == one.token_ids
        assert one.seconds > 0
        check_scores(engine, one)
    again, _ = run(engine, strategy)
    assert [(o.text, o.answer, o.spent) for o in again] == [(o.text, o.answer, o.spent) for o in found]


def check_scores(engine: Engine, one: Result) -> None:
    """The confidences of a tree, sampled piece by piece, are those of `score` over the whole."""
    if not one.token_ids:
        return
    [(_, scores)] = engine.score(iter([ScoreRequest("", one.prompt_ids, one.token_ids)]))
    position = 0
    for step in one.steps:
        entropies = scores.entropies[position : position + len(step.token_ids)]
        position += len(step.token_ids)
        if entropies:
            assert step.entropy_mean == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)


def test_one_first_still_finds_answers(engine: Engine) -> None:
    _, few = run(engine, "cat", expand_below=1e-9)
    found, many = run(engine, "cat", expand_below=1.0)
    assert few < many and any(one.answer for one in found)


def test_until_ends_behind_its_string(engine: Engine) -> None:
    prompt = engine.tokenizer.encode("Step 1: there are")
    how = Sampling(1.0, 60, until=("\n",))
    [(_, found)] = engine.sample([SampleRequest("", prompt, 8, 1, how)])
    reasons = {one.finish_reason for one in found}
    assert "until" in reasons
    for one in found:
        text = "".join(one.pieces)
        assert ("\n" in text) == ("\n" in one.pieces[-1] if one.pieces else False)
        assert (one.finish_reason == "until") == ("\n" in text)
        assert one.n_sampled - len(one.token_ids) == (one.finish_reason == "stop")
