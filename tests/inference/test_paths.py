"""`particle` and `deepconf-online` on scripted policies."""

from dataclasses import replace

import pytest

from stepconf.inference.base import Result, Setting
from stepconf.inference.run import answer
from stepconf.inference.strategies import search
from tests.inference.scripted import Policy, Says, ScriptedEngine, question, setting


def run(policy: Policy, strategy: str, told: Setting) -> tuple[Result, ScriptedEngine]:
    engine = ScriptedEngine(policy)
    return next(answer(engine, [search(strategy, question(), told)])), engine


def forked(before: str) -> list[Says]:
    """A sure road to 1 and an unsure one to 2."""
    if not before:
        return [Says("north\n", 0.9), Says("south\n", 0.2)]
    return [Says(f"The answer is {1 if before.startswith('north') else 2}\n", 0.8)]


def test_particles_gather_where_the_confidence_is() -> None:
    found, engine = run(forked, "particle", setting(k=8))
    # exp(1) against exp(-1) for each, 0.88 of the mass: 7 or 8 particles take the sure road.
    assert found.answer == "1" and engine.asked[0] == ("", 8)
    went_on = [n for before, n in engine.asked[1:] if before == "north\n"]
    assert sum(went_on) in (7, 8)
    assert len(found.samples) == 8 and found.spent.depth == 2
    assert found.spent.resampled == 8 - len(engine.asked[1:]), "those that have no successor"
    assert found.spent.tokens == 8 * len("north\n") + 8 * len("The answer is 1\n")


def test_a_particle_that_has_ended_votes_with_its_weight() -> None:
    """Three say 2 at once and unsurely; one says 1 surely: z-scores of .9 against .3 weigh 10 to 1."""

    def policy(before: str) -> list[Says]:
        return [Says("The answer is 1\n", 0.9)] + [Says("The answer is 2\n", 0.3)] * 3

    found, _ = run(policy, "particle", setting(k=4))
    assert found.answer == "1"
    even, _ = run(policy, "particle", replace(setting(k=4), confidence=lambda scores, index: 0.5))
    assert even.answer == "2", "equal confidences make it a vote"


def test_particles_that_lead_nowhere() -> None:
    endless, _ = run(lambda before: [Says("on\n", 0.9)], "particle", setting(k=3, max_steps=2))
    assert endless.answer is None and endless.spent.too_long == 3
    assert "3 at the step limit" in endless.failure
    frugal, engine = run(lambda before: [Says("on\n", 0.9)], "particle", setting(k=3, token_budget=1))
    assert len(engine.asked) == 1 and frugal.spent.out_of_tokens == 3


def by_draw(lines: dict[str, list[tuple[str, float]]]) -> Policy:
    """The first steps in turn, one for each sample; what follows a step is the next of its line."""
    drawn = iter(lines)

    def policy(before: str) -> list[Says]:
        if not before:
            fresh = [next(drawn) for _ in range(min(2, len(lines)))] if policy.first else [next(drawn)]
            policy.first = False
            return [Says(f"{name}\n", lines[name][0][1]) for name in fresh]
        name, depth = before.split("\n")[0], before.count("\n")
        return [Says(f"{lines[name][depth][0]}\n", lines[name][depth][1])]

    policy.first = True  # type: ignore[attr-defined]
    return policy


def test_a_sample_below_the_warm_ups_threshold_is_aborted() -> None:
    policy = by_draw(
        {
            "warm one": [("", 0.9), ("The answer is 1", 0.8)],
            "warm two": [("", 0.7), ("The answer is 2", 0.95)],
            "aborted": [("", 0.9), ("doubtful", 0.4), ("The answer is 2", 0.9)],
            "whole": [("", 0.75), ("The answer is 1", 0.9)],
        }
    )
    found, engine = run(policy, "deepconf-online", setting(k=4, warm_up=2, deepconf_keep=1.0))
    # The threshold is .7, the least step of the warm-up; 1 has .8 + .75 of the votes, 2 has .7.
    assert (found.answer, found.spent.aborted, len(found.samples)) == ("1", 1, 3)
    assert all("doubtful" not in before for before, _ in engine.asked), (
        "no step is asked for after the doubtful one"
    )
    drawn = "warm one\nwarm two\naborted\nwhole\ndoubtful\n" + "The answer is 1\n" * 3
    assert found.spent.tokens == len(drawn)


def test_agreement_ends_it() -> None:
    policy = by_draw({"a": [("", 0.9), ("The answer is 1", 0.8)], "b": [("", 0.7), ("The answer is 1", 0.9)]})
    found, engine = run(policy, "deepconf-online", setting(k=9, warm_up=2))
    assert found.answer == "1" and len(found.samples) == 2 and found.spent.aborted == 0
    assert found.text == "a\nThe answer is 1\n", "the most confident path: .72 against .63"
    assert [n for before, n in engine.asked if not before] == [2]


def test_the_least_sure_of_the_warm_up_do_not_vote() -> None:
    policy = by_draw({"a": [("", 0.9), ("The answer is 1", 0.8)], "b": [("", 0.3), ("The answer is 2", 0.9)]})
    found, _ = run(policy, "deepconf-online", setting(k=2, warm_up=2, deepconf_keep=0.5))
    assert found.answer == "1" and len(found.samples) == 1


def test_a_warm_up_without_answers_aborts_nothing() -> None:
    found, _ = run(lambda before: [Says("who knows", 0.9, True)], "deepconf-online", setting(k=5))
    assert found.answer is None and found.spent.no_answer == 5 and found.spent.aborted == 0


@pytest.mark.parametrize("strategy", ["particle", "deepconf-online"])
def test_the_same_again(strategy: str) -> None:
    first, again = (run(forked, strategy, setting(k=6))[0] for _ in range(2))
    assert replace(first, seconds=0) == replace(again, seconds=0)
