"""Rankings that the hardness of problems cannot inflate: only pairs within one problem, chain or stratum count.

Higher scores mean: more likely correct. The direction is the caller's and stays, so a value below 0.5 says that the
signal ranks the wrong way round. Rows are n, groups (problems) g; `groups` are numbers of groups, from 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepconf.core.bootstrap import Interval
from stepconf.core.calibration.inputs import Bools, Floats, Ints, as_correct, as_scores
from stepconf.errors import StepconfError

_CELLS = 1 << 22  # permuted labels held at a time


@dataclass(frozen=True, slots=True)
class Tally:
    """Of each group (g,): how often the better one won and how often it was asked. The figure is won / asked."""

    won: Floats
    asked: Floats

    @property
    def value(self) -> float | None:
        """Over all groups, in [0, 1]; None where nothing was asked."""
        return float(self.won.sum() / self.asked.sum()) if self.asked.any() else None

    @property
    def n_groups(self) -> int:
        """Groups that say something."""
        return int(np.count_nonzero(self.asked))

    def interval(self, n_resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
        """With the percentile interval of resampled groups: the resamples of `bootstrap.resample` with that seed."""
        g = self.asked.size
        generator = np.random.default_rng(seed)
        values = []
        for _ in range(n_resamples if g > 1 else 0):
            drawn = np.bincount(generator.integers(0, g, g), minlength=g)
            asked = float(drawn @ self.asked)
            values.append(float(drawn @ self.won) / asked if asked else np.nan)
        there = np.array(values)[~np.isnan(values)] if values else np.empty(0)
        tail = (1 - level) / 2
        low, high = np.quantile(there, [tail, 1 - tail]).tolist() if there.size else (None, None)
        return Interval(self.value, low, high, level, g, len(values), len(values) - there.size)


def within_groups(groups: Ints, scores: npt.ArrayLike, correct: npt.ArrayLike) -> Tally:
    """AUROC over the pairs of a correct and an incorrect row of one group, ties counting half; each pair once.

    A score that only depends on the group has exactly 0.5.
    """
    values = as_scores(scores)
    right = as_correct(correct, values.size)
    n_groups = _n_groups(groups, values.size)
    n_right = np.bincount(groups, right, n_groups)
    asked: Floats = n_right * (np.bincount(groups, minlength=n_groups) - n_right)
    ranks = np.bincount(groups, right * _midranks(groups, values), n_groups)
    return Tally(ranks - n_right * (n_right + 1) / 2, asked)


def permuted_auroc(
    groups: Ints, scores: Floats, correct: npt.ArrayLike, n_permutations: int = 1000, seed: int = 0
) -> Floats:
    """The AUROC of `within_groups` when labels are shuffled within their groups: what no relation at all would give.

    Args:
        groups: per row.
        scores: of s signals, (n, s).
        correct: booleans.
        n_permutations: at least 1.
        seed: of the shuffles, which are the same for all signals.

    Returns:
        (n_permutations, s); NaN where no group has both a correct and an incorrect row.
    """
    right = as_correct(correct, len(scores))
    n_groups = _n_groups(groups, len(scores))
    n_right = np.bincount(groups, right, n_groups)
    asked = float((n_right * (np.bincount(groups, minlength=n_groups) - n_right)).sum())
    mixed = (n_right > 0) & (n_right < np.bincount(groups, minlength=n_groups))
    rows = np.flatnonzero(mixed[groups])
    rows = rows[np.argsort(groups[rows], kind="stable")]
    own, labels = groups[rows], right[rows]
    if not asked:
        return np.full((n_permutations, scores.shape[1]), np.nan)
    ranks = np.stack([_midranks(own, as_scores(column)[rows]) for column in scores.T], axis=1)
    least = float((n_right * (n_right + 1) / 2)[mixed].sum())
    generator = np.random.default_rng(seed)
    found = []
    chunk = max(1, _CELLS // rows.size)
    for start in range(0, n_permutations, chunk):
        keys = generator.random((min(chunk, n_permutations - start), rows.size)) + own
        # Rows of a group are next to each other and their keys between its number and the next one.
        found.append(labels[np.argsort(keys, axis=1)] @ ranks)
    won: Floats = np.concatenate(found) - least
    return won / asked


def first_error_rank(
    groups: Ints, chains: npt.NDArray[np.int64], is_first_error: Bools, scores: npt.ArrayLike
) -> Tally:
    """Of each chain's first error, the share of its other steps that score higher, ties counting half.

    1 where the first error always has the lowest score of its chain, 0.5 where the score knows nothing. Chains
    without a first error, or without another step, do not count.

    Args:
        groups: the problem of each row.
        chains: the number of each row's chain, from 0.
        is_first_error: true once in a chain at most.
        scores: higher means more likely correct.
    """
    values = as_scores(scores)
    n_groups, n_chains = _n_groups(groups, values.size), int(chains.max()) + 1
    at = np.full(n_chains, np.nan)
    at[chains[is_first_error]] = values[is_first_error]
    home = np.zeros(n_chains, np.int64)
    home[chains] = groups
    higher = np.bincount(chains, (values > at[chains]) + 0.5 * (values == at[chains]), n_chains) - 0.5
    others = np.bincount(chains, minlength=n_chains) - 1
    counts = ~np.isnan(at) & (others > 0)
    shares = np.bincount(home[counts], higher[counts] / others[counts], n_groups)
    n_counted = np.bincount(home[counts], minlength=n_groups)
    return Tally(shares.astype(np.float64), n_counted.astype(np.float64))


def _midranks(groups: Ints, values: Floats) -> Floats:
    """The rank of each row within its group, from 1; the mean of them where values tie."""
    order = np.lexsort((values, groups))
    own, ordered = groups[order], values[order]
    places = np.arange(1, values.size + 1, dtype=float)
    starts = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
    places -= np.repeat(places[starts] - 1, np.diff(np.append(starts, values.size)))
    ties = np.flatnonzero(np.append(True, (own[1:] != own[:-1]) | (ordered[1:] != ordered[:-1])))
    sizes = np.diff(np.append(ties, values.size))
    ranks = np.empty(values.size)
    ranks[order] = np.repeat(places[ties] + (sizes - 1) / 2, sizes)
    return ranks


def _n_groups(groups: Ints, rows: int) -> int:
    if groups.shape != (rows,):
        raise StepconfError(f"Each score needs a group: {rows} scores, {groups.size} groups.")
    return int(groups.max()) + 1
