"""What the k likeliest tokens of a distribution say of its entropy: for servers that give no more. Pure.

Beside the k probabilities only their rest r = 1 - sum p is known, and that none of the other V - k tokens is likelier
than the last of the k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, floor, fsum, log


@dataclass(frozen=True, slots=True)
class TopkScores:
    """Per token: three lists of one length, in nats. None of them is the entropy.

    `entropies`: -sum p ln p over the k likeliest tokens alone, with their probabilities under the whole vocabulary.
    `lows`, `highs`: the least and the greatest entropy that the whole distribution can have.
    """

    entropies: list[float]
    lows: list[float]
    highs: list[float]

    def __getitem__(self, span: slice) -> "TopkScores":
        """The scores of a span of the tokens."""
        return TopkScores(self.entropies[span], self.lows[span], self.highs[span])


def topk_scores(rows: Sequence[Sequence[float]], vocabulary: int) -> TopkScores:
    """The scores of tokens, given the natural log-probabilities of the k >= 1 likeliest of each, in any order."""
    found = [entropy_bounds(row, vocabulary) for row in rows]
    return TopkScores([one[0] for one in found], [one[1] for one in found], [one[2] for one in found])


def entropy_bounds(logprobs: Sequence[float], vocabulary: int) -> tuple[float, float, float]:
    """The top-k entropy of one distribution, and the least and greatest entropy that agrees with it, nats.

    The least puts the rest on as few tokens as may have it: each as likely as the last of the k, and one with what
    remains. The greatest spreads it evenly.
    """
    likeliest = sorted((exp(one) for one in logprobs), reverse=True)[:vocabulary]
    known = fsum(map(_term, likeliest))
    others, rest = vocabulary - len(likeliest), 1.0 - fsum(likeliest)
    if others == 0 or rest <= 0:
        return known, known, known
    each = likeliest[-1]
    whole = min(others, floor(rest / each)) if each > 0 else 0
    low = known + whole * _term(each) + _term(max(0.0, rest - whole * each))
    return known, low, known + others * _term(rest / others)


def _term(p: float) -> float:
    return -p * log(p) if p > 0 else 0.0
