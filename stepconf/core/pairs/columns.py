"""`steps.caspo` and `steps.step_dpo` over arrays, for runs of millions of steps: siblings only, no candidates.

`steps.py` says what the strategies are, and why; this is the same for all steps of some problems at once. n is the
number of steps. What may follow the same tokens shares a `group`.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stepconf.core.pairs.steps import NO_CORRECTION, NO_RIVAL

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
CORRECT, INCORRECT, UNKNOWN = range(3)
MADE = ""  # in the place of a reason
_REASONS = (
    MADE,
    "after the first error",
    "unknown label",
    "no tokens",
    "correct and confident",
    NO_RIVAL,
    NO_CORRECTION,
    "not a first error",
)


class Steps(NamedTuple):
    """The steps of whole problems, by solution and in order; each array is (n,).

    `group`: equal where problem and tokens before are. `text`: equal in a group where two steps read alike.
    `tie`: the rank of the solution's id. `mean_logprob`: -inf where there is none. `confidence`: NaN where there is
    none. `reaches`: the solution's answer is right. `referenced`: a critic put the step right.
    """

    group: Ints
    text: Ints
    has_tokens: Bools
    label: Ints
    confidence: npt.NDArray[np.float64]
    mean_logprob: npt.NDArray[np.float64]
    tie: Ints
    after_error: Bools
    is_first_error: Bools
    reaches: Bools
    referenced: Bools


class Outcomes(NamedTuple):
    """Per step (n,): the row of its other side, -1 where there is none; and the number of a reason.

    Where a critic's reference is the other side, or would be, `by_critic` is true: `other` is -1 then.
    """

    other: Ints
    by_critic: Bools
    reason: Ints

    def drops(self) -> dict[str, int]:
        """How many steps have no pair, by reason."""
        counts = np.bincount(self.reason, minlength=len(_REASONS)).tolist()
        return {reason: n for reason, n in zip(_REASONS, counts, strict=True) if n and reason != MADE}


def caspo_columns(steps: Steps, tau: float, after_error: Literal["stop", "continue"]) -> Outcomes:
    """`steps.caspo` without sampled candidates."""
    correct = steps.label == CORRECT
    incorrect = steps.label == INCORRECT
    put_right = _likeliest(steps, incorrect, steps.has_tokens & correct)
    rival = _likeliest(steps, correct & (steps.confidence <= tau), steps.has_tokens & ~correct)
    other = np.where(incorrect, np.where(steps.referenced, -1, put_right), rival)
    reason = np.select(
        [
            steps.after_error & (after_error == "stop"),
            steps.label == UNKNOWN,
            np.isnan(steps.confidence),
            incorrect & (steps.referenced | (other >= 0)),
            incorrect,
            steps.confidence > tau,
            other < 0,
        ],
        [_number("after the first error"), _number("unknown label"), _number("no tokens"), _number(MADE),
         _number(NO_CORRECTION), _number("correct and confident"), _number(NO_RIVAL)],
        _number(MADE),
    )  # fmt: skip
    return _outcomes(other, incorrect & steps.referenced, reason)


def step_dpo_columns(steps: Steps) -> Outcomes:
    """`steps.step_dpo` without sampled candidates."""
    correct = steps.has_tokens & (steps.label == CORRECT)
    reaching = _likeliest(steps, steps.is_first_error, correct & steps.reaches)
    other = np.where(reaching >= 0, reaching, _likeliest(steps, steps.is_first_error, correct))
    by_critic = (other < 0) & steps.referenced
    reason = np.select(
        [~steps.is_first_error, np.isnan(steps.confidence), (other >= 0) | by_critic],
        [_number("not a first error"), _number("no tokens"), _number(MADE)],
        _number(NO_CORRECTION),
    )
    return _outcomes(other, by_critic, reason)


def _outcomes(other: Ints, by_critic: Bools, reason: npt.NDArray[np.intp]) -> Outcomes:
    made = reason == _number(MADE)
    return Outcomes(np.where(made, other, -1), by_critic & made, reason.astype(np.int64))


def _number(reason: str) -> int:
    return _REASONS.index(reason)


def _likeliest(steps: Steps, wanted: Bools, fits: Bools) -> Ints:
    """Per step, the row of the side of highest mean log-probability that fits and does not read as it does.

    That is the best of its group, or, where that reads alike, the best of those that do not read as the best.
    """
    sides = np.flatnonzero(fits)
    best = _best(steps, sides)
    unlike = sides[steps.text[sides] != steps.text[best[steps.group[sides]]]]
    second = _best(steps, unlike)
    found = np.full(len(steps.group), -1)
    rows = np.flatnonzero(wanted)
    first = best[steps.group[rows]]
    alike = (first >= 0) & (steps.text[rows] == steps.text[first])
    found[rows] = np.where(alike, second[steps.group[rows]], first)
    return found


def _best(steps: Steps, sides: Ints) -> Ints:
    """Of each group, the row of the likeliest of the sides; of equal ones, that of the highest tie."""
    n_groups = int(steps.group.max(initial=-1)) + 1
    group, value = steps.group[sides], steps.mean_logprob[sides]
    highest = np.full(n_groups, -np.inf)
    np.maximum.at(highest, group, value)
    sides = sides[value == highest[group]]
    group, tie = steps.group[sides], steps.tie[sides]
    last = np.full(n_groups, -1)
    np.maximum.at(last, group, tie)
    best = np.full(n_groups, -1)
    settled = tie == last[group]
    best[group[settled]] = sides[settled]
    return best
