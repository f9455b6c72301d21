"""Work ahead: in order, bounded, and over when its reader goes."""

import threading

import pytest

from stepconf.workers.ahead import ahead


def test_in_order_and_all() -> None:
    assert list(ahead(lambda x: x * x, range(100))) == [x * x for x in range(100)]
    assert list(ahead(str, [])) == []


def test_it_runs_only_a_little_ahead() -> None:
    begun: list[int] = []
    others = threading.active_count()
    results = ahead(begun.append, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert 1 <= len(begun) < 10, begun
    assert threading.active_count() - others < 10


def test_a_failure_is_raised_in_its_place() -> None:
    def work(x: int) -> int:
        return 6 // (2 - x)

    results = ahead(work, range(5))
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
