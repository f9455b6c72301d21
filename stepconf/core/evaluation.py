"""How good a strategy is on a benchmark, and whether another one is better: pure."""

from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt

from stepconf.core.bootstrap import Interval, cluster_bootstrap


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of k samples is right, estimated without bias from `right` of n.

    1 - C(n - right, k) / C(n, k), after arXiv 2107.03374; 1 <= k <= n, 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} of {n} samples with {right} right")
    return 1 - comb(n - right, k) / comb(n, k)


def mean_interval(problems: Sequence[str], values: npt.ArrayLike, seed: int = 0) -> Interval:
    """The mean of one value per problem, with its bootstrap interval over problems."""
    return cluster_bootstrap(_mean, problems, values, seed=seed)


def paired_difference(
    problems: Sequence[str], first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0
) -> Interval:
    """Mean of `first - second`, problem by problem, with its paired bootstrap interval."""
    return mean_interval(problems, np.asarray(first, dtype=float) - np.asarray(second, dtype=float), seed)


def ratio_interval(
    problems: Sequence[str], first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0
) -> Interval:
    """Sum of `first` over sum of `second`, both over the same resampled problems."""
    return cluster_bootstrap(_ratio, problems, first, second, seed=seed)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that two paired classifiers are equally good.

    Args:
        only_first: problems that only the first has right. only_second: that only the second has right.
    """
    n = only_first + only_second
    tail = sum(comb(n, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))


def _mean(values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64]) -> float | None:
    total = int(weights.sum())
    return float((values * weights).sum() / total) if total else None


def _ratio(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], weights: npt.NDArray[np.int64]
) -> float | None:
    below = float((second * weights).sum())
    return float((first * weights).sum()) / below if below else None
