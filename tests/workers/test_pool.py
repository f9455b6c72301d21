"""The pool, with real processes: order, deadlines, memory, crashes, threads, and who outlives whom."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stepconf.workers import pool as pool_module
from stepconf.workers.pool import Pool
from tests.pids import ends, left_by
from tests.workers import jobs

DEADLINE_S = 1.0
OVERRUN_S = 0.5  # what an item may cost beyond its deadline


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(workers=2, deadline_s=DEADLINE_S, memory_bytes=640 << 20) as shared:
        yield shared


def test_agrees_with_map(pool: Pool) -> None:
    outcomes = pool.map(jobs.square, range(1000))
    assert [outcome.value for outcome in outcomes] == [x * x for x in range(1000)]
    assert all(not outcome.failure and outcome.seconds >= 0 for outcome in outcomes)
    assert pool.map(jobs.square, []) == []


def test_an_exception_is_the_failure_of_its_item_alone(pool: Pool) -> None:
    outcomes = pool.map(jobs.square, [2, -3, 4])
    assert [outcome.value for outcome in outcomes] == [4, None, 16]
    assert outcomes[1].failure == "error: ValueError: negative: -3"
    assert pool.map(jobs.unpicklable, [0])[0].failure.startswith("error: ")


def test_an_overrun_is_killed_at_the_deadline_and_its_neighbours_live(pool: Pool) -> None:
    outcomes = pool.map(jobs.spin, [0.0, 60.0, 0.0, 0.01, 60.0, 0.0])
    assert [outcome.failure for outcome in outcomes] == ["", "timeout", "", "", "timeout", ""]
    assert all(outcome.seconds <= DEADLINE_S + OVERRUN_S for outcome in outcomes)


def test_a_report_that_is_read_late_costs_the_next_item_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the parent was stopped: the item after a report has only begun."""
    late = 0.0

    def ready(pipes: list[Connection], timeout: float | None) -> list[object]:
        nonlocal late
        found = multiprocessing.connection.wait(pipes, None)
        late += 10.0
        return found

    monkeypatch.setattr(pool_module, "wait", ready)
    monkeypatch.setattr(pool_module.time, "monotonic", lambda real=time.monotonic: real() + late)
    with Pool(workers=1, deadline_s=5.0) as own:
        outcomes = own.map(jobs.square, range(6))
    assert [outcome.failure for outcome in outcomes] == [""] * 6


def test_memory_is_bounded(pool: Pool) -> None:
    sizes = [1 << 10, 4 << 30, 1 << 20, 1 << 30, 1 << 10]
    outcomes = pool.map(jobs.fill, sizes)
    assert [outcome.failure for outcome in outcomes] == ["", "memory", "", "memory", ""]


def test_a_worker_near_its_limit_is_retired_before_the_next_item() -> None:
    with Pool(workers=1, deadline_s=60, memory_bytes=512 << 20) as own:
        assert [outcome.failure for outcome in own.map(jobs.fill, [270 << 20] * 3)] == [""] * 3
        workers = {outcome.value for outcome in own.map(jobs.who, range(3))}
        assert len(workers) == 1


def test_a_crash_says_how_it_ended(pool: Pool) -> None:
    outcomes = pool.map(jobs.end, [0, 3, 0])
    assert [outcome.failure for outcome in outcomes] == ["", "crash: exit 3", ""]


def test_a_worker_that_somebody_kills_costs_no_item(pool: Pool, tmp_path: Path) -> None:
    items = ["", str(tmp_path / "killed"), ""]
    assert [outcome.value for outcome in pool.map(jobs.killed_once, items)] == items
    (outcome,) = pool.map(jobs.always_killed, [0])
    assert outcome.failure == "crash: signal 9"


def test_threads_share_a_pool(pool: Pool) -> None:
    def job(start: int) -> bool:
        outcomes = pool.map(jobs.square, range(start, start + 200))
        return [outcome.value for outcome in outcomes] == [x * x for x in range(start, start + 200)]

    with ThreadPoolExecutor(6) as threads:
        stuck = threads.submit(pool.map, jobs.spin, [60.0])
        assert all(threads.map(job, range(0, 2000, 100)))
        assert stuck.result()[0].failure == "timeout"


def test_an_interrupted_map_leaves_nothing_behind_for_the_next(pool: Pool) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.map(jobs.spin, [0.9] * 8)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [outcome.value for outcome in pool.map(jobs.square, [5, 6])] == [25, 36]


def test_workers_are_reused_and_end_with_the_pool() -> None:
    with Pool(workers=2, deadline_s=60) as own:
        first = [outcome.value for outcome in own.map(jobs.who, range(40))]
        again = [outcome.value for outcome in own.map(jobs.who, range(40))]
    pids = {pid for pair in first for pid in pair or ()}
    assert len({pair[0] for pair in first + again if pair}) <= 2
    assert len({pair[1] for pair in first + again if pair}) == 1
    assert all(ends(pid) for pid in pids)


def test_a_closed_pool_starts_anew(pool: Pool) -> None:
    pool.close()
    assert pool.map(jobs.square, [3])[0].value == 9


def test_a_function_of_the_main_script_is_refused(pool: Pool) -> None:
    def local(x: int) -> int:
        return x

    local.__module__ = "__main__"
    with pytest.raises(ValueError, match="__main__"):
        pool.map(local, [1])


def test_workers_see_no_threaded_libraries(pool: Pool) -> None:
    assert pool.map(jobs.environment, ["OMP_NUM_THREADS"])[0].value == "1"


def in_a_daemon(pool: Pool, answer: Connection) -> None:
    answer.send([outcome.value for outcome in pool.map(jobs.square, [7])])
    pool.close()


def test_runs_inside_a_daemonic_process(pool: Pool) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=in_a_daemon, args=(pool, theirs), daemon=True)
    process.start()
    assert ours.poll(120) and ours.recv() == [49]
    process.join()


PARENT = """
import sys, threading
from stepconf.workers.pool import Pool
from tests.pids import ends, left_by
from tests.workers import jobs
pool = Pool(workers=2, deadline_s=600)
pids = {pid for outcome in pool.map(jobs.who, range(40)) for pid in outcome.value}
threading.Thread(target=pool.map, args=(jobs.spin, [600.0] * 2), daemon=True).start()
print(*pids, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_the_parent(how: signal.Signals) -> None:
    pids = left_by(PARENT, how)
    assert len(pids) >= 2 and all(ends(pid) for pid in pids)


def test_ctrl_c_does_not_reach_the_server() -> None:
    with Pool(workers=1, deadline_s=60) as own:
        pair = own.map(jobs.who, [0])[0].value
        assert pair is not None and {os.getpgid(pid) for pid in pair} == {pair[1]}


def test_a_killed_server_is_replaced() -> None:
    with Pool(workers=1, deadline_s=60) as own:
        pair = own.map(jobs.who, [0])[0].value
        assert pair is not None
        os.kill(pair[1], signal.SIGKILL)
        assert ends(pair[1]) and ends(pair[0])
        assert own.map(jobs.square, [4])[0].value == 16
