"""Strategies over thinking: no answer inside it, and a budget after which the answer is forced."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import pytest

from stepconf.core.records import TokenScores
from stepconf.engines.reasoning import Reasoning
from stepconf.inference.base import Question, Result, Setting, StepScore, step_confidence
from stepconf.inference.run import answer
from stepconf.inference.strategies import search
from stepconf.kinds import STRATEGIES
from tests.inference.scripted import CONTEXT, Characters, Says, ScriptedEngine, setting

PROMPT = "Q?\n<think>\n"
CLOSING = "\n</think>\n\n"


class Letters(Characters):
    """Tokens are characters, both ways."""

    chat_template = "{{ messages }}<think>\n"

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


def step_measured(scores: TokenScores, index: int = 0) -> float | None:
    return step_confidence(scores, index)


def solve(
    policy: Any, strategy: str, confidence: Any = step_measured, settled: Any = None, **options: Any
) -> tuple[Result, ScriptedEngine]:
    engine = ScriptedEngine(policy, options.get("context", CONTEXT), tokenizer=Letters())
    reasoning = Reasoning(Letters(), "auto")  # type: ignore[arg-type]
    how: Setting = replace(
        setting(**options),
        reasoning=reasoning,
        confidence=confidence,
        answer_confidence=confidence,
        settled=settled,
    )
    asked = Question("q", "Q?", ([ord(c) for c in PROMPT],))
    (result,) = answer(engine, [search(strategy, asked, how)])
    return result, engine


def thinker(before: str) -> list[Says]:
    """Thinks without end, line by line, with a box in each; answers once it is made to."""
    thought = before.removeprefix("<think>\n")
    if "</think>" in thought:
        return [Says("It is \\boxed{12}.", 0.9, ends=True)]
    return [Says("Maybe \\boxed{10}?\n" * 8, 0.9)]


@pytest.mark.parametrize(
    "strategy", ["greedy", "cot", "self-consistency", "best-of-n", "deepconf", "cat", "beam"]
)
def test_the_answer_is_forced_where_the_budget_ends(strategy: str) -> None:
    result, _ = solve(thinker, strategy, k=2, tau=0, reasoning_max_tokens=40, max_tokens=120)
    assert result.answer == "12", result.failure
    thought, closing, said = result.text.partition(CLOSING)
    assert closing and len(thought) <= 40 and said == "It is \\boxed{12}."
    assert "".join(step.text for step in result.steps) == result.text
    assert [t for step in result.steps for t in step.token_ids] == result.token_ids
    assert len(result.token_ids) == len(result.text)


@pytest.mark.parametrize("strategy", ["greedy", "self-consistency", "cat", "particle"])
def test_what_forces_the_answer_is_not_measured(strategy: str) -> None:
    seen: list[TokenScores] = []

    def measured(scores: TokenScores, index: int = 0) -> float | None:
        seen.append(scores)
        return step_confidence(scores, index)

    how = {"k": 2, "tau": 0, "reasoning_max_tokens": 40, "max_tokens": 120}
    result, _ = solve(thinker, strategy, measured, **how)
    assert result.text.count(CLOSING) == 1
    assert [step.confidence for step in result.steps] == pytest.approx([0.9] * len(result.steps))
    assert all(scores.varentropies is not None and not isnan(sum(scores.logprobs)) for scores in seen)


def wanderer(before: str) -> list[Says]:
    """Thinks without end, surely or in doubt, until it is made to answer."""
    thought = before.removeprefix("<think>\n")
    if "</think>" in thought:
        return [Says("The answer is 12.", 0.9, ends=True), Says("It is \\boxed{12}.", 0.8, ends=True)]
    return [Says("We add, maybe twice.\n" * 8, 0.9), Says("A doubt.\n" * 18, 0.3)]


@pytest.mark.parametrize("strategy", STRATEGIES.built_in)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("budget", [1, 21, 30, 50])
def test_what_is_told_is_what_the_result_says(strategy: str, k: int, budget: int) -> None:
    """Wherever the budget ends the thinking, between two steps or inside one."""
    told: list[StepScore] = []
    how = {"k": k, "tau": 0.2, "reasoning_max_tokens": budget, "max_tokens": 160}
    result, _ = solve(wanderer, strategy, settled=told.append, **how)
    assert result.text.count(CLOSING) == 1, result.failure
    assert told == result.steps[: len(told)]
    # A server sends the steps that were not told when it has the result.
    rest = result.steps[len(told) :]
    assert "".join(step.text for step in [*told, *rest]) == result.text
    assert told or strategy not in ("cat", "beam")


@pytest.mark.parametrize("context, counted", [(400, "out_of_tokens"), (110, "context_full")])
def test_what_ended_a_solution_without_an_answer(context: int, counted: str) -> None:
    def never(before: str) -> list[Says]:
        return [Says("so " * 100, 0.9)]

    how = {"k": 1, "reasoning_max_tokens": 40, "max_tokens": 120, "context": context}
    result, _ = solve(never, "greedy", **how)
    assert {name: getattr(result.spent, name) for name in ("out_of_tokens", "context_full")} == {
        "out_of_tokens": 0,
        "context_full": 0,
    } | {counted: 1}


@pytest.mark.parametrize("strategy", ["greedy", "cat"])
def test_a_box_inside_the_thinking_is_no_answer(strategy: str) -> None:
    result, _ = solve(thinker, strategy, k=1, tau=0, max_tokens=60)
    assert result.answer is None and result.failure


@pytest.mark.parametrize("strategy", ["greedy", "cat"])
def test_thinking_that_ends_in_time_is_left_alone(strategy: str) -> None:
    whole = "5 + 7 = 12.\n</think>\n\nIt is \\boxed{12}."

    def brief(before: str) -> list[Says]:
        return [Says(whole[len(before.removeprefix("<think>\n")) :], 0.9, ends=True)]

    result, engine = solve(brief, strategy, k=1, tau=0, reasoning_max_tokens=60, max_tokens=120)
    assert result.answer == "12" and result.text.count("</think>") == 1
    free, _ = solve(brief, strategy, k=1, tau=0, max_tokens=120)
    assert (result.text, result.token_ids) == (free.text, free.token_ids)
    assert [step.part for step in result.steps] == ["reasoning", "answer"]
    if strategy == "greedy":
        assert len(engine.asked) == 1
