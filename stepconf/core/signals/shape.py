"""Formulas of how the entropy runs along a span. H_t is the entropy before token t of n, in nats; n >= 1."""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil, fsum, sqrt
from statistics import fmean, median

from stepconf.core.records import TokenScores

BURST, REBOUND = 1.36, 1.33  # nats; arXiv 2602.01288
BURST_TOKENS = 4  # ours: over how many tokens a burst rises
WINDOW = 16  # ours: steps have tens of tokens; DeepConf takes 2048, of long traces
TAIL_LEAST, TAIL_MOST = 64, 2048  # arXiv 2606.08850


def spikes(scores: TokenScores) -> float:
    """EDIS: S (1 + Var H), where S is half the number of bursts and rebounds.

    A burst is a t with H[t + BURST_TOKENS] - H[t] > BURST, a rebound a t with H[t] - min H[:t] > REBOUND. It grows
    with the number of tokens: compare it at equal length.
    """
    entropies = scores.entropies
    bursts = sum(later - now > BURST for now, later in zip(entropies, entropies[BURST_TOKENS:], strict=False))
    lowest = accumulate(entropies, min)
    rebounds = sum(now - least > REBOUND for now, least in zip(entropies[1:], lowest, strict=False))
    mean = fmean(entropies)
    variance = fmean((one - mean) ** 2 for one in entropies)
    return (bursts + rebounds) / 2 * (1 + variance)


def tail_median(scores: TokenScores) -> float:
    """Adaptive tail entropy: the median of the last w entropies, w = clamp(sqrt(n) / mean H, 64, 2048).

    The paper takes the mean length of all solutions in place of n, which a span by itself does not know.
    """
    mean = fmean(scores.entropies)
    wanted = sqrt(len(scores)) / mean if mean > 0 else TAIL_MOST
    return median(scores.entropies[-int(min(max(wanted, TAIL_LEAST), TAIL_MOST)) :])


def worst_window(scores: TokenScores) -> float:
    """The highest mean entropy over `WINDOW` consecutive tokens, over all where there are fewer.

    It is DeepConf's lowest group confidence; theirs is minus the mean log-probability of the likeliest tokens.
    """
    if len(scores) <= WINDOW:
        return fmean(scores.entropies)
    sums = [0.0, *accumulate(scores.entropies)]
    return max(0.0, *(b - a for a, b in zip(sums, sums[WINDOW:], strict=False))) / WINDOW


def centroid(scores: TokenScores) -> float | None:
    """The mean relative position of high-entropy phases, weighted by entropy; None where their entropy is 0.

    A phase begins at a token of the highest 1 % (at least one token) and ends before the first two tokens in a row
    of the lowest 80 %. The position of token t is (t + 1/2) / n.
    """
    entropies, n = scores.entropies, len(scores)
    ordered = sorted(entropies)
    high, low = ordered[n - ceil(0.01 * n)], ordered[ceil(0.8 * n) - 1]
    if ordered[-1] == 0:
        return None
    inside, total, moment = False, 0.0, 0.0
    for t, entropy in enumerate(entropies):
        if entropy >= high:
            inside = True
        elif inside and entropy <= low and (t + 1 == n or entropies[t + 1] <= low):
            inside = False
        if inside:
            weight = entropy / ordered[-1]
            total += weight
            moment += weight * (t + 0.5) / n
    return moment / total


def early(scores: TokenScores) -> float:
    """Mean entropy of the first third, at least one token."""
    return fmean(scores.entropies[: ceil(len(scores) / 3)])


def middle(scores: TokenScores) -> float:
    """Mean entropy of the middle third, at least one token."""
    n = len(scores)
    return fmean(scores.entropies[n // 3 : ceil(2 * n / 3)])


def late(scores: TokenScores) -> float:
    """Mean entropy of the last third, at least one token."""
    return fmean(scores.entropies[-ceil(len(scores) / 3) :])


def slope(scores: TokenScores) -> float:
    """Least-squares slope of H against the relative position t / (n - 1), in nats over the span; 0 of one token."""
    n = len(scores)
    if n == 1:
        return 0.0
    centred = [t / (n - 1) - 0.5 for t in range(n)]
    products = (x * entropy for x, entropy in zip(centred, scores.entropies, strict=True))
    return fsum(products) / fsum(x * x for x in centred)


def committal(scores: TokenScores) -> float:
    """Mean of -l_t - H_t: how much likelier or rarer than expected were the drawn tokens. Entropy does not see them."""
    return (-fsum(scores.logprobs) - fsum(scores.entropies)) / len(scores)


def margin(scores: TokenScores) -> float | None:
    """Mean of the largest minus the second largest probability; None without the latter."""
    if scores.second_probs is None:
        return None
    return (fsum(scores.max_probs) - fsum(scores.second_probs)) / len(scores)


def picsar(reasoning: Sequence[float], answer: Sequence[float]) -> float | None:
    """Mean log-probability of the reasoning's tokens plus that of the answer's; None where either has no token."""
    return fmean(reasoning) + fmean(answer) if reasoning and answer else None
