"""The one-pass interval against the estimate it must equal and the bootstrap that it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import auroc
from stepconf.core.calibration.large import clustered_auroc

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


@given(ROWS)
def test_the_estimate_is_exact_with_ties(rows: list[tuple[int, int, bool]]) -> None:
    clusters, scores, correct = (np.array(column) for column in zip(*rows, strict=True))
    found = clustered_auroc(clusters, scores, correct)
    expected = auroc(scores, correct)
    assert found.estimate == (None if expected is None else pytest.approx(expected))
    assert found.n_clusters == len(set(clusters.tolist()))
    if found.low is not None and found.high is not None and found.estimate is not None:
        assert 0 <= found.low <= found.estimate <= found.high <= 1


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_is_that_of_the_bootstrap(spread: float) -> None:
    """With problems that differ (`spread`) it is wider than that of independent steps, in both."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(400), 20)
    hard = np.repeat(rng.normal(0, spread, 400), 20)
    scores = rng.normal(0, 1, 8000) + hard
    correct = rng.random(8000) < 1 / (1 + np.exp(-scores + rng.normal(0, 1, 8000)))
    drawn = cluster_bootstrap(auroc, clusters, scores, correct, n_resamples=1000)
    found = clustered_auroc(clusters, scores, correct)
    assert (
        found.low is not None and found.high is not None and drawn.low is not None and drawn.high is not None
    )
    width = drawn.high - drawn.low
    assert found.low == pytest.approx(drawn.low, abs=0.1 * width)
    assert found.high == pytest.approx(drawn.high, abs=0.1 * width)


def test_one_problem_has_no_interval() -> None:
    found = clustered_auroc(np.zeros(4, int), [1.0, 2.0, 3.0, 4.0], [False, True, False, True])
    assert (found.estimate, found.low, found.high, found.n_clusters) == (0.75, None, None, 1)
