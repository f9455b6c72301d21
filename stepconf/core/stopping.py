"""When enough answers are drawn: how sure it is that the leading one is right, or stays ahead. Pure."""

from collections.abc import Sequence
from math import comb, exp, fsum, log

# A confidence of exactly 0 or 1 would outweigh any number of other samples.
_SUREST = 1e-6


def stays_ahead(first: int, second: int) -> float:
    """The probability that the leading answer is more frequent than the second one, in [1/2, 1).

    Adaptive-Consistency (arXiv 2305.11860): of the two most frequent answers alone, under a uniform prior, it is the
    mass above 1/2 of Beta(first + 1, second + 1). For whole votes that is a sum of binomials, without rounding.

    Args:
        first: votes of the leader. second: of the next one; 0 <= second <= first.
    """
    if not 0 <= second <= first:
        raise ValueError(f"{first} votes do not lead {second}")
    n = first + second + 1
    return sum(comb(n, j) for j in range(first + 1)) / (1 << n)


def stays_ahead_of(first: int, second: int, remaining: int, wins_ties: bool = False) -> float:
    """The probability that the second answer does not overtake the leader in so many further votes, in [0, 1].

    The prediction of the same posterior (`stays_ahead`): how many of the remaining votes the leader gets is
    beta-binomial. Where the vote ends at a known number this decides earlier.

    Args:
        first: votes of the leader. second: of the next one. remaining: votes still to come, >= 0.
        wins_ties: whether equal votes are the leader's; else they count as overtaken.
    """
    if not 0 <= second <= first or remaining < 0:
        raise ValueError(f"{first} votes do not lead {second} with {remaining} to come")
    missing = second + remaining - first + (not wins_ties)
    needed = max(0, -(-missing // 2))
    ways = (
        comb(x + first, x) * comb(remaining - x + second, remaining - x) for x in range(needed, remaining + 1)
    )
    return sum(ways) / comb(first + second + remaining + 1, remaining)


def votes_to_decide(first: int, second: int, threshold: float) -> int:
    """The fewest further votes, all for the leader, that take `stays_ahead` to a threshold in (0, 1).

    Without any vote there is no leader: then it is at least one.
    """
    more = 0 if first else 1
    while stays_ahead(first + more, second) < threshold:
        more += 1
    return more


def votes_to_foresee(first: int, second: int, remaining: int, wins_ties: bool, threshold: float) -> int:
    """The fewest of the remaining votes, all for the leader, that take `stays_ahead_of` to a threshold in (0, 1).

    Without any vote there is no leader: then it is at least one, where one remains.
    """
    for more in range(0 if first else 1, remaining):
        if stays_ahead_of(first + more, second, remaining - more, wins_ties) >= threshold:
            return more
    return remaining


def in_a_row(answers: Sequence[str | None], classes: Sequence[Sequence[int]]) -> int:
    """How many answers at the end are the same (ESC); a sample without an answer ends the row.

    Args:
        answers: in the order in which they were drawn.
        classes: positions of equal answers, as `votes.place` makes them.
    """
    where = {position: number for number, members in enumerate(classes) for position in members}
    count, last = 0, len(answers) - 1
    while count <= last and last in where and where.get(last - count) == where[last]:
        count += 1
    return count


def answer_posterior(
    classes: Sequence[Sequence[int]], confidences: Sequence[float | None]
) -> tuple[float, ...]:
    """The probability that each answer is the right one, out of the confidences of the samples that give it.

    After CGES (arXiv 2511.02603): a sample of confidence c gives the right answer with probability c, and each of the
    other candidates with an equal share of 1 - c. Candidates are the answers so far, equally likely before, and one
    that stands for all that nobody has given: so the posterior of a single sample is its confidence. The paper's own
    treatment of answers that are not seen was not at hand.

    Args:
        classes: positions of equal answers.
        confidences: by position, in [0, 1]; one without a value says nothing.
    Returns:
        One value in [0, 1] for each class; they sum to at most 1.
    """
    n_others = len(classes)
    total = [0.0] * (n_others + 1)
    for number, members in enumerate(classes):
        for position in members:
            stated = confidences[position]
            if stated is None:
                continue
            c = min(max(stated, _SUREST), 1 - _SUREST)
            against = log((1 - c) / n_others)
            total = [sum_ + (log(c) if i == number else against) for i, sum_ in enumerate(total)]
    highest = max(total)
    likely = [exp(one - highest) for one in total]
    return tuple(one / fsum(likely) for one in likely[:-1])


def least_of_kept(lowest: Sequence[float], keep: float) -> float:
    """The value that a share `keep` of them reaches (DeepConf, arXiv 2508.15260): the least of those kept.

    Args:
        lowest: of each warm-up sample, its lowest confidence; at least one.
        keep: in (0, 1]; at least one is kept.
    """
    if not lowest or not 0 < keep <= 1:
        raise ValueError(f"no share {keep} of {len(lowest)} samples")
    n_kept = max(1, round(keep * len(lowest)))
    return sorted(lowest, reverse=True)[n_kept - 1]
