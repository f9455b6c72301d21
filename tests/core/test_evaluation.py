"""pass@k against all subsets, McNemar against its definition, paired differences against their laws."""

from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.evaluation import (
    mcnemar_exact,
    mean_interval,
    paired_difference,
    pass_at_k,
    ratio_interval,
)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(samples: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    subsets = [any(chosen) for chosen in combinations(samples, k)]
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(sum(subsets) / len(subsets))


@pytest.mark.parametrize(("n", "right", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_cannot_be(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, right, k)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_a_sign_test(a: int, b: int) -> None:
    p, n = mcnemar_exact(a, b), a + b
    assert p == mcnemar_exact(b, a) and 0 < p <= 1
    # Outcomes at most as likely as the one seen, under a fair coin.
    exact = sum(comb(n, i) for i in range(n + 1) if comb(n, i) <= comb(n, a)) / 2**n
    assert p == pytest.approx(exact)


@settings(max_examples=25)  # three bootstraps each
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_paired_difference(rows: list[tuple[float, float]]) -> None:
    ids, a, b = [str(i) for i in range(len(rows))], [x for x, _ in rows], [y for _, y in rows]
    one, other = paired_difference(ids, a, b), paired_difference(ids, b, a)
    assert one.estimate == pytest.approx(sum(a) / len(a) - sum(b) / len(b))
    assert one.low is not None and one.high is not None and other.estimate is not None
    assert one.low == pytest.approx(-(other.high or 0), abs=1e-12)
    same = paired_difference(ids, a, a)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)


def test_ratio_and_mean() -> None:
    ids = ["a", "b", "c"]
    assert ratio_interval(ids, [1, 2, 3], [2, 4, 6]).low == pytest.approx(0.5)
    assert ratio_interval(ids, [1, 2, 3], [0, 0, 0]).estimate is None
    assert mean_interval(ids, [1.0, 0.0, 1.0]).estimate == pytest.approx(2 / 3)
