"""From many answers to one: majority, confidence-weighted vote, the most confident. Pure.

Whether two answers are the same is the caller's to say (`equal`): it may need computer algebra.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, fsum

Equal = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers that are the same. `members`: their positions, ascending; `weight`: the sum of their weights."""

    members: tuple[int, ...]
    weight: float


def vote(answers: Sequence[str | None], weights: Sequence[float], equal: Equal) -> list[Tally]:
    """The classes of equal answers, the winner first; `[]` where there is no answer.

    Ties in weight go to the larger class, then to the one that came first. An answer is compared with the
    first of each class, in order: `equal` need not be transitive. None abstains.
    """
    classes: list[list[int]] = []
    for position, answer in enumerate(answers):
        if answer is None:
            continue
        for members in classes:
            first = answers[members[0]]
            if first is not None and (first == answer or equal(first, answer)):
                members.append(position)
                break
        else:
            classes.append([position])
    tallies = [Tally(tuple(members), fsum(weights[i] for i in members)) for members in classes]
    return sorted(tallies, key=lambda tally: (-tally.weight, -len(tally.members), tally.members[0]))


def majority(answers: Sequence[str | None], equal: Equal) -> list[Tally]:
    """Self-consistency: every answer has one vote."""
    return vote(answers, [1.0] * len(answers), equal)


def confident_vote(
    answers: Sequence[str | None], confidences: Sequence[float | None], keep: float, equal: Equal
) -> list[Tally]:
    """DeepConf's offline vote (arXiv 2508.15260): the most confident share of the answers, each weighted by its
    confidence.

    Args:
        answers: None abstains, and does not count towards the share.
        confidences: of each whole solution, in (0, 1]; None abstains too. The original takes the mean
            log-probability of a few candidate tokens; here it is whatever `score` writes.
        keep: in (0, 1]; at least one answer is kept. Ties go to the earlier one.
        equal: whether two answers are the same.
    """
    confident = {
        i: c for i, (a, c) in enumerate(zip(answers, confidences, strict=True)) if a and c is not None
    }
    kept = sorted(confident, key=lambda i: (-confident[i], i))[: max(1, ceil(keep * len(confident)))]
    filtered = [answer if i in kept else None for i, answer in enumerate(answers)]
    return vote(filtered, [confident.get(i, 0.0) for i in range(len(answers))], equal)


def most_confident(answers: Sequence[str | None], entropies: Sequence[float | None]) -> int | None:
    """Best-of-n: the answer whose solution has the lowest mean entropy; ties go to the earlier one."""
    usable = [(h, i) for i, (a, h) in enumerate(zip(answers, entropies, strict=True)) if a and h is not None]
    return min(usable)[1] if usable else None
