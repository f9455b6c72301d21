"""CaT on a scripted policy: a tree worked out by hand, and algorithm 2 transcribed word for word."""

import random
from dataclasses import replace
from fractions import Fraction
from math import isclose, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.records import TokenScores
from stepconf.inference.base import GivenUp, Growth, Result
from stepconf.inference.run import answer
from stepconf.inference.strategies import search
from tests.inference.scripted import Says, ScriptedEngine, question, setting

# K = 3, tau = 0.3, T = 3. In brackets the cumulative confidence.
#   a .9 (.9)    aa .9 (.81)  aaa "answer 1" .6 (.486)   aab .7 (.567)   aac .2 (.162)
#                ab .5 (.45)
#                ac .3 (.27)
#   b .8 (.8)    ba .9 (.72)  baa "answer 3" .9 (.648)   bab .5 (.36)    bac .45 (.324)
#                bb "answer 2" .7 (.56)
#                bc .6 (.48)  bca .9 (.432)              bcb .9 (.432)   bcc .8 (.384)
#   c .5 (.5)    ca .5 (.25)
#                cb .9 (.45)
#                cb again .8 (.4)
TREE = {
    "": [("a", 0.9), ("b", 0.8), ("c", 0.5)],
    "a": [("aa", 0.9), ("ab", 0.5), ("ac", 0.3)],
    "b": [("ba", 0.9), ("The answer is 2", 0.7), ("bc", 0.6)],
    "c": [("ca", 0.5), ("cb", 0.9), ("cb", 0.8)],
    "aa": [("The answer is 1", 0.6), ("aab", 0.7), ("aac", 0.2)],
    "ba": [("The answer is 3", 0.9), ("bab", 0.5), ("bac", 0.45)],
    "bc": [("bca", 0.9), ("bcb", 0.9), ("bcc", 0.8)],
}


def by_hand(before: str) -> list[Says]:
    last = before.split("\n")[-2] if before else ""
    return [Says(f"{text}\n", c) for text, c in TREE[last]]


def run(engine: ScriptedEngine, strategy: str, **options: object) -> Result:
    return next(answer(engine, [search(strategy, question(), setting(**options))]))  # type: ignore[arg-type]


def test_the_tree_worked_out_by_hand() -> None:
    engine = ScriptedEngine(by_hand)
    found = run(engine, "cat", k=3, tau=0.3, max_steps=3, stop_early=False)
    assert (found.answer, found.text, found.failure) == ("3", "b\nba\nThe answer is 3\n", "")
    assert isclose(found.confidence or 0, 0.8 * 0.9 * 0.9)
    assert [step.text for step in found.steps] == ["b\n", "ba\n", "The answer is 3\n"]
    assert [round(step.cumulative_confidence, 9) for step in found.steps] == [0.8, 0.72, 0.648]
    assert sorted(engine.asked) == [
        (p, 3) for p in ("", "a\n", "a\naa\n", "b\n", "b\nba\n", "b\nbc\n", "c\n")
    ]
    spent = found.spent
    assert (spent.merged, spent.below_tau, spent.outranked, spent.too_long) == (1, 3, 2, 6)
    assert sorted((s.answer, round(s.confidence or 0, 9)) for s in found.samples) == [
        ("1", 0.486),
        ("2", 0.56),
        ("3", 0.648),
    ]
    assert spent.depth == 3 and spent.peak_branches == 9 and spent.requests == 7
    drawn = [text for before, _ in engine.asked for text, _ in TREE[(before.split("\n")[-2:] or [""])[0]]]
    assert spent.tokens == sum(len(text) + 1 for text in drawn)


def test_branches_that_cannot_win_are_left() -> None:
    engine = ScriptedEngine(by_hand)
    grown: list[Growth] = []
    told = setting(k=3, tau=0.3, max_steps=3)
    found = next(answer(engine, [search("cat", question(), replace(told, watch=grown.append))]))
    assert found.text == "b\nba\nThe answer is 3\n"
    # bc (.48) is behind "answer 2" (.56), which it cannot beat any more.
    assert sorted(engine.asked) == [(p, 3) for p in ("", "a\n", "a\naa\n", "b\n", "b\nba\n", "c\n")]
    assert [(g.depth, g.alive, g.completed) for g in grown] == [(1, 3, 0), (2, 2, 1), (3, 0, 3)]
    assert found.spent.overtaken == 1


