"""Strategies over whole solutions, on a scripted policy."""

from math import isclose

import pytest

from stepconf.inference.base import Result
from stepconf.inference.run import Clock, answer
from stepconf.inference.strategies import search
from tests.inference.scripted import Says, ScriptedEngine, question, setting

# Two say 7, surely; three say 8, less so; one has no answer.
SAID = [
    Says("The answer is 7", 0.9, True),
    Says("1 + 7 = 8\nThe answer is 8", 0.5, True),
    Says("The answer is 8.", 0.5, True),
    Says("7 it is. The answer is 7", 0.8, True),
    Says("The answer is 8", 0.55, True),
    Says("who knows", 0.99, True),
]


def run(strategy: str, k: int = 6, **options: object) -> Result:
    engine = ScriptedEngine(lambda before: SAID)
    return next(answer(engine, [search(strategy, question(), setting(k=k, **options))]))  # type: ignore[arg-type]


def test_the_majority_is_shown_by_its_most_confident_member() -> None:
    found = run("self-consistency")
    assert (found.answer, found.text) == ("8", "The answer is 8")
    assert [sample.answer for sample in found.samples] == ["7", "8", "8", "7", "8", None]
    assert found.spent.tokens == sum(len(said.text) + 1 for said in SAID)
    assert found.spent.peak_branches == 6 and found.spent.no_answer == 1
    assert isclose(found.confidence or 0, 0.55)


def test_confidence_outvotes_number() -> None:
    assert run("deepconf", deepconf_keep=1.0).answer == "7"  # 1.7 against 1.55
    assert run("best-of-n").answer == "7"


def test_one_greedy_solution() -> None:
    engine = ScriptedEngine(lambda before: SAID)
    found = next(answer(engine, [search("greedy", question(), setting(k=6))]))
    assert found.answer == "7" and engine.asked == [("", 1)]


def test_steps_of_the_answer() -> None:
    engine = ScriptedEngine(lambda before: [SAID[1]])
    found = next(answer(engine, [search("cot", question(), setting())]))
    assert [step.text for step in found.steps] == ["1 + 7 = 8\n", "The answer is 8"]
    assert [round(step.cumulative_confidence, 9) for step in found.steps] == [0.5, 0.25]
    assert found.token_ids == [ord(c) for c in found.text]


def test_no_answer_is_a_failure_with_its_reason() -> None:
    engine = ScriptedEngine(lambda before: [Says("who knows", 0.9, True), Says("cut in the mid", 0.9)])
    found = next(answer(engine, [search("self-consistency", question(), setting(k=2, max_tokens=12))]))
    assert found.answer is None
    assert found.failure == "no solution has an answer: 1 out of tokens, 1 ended without an answer"


@pytest.mark.parametrize("strategy", ["greedy", "self-consistency", "dipt", "cat", "beam"])
def test_a_prompt_that_fills_the_context(strategy: str) -> None:
    engine = ScriptedEngine(lambda before: SAID, context=3)
    found = next(answer(engine, [search(strategy, question(), setting(context=3, k=2))]))
    assert found.answer is None and "context" in found.failure and not engine.asked


def test_many_questions_share_one_stream() -> None:
    engine = ScriptedEngine(lambda before: SAID, burst=5)
    clock = Clock()
    names = ["cat", "greedy", "self-consistency", "beam"] * 5
    searches = (search(name, question(str(i)), setting(k=3)) for i, name in enumerate(names))
    found = list(answer(engine, searches, clock))
    assert sorted(int(one.key) for one in found) == list(range(20))
    assert all(one.strategy == names[int(one.key)] and one.answer for one in found)
    alone = [
        next(answer(ScriptedEngine(lambda before: SAID), [search(n, question(), setting(k=3))]))
        for n in names[:4]
    ]
    for one in found:
        twin = alone[int(one.key) % 4]
        assert (one.answer, one.text, one.spent, one.steps) == (
            twin.answer,
            twin.text,
            twin.spent,
            twin.steps,
        )
    assert 0 < clock.own <= clock.seconds and clock.peak_under_way >= 5
