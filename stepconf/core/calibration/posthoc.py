"""Turn a signal into a probability: isotonic regression and Platt scaling, fitted on problems kept apart.

Scores are any finite numbers, higher meaning more likely correct (negate an entropy).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepconf.core.calibration.inputs import Bools, Floats, as_correct, as_finite
from stepconf.errors import StepconfError


def problem_split(problem_ids: Sequence[str], fit_share: float = 0.5, seed: int = 0) -> Bools:
    """Per row, whether it belongs to the fitting part; all rows of a problem fall on one side.

    Args:
        problem_ids: the problem of each row.
        fit_share: share of the problems to fit on, in (0, 1); both sides get at least one.
        seed: of the draw; the order of the rows does not matter.

    Raises:
        StepconfError: there are fewer than two problems, or the share is out of range.
    """
    ids, inverse = np.unique(np.asarray(problem_ids), return_inverse=True)
    if ids.size < 2 or not 0 < fit_share < 1:
        raise StepconfError(
            f"Cannot split {ids.size} problems with a share of {fit_share} to fit on.",
            "Post-hoc calibration needs two problems or more and a share between 0 and 1.",
        )
    n_fit = min(max(round(fit_share * ids.size), 1), ids.size - 1)
    chosen = np.zeros(ids.size, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(ids.size)[:n_fit]] = True
    return chosen[inverse]


@dataclass(frozen=True, slots=True)
class IsotonicFit:
    """A non-decreasing map from score to probability: linear between `scores`, constant outside them."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def predict(self, scores: npt.ArrayLike) -> Floats:
        """Probabilities in [0, 1], one per score."""
        return np.interp(as_finite(scores, "scores"), self.scores, self.probabilities)


def fit_isotonic(scores: npt.ArrayLike, correct: npt.ArrayLike) -> IsotonicFit:
    """Least squares under monotonicity, by pooling adjacent violators; tied scores are one point."""
    values = as_finite(scores, "scores")
    right = as_correct(correct, values.size)
    points, inverse = np.unique(values, return_inverse=True)
    counts, hits = np.bincount(inverse), np.bincount(inverse, right)
    blocks: list[tuple[float, float, int]] = []  # correct, items, points of each level block
    for hit, count in zip(hits.tolist(), counts.tolist(), strict=True):
        n_points = 1
        while blocks and blocks[-1][0] * count >= hit * blocks[-1][1]:
            before = blocks.pop()
            hit, count, n_points = hit + before[0], count + before[1], n_points + before[2]
        blocks.append((hit, count, n_points))
    levels = np.repeat([hit / count for hit, count, _ in blocks], [n_points for *_, n_points in blocks])
    ends = np.ones(points.size, dtype=bool)  # inside a level block the interpolation needs no points
    ends[1:-1] = (levels[1:-1] != levels[:-2]) | (levels[1:-1] != levels[2:])
    return IsotonicFit(tuple(points[ends].tolist()), tuple(levels[ends].tolist()))


@dataclass(frozen=True, slots=True)
class PlattFit:
    """probability = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float

    def predict(self, scores: npt.ArrayLike) -> Floats:
        """Probabilities in [0, 1], one per score."""
        return _sigmoid(self.slope * as_finite(scores, "scores") + self.intercept)


def fit_platt(scores: npt.ArrayLike, correct: npt.ArrayLike) -> PlattFit:
    """Logistic regression of correctness on the score, without penalty, on Platt's smoothed targets.

    The targets are (n_correct + 1) / (n_correct + 2) and 1 / (n_incorrect + 2) in place of 1 and 0: a finite
    fit exists even where one class is absent or the two are perfectly separated. Where all scores are equal
    the slope is 0.
    """
    values = as_finite(scores, "scores")
    right = as_correct(correct, values.size)
    n_right = int(right.sum())
    target = np.where(right, (n_right + 1) / (n_right + 2), 1 / (values.size - n_right + 2))
    centre, spread = float(values.mean()), float(values.std())
    if values.min() == values.max() or spread == 0:
        return PlattFit(0.0, float(np.log(target.mean() / (1 - target.mean()))))
    slope, intercept = _maximum_likelihood((values - centre) / spread, target)
    return PlattFit(slope / spread, intercept - slope * centre / spread)


_NEWTON_STEPS = 100  # about 8 are taken


def _maximum_likelihood(values: Floats, target: Floats) -> tuple[float, float]:
    """Newton's method with halving on the convex cross-entropy; `values` standardised, `target` in (0, 1)."""
    design = np.stack([values, np.ones_like(values)], axis=1)
    beta = np.zeros(2)
    loss = _cross_entropy(design @ beta, target)
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (p - target)
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design, gradient)
        # Near the optimum the loss no longer resolves a step: allow for its rounding, or none would be taken.
        limit = loss * (1 + 1e-12)
        while _cross_entropy(design @ (beta - step), target) > limit and np.abs(step).max() > 1e-15:
            step = step / 2
        beta = beta - step
        loss = _cross_entropy(design @ beta, target)
        if np.abs(step).max() <= 1e-13 * max(1.0, float(np.abs(beta).max())):
            break
    return float(beta[0]), float(beta[1])


def _cross_entropy(logits: Floats, target: Floats) -> float:
    return float(np.sum(np.logaddexp(0, logits) - target * logits))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
