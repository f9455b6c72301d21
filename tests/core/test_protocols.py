"""Rankings within problems: against the pairs counted one by one, scikit-learn, and simulated data."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import length_controlled_auroc
from stepconf.core.calibration.protocols import first_error_rank, permuted_auroc, within_groups
from stepconf.errors import StepconfError

# Few different scores, so that many tie.
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-3, 3).map(float), st.booleans()), min_size=1, max_size=40
)


def columns(rows: list[tuple]) -> tuple[np.ndarray, ...]:
    groups, scores, correct = zip(*rows, strict=True)
    return np.array(groups), np.array(scores), np.array(correct)


@given(ROWS)
def test_within_groups_counts_pairs_of_one_group(rows: list[tuple]) -> None:
    groups, scores, correct = columns(rows)
    tally = within_groups(groups, scores, correct)
    for group in range(int(groups.max()) + 1):
        own = [(s, c) for g, s, c in rows if g == group]
        pairs = [(a, b) for (a, right), (b, wrong) in product(own, own) if right and not wrong]
        assert tally.asked[group] == len(pairs)
        assert tally.won[group] == sum((a > b) + (a == b) / 2 for a, b in pairs)
        if pairs:
            expected = roc_auc_score([c for _, c in own], [s for s, _ in own])
            assert tally.won[group] / tally.asked[group] == pytest.approx(expected, abs=1e-9)
    assert tally.n_groups == sum(tally.asked > 0)
    assert tally.value == (
        None if tally.n_groups == 0 else pytest.approx(length_controlled_auroc(scores, correct, groups))
    )


@given(ROWS)
def test_a_tally_resamples_whole_problems(rows: list[tuple]) -> None:
    """A problem that is drawn twice is two problems: its rows are not compared with their own copies."""
    groups, scores, correct = columns(rows)
    groups = np.unique(groups, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1

    def copied(codes: np.ndarray, weights: np.ndarray) -> float | None:
        drawn = [g for g in range(n_groups) for _ in range(weights[codes == g][0])]
        parts = [(np.full((groups == g).sum(), i), scores[groups == g], correct[groups == g])
                 for i, g in enumerate(drawn)]  # fmt: skip
        own, values, right = (np.concatenate(column) for column in zip(*parts, strict=True))
        return length_controlled_auroc(values, right, own)

    found = within_groups(groups, scores, correct).interval(n_resamples=20, seed=3)
    expected = cluster_bootstrap(copied, np.arange(n_groups), np.arange(n_groups), n_resamples=20, seed=3)
    for name in ("estimate", "low", "high", "n_undefined"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12), name


def test_pure_difficulty_is_pooled_but_not_within() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 20)
    difficulty = rng.normal(size=60)[groups]
    correct = rng.random(groups.size) < 1 / (1 + np.exp(3 * difficulty))
    assert roc_auc_score(correct, -difficulty) > 0.8
    assert within_groups(groups, -difficulty, correct).value == 0.5


def test_null_and_interval_cover_one_half_at_their_rate() -> None:
    """Of 300 data sets without any relation within problems, 95 % have a value inside the null, and 0.5 inside."""
    in_null, in_interval, means = 0, 0, []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(25), 8)
        hardness = rng.normal(size=25)[groups]
        correct = rng.random(groups.size) < 1 / (1 + np.exp(-hardness))
        scores = hardness + rng.normal(size=groups.size)
        tally = within_groups(groups, scores, correct)
        null = permuted_auroc(groups, scores[:, None], correct, 200, seed)[:, 0]
        means.append(null.mean())
        low, high = np.quantile(null, [0.025, 0.975])
        in_null += bool(low <= (tally.value or 0) <= high)
        found = tally.interval(200, seed)
        in_interval += bool((found.low or 0) <= 0.5 <= (found.high or 0))
    # Three standard deviations of a share of 300 at 0.95 are 0.038; 200 draws make the quantiles rough.
    assert 0.91 <= in_null / 300 <= 0.99
    assert 0.89 <= in_interval / 300 <= 0.99, "a bootstrap of 25 problems is a little short"
    assert np.mean(means) == pytest.approx(0.5, abs=0.005)


@given(ROWS, st.integers(0, 5))
@settings(max_examples=40)
def test_permutations_keep_each_group_s_labels(rows: list[tuple], seed: int) -> None:
    """Against all orders: the null's values are among those that permuted labels can give, and their mean is 0.5."""
    groups, scores, correct = columns(rows)
    both = np.stack([scores, groups.astype(float)], axis=1)
    null = permuted_auroc(groups, both, correct, 7, seed)
    again = permuted_auroc(groups, both, correct, 7, seed)
    assert null.shape == (7, 2) and np.array_equal(null, again, equal_nan=True)
    if within_groups(groups, scores, correct).value is None:
        assert np.isnan(null).all()
    else:
        assert ((null >= 0) & (null <= 1)).all()
        assert null[:, 1] == pytest.approx(0.5), "a score of the group alone is 0.5 under every permutation"


def test_the_null_of_a_small_group_is_exact() -> None:
    """One group of scores 1, 2, 3 with one correct row: AUROC 0, 0.5 or 1, each a third of the time."""
    null = permuted_auroc(np.zeros(3, int), np.array([[1.0], [2.0], [3.0]]), [True, False, False], 3000, 1)
    values, counts = np.unique(null, return_counts=True)
    assert values.tolist() == [0, 0.5, 1] and counts / 3000 == pytest.approx(1 / 3, abs=0.04)


CHAINS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3).map(float), min_size=1, max_size=6), st.integers(-1, 5)),
    min_size=1, max_size=8,
)  # fmt: skip


@given(CHAINS)
def test_rank_of_the_first_error_by_its_definition(chains: list[tuple]) -> None:
    rows = [
        (problem, number, i == error, score)
        for number, (problem, scores, error) in enumerate(chains)
        for i, score in enumerate(scores)
    ]
    groups, codes, first, scores = (np.array(column) for column in zip(*rows, strict=True))
    tally = first_error_rank(groups, codes, first, scores)
    expected: list[tuple[int, float]] = []
    for problem, own, error in chains:
        if 0 <= error < len(own) and len(own) > 1:
            others = own[:error] + own[error + 1 :]
            higher = sum((one > own[error]) + (one == own[error]) / 2 for one in others)
            expected.append((problem, higher / len(others)))
    for problem in range(int(groups.max()) + 1):
        ranks = [rank for group, rank in expected if group == problem]
        assert tally.asked[problem] == len(ranks)
        assert tally.won[problem] == pytest.approx(sum(ranks))


def test_bad_input_is_refused() -> None:
    with pytest.raises(StepconfError, match="needs a group"):
        within_groups(np.array([0]), [0.1, 0.2], [True, False])
    with pytest.raises(StepconfError, match="must be numbers"):
        within_groups(np.array([0, 0]), [0.1, np.nan], [True, False])
    tally = within_groups(np.array([0, 0]), [0.1, 0.2], [True, True])
    assert tally.value is None and tally.interval(10).low is None and tally.n_groups == 0
    constant = within_groups(np.array([0, 0, 1, 1]), [1.0] * 4, [True, False] * 2)
    assert constant.value == 0.5 and constant.interval(10).low == constant.interval(10).high == 0.5
