"""How far apart correct and incorrect steps lie on a signal."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepconf.core.calibration.inputs import as_correct, as_finite, as_weights


@dataclass(frozen=True, slots=True)
class EntropyGap:
    """Mean entropy of correct and of incorrect items (nats), and how far apart they are.

    `gap` is incorrect minus correct: positive where the model is less sure of what is wrong. `cohens_d` is
    the gap in pooled standard deviations, `hedges_g` the same without the bias of small samples. None where
    undefined: a class is absent; for the effect sizes also fewer than three items, or no spread.
    """

    mean_correct: float | None
    mean_incorrect: float | None
    gap: float | None
    cohens_d: float | None
    hedges_g: float | None
    n_correct: int
    n_incorrect: int


def entropy_gap(
    entropy: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> EntropyGap:
    """Compare the entropies of correct and incorrect items. An interval: bootstrap `entropy_gap(...).gap`."""
    values = as_finite(entropy, "entropy")
    right, counts = as_correct(correct, values.size), as_weights(weights, values.size)
    n_right, n_wrong = int(counts[right].sum()), int(counts[~right].sum())
    mean_right = float(np.average(values[right], weights=counts[right])) if n_right else None
    mean_wrong = float(np.average(values[~right], weights=counts[~right])) if n_wrong else None
    if mean_right is None or mean_wrong is None:
        return EntropyGap(mean_right, mean_wrong, None, None, None, n_right, n_wrong)
    gap, freedom = mean_wrong - mean_right, n_right + n_wrong - 2
    squares = float(np.sum(counts * (values - np.where(right, mean_right, mean_wrong)) ** 2))
    d = gap / math.sqrt(squares / freedom) if freedom and squares else None
    g = d * _small_sample_factor(freedom) if d is not None else None
    return EntropyGap(mean_right, mean_wrong, gap, d, g, n_right, n_wrong)


def _small_sample_factor(freedom: int) -> float:
    """Hedges' exact J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)); at m = 1 it is 0."""
    if freedom == 1:
        return 0.0
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
