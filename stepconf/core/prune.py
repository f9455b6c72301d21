"""CaT's bookkeeping (algorithm 2 of arXiv 2605.07353), without a model: which branches of a tree go on.

Everything is kept as logarithms: the product of many confidences would round to zero.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import fsum, inf, log
from typing import Generic, TypeVar

D = TypeVar("D")

# Sums of logarithms round: a branch whose C equals tau on paper must not fall below it by the last bit.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Rules:
    """What a branch must meet.

    `k` >= 1 branches survive a level; `tau` in [0, 1] is the least cumulative confidence C of one that goes
    on; no branch has more than `max_steps` >= 1 steps. C is the product of the steps' confidences, as in the
    paper, or with `length_normalised` their geometric mean.
    """

    k: int
    tau: float
    max_steps: int
    length_normalised: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.max_steps < 1 or not 0 <= self.tau <= 1:
            raise ValueError(f"no tree can be grown with {self}")


@dataclass(frozen=True, slots=True)
class Branch(Generic[D]):
    """A path from the root. `data` is the caller's.

    `log_confidences`: log of each step's confidence, <= 0. `key`: branches with equal keys say the same.
    `is_final`: whether it has come to its answer.
    """

    data: D
    key: Hashable
    log_confidences: tuple[float, ...] = ()
    is_final: bool = False

    def log_cumulative(self, length_normalised: bool = False) -> float:
        """log C, <= 0; 0 without a step."""
        total = fsum(self.log_confidences)
        return total / max(len(self.log_confidences), 1) if length_normalised else total


@dataclass(frozen=True, slots=True)
class Level(Generic[D]):
    """What has become of the candidates of one level.

    `active`: they go on, the best first. `completed`: they have their answer, in the order of the candidates.
    The other candidates: `merged`, counted, said the same as another, `below_tau` had too little confidence,
    `outranked` were not among the top k, `too_long` had all the steps allowed and no answer.
    """

    active: list[Branch[D]]
    completed: list[Branch[D]]
    merged: int
    below_tau: list[Branch[D]]
    outranked: list[Branch[D]]
    too_long: list[Branch[D]]


def prune_level(candidates: Sequence[Branch[D]], rules: Rules) -> Level[D]:
    """Algorithm 2's round: complete, prune by tau, keep the top k.

    A candidate with an answer is completed whatever its C, and takes no place among the k. Of candidates that
    say the same the most confident stays. Ties go to the earlier candidate.
    """
    distinct = _merged(candidates, rules)
    completed = [branch for branch in distinct if branch.is_final]
    going_on = [branch for branch in distinct if not branch.is_final]
    least = log(rules.tau) - _ROUNDING if rules.tau > 0 else -inf
    trusted, below_tau = _split(going_on, lambda one: one.log_cumulative(rules.length_normalised) >= least)
    short, too_long = _split(trusted, lambda one: len(one.log_confidences) < rules.max_steps)
    best_first = ranked(short, rules.length_normalised)
    merged = len(candidates) - len(distinct)
    return Level(best_first[: rules.k], completed, merged, below_tau, best_first[rules.k :], too_long)


def ranked(branches: Sequence[Branch[D]], length_normalised: bool = False) -> list[Branch[D]]:
    """By C, the highest first; ties in the order given."""
    return sorted(branches, key=lambda branch: -branch.log_cumulative(length_normalised))


def can_win(active: Sequence[Branch[D]], completed: Sequence[Branch[D]], rules: Rules) -> list[Branch[D]]:
    """Those of `active` from which a better answer than the best completed one may still come.

    A product of confidences never grows, so what is no better now will never be. That is not so for a mean:
    with `length_normalised` all may win.
    """
    if rules.length_normalised or not completed:
        return list(active)
    best = max(branch.log_cumulative() for branch in completed)
    return [branch for branch in active if branch.log_cumulative() > best]


def tau_at(lowest: Sequence[float], quantile: float) -> float:
    """The tau that costs at most a share `quantile` of right solutions, from those of a calibration run.

    The floor(quantile (n + 1))-th smallest of `lowest`, or 0 where that is none: a right solution of a new problem
    is below it with a probability of at most `quantile`, whatever their distribution (split conformal prediction,
    arXiv 2107.07511). That holds for values that are exchangeable with the new one: one of each problem.

    Args:
        lowest: of a right solution of each problem, the lowest C that it has on its way, in [0, 1]; at least one.
        quantile: in (0, 1).
    """
    if not lowest or not 0 < quantile < 1:
        raise ValueError(f"no quantile {quantile} of {len(lowest)} solutions")
    # The small surplus: 0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996.
    rank = int(quantile * (len(lowest) + 1) + 1e-9)
    return min(1.0, sorted(lowest)[rank - 1]) if rank else 0.0


def _split(
    branches: Sequence[Branch[D]], kept: Callable[[Branch[D]], bool]
) -> tuple[list[Branch[D]], list[Branch[D]]]:
    return [one for one in branches if kept(one)], [one for one in branches if not kept(one)]


def _merged(candidates: Sequence[Branch[D]], rules: Rules) -> list[Branch[D]]:
    best: dict[Hashable, Branch[D]] = {}
    for branch in candidates:
        same = best.setdefault((branch.key, branch.is_final), branch)
        if branch.log_cumulative(rules.length_normalised) > same.log_cumulative(rules.length_normalised):
            best[branch.key, branch.is_final] = branch
    return list(best.values())
