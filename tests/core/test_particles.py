"""A particle filter's arithmetic: against numpy, and by the laws of systematic resampling."""

from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.particles import step_weights, systematic

LOGS = st.lists(st.floats(-20, 0), min_size=1, max_size=12)


@given(LOGS)
def test_weights_transcribed(logs: list[float]) -> None:
    h = -np.array(logs)
    z = np.zeros(len(h)) if np.ptp(h) < 1e-9 else (h - h.mean()) / h.std()
    literal = np.exp(-z) / np.exp(-z).sum()
    if np.ptp(h) == 0 or np.ptp(h) > 1e-6:
        assert step_weights(logs) == pytest.approx(literal.tolist(), rel=1e-6)
    assert sum(step_weights(logs)) == pytest.approx(1)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), st.integers(0, 30), st.floats(0, 0.999))
def test_each_is_kept_in_proportion(weights: list[float], n: int, offset: float) -> None:
    counts = systematic(weights, n, offset)
    expected = [n * one / sum(weights) for one in weights]
    assert sum(counts) == n
    for count, mean in zip(counts, expected, strict=True):
        assert floor(mean - 1e-9) <= count <= ceil(mean + 1e-9)


def test_over_all_offsets_it_is_unbiased() -> None:
    weights = [0.5, 0.3, 0.15, 0.05]
    grid = [systematic(weights, 4, (i + 0.5) / 1000) for i in range(1000)]
    assert np.mean(grid, axis=0) == pytest.approx([2.0, 1.2, 0.6, 0.2], abs=2e-3)


def test_edges() -> None:
    assert step_weights([]) == () and step_weights([-1.0, -1.0]) == (0.5, 0.5)
    assert systematic([1.0], 3, 0.5) == [3] and systematic([1.0, 1.0], 0, 0.5) == [0, 0]
