"""Which problems a file of bounded size holds. Pure, but for the asking."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Sample:
    """The entries taken, in the order of their problems, and what was left out."""

    taken: dict[int, Any] = field(default_factory=dict)
    n_bytes: int = 0
    too_large: int = 0


def draw(
    n_problems: int, budget: int, entry: Callable[[int], tuple[Any, int] | None], seed: int = 0
) -> Sample:
    """Take problems in a random order until the first that no longer fits.

    Args:
        n_problems: how many there are.
        budget: bytes of all entries together.
        entry: a problem's entry and its size in bytes; None where it is too large for any file.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(n_problems).tolist()
    sample = Sample()
    for problem in order:
        found = entry(problem)
        if found is None:
            sample.too_large += 1
            continue
        value, size = found
        if sample.n_bytes + size > budget:
            break
        sample.taken[problem] = value
        sample.n_bytes += size
    sample.taken = dict(sorted(sample.taken.items()))
    return sample
