"""Strategies over whole solutions, on a scripted policy."""

from dataclasses import replace
from math import isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.engines.base import Completion, SampleRequest
from stepconf.inference.base import Result, stream_seed
from stepconf.inference.run import Clock, answer
from stepconf.inference.strategies import search
from stepconf.inference.whole import _cot_prompts
from stepconf.kinds import STRATEGIES
from stepconf.recipe import PromptRecipe
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


@pytest.mark.parametrize(
    ("strategy", "k", "threshold"), [("adaptive", 8, 0.5), ("adaptive-k", 8, 0.55), ("adaptive-k", 2, 0.66)]
)
def test_a_low_threshold_still_draws(strategy: str, k: int, threshold: float) -> None:
    found = run(strategy, k=k, threshold=threshold)
    assert found.answer is not None and found.spent.tokens > 0 and not found.failure


def test_cot_replaces_the_instruction_alone() -> None:
    own = PromptRecipe(
        style="chat",
        instruction="Guess.",
        system="Be brief.",
        stop=["END"],
        chat_template_kwargs={"think": False},
    )
    (asked,) = _cot_prompts(own, "math")
    assert asked.instruction != "Guess." and not asked.system and not asked.shots
    assert (asked.style, asked.stop, asked.chat_template_kwargs) == ("chat", ["END"], {"think": False})


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


@pytest.mark.parametrize("strategy", [*STRATEGIES.built_in])
@pytest.mark.parametrize("said", ["The answer is 1250 dollars.", "so \\boxed{1250} dollars.", "#### 1250\n"])
def test_a_solution_that_is_cut_inside_its_answer_has_none(strategy: str, said: str) -> None:
    engine = ScriptedEngine(lambda before: [Says(said[len(before) :], 0.9, True)])
    room = said.index("1250") + 2
    found = next(answer(engine, [search(strategy, question(), setting(k=2, tau=0, max_tokens=room))]))
    assert found.answer is None and "out of tokens" in found.failure
    whole = next(answer(engine, [search(strategy, question(), setting(k=2, tau=0))]))
    assert (whole.answer or "").startswith("1250")


@pytest.mark.parametrize("strategy", [*STRATEGIES.built_in])
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


# Four say 7, one 8: the posterior of four equal votes is 0.969.
AGREE = [Says("The answer is 7", 0.6, True)] * 4 + [Says("The answer is 8", 0.6, True)]


def drawing(said: list[Says]) -> ScriptedEngine:
    """An engine whose draw number `seed` of the question is saying number `seed`, however they are asked for."""
    first = stream_seed(42, "Q?")

    class InOrder(ScriptedEngine):
        def completions(self, request: SampleRequest) -> list[Completion]:
            self.asked.append(("", request.n))
            start = request.seed - first
            return [self._say(said[(start + i) % len(said)], request) for i in range(request.n)]

    return InOrder(lambda before: [])


def run_on(said: list[Says], strategy: str, **options: object) -> tuple[Result, list[int]]:
    engine = drawing(said)
    found = next(answer(engine, [search(strategy, question(), setting(**options))]))  # type: ignore[arg-type]
    return found, [n for _, n in engine.asked]


def test_voting_stops_once_the_leader_stays_ahead() -> None:
    found, waves = run_on(AGREE, "adaptive", k=10)
    assert (found.answer, waves, len(found.samples)) == ("7", [4], 4)
    assert found.spent.tokens == 4 * len("The answer is 7.")
    split = [Says(f"The answer is {a}", 0.6, True) for a in "78777777"]
    # Three of four: 0.8125 that 7 stays ahead; 5 against 1 is 0.9375, 6 against 1 is 0.965.
    found, waves = run_on(split, "adaptive", k=10)
    assert (found.answer, waves) == ("7", [4, 3])
    disputed = [Says(f"The answer is {a}", 0.6, True) for a in "7878787878"]
    found, waves = run_on(disputed, "adaptive", k=10)
    assert sum(waves) == 10 and found.answer == "7"
    none, waves = run_on([Says("who knows", 0.9, True)], "adaptive", k=6)
    assert none.answer is None and sum(waves) == 6


