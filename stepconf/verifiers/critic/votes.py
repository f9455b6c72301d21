"""From several opinions on one solution to one ruling per step. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from stepconf.core.records import Label
from stepconf.verifiers.critic.replies import Opinion

AFTER_ERROR = "after the first error"
TIED = "the votes are tied"


class Ruling(NamedTuple):
    """What the opinions come to for one step.

    `score`: share of the opinions on the step that call it right, in [0, 1]; None where there is one opinion, or
    where the label is unknown.
    """

    label: Label
    score: float | None
    reason: str


def rulings(opinions: Sequence[Opinion], n_steps: int) -> list[Ruling]:
    """One ruling per step: the first wrong step is the one that most opinions name (maj@k of ProcessBench).

    Steps before it are correct, those after it unknown: an opinion says nothing of them. Where the most named are
    tied, only the steps before the first of them are decided.

    Args:
        opinions: at least one, of a solution with `n_steps` steps.
        n_steps: at least 1.
    """
    named = [n_steps if one.first_error is None else one.first_error for one in opinions]
    counts = Counter(named)
    most = max(counts.values())
    tied = sorted(place for place, n in counts.items() if n == most)
    first = tied[0]
    speaker = next(one for one, place in zip(opinions, named, strict=True) if place == first)

    def ruling(step: int) -> Ruling:
        heard = [place for place in named if place >= step]
        score = sum(place > step for place in heard) / len(heard) if len(named) > 1 and heard else None
        if step < first:
            return Ruling("correct", score, speaker.reasons[step])
        if len(tied) > 1:
            return Ruling("unknown", None, TIED)
        if step == first:
            return Ruling("incorrect", score, speaker.reasons[step])
        return Ruling("unknown", None, AFTER_ERROR)

    return [ruling(step) for step in range(n_steps)]
