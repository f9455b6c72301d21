"""From many answers to one: majority, votes weighted by confidence, the most confident. Pure.

Whether two answers are the same is the caller's to say (`equal`): it may need computer algebra.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, fsum

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
    for position in range(len(answers)):
        place(position, answers, classes, equal)
    return tallied(classes, weights)


def place(position: int, answers: Sequence[str | None], classes: list[list[int]], equal: Equal) -> None:
    """Put an answer into its class, or into a new one: so answers are compared once, as they come."""
    answer = answers[position]
    if answer is None:
        return
    for members in classes:
        first = answers[members[0]]
        if first is not None and (first == answer or equal(first, answer)):
            members.append(position)
            return
    classes.append([position])


def tallied(classes: Sequence[Sequence[int]], weights: Sequence[float]) -> list[Tally]:
    """Classes with the weights of their members, in the order of `vote`."""
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


def softmax_weights(confidences: Sequence[float | None], temperature: float) -> list[float]:
    """CISC's weights (arXiv 2502.06233): the softmax of confidence / temperature over a question's samples.

    They sum to 1; one without a confidence weighs 0. A high temperature makes a majority vote of it, a low one lets
    the most confident decide.
    """
    known = [c for c in confidences if c is not None]
    highest = max(known, default=0.0)
    raw = [0.0 if c is None else exp((c - highest) / temperature) for c in confidences]
    total = fsum(raw) or 1.0
    return [one / total for one in raw]


def most_confident(answers: Sequence[str | None], confidences: Sequence[float | None]) -> int | None:
    """Best-of-n: the answer whose solution has the highest confidence; ties go to the earlier one."""
    usable = [
        (-c, i)
        for i, (a, c) in enumerate(zip(answers, confidences, strict=True))
        if a is not None and c is not None
    ]
    return min(usable)[1] if usable else None
