"""How well a score ranks correct items above incorrect ones. Higher scores mean: more likely correct.

Any real number ranks, so a signal that falls with correctness (entropy) is passed negated. Ties are exact:
the value is the expectation over a random order of the tied items, in closed form. `weights` say how many
times each row counts (see `bootstrap.cluster_bootstrap`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.core.calibration.inputs import Bools, Floats, Ints, as_correct, as_finite, as_scores, as_weights
from stepconf.errors import StepconfError

_SHORT = np.iinfo(np.uint16).max


def auroc(
    scores: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float | None:
    """Probability that a correct item outscores an incorrect one, ties counting half (Mann-Whitney).

    Returns:
        In [0, 1]; None where one of the two classes is empty.
    """
    values, right, counts = _prepared(scores, correct, weights)
    wins, pairs = _wins(values, right, counts)
    return wins / pairs if pairs else None


def length_controlled_auroc(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    lengths: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float | None:
    """AUROC over the pairs of a correct and an incorrect item of equal length, every such pair counting once.

    The mean of the AUROCs within each length, weighted by their numbers of pairs. What only length explains
    is gone entirely: the length itself scores exactly 0.5. Items whose length no item of the other class
    shares do not count.

    Args:
        scores: any real numbers.
        correct: booleans.
        lengths: tokens per item.
        weights: how many times each row counts.

    Returns:
        In [0, 1]; None where no pair of equal length exists.
    """
    values, right, counts = _prepared(scores, correct, weights)
    strata = as_finite(lengths, "lengths")
    if strata.size != values.size:
        raise StepconfError(f"Each score needs a length: {values.size} scores, {strata.size} lengths.")
    if (strata >= 0).all() and (strata <= _SHORT).all() and (strata == np.floor(strata)).all():
        strata = strata.astype(np.uint16)  # numpy sorts these by radix, several times faster
    values, right, counts, strata = _sorted_by(values, values, right, counts, strata)
    values, right, counts, strata = _sorted_by(strata, values, right, counts, strata)
    ends = _ends(strata, values)
    wrong = _sums(counts * ~right, ends)
    won = _sums(counts, ends) - wrong
    last = _ends(strata[ends])  # of the groups of a length
    seen = np.cumsum(wrong)
    before = np.repeat(np.concatenate([[0], seen[last[:-1]]]), np.diff(last, prepend=-1))
    wins = float(np.sum(won * (2 * (seen - wrong - before) + wrong))) / 2
    pairs = int(np.sum(_sums(won, last) * _sums(wrong, last)))
    return wins / pairs if pairs else None


def auprc_errors(
    scores: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float | None:
    """Average precision of finding the incorrect items by low score; chance level is the error rate.

    The sum over distinct scores, lowest first, of (gain in recall) x (precision there); not interpolated.

    Returns:
        In (0, 1]; None where nothing is incorrect.
    """
    tied = _tied(*_prepared(scores, correct, weights))
    found = np.cumsum(tied.wrong)
    flagged = np.maximum(np.cumsum(tied.all), 1)  # weights of zero may leave the first groups empty
    return float(np.sum(tied.wrong * (found / flagged)) / found[-1]) if found[-1] else None


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Only the `k` highest-scored of `n` items are answered: coverage `k/n`, risk their error rate, k = 1..n.

    `area` is the mean risk (AURC), in [0, 1]; lower is better.
    """

    coverage: Floats
    risk: Floats
    area: float


def risk_coverage(
    scores: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> RiskCoverage:
    """The risk-coverage curve. Where scores tie, each risk is its expectation over a random order of them."""
    tied = _tied(*_prepared(scores, correct, weights))
    rate = tied.wrong / np.maximum(tied.all, 1)
    expected_errors = np.cumsum(np.repeat(rate[::-1], tied.all[::-1]))
    kept = np.arange(1, expected_errors.size + 1)
    risk = expected_errors / kept
    return RiskCoverage(coverage=kept / kept.size, risk=risk, area=float(risk.mean()))


def aurc(scores: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve, in [0, 1]; lower is better."""
    return risk_coverage(scores, correct, weights).area


def _prepared(
    scores: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[Floats, Bools, Ints]:
    values = as_scores(scores)
    return values, as_correct(correct, values.size), as_weights(weights, values.size)


@dataclass(frozen=True, slots=True)
class _Tied:
    """Rows counted per distinct score, lowest first."""

    all: Ints
    wrong: Ints


def _tied(values: Floats, right: Bools, counts: Ints) -> _Tied:
    values, right, counts = _sorted_by(values, values, right, counts)
    ends = _ends(values)
    return _Tied(all=_sums(counts, ends), wrong=_sums(counts * ~right, ends))


def _sorted_by(key: npt.NDArray[Any], *rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """The rows in the order of the key, stable; untouched if they are (a bootstrap sorts once)."""
    if (key[1:] >= key[:-1]).all():
        return rows
    order = np.argsort(key, kind="stable")
    return tuple(row[order] for row in rows)


def _ends(*sorted_keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Last positions of the runs of equal keys."""
    last = np.ones(sorted_keys[0].size, dtype=bool)
    last[:-1] = np.logical_or.reduce([key[1:] != key[:-1] for key in sorted_keys])
    return np.flatnonzero(last)


def _sums(values: Ints, ends: npt.NDArray[np.intp]) -> Ints:
    """Sum of each run."""
    return np.diff(np.cumsum(values)[ends], prepend=0)


def _wins(values: Floats, right: Bools, counts: Ints) -> tuple[float, int]:
    """Pairs (correct, incorrect) that the correct one wins, ties half, and all pairs.

    Counted in integers: exact up to 4e18 pairs.
    """
    tied = _tied(values, right, counts)
    won = tied.all - tied.wrong
    below = np.cumsum(tied.wrong) - tied.wrong
    return float(np.sum(won * (2 * below + tied.wrong))) / 2, int(won.sum()) * int(tied.wrong.sum())
