"""Every metric against scikit-learn, torchmetrics or its definition, on random and degenerate data."""

import math
from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from stepconf.core import calibration as cal
from stepconf.errors import StepconfError

# Ties, bin edges, 0 and 1 are common; so is a single class and a single item.
P = st.one_of(st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0]), st.floats(0, 1))
ITEMS = st.lists(st.tuples(P, st.booleans()), min_size=1, max_size=40)
BINS = st.sampled_from([1, 2, 10, 15])


def near(value: Any) -> Any:
    return None if value is None else pytest.approx(value, abs=1e-9, rel=1e-9)


def columns(items: list[tuple]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column) for column in zip(*items, strict=True))


def literal_gaps(p: np.ndarray, y: np.ndarray, n_bins: int) -> list[tuple[int, float]]:
    """Count and |accuracy - confidence| of each bin that is not empty, by the textbook."""
    gaps = []
    edges = np.linspace(0, 1, n_bins + 1)
    for i in range(n_bins):
        inside = [k for k in range(len(p)) if edges[i] < p[k] <= edges[i + 1] or (i == 0 and p[k] == 0)]
        if inside:
            accuracy = sum(bool(y[k]) for k in inside) / len(inside)
            gaps.append((len(inside), abs(accuracy - sum(p[k] for k in inside) / len(inside))))
    return gaps


@given(ITEMS, BINS)
def test_equal_width_bins_equal_the_textbook(items: list[tuple], n_bins: int) -> None:
    p, y = columns(items)
    gaps = literal_gaps(p, y, n_bins)
    assert cal.ece(p, y, n_bins) == near(sum(n * gap for n, gap in gaps) / len(p))
    assert cal.mce(p, y, n_bins) == near(max(gap for _, gap in gaps))
    assert [each.count for each in cal.reliability_bins(p, y, n_bins)] == [n for n, _ in gaps]


@given(ITEMS, BINS, st.sampled_from([("equal-width", "uniform"), ("equal-mass", "quantile")]))
def test_bins_equal_scikit_learn(items: list[tuple], n_bins: int, names: tuple) -> None:
    p, y = columns(items)
    ours = cal.reliability_bins(p, y, n_bins, names[0])
    # scikit-learn refuses one class only; a bin's figures do not depend on the others' labels.
    y_both = y if len(set(y)) == 2 else np.r_[~y[:1], y[1:]]
    if len(set(y_both)) == 2:
        accuracy, confidence = calibration_curve(y_both, p, n_bins=n_bins, strategy=names[1])
        both = cal.reliability_bins(p, y_both, n_bins, names[0])
        assert [each.accuracy for each in both] == near(accuracy)
        assert [each.confidence for each in ours] == near(confidence)
    assert sum(each.count for each in ours) == len(p)
    expected = sum(each.count * abs(each.accuracy - each.confidence) for each in ours) / len(p)
    assert cal.ece(p, y, n_bins, names[0]) == near(expected)


def test_ece_and_mce_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    binary_calibration_error = pytest.importorskip(
        "torchmetrics.functional.classification"
    ).binary_calibration_error
    rng = np.random.default_rng(0)
    samples = [rng.random(1000), rng.random(30), rng.random(1), rng.uniform(0.81, 0.86, 50)]  # last: one bin
    for p in [*samples, rng.choice([0.03, 0.55, 0.97], 80)]:
        y = rng.random(p.size) < 0.7
        for n_bins in (10, 15):
            for labels in (y, y & False, y | True):
                for ours, norm in ((cal.ece, "l1"), (cal.mce, "max")):
                    theirs = binary_calibration_error(
                        torch.tensor(p), torch.tensor(labels).int(), n_bins, norm
                    )
                    assert ours(p, labels, n_bins) == near(float(theirs))


@given(ITEMS)
def test_brier_and_log_loss_equal_scikit_learn(items: list[tuple]) -> None:
    p, y = columns(items)
    assert cal.brier(p, y) == near(brier_score_loss(y, p, pos_label=True, labels=[False, True]))
    theirs = sklearn_log_loss(y, np.c_[1 - p, p], labels=[False, True])
    assert cal.log_loss(p, y) == near(theirs)


