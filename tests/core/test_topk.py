"""Bounds of the entropy from the k likeliest tokens."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stepconf.core.topk import entropy_bounds, topk_scores

LOGITS = arrays(np.float64, st.integers(1, 60), elements=st.floats(-40, 40))


@given(LOGITS, st.integers(1, 70))
def test_the_bounds_hold_the_entropy(logits: np.ndarray, k: int) -> None:
    p = np.exp(logits - logits.max())
    p /= p.sum()
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    with np.errstate(divide="ignore"):
        likeliest = np.sort(np.log(p))[::-1][:k]
    known, low, high = entropy_bounds(likeliest.tolist(), len(p))
    assert known <= entropy + 1e-9
    assert known <= low + 1e-12
    assert low - 1e-9 <= entropy <= high + 1e-9
    if k >= len(p):
        assert known == pytest.approx(entropy, abs=1e-9) == low == high


@given(LOGITS)
def test_more_of_the_likeliest_tighten_the_bounds(logits: np.ndarray) -> None:
    p = np.exp(logits - logits.max())
    with np.errstate(divide="ignore"):
        ranked = np.sort(np.log(p / p.sum()))[::-1].tolist()
    bounds = [entropy_bounds(ranked[:k], len(ranked)) for k in range(1, len(ranked) + 1)]
    widths = [high - low for _, low, high in bounds]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(widths))


def test_bounds_are_reached() -> None:
    """By two even tokens of which one is known, and by a rest that is spread evenly."""
    assert entropy_bounds([np.log(0.5)], 4)[1] == pytest.approx(np.log(2))
    spread = [0.7, 0.1, 0.1, 0.1]
    assert entropy_bounds([np.log(0.7)], 4)[2] == pytest.approx(-sum(p * np.log(p) for p in spread))


def test_rows_are_scored_one_by_one() -> None:
    rows = [[-0.1, -3.0], [-0.7, -0.8]]
    found = topk_scores(rows, 100)
    assert list(zip(found.entropies, found.lows, found.highs, strict=True)) == [
        entropy_bounds(row, 100) for row in rows
    ]
    assert found[1:] == topk_scores(rows[1:], 100)
