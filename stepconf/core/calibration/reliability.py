"""Do confidences mean what they say? Metrics of probabilities; anything else than a probability is refused.

Bins are scikit-learn's (`calibration_curve`): (low, high], the first one closed below. `equal-width` cuts
[0, 1] evenly; `equal-mass` cuts at the quantiles of the confidences, so tied confidences share a bin and a
bin may be empty. Empty bins count for nothing. torchmetrics bins [low, high) with a bin of its own for 1.0:
its figures differ where a confidence lies exactly on an edge, and only there.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from stepconf.core.calibration.inputs import Bools, Floats, Ints, as_correct, as_probabilities, as_weights
from stepconf.errors import StepconfError

Binning = Literal["equal-width", "equal-mass"]

# Probabilities nearer to 0 or 1 than this count as this near in the log loss, as in scikit-learn.
LOG_LOSS_CLIP = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The items with confidence in (low, high]: how many, how sure on average, and what share is correct."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int = 10,
    binning: Binning = "equal-width",
    weights: npt.ArrayLike | None = None,
) -> list[ReliabilityBin]:
    """The bins of the reliability diagram, lowest first; empty ones are left out."""
    bins = _binned(*_prepared(confidence, correct, weights), n_bins, binning)
    return [ReliabilityBin(*row) for row in zip(*(column.tolist() for column in bins.columns()), strict=True)]


def ece(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int = 10,
    binning: Binning = "equal-width",
    weights: npt.ArrayLike | None = None,
) -> float:
    """Expected calibration error: mean |accuracy - mean confidence| of the bins, weighted by their counts."""
    bins = _binned(*_prepared(confidence, correct, weights), n_bins, binning)
    return float(np.average(np.abs(bins.accuracy - bins.confidence), weights=bins.count))


def mce(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int = 10,
    binning: Binning = "equal-width",
    weights: npt.ArrayLike | None = None,
) -> float:
    """Maximum calibration error: the largest |accuracy - mean confidence| of a bin that is not empty."""
    bins = _binned(*_prepared(confidence, correct, weights), n_bins, binning)
    return float(np.abs(bins.accuracy - bins.confidence).max())


def brier(confidence: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Mean squared difference of confidence and correctness, in [0, 1]."""
    values, right, counts = _prepared(confidence, correct, weights)
    return float(np.average((values - right) ** 2, weights=counts))


@dataclass(frozen=True, slots=True)
class BrierDecomposition:
    """Murphy's decomposition over bins, with the two terms that make it exact for any confidences.

    brier = reliability - resolution + uncertainty + within_bin_variance - within_bin_covariance
    (Stephenson, Coelho, Jolliffe 2008). The last two vanish where all confidences of a bin are equal.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float


def brier_decomposition(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_bins: int = 10,
    binning: Binning = "equal-width",
    weights: npt.ArrayLike | None = None,
) -> BrierDecomposition:
    """Split the Brier score into miscalibration, discrimination and the difficulty of the items."""
    values, right, counts = _prepared(confidence, correct, weights)
    bins = _binned(values, right, counts, n_bins, binning)
    base_rate = float(np.average(right, weights=counts))
    surplus, excess = values - bins.confidence[bins.member], right - bins.accuracy[bins.member]
    return BrierDecomposition(
        brier=float(np.average((values - right) ** 2, weights=counts)),
        reliability=float(np.average((bins.confidence - bins.accuracy) ** 2, weights=bins.count)),
        resolution=float(np.average((bins.accuracy - base_rate) ** 2, weights=bins.count)),
        uncertainty=base_rate * (1 - base_rate),
        within_bin_variance=float(np.average(surplus**2, weights=counts)),
        within_bin_covariance=2 * float(np.average(surplus * excess, weights=counts)),
    )


def log_loss(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Mean negative natural log of the probability given to what was the case, clipped at `LOG_LOSS_CLIP`."""
    values, right, counts = _prepared(confidence, correct, weights)
    given = np.clip(np.where(right, values, 1 - values), LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return float(np.average(-np.log(given), weights=counts))


def _prepared(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[Floats, Bools, Ints]:
    values = as_probabilities(confidence)
    return values, as_correct(correct, values.size), as_weights(weights, values.size)


@dataclass(frozen=True, slots=True)
class _Bins:
    """The bins that are not empty, and per row the one it lies in."""

    low: Floats
    high: Floats
    count: Ints
    confidence: Floats
    accuracy: Floats
    member: npt.NDArray[np.intp]

    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        return self.low, self.high, self.count, self.confidence, self.accuracy


def _binned(values: Floats, right: Bools, counts: Ints, n_bins: int, binning: Binning) -> _Bins:
    if n_bins < 1:
        raise StepconfError(f"n_bins must be at least 1; it is {n_bins}.", "10 and 15 are usual.")
    if binning not in get_args(Binning):
        raise StepconfError(
            f"Unknown binning {binning!r}.", f"Choose one of: {', '.join(get_args(Binning))}."
        )
    edges = np.linspace(0, 1, n_bins + 1)
    if binning == "equal-mass":
        edges = np.percentile(np.repeat(values, counts), edges * 100).astype(np.float64)
    member = np.searchsorted(edges[1:-1], values)
    count = np.bincount(member, counts, n_bins)
    filled = np.flatnonzero(count)
    confidence = np.bincount(member, counts * values, n_bins)[filled] / count[filled]
    accuracy = np.bincount(member, counts * right, n_bins)[filled] / count[filled]
    # A row that counts zero times may lie in an empty bin; any number will do for it.
    position = np.maximum(np.searchsorted(filled, member, side="right") - 1, 0)
    return _Bins(
        edges[filled], edges[filled + 1], count[filled].astype(np.int64), confidence, accuracy, position
    )
