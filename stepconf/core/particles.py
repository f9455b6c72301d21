"""The weights and the resampling of a particle filter over steps (after arXiv 2606.08850). Pure."""

from collections.abc import Sequence
from math import exp, fsum, sqrt


def step_weights(log_confidences: Sequence[float]) -> tuple[float, ...]:
    """How much each particle counts after its step: exp(z), normalised to sum to 1.

    z is the log of the step's confidence, less the mean over the particles, by their standard deviation. With the
    confidence exp(-H) that is exp(-z(H)) as in the paper. Equal confidences weigh the same.

    Args:
        log_confidences: of each particle's newest step, finite.
    """
    n = len(log_confidences)
    if not n:
        return ()
    mean = fsum(log_confidences) / n
    spread = sqrt(fsum((one - mean) ** 2 for one in log_confidences) / n)
    # Values that differ by rounding alone are equal.
    scale = spread if spread > 1e-12 * max(1.0, abs(mean)) else float("inf")
    raw = [exp((one - mean) / scale) for one in log_confidences]
    total = fsum(raw)
    return tuple(one / total for one in raw)


def systematic(weights: Sequence[float], n: int, offset: float) -> list[int]:
    """How often each particle is kept: `n` in all, each at least floor(n w) and at most ceil(n w) times.

    Systematic resampling: the points (i + offset) / n, i = 0 .. n - 1, fall among the cumulative weights.

    Args:
        weights: non-negative, with a positive sum.
        n: how many to keep, >= 0.
        offset: in [0, 1), the only randomness.
    """
    total, reached, point = fsum(weights), 0.0, 0
    counts = []
    for number, weight in enumerate(weights):
        reached += weight / total * n
        last = number == len(weights) - 1
        upto = n if last else point
        while upto < n and upto + offset < reached:
            upto += 1
        counts.append(upto - point)
        point = upto
    return counts
