"""The bookkeeping of CaT alone: ties, rounding, the mean instead of the product."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.prune import Branch, Rules, can_win, prune_level, ranked, tau_at


def branch(name: str, *confidences: float, final: bool = False) -> Branch[str]:
    return Branch(name, name, tuple(map(log, confidences)), final)


def names(branches: list[Branch[str]]) -> list[str]:
    return [b.data for b in branches]


def test_ties_go_to_the_earlier_candidate() -> None:
    rows = [branch("a", 0.5), branch("b", 0.25, 0.5), branch("c", 0.5, 0.25), branch("d", 0.5)]
    assert names(ranked(rows)) == ["a", "d", "b", "c"]
    assert names(prune_level(rows, Rules(2, 0, 9)).active) == ["a", "d"]


@given(st.integers(1, 60), st.sampled_from([0.9, 0.7, 0.3]))
def test_equal_to_tau_is_not_below_it(steps: int, confidence: float) -> None:
    tau = 1.0
    for _ in range(steps):
        tau *= confidence
    level = prune_level([branch("a", *[confidence] * steps)], Rules(1, tau, 99))
    assert names(level.active) == ["a"] and not level.below_tau


def test_a_product_too_small_for_a_float_is_still_ranked() -> None:
    rows = [branch("worse", *[0.01] * 500), branch("better", *[0.011] * 500)]
    assert names(prune_level(rows, Rules(1, 0, 1000)).active) == ["better"]


def test_the_mean_lets_a_long_branch_stand() -> None:
    rows = [branch("long", *[0.9] * 10), branch("short", 0.5)]
    assert names(ranked(rows)) == ["short", "long"]
    assert names(ranked(rows, length_normalised=True)) == ["long", "short"]
    kept = prune_level(rows, Rules(2, 0.6, 99, length_normalised=True))
    assert (names(kept.active), names(kept.below_tau)) == (["long"], ["short"])


def test_of_equal_candidates_the_most_confident_stays() -> None:
    low, high = branch("x", 0.3), branch("x", 0.6)
    ended = branch("x", 0.2, final=True)
    level = prune_level([low, high, ended], Rules(5, 0, 9))
    assert level.active == [high] and level.completed == [ended] and level.merged == 1


def test_what_can_no_longer_win() -> None:
    rows, done = [branch("a", 0.6), branch("b", 0.5), branch("c", 0.4)], [branch("d", 0.5, final=True)]
    assert names(can_win(rows, done, Rules(3, 0, 9))) == ["a"]
    assert names(can_win(rows, [], Rules(3, 0, 9))) == ["a", "b", "c"]
    assert names(can_win(rows, done, Rules(3, 0, 9, length_normalised=True))) == ["a", "b", "c"]


@pytest.mark.parametrize("rules", [(0, 0.1, 1), (1, -0.1, 1), (1, 1.1, 1), (1, 0.1, 0)])
def test_rules_that_no_tree_can_meet(rules: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="no tree"):
        Rules(*rules)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_tau_costs_at_most_its_share_of_right_solutions(lowest: list[float], quantile: float) -> None:
    """Each in turn as the new solution, tau from the others: the share lost, averaged over who is new."""
    lost = [lowest[i] < tau_at(lowest[:i] + lowest[i + 1 :], quantile) for i in range(len(lowest))]
    assert sum(lost) / len(lost) <= quantile + 1e-9
    assert 0 <= tau_at(lowest, quantile) <= max(lowest)


def test_tau_is_a_rank() -> None:
    lowest = [i / 99 for i in range(1, 100)]
    assert [tau_at(lowest, q) for q in (0.29, 0.07, 0.5)] == [29 / 99, 7 / 99, 50 / 99]
    assert tau_at(lowest, 0.005) == 0, "too few solutions to promise so little"
    for bad in ([], [0.5]):
        with pytest.raises(ValueError, match="no quantile"):
            tau_at(bad, 0.5 if not bad else 1.0)