@given(ITEMS, BINS, st.sampled_from(["equal-width", "equal-mass"]))
def test_brier_decomposition_adds_up(items: list[tuple], n_bins: int, binning: str) -> None:
    p, y = columns(items)
    parts = cal.brier_decomposition(p, y, n_bins, binning)
    murphy = parts.reliability - parts.resolution + parts.uncertainty
    within = parts.within_bin_variance - parts.within_bin_covariance
    assert parts.brier == near(murphy + within)
    assert parts.brier == near(cal.brier(p, y))
    bins = cal.reliability_bins(p, y, n_bins, binning)
    reliability = sum(b.count * (b.confidence - b.accuracy) ** 2 for b in bins) / len(p)
    resolution = sum(b.count * (b.accuracy - y.mean()) ** 2 for b in bins) / len(p)
    assert (parts.reliability, parts.resolution) == near((reliability, resolution))
    if len(bins) == len(set(p.tolist())):  # one confidence per bin: Murphy's three terms suffice
        assert within == pytest.approx(0, abs=1e-9)


SCORES = st.one_of(st.sampled_from([-1.0, 0.0, 2.5]), st.floats(-1e6, 1e6))
SCORED = st.lists(st.tuples(SCORES, st.booleans(), st.integers(1, 4)), min_size=1, max_size=30)


@given(SCORED)
def test_auroc_and_auprc_equal_scikit_learn(items: list[tuple]) -> None:
    scores, y, _ = columns(items)
    if len(set(y.tolist())) == 2:
        assert cal.auroc(scores, y) == near(roc_auc_score(y, scores))
    else:
        assert cal.auroc(scores, y) is None
    if y.all():
        assert cal.auprc_errors(scores, y) is None
    else:
        assert cal.auprc_errors(scores, y) == near(average_precision_score(~y, -scores))


@given(SCORED)
def test_auroc_counts_pairs(items: list[tuple]) -> None:
    def share_won(same_length: bool) -> float | None:
        won = [
            1.0 if a > b else 0.5 if a == b else 0.0
            for a, a_right, a_length in items
            for b, b_right, b_length in items
            if a_right and not b_right and (a_length == b_length or not same_length)
        ]
        return sum(won) / len(won) if won else None

    scores, y, lengths = columns(items)
    assert cal.auroc(scores, y) == near(share_won(False))
    assert cal.length_controlled_auroc(scores, y, lengths) == near(share_won(True))
    assert cal.length_controlled_auroc(lengths, y, lengths) in (0.5, None)
    ranks = np.unique(scores, return_inverse=True)[1]
    assert cal.auroc(scores, y) == cal.auroc(ranks, y), "only the ranks matter"


def test_lengths_need_not_be_small_integers() -> None:
    scores, y = [3.0, 1.0, 2.0, 2.0], [True, False, True, False]
    assert cal.length_controlled_auroc(scores, y, [1e9, 1e9, 0.5, 0.5]) == 0.75
    assert cal.length_controlled_auroc(scores, y, [1, 2, 3, 4]) is None
    assert cal.auroc([math.inf, -math.inf], [True, False]) == 1.0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_risk_coverage_is_the_expectation_over_orders_of_ties(items: list[tuple]) -> None:
    curves = []
    for order in permutations(items):
        if all(a[0] >= b[0] for a, b in pairwise(order)):
            wrong = [not right for _, right in order]
            curves.append([sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)])
    ours = cal.risk_coverage(*columns(items))
    assert ours.risk == near(np.mean(curves, axis=0))
    assert ours.coverage == near(np.arange(1, len(items) + 1) / len(items))
    assert cal.aurc(*columns(items)) == ours.area == near(np.mean(curves))


