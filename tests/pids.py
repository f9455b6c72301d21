"""Which processes there are, and whether they end."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path


def left_by(code: str, how: signal.Signals) -> list[int]:
    """The ids in the line that a Python program prints before it is sent a signal and ends."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(how)
    return pids


def ends(pid: int, within_s: float = 30.0) -> bool:
    """Whether the process is gone, or goes, within the time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)