@pytest.mark.parametrize("strategy", ["adaptive", "adaptive-k", "esc", "cges"])
def test_who_stops_early_sees_the_first_samples_of_voting(strategy: str) -> None:
    voting, _ = run_on(SAID, "self-consistency", k=6)
    for k in (1, 3, 6):
        stopped, _ = run_on(SAID, strategy, k=k)
        assert stopped.samples == voting.samples[: len(stopped.samples)]


@given(st.lists(st.sampled_from("123"), min_size=1, max_size=12), st.floats(0.5, 0.999))
def test_a_foregone_vote_asks_for_no_more_than_it_needs(said: list[str], threshold: float) -> None:
    """A vote that nothing could change is the vote over all K; and no more are drawn than one by one would."""
    told = [Says(f"The answer is {a}", 0.6, True) for a in said]
    found, waves = run_on(told, "adaptive-k", k=len(said), threshold=threshold)
    assert sum(waves) == len(found.samples) <= len(said)
    certain, _ = run_on(told, "adaptive-k", k=len(said), threshold=1 - 1e-12)
    assert certain.answer == run_on(told, "self-consistency", k=len(said))[0].answer


def test_a_vote_of_eight_ends_after_two_that_agree() -> None:
    found, waves = run_on(AGREE, "adaptive-k", k=8)
    assert (found.answer, waves) == ("7", [2])


def test_five_in_a_row() -> None:
    said = [Says(f"The answer is {a}", 0.6, True) for a in "78888899"]
    found, waves = run_on(said, "esc", k=8)
    assert (found.answer, waves) == ("8", [5, 1])


def test_confidences_that_agree_stop_at_once() -> None:
    # .9 and .9 agree: 0.81 / (0.81 + 0.01) = 0.988. One alone is as sure as it says.
    found, waves = run_on([Says("The answer is 7", 0.9, True)], "cges", k=8)
    assert (found.answer, waves) == ("7", [1, 1])
    assert run_on([Says("The answer is 7", 0.96, True)], "cges", k=8)[1] == [1]
    # A single sure 8 outweighs two unsure 7.
    said = [Says("The answer is 7", 0.3, True)] * 2 + [Says("The answer is 8", 0.99, True)]
    assert run_on(said, "cges", k=3)[0].answer == "8"


def test_the_confident_count_more() -> None:
    said = [Says("The answer is 7", 0.9, True)] + [Says("The answer is 8", 0.5, True)] * 2
    assert run_on(said, "cisc", k=3, cisc_temperature=0.1)[0].answer == "7"
    assert run_on(said, "cisc", k=3, cisc_temperature=100.0)[0].answer == "8"


def test_the_gate_opens_for_the_unsure() -> None:
    sure, waves = run_on([Says("The answer is 7", 0.95, True)], "gate", k=5)
    assert (sure.answer, waves) == ("7", [1])
    unsure, waves = run_on(AGREE, "gate", k=5)
    assert (unsure.answer, waves, len(unsure.samples)) == ("7", [1, 4], 5)
    assert run_on(AGREE, "gate", k=5, gate=0.0)[1] == [1]
    silent, waves = run_on([Says("who knows", 0.99, True), *AGREE], "gate", k=4)
    assert waves == [1, 3] and silent.answer == "7"


def test_a_confidence_of_ones_own_is_taken_everywhere() -> None:
    """One that is sure of what is long, whatever its entropy, and doubts the first step."""
    told = replace(
        setting(k=2),
        confidence=lambda scores, index: 0.25 if index == 0 else 0.5,
        answer_confidence=lambda scores: min(1.0, len(scores) / 100),
    )
    said = [Says("The answer is 7", 0.99, True), Says("1 + 7 = 8\nThe answer is 8", 0.5, True)]
    found = next(answer(drawing(said), [search("best-of-n", question(), told)]))
    assert found.answer == "8"
    assert [sample.confidence for sample in found.samples] == [0.15, 0.25]
    assert [(step.confidence, step.cumulative_confidence) for step in found.steps] == [
        (0.25, 0.25),
        (0.5, 0.125),
    ]
    assert found.steps[0].entropy_mean == pytest.approx(-log(0.5))
