"""The other side of `pool.py`: the process that imports once and forks workers, and what a worker does."""

import contextlib
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from stepconf.workers.pool import Outcome

PRELOAD = ("stepconf.verifiers.final", "stepconf.verifiers.symbolic")  # with their `warm_up`, if any
_PR_SET_PDEATHSIG = 1


def serve(control_fd: int, memory_bytes: int) -> None:
    """The server: forks a worker for each descriptor that comes in, kills a worker whose pid comes in.

    It ends, and its workers with it, when the parent closes the socket or dies.
    """
    for asked_to_end in (signal.SIGINT, signal.SIGTERM):  # sent to a whole process group
        signal.signal(asked_to_end, signal.SIG_IGN)  # for the parent to handle, who still has work for us
    for module in PRELOAD:
        warm_up = getattr(importlib.import_module(module), "warm_up", None)
        if warm_up:
            warm_up()
    gc.collect()
    gc.freeze()  # keeps the shared pages shared
    parent, workers = os.getppid(), set[int]()
    gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)  # the parent, before it had its answer
    with socket.socket(fileno=control_fd) as control, gone:
        while os.getppid() == parent:
            if not select.select([control], [], [], 1.0)[0]:
                continue  # wakes to look at the parent: a forked copy of it may keep the socket open
            message, fds, _, _ = socket.recv_fds(control, 8, 1)
            if not message:
                break
            pid = struct.unpack("<q", message)[0]
            if fds:
                pid = os.fork()
                if not pid:
                    control.close()
                    _work(fds[0], memory_bytes)
                os.close(fds[0])
                workers.add(pid)
                control.sendall(struct.pack("<q", pid))
            else:
                workers.discard(abs(pid))
                control.sendall(struct.pack("<q", _kill(abs(pid), grace_s=0.1 if pid < 0 else 0.0)))
    for pid in workers:
        _kill(pid)


def _kill(pid: int, grace_s: float = 0.0) -> int:
    """Ends a child and returns how it ended: minus the signal, or its exit status."""
    end = time.monotonic() + grace_s
    while time.monotonic() < end:  # it closed its pipe: it is dying by itself, and its own status is wanted
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)  # a child stays in the table until waited for: the pid cannot be another's
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _work(fd: int, memory_bytes: int) -> None:
    """A worker: takes chunks, reports after every item, and never returns."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = Connection(fd)
    with contextlib.suppress(EOFError, OSError):  # the parent is done with this worker
        while True:
            function, items = pickle.loads(pipe.recv_bytes())  # noqa: S301  sent by our own parent
            for item in items:
                pipe.send_bytes(_report(function, item, memory_bytes))
    os._exit(0)


def _report(function: Callable[[Any], Any], item: Any, memory_bytes: int) -> bytes:
    """One outcome, pickled, with whether this worker should be retired."""
    start = time.perf_counter()
    value, failure = None, ""
    try:
        value = function(item)
        pickle.dumps(value)
    except MemoryError:
        value, failure = None, "memory"
    except Exception as error:  # noqa: BLE001  an item must never take the pool down, whatever it raises
        value, failure = None, f"error: {type(error).__name__}: {error}"[:500]
    seconds = time.perf_counter() - start
    # A worker keeps its peak in caches and a fragmented heap; the next item deserves the whole allowance.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    retire = failure == "memory" or peak > memory_bytes // 2
    return pickle.dumps((Outcome(value, failure, seconds), retire))
