"""Confidence intervals by resampling problems: the steps of one problem are not independent of each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.errors import StepconfError

# A number computed from rows that count `weights` times each, or None where it is undefined: called as
# `statistic(*arrays, weights=...)` with non-negative integers, one per row. It may not depend on the order of
# the rows. Every metric of `core.calibration` is one.
Statistic = Callable[..., float | None]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its percentile interval at `level`.

    `low` and `high` are None where they cannot be known: a single cluster, or no resample with a value.
    `n_undefined` of the `n_resamples` had none (a class was absent) and were left out.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    n_clusters: int
    n_resamples: int
    n_undefined: int


def cluster_bootstrap(
    statistic: Statistic,
    clusters: Sequence[str] | npt.NDArray[Any],
    *arrays: npt.ArrayLike,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Resample whole clusters (problems) with replacement and take percentiles of the statistic.

    A resample is not gathered: it is the number of times each row's cluster was drawn, passed as `weights`.
    Two statistics with one seed over the same clusters see the same resamples.

    Args:
        statistic: called as `statistic(*arrays, weights=...)`.
        clusters: per row, the id of what is sampled, such as `problem_id`.
        arrays: per row, what the statistic takes.
        n_resamples: at least 1.
        seed: of the draws.
        level: coverage of the interval, in (0, 1).

    Raises:
        StepconfError: no rows, rows that do not match, or an argument out of its range.
    """
    return interval(resample(statistic, clusters, *arrays, n_resamples=n_resamples, seed=seed), level)


@dataclass(frozen=True, slots=True)
class Resampled:
    """A statistic's estimate and its value on each resample, None where it has none there."""

    estimate: float | None
    values: tuple[float | None, ...]
    n_clusters: int


def resample(
    statistic: Statistic,
    clusters: Sequence[str] | npt.NDArray[Any],
    *arrays: npt.ArrayLike,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """The resamples of `cluster_bootstrap` before percentiles are taken; a single cluster gives none."""
    ids, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    rows = [np.asarray(array) for array in arrays]
    _check(inverse.size, rows, n_resamples)
    # Sorted once here, so that the stable sort inside a rank statistic finds its work done.
    order = np.argsort(rows[0], kind="stable")
    rows, inverse = [row[order] for row in rows], inverse[order]
    estimate = _value(statistic(*rows, weights=np.ones(inverse.size, dtype=np.int64)))
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(n_resamples if ids.size > 1 else 0):
        drawn = np.bincount(generator.integers(0, ids.size, ids.size), minlength=ids.size)
        values.append(_value(statistic(*rows, weights=drawn[inverse])))
    return Resampled(estimate, tuple(values), ids.size)


def difference(first: Resampled, second: Resampled) -> Resampled:
    """First minus second, resample by resample: both of the same clusters, with the same seed."""
    pairs = zip((first.estimate, *first.values), (second.estimate, *second.values), strict=True)
    estimate, *values = (None if a is None or b is None else a - b for a, b in pairs)
    return Resampled(estimate, tuple(values), first.n_clusters)


def interval(resampled: Resampled, level: float = 0.95) -> Interval:
    """Percentiles of the values that there are."""
    if not 0 < level < 1:
        raise StepconfError(f"An interval has no level of {level}.", "0.95 is usual.")
    defined = [value for value in resampled.values if value is not None]
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]).tolist() if defined else (None, None)
    n = len(resampled.values)
    return Interval(resampled.estimate, low, high, level, resampled.n_clusters, n, n - len(defined))


def _value(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _check(n_rows: int, rows: list[npt.NDArray[Any]], n_resamples: int) -> None:
    sizes = [row.shape[0] if row.ndim else 0 for row in rows]
    if not n_rows or not rows:
        raise StepconfError("There is nothing to resample: no rows.", "Are all labels unknown?")
    if sizes != [n_rows] * len(rows):
        raise StepconfError(f"Each array needs one value per row, {n_rows}; they have {sizes}.")
    if n_resamples < 1:
        raise StepconfError(f"Cannot resample {n_resamples} times.", "1000 is usual.")
