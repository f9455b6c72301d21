"""AUROC with its interval in one pass over the rows: what a thousand resamples of millions of steps would give.

A cluster bootstrap of so many problems is as good as normal, and its variance has a closed form: the share of the
other class that each row outranks is a mean over rows (DeLong et al. 1988), summed by problem where the rows of
one are not independent (Obuchowski 1997).
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stepconf.core.bootstrap import Interval
from stepconf.core.calibration.inputs import as_correct, as_scores


def clustered_auroc(
    clusters: npt.NDArray[np.integer], scores: npt.ArrayLike, correct: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """The AUROC of `ranking.auroc` with the normal interval at `level`; None where a class is empty.

    Args:
        clusters: per row, the number of its problem, from 0.
        scores: any real numbers; higher means more likely correct.
        correct: booleans.
        level: coverage of the interval, in (0, 1).
    """
    values = as_scores(scores)
    right = as_correct(correct, values.size)
    n_clusters = int(np.count_nonzero(np.bincount(clusters)))
    n_right = int(right.sum())
    n_wrong = values.size - n_right
    if not n_right or not n_wrong:
        return Interval(None, None, None, level, n_clusters, 0, 0)
    order = np.argsort(values)
    beaten = _outranked(values[order], right[order], n_right, n_wrong)
    area = float(beaten[right[order]].mean())
    pull = (beaten - area) / np.where(right[order], n_right, n_wrong)
    by_cluster = np.bincount(clusters[order], pull)
    if n_clusters < 2:
        return Interval(area, None, None, level, n_clusters, 0, 0)
    error = float(np.sqrt(n_clusters / (n_clusters - 1) * np.sum(by_cluster**2)))
    reach = NormalDist().inv_cdf(0.5 + level / 2) * error
    return Interval(area, max(area - reach, 0.0), min(area + reach, 1.0), level, n_clusters, 0, 0)


def _outranked(
    values: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], n_right: int, n_wrong: int
) -> npt.NDArray[np.float64]:
    """Per row (n,), by ascending value: the share of the other class on its wrong side, ties counting half."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    sizes = np.diff(ends, prepend=-1)
    wrong = np.diff(np.cumsum(~right)[ends], prepend=0)
    below = np.cumsum(wrong) - wrong / 2
    # An incorrect row should be outranked: by the correct ones above it.
    above = n_right - np.cumsum(sizes - wrong) + (sizes - wrong) / 2
    shares: npt.NDArray[np.float64] = np.where(
        right, np.repeat(below / n_wrong, sizes), np.repeat(above / n_right, sizes)
    )
    return shares
