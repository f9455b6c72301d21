"""Exact interval of a share, for few trials and repeated looks."""

from collections.abc import Callable
from functools import lru_cache
from math import comb


@lru_cache(maxsize=4096)
def exact_interval(successes: int, trials: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a probability: it misses with probability `error` at most, at any n.

    Wilson's covers on average as stated, but at 8 trials it misses up to 15 % near 0 and 1 (20 % where one
    looks four times), which is where most steps lie. Looked at k times, give `error` / k: the union bound.

    Args:
        successes: in [0, trials].
        trials: at least 0; 0 gives (0, 1).
        error: in (0, 1).
    """
    if not trials:
        return 0.0, 1.0
    # P(X >= k) grows with p, P(X <= k) falls: each bound is where its tail is half the error.
    low = 0.0 if successes == 0 else _root(lambda p: _tail(successes, trials, p) < error / 2)
    high = 1.0 if successes == trials else _root(lambda p: 1 - _tail(successes + 1, trials, p) > error / 2)
    return low, high


def _tail(k: int, n: int, p: float) -> float:
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def _root(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low
