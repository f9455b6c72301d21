"""Work ahead: in order, bounded, and over when its reader goes; in threads, and in processes of its own."""

import os
import signal
import threading

import pytest

from stepconf.errors import StepconfError
from stepconf.run.ahead import ahead
from tests.pids import ends, left_by

PARENT = """
import sys
from stepconf.run.ahead import ahead
from tests.test_ahead import where
results = ahead(where, [0] * 8, in_processes=True)
print(*{next(results) for _ in range(6)}, flush=True)
sys.stdin.read()
"""


def where(_: int) -> int:
    return os.getpid()


def group(_: int) -> int:
    return os.getpgid(0)


def last_words(item: tuple[int, int]) -> tuple[int, bool]:
    """A number, and whether this is the process whose id comes with it; any other one ends at 3, and at 5 fails."""
    number, parent = item
    if number == 3 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise StepconfError("five is too many.", "Take four.")
    return number, os.getpid() == parent


def test_in_order_and_all() -> None:
    assert list(ahead(lambda x: x * x, range(100))) == [x * x for x in range(100)]
    assert list(ahead(str, [])) == []


def test_it_runs_only_a_little_ahead() -> None:
    begun: list[int] = []
    results = ahead(begun.append, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert 1 <= len(begun) < 10, begun
    assert threading.active_count() < 10


def test_a_failure_is_raised_in_its_place() -> None:
    def work(x: int) -> int:
        return 6 // (2 - x)

    results = ahead(work, range(5))
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_processes_work_and_a_killed_ones_place_works_here() -> None:
    results = ahead(last_words, [(number, os.getpid()) for number in range(6)], in_processes=True)
    found = [next(results) for _ in range(5)]
    assert [number for number, _ in found] == list(range(5))
    assert not any(here for number, here in found if number < 3) and found[3][1]
    with pytest.raises(StepconfError) as told:
        next(results)
    assert told.value.hint == "Take four."


def test_ctrl_c_does_not_reach_processes() -> None:
    assert os.getpgid(0) not in set(ahead(group, range(4), in_processes=True))


def test_processes_end_with_the_work_and_with_their_parent() -> None:
    assert all(ends(pid) for pid in set(ahead(where, range(8), in_processes=True)) - {os.getpid()})
    pids = left_by(PARENT, signal.SIGKILL)
    assert pids and all(ends(pid) for pid in pids)