def test_the_likeliest_candidate_first() -> None:
    engine = ScriptedEngine(by_hand)
    found = run(engine, "cat", k=3, tau=0.3, max_steps=3, expand_below=0.85)
    # a (.9) is sure enough, aa too; "answer 1" (.6) is not, and gets two rivals (the policy's first two again).
    assert engine.asked == [("", 1), ("a\n", 1), ("a\naa\n", 1), ("a\naa\n", 2)]
    assert [t == 0 for t in engine.temperatures] == [True, True, True, False]
    assert found.answer == "1" and found.spent.merged == 1


def test_what_more_candidates_say_weighs_more() -> None:
    def policy(before: str) -> list[Says]:
        if before:
            return [Says("The answer is 1\n" if "odd" in before else "The answer is 2\n", 0.9)]
        return [Says("odd\n", 0.9), Says("usual\n", 0.8), Says("usual\n", 0.8), Says("usual\n", 0.8)]

    plain = run(ScriptedEngine(policy), "cat", k=4, tau=0.0)
    counted = run(ScriptedEngine(policy), "cat", k=4, tau=0.0, count_duplicates=True)
    assert (plain.answer, counted.answer) == ("1", "2")
    # .8 and three of four candidates, then .9 and all of them.
    assert counted.confidence == pytest.approx(0.8 * 3 / 4 * 0.9)
    # One candidate that is sure enough is all there is.
    lazy = run(ScriptedEngine(policy), "cat", k=4, tau=0.0, count_duplicates=True, expand_below=0.5)
    assert lazy.answer == "1" and lazy.confidence == pytest.approx(0.81)


def test_what_is_given_up_is_told() -> None:
    told: list[GivenUp] = []
    settings = replace(setting(k=3, tau=0.3, max_steps=3), given_up=told.append)
    found = next(answer(ScriptedEngine(by_hand), [search("cat", question(), settings)]))
    said = {("".join(map(chr, one.token_ids)), one.reason, one.depth) for one in told}
    assert said >= {("a\nac\n", "below_tau", 2), ("c\nca\n", "below_tau", 2), ("b\nbc\n", "overtaken", 2)}
    assert len(told) == found.spent.pruned and all(0 < one.cumulative_confidence < 1 for one in told)
    assert all((one.cumulative_confidence < 0.3) == (one.reason == "below_tau") for one in told)


def test_a_fitted_confidence_decides() -> None:
    """By length alone: what is longer is surer; the entropies say the opposite."""

    def policy(before: str) -> list[Says]:
        if before:
            return [Says("The answer is 1\n" if "long" in before else "The answer is 2\n", 0.9)]
        return [Says("a long one\n", 0.1), Says("short\n", 0.9)]

    asked: list[int] = []

    def fitted(scores: TokenScores, index: int) -> float:
        asked.append(index)
        return min(1.0, len(scores) / 20)

    own = replace(setting(k=2, tau=0.0), confidence=fitted)
    found = next(answer(ScriptedEngine(policy), [search("cat", question(), own)]))
    assert found.answer == "1" and found.confidence == pytest.approx(11 / 20 * 16 / 20)
    assert [step.confidence for step in found.steps] == [11 / 20, 16 / 20] and {*asked} == {0, 1}
    # Nothing is too unsure to be compared.
    never = replace(setting(k=2, tau=0.0), confidence=lambda scores, index: 0.0)
    assert next(answer(ScriptedEngine(policy), [search("cat", question(), never)])).answer is not None
    silent = replace(setting(k=2, tau=0.5), confidence=lambda scores, index: None)
    found = next(answer(ScriptedEngine(policy), [search("cat", question(), silent)]))
    assert found.answer is not None and found.steps[0].confidence is None and found.confidence == 1


CONFIDENCES = [Fraction(2, 3), Fraction(5, 7), Fraction(11, 13), Fraction(17, 19), Fraction(23, 29)]


