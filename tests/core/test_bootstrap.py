"""Resampling by weights equals resampling by index, and its intervals cover what they claim to."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from stepconf.core import calibration as cal
from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.errors import StepconfError


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def literal(statistic: Callable, clusters: np.ndarray, arrays: tuple, n: int, seed: int) -> list[float]:
    """The same draws, each resample gathered row by row."""
    ids = sorted(set(clusters.tolist()))
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = generator.integers(0, len(ids), len(ids))
        rows = np.concatenate([np.flatnonzero(clusters == ids[k]) for k in drawn])
        value = statistic(*(array[rows] for array in arrays))
        if value is not None:
            values.append(value)
    return values


@pytest.mark.parametrize(
    "statistic",
    [
        cal.auroc,
        cal.auprc_errors,
        cal.aurc,
        cal.ece,
        partial(cal.ece, n_bins=15, binning="equal-mass"),
        cal.mce,
        cal.brier,
        cal.log_loss,
    ],
    ids=lambda f: getattr(f, "__name__", "partial"),
)
def test_weights_equal_literal_resampling(statistic: Callable) -> None:
    rng = np.random.default_rng(5)
    clusters = np.array([f"p{i}" for i in rng.integers(0, 9, 60)])
    confidence, correct = np.round(rng.random(60), 1), rng.random(60) < 0.6
    ours = cluster_bootstrap(statistic, clusters, confidence, correct, n_resamples=80, seed=3, level=0.8)
    theirs = literal(statistic, clusters, (confidence, correct), 80, 3)
    assert ours.estimate == pytest.approx(statistic(confidence, correct), abs=1e-12)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(theirs, [0.1, 0.9]).tolist(), abs=1e-12)
    assert (ours.n_clusters, ours.n_undefined) == (len(set(clusters.tolist())), 80 - len(theirs))


def test_length_controlled_too() -> None:
    rng = np.random.default_rng(6)
    clusters = rng.integers(0, 9, 60)
    arrays = np.round(rng.random(60), 1), rng.random(60) < 0.6, rng.integers(1, 4, 60)
    ours = cluster_bootstrap(cal.length_controlled_auroc, clusters, *arrays, n_resamples=50, seed=1)
    theirs = literal(cal.length_controlled_auroc, clusters, arrays, 50, 1)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(theirs, [0.025, 0.975]).tolist(), abs=1e-12)


def test_intervals_cover_on_clustered_data_and_resampling_steps_would_not() -> None:
    rng = np.random.default_rng(0)
    covered, covered_by_steps, trials = 0, 0, 150
    for trial in range(trials):
        problems = np.repeat(np.arange(40), 8)
        values = 0.3 + rng.normal(size=40)[problems] + 0.5 * rng.normal(size=320)
        by_problem = cluster_bootstrap(mean, problems, values, n_resamples=200, seed=trial)
        by_step = cluster_bootstrap(mean, np.arange(320), values, n_resamples=200, seed=trial)
        covered += by_problem.low <= 0.3 <= by_problem.high
        covered_by_steps += by_step.low <= 0.3 <= by_step.high
    assert 0.89 <= covered / trials <= 0.99
    assert covered_by_steps / trials < 0.7


def test_resamples_without_a_value_are_counted_and_left_out() -> None:
    # Four problems, one of them with the only incorrect step: (3/4)^4 = 32 % of the resamples lack it.
    correct = np.array([True, True, True, False])
    ours = cluster_bootstrap(cal.auroc, list("abcd"), [0.9, 0.8, 0.7, 0.1], correct, n_resamples=400)
    assert ours.n_undefined / 400 == pytest.approx(0.32, abs=0.08)
    assert (ours.estimate, ours.low, ours.high) == (1.0, 1.0, 1.0)
    nowhere = cluster_bootstrap(cal.auroc, list("abcd"), [0.9, 0.8, 0.7, 0.1], [True] * 4, n_resamples=20)
    assert (nowhere.estimate, nowhere.low, nowhere.high, nowhere.n_undefined) == (None, None, None, 20)


def test_one_problem_has_no_interval() -> None:
    ours = cluster_bootstrap(mean, ["a", "a"], [0.0, 1.0])
    assert (ours.estimate, ours.low, ours.high, ours.n_clusters, ours.n_resamples) == (0.5, None, None, 1, 0)


def test_a_seed_gives_one_interval_whatever_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(2)
    ids, values, order = rng.integers(0, 20, 200), rng.normal(size=200), rng.permutation(200)
    draw = partial(cluster_bootstrap, mean, n_resamples=50)
    same = draw(ids[order], values[order], seed=4)
    assert draw(ids, values, seed=4).low == pytest.approx(same.low, abs=1e-12)
    assert draw(ids, values, seed=5) != draw(ids, values, seed=4)


@pytest.mark.parametrize(
    ("clusters", "arrays", "options"),
    [
        ([], [[]], {}),
        (["a"], [], {}),
        (["a", "b"], [[0.1]], {}),
        (["a", "b"], [[0.1, 0.2], [True]], {}),
        (["a", "b"], [[0.1, 0.2]], {"n_resamples": 0}),
        (["a", "b"], [[0.1, 0.2]], {"level": 95}),
    ],
)
def test_bad_input_is_refused(clusters: list, arrays: list, options: dict) -> None:
    with pytest.raises(StepconfError):
        cluster_bootstrap(mean, clusters, *arrays, **options)
