"""A stepconf command in a process of its own, as from a shell: how long it takes, and how much memory in all."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def measured(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds, peak resident memory of the process tree (GB), and the exit code."""
    command = [sys.executable, "-c", "from stepconf.cli import main; main()", *arguments]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    while not ended:
        peak = max(peak, sum(map(_resident, _tree(process.pid))))
        time.sleep(0.05)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # it is no longer there to be waited for
    return seconds, max(peak, usage.ru_maxrss * 1024) / 2**30, process.returncode


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0