def random_policy(seed: int, width: int, final_share: float):  # type: ignore[no-untyped-def]
    """Sayings with exact confidences, the same for the same text so far."""

    def policy(before: str) -> list[tuple[str, Fraction, bool]]:
        rng = random.Random(f"{seed}:{before}")
        found = []
        for _ in range(rng.randint(1, width)):
            final = rng.random() < final_share
            text = f"#### {rng.randint(1, 9)}\n" if final else f"step {rng.choice('uvwxyz')}\n"
            found.append((text, rng.choice(CONFIDENCES), final))
        return found

    return policy


def algorithm_2(policy, k: int, tau: Fraction, max_steps: int):  # type: ignore[no-untyped-def]
    """Slow and literal, on exact fractions. Returns the completed branches and every prefix that was expanded."""
    active, completed, expanded = [("", Fraction(1))], [], []
    for t in range(1, max_steps + 1):
        proposed: dict[tuple[str, bool], Fraction] = {}
        for prefix, c in active:
            expanded.append(prefix)
            sayings = policy(prefix)
            for i in range(k):
                text, confidence, final = sayings[i % len(sayings)]
                same = (prefix + text, final)
                proposed[same] = max(proposed.get(same, Fraction(0)), c * confidence)
        completed += [(text, c) for (text, final), c in proposed.items() if final]
        open_ = [(text, c) for (text, final), c in proposed.items() if not final and c >= tau]
        active = sorted(open_, key=lambda branch: -branch[1])[:k] if t < max_steps else []
    return completed, expanded


@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(
        [Fraction(0), Fraction(2, 3), Fraction(4, 9), Fraction(10, 21), Fraction(1, 10), Fraction(1)]
    ),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.booleans(),
)
def test_against_algorithm_2(
    seed: int, width: int, k: int, tau: Fraction, max_steps: int, finals: float, early: bool
) -> None:
    exact = random_policy(seed, width, finals)
    engine = ScriptedEngine(lambda before: [Says(t, float(c)) for t, c, _ in exact(before)])
    found = run(engine, "cat", k=k, tau=float(tau), max_steps=max_steps, stop_early=early)
    completed, expanded = algorithm_2(exact, k, tau, max_steps)
    asked = [before for before, n in engine.asked]
    if early:
        assert set(asked) <= set(expanded)
    else:
        assert sorted(asked) == sorted(expanded)
        assert len(found.samples) == len(completed)
    if not completed:
        assert found.answer is None and found.failure
        return
    best = max(c for _, c in completed)
    assert found.text == next(text for text, c in completed if c == best)
    assert isclose(found.confidence or 0, float(best), rel_tol=1e-9)
    assert isclose(prod(step.confidence or 0 for step in found.steps), float(best), rel_tol=1e-9)


def test_beam_keeps_the_most_confident() -> None:
    engine = ScriptedEngine(by_hand)
    found = run(engine, "beam", k=4, beam_width=2, max_steps=3)
    # Two beams of two: a, b; aa (.81), ba (.72); baa (.648), aab (.567) which has no step left.
    assert [before for before, n in engine.asked if n == 2] == ["", "b\n", "a\n", "b\nba\n", "a\naa\n"]
    assert found.answer == "3"


@pytest.mark.parametrize("strategy", ["cat", "beam"])
def test_a_budget_of_tokens_ends_the_tree(strategy: str) -> None:
    found = run(ScriptedEngine(by_hand), strategy, k=3, token_budget=1)
    assert found.spent.depth == 1 and found.spent.out_of_tokens > 0
    assert found.answer is None and "out of tokens" in found.failure


def test_a_context_that_fills_up_ends_the_branch() -> None:
    engine = ScriptedEngine(lambda before: [Says("on and on\n", 0.9), Says("and on\n", 0.8)], context=33)
    found = next(answer(engine, [search("cat", question(), setting(context=33, k=2, tau=0))]))
    assert found.spent.context_full > 0
    assert found.failure.startswith("no completed branch: ") and "context full" in found.failure


def test_no_branch_above_tau_is_a_failure() -> None:
    found = run(ScriptedEngine(by_hand), "cat", k=3, tau=0.95)
    assert found.answer is None and found.failure == "no completed branch: 3 below tau"