@given(st.lists(st.tuples(st.floats(0, 12), st.booleans()), min_size=1, max_size=30))
def test_entropy_gap(items: list[tuple]) -> None:
    entropy, y = columns(items)
    right, wrong = entropy[y], entropy[~y]
    ours = cal.entropy_gap(entropy, y)
    assert (ours.n_correct, ours.n_incorrect) == (right.size, wrong.size)
    if not right.size or not wrong.size:
        assert (ours.gap, ours.cohens_d, ours.hedges_g) == (None, None, None)
        return
    assert ours.gap == near(wrong.mean() - right.mean())
    m = len(items) - 2
    if m and ours.cohens_d is not None and right.std() + wrong.std() > 1e-6:
        pooled = math.sqrt((right.size * right.var() + wrong.size * wrong.var()) / m)
        assert ours.cohens_d == pytest.approx(ours.gap / pooled, rel=1e-6)
        factor = math.gamma(m / 2) / math.sqrt(m / 2) / math.gamma((m - 1) / 2) if m > 1 else 0
        assert ours.hedges_g == pytest.approx(ours.cohens_d * factor, rel=1e-9)


WEIGHTED: list[Callable] = [
    cal.ece,
    cal.mce,
    lambda p, y, weights=None: cal.ece(p, y, 15, "equal-mass", weights),
    cal.brier,
    cal.log_loss,
    lambda p, y, weights=None: cal.brier_decomposition(p, y, weights=weights).within_bin_covariance,
    cal.auroc,
    cal.auprc_errors,
    cal.aurc,
    lambda p, y, weights=None: cal.length_controlled_auroc(p, y, np.ones(y.size), weights),
    lambda p, y, weights=None: cal.entropy_gap(p, y, weights).cohens_d,
]


@pytest.mark.parametrize("metric", WEIGHTED)
def test_a_weight_is_a_number_of_copies(metric: Callable) -> None:
    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 60):
        for _ in range(20):
            p, y, weights = np.round(rng.random(n), 2), rng.random(n) < 0.6, rng.integers(0, 3, n)
            weights[rng.integers(n)] = 2
            copies = np.repeat(np.arange(n), weights)
            assert metric(p, y, weights=weights) == near(metric(p[copies], y[copies]))


PROBABILITY_METRICS = [
    cal.ece, cal.mce, cal.brier, cal.brier_decomposition, cal.log_loss, cal.reliability_bins
]  # fmt: skip


@pytest.mark.parametrize("metric", PROBABILITY_METRICS)
@pytest.mark.parametrize("bad", [-1e-12, 1.0000001, 2.3, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused_with_the_value(metric: Callable, bad: float) -> None:
    with pytest.raises(StepconfError, match=r"probability in \[0, 1\]; saw .* \(1 of 3 values\)") as caught:
        metric([0.5, bad, 0.7], [True, False, True])
    assert f"{bad:g}" in caught.value.problem
    assert "entropy" in caught.value.hint


@pytest.mark.parametrize(
    "metric",
    [
        *PROBABILITY_METRICS,
        cal.auroc,
        cal.auprc_errors,
        cal.aurc,
        cal.entropy_gap,
        cal.fit_isotonic,
        cal.fit_platt,
    ],
)
def test_degenerate_input_is_refused(metric: Callable) -> None:
    for values, correct, message in (
        ([], [], "empty"),
        ([0.5, 0.6], [True], "one value per item, 2"),
        ([0.5], [None], "saw None"),
        ([0.5, 0.6], ["correct", 1], "saw 'correct'"),
        ([0.5, 0.6], [0.5, 1], r"saw 0\.5"),
        ([[0.5]], [True], "one row"),
        (["high"], [True], "must be numbers"),
        ([math.nan], [True], "saw nan"),
    ):
        with pytest.raises(StepconfError, match=message):
            metric(values, correct)
    metric([0.5, 0.25], [1, 0])  # 0 and 1 are booleans


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(StepconfError, match="n_bins must be at least 1; it is 0"):
        cal.ece([0.5], [True], 0)
    with pytest.raises(StepconfError, match="'equal_mass'"):
        cal.ece([0.5], [True], binning="equal_mass")
    for weights in ([1.0], [1, 1], [-1], [0]):
        with pytest.raises(StepconfError, match="weights must be"):
            cal.brier([0.5], [True], weights)
    with pytest.raises(StepconfError, match="1 lengths"):
        cal.length_controlled_auroc([0.5, 0.6], [True, False], [3])
