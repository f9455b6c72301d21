"""When sampling stops: against scipy, against literal transcriptions, and at the edges."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom

from stepconf.core.stopping import (
    answer_posterior,
    in_a_row,
    least_of_kept,
    stays_ahead,
    stays_ahead_of,
    votes_to_decide,
    votes_to_foresee,
)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_beta_posterior_is_scipys(a: int, b: int) -> None:
    first, second = max(a, b), min(a, b)
    assert stays_ahead(first, second) == pytest.approx(beta.sf(0.5, first + 1, second + 1), abs=1e-12)


def test_votes_that_decide() -> None:
    # 1 - 1/2^(n+1) of n equal votes: 0.9375 of three, 0.96875 of four.
    assert [votes_to_decide(n, 0, 0.95) for n in range(6)] == [4, 3, 2, 1, 0, 0]
    assert stays_ahead(5, 5) == 0.5 and votes_to_decide(0, 0, 0.5) == 1, "nothing decides before a vote"
    with pytest.raises(ValueError, match="do not lead"):
        stays_ahead(1, 2)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.5, 0.999))
def test_no_fewer_votes_decide(a: int, b: int, threshold: float) -> None:
    first, second = max(a, b), min(a, b)
    more = votes_to_decide(first, second, threshold)
    assert stays_ahead(first + more, second) >= threshold
    assert more <= (not first) or stays_ahead(first + more - 1, second) < threshold


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_the_votes_to_come_are_scipys(a: int, b: int, remaining: int, wins_ties: bool) -> None:
    first, second = max(a, b), min(a, b)
    gains = betabinom(remaining, first + 1, second + 1)
    leads = [2 * x + first - second - remaining + (0.5 if wins_ties else 0) > 0 for x in range(remaining + 1)]
    literal = sum(gains.pmf(x) for x, is_ahead in enumerate(leads) if is_ahead)
    assert stays_ahead_of(first, second, remaining, wins_ties) == pytest.approx(literal, abs=1e-9)


def test_a_vote_of_eight_is_foregone_early() -> None:
    # 1 - 4/84 of two equal votes with six to come; a tie that is lost makes it 1 - 10/84.
    assert stays_ahead_of(2, 0, 6, wins_ties=True) == pytest.approx(80 / 84)
    assert stays_ahead_of(2, 0, 6) == pytest.approx(74 / 84)
    assert [votes_to_foresee(n, 0, 8 - n, True, 0.95) for n in range(4)] == [2, 1, 0, 0]
    assert [votes_to_foresee(n, 0, 8 - n, False, 0.95) for n in range(4)] == [3, 2, 1, 0]
    assert stays_ahead_of(5, 0, 3) == 1 and votes_to_foresee(1, 1, 0, False, 0.9) == 0
    assert votes_to_foresee(0, 0, 8, True, 0.55) == 1 and votes_to_foresee(0, 0, 0, True, 0.55) == 0
    assert stays_ahead_of(9, 3, 10**4) == pytest.approx(stays_ahead(9, 3), abs=1e-3)
    with pytest.raises(ValueError, match="do not lead"):
        stays_ahead_of(2, 1, -1)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.none(), st.floats(0.01, 0.99))), min_size=1, max_size=7
    )
)
def test_the_posterior_of_answers_transcribed(drawn: list[tuple[int, float | None]]) -> None:
    said = list(dict.fromkeys(answer for answer, _ in drawn))
    classes = [[i for i, (answer, _) in enumerate(drawn) if answer == one] for one in said]
    candidates = [*said, None]  # None: what nobody has said

    def likelihood(truth: int | None) -> float:
        return prod(
            c if answer == truth else (1 - c) / (len(candidates) - 1) for answer, c in drawn if c is not None
        )

    total = sum(map(likelihood, candidates))
    found = answer_posterior(classes, [c for _, c in drawn])
    assert found == pytest.approx([likelihood(one) / total for one in said], rel=1e-9)


def test_one_sample_is_as_sure_as_it_says() -> None:
    assert answer_posterior([[0]], [0.8]) == pytest.approx((0.8,))
    assert answer_posterior([[0, 1]], [0.9, 0.9])[0] == pytest.approx(0.81 / 0.82)
    # Two that are certain of different answers cancel out; nothing is divided by zero.
    assert answer_posterior([[0], [1]], [1.0, 1.0]) == pytest.approx((0.5, 0.5), abs=1e-3)
    assert answer_posterior([], []) == ()


def test_answers_in_a_row() -> None:
    assert in_a_row(["1", "2", "2"], [[0], [1, 2]]) == 2
    assert in_a_row(["2", None, "2"], [[0, 2]]) == 1
    assert in_a_row(["2", None], [[0]]) == 0 and in_a_row([], []) == 0
    assert in_a_row(["2", "2.0"], [[0, 1]]) == 2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.01, 1))
def test_the_share_that_is_kept(lowest: list[float], keep: float) -> None:
    least = least_of_kept(lowest, keep)
    assert least in lowest and sum(one >= least for one in lowest) >= max(1, round(keep * len(lowest)))


def test_the_threshold_of_the_warm_up() -> None:
    lowest = [0.4, 0.9, 0.8, 0.7]
    assert [least_of_kept(lowest, keep) for keep in (0.1, 0.5, 0.75, 1.0)] == [0.9, 0.8, 0.7, 0.4]
    with pytest.raises(ValueError, match="no share"):
        least_of_kept([], 0.5)
