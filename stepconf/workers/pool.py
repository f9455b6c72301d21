"""Warm worker processes that the parent can kill: where everything runs that hostile text can stall or bloat.

One fresh interpreter (the *server*, started with exec, so nothing of the parent's torch or vLLM comes along)
imports SymPy and math-verify once and forks a worker on request, so that replacing a killed one costs
milliseconds. A worker reports after every item; the parent's clock restarts with each report, and a worker
that overruns is killed by the server and replaced. The items after the bad one go to the next worker.

Why not `concurrent.futures` or `multiprocessing.Pool`: they cannot kill one worker. Why not `pebble`, which
can: measured side by side it killed 0.6 s past the deadline (here 0.1 s), passed a third as many small items
per second, and left busy workers running when the parent was killed by SIGKILL; like `multiprocessing` it
imports the caller's `__main__` again in each worker and does not start inside a daemonic process.

Not covered: Windows; macOS ignores the memory limit.
"""

import json
import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16  # items per message: enough to hide the pipe, few enough to share a batch fairly
START_S = 120.0  # how long the server may take to import its modules on a busy machine
_KILLED = f"crash: signal {signal.SIGKILL:d}"  # by the kernel's or a person's hand; tried once more
_SERVE = "import sys; from json import loads; sys.path[:] = loads(sys.argv[1]);"
_SERVE += "from stepconf.workers.pool_server import serve; serve(*map(int, sys.argv[2:]))"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of one item: `value`, or None and the `failure`.

    `failure` is "" | "timeout" | "memory" | "crash: <what>" | "error: <exception>"; `seconds` is the time the
    item took, as the worker saw it (the parent, where the worker was killed).
    """

    value: R | None
    failure: str = ""
    seconds: float = 0.0


class Pool:
    """Runs a function over items in worker processes, each item under a deadline and a memory limit.

    Lazy: nothing starts before the first `map`. Safe to share between threads; a copy that was pickled or
    forked into another process starts workers of its own there.

    Args:
        workers: number of processes; default one per CPU this process may use, at most 16.
        deadline_s: wall-clock seconds each item may take.
        memory_bytes: address space each worker may use (RLIMIT_AS).
    """

    def __init__(
        self, workers: int | None = None, deadline_s: float = 2.0, memory_bytes: int = 2 << 30
    ) -> None:
        self.workers = workers or default_workers()
        self.deadline_s = deadline_s
        self.memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._crew: _Crew | None = None

    def __reduce__(self) -> tuple[type["Pool"], tuple[int, float, int]]:
        return Pool, (self.workers, self.deadline_s, self.memory_bytes)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[Outcome[R]]:
        """`function` of each item, in order. It never raises because of an item.

        `function` must be importable by name in a fresh interpreter (module level, not in `__main__`); it and
        the items are pickled, and so are the values that come back.
        """
        if function.__module__ == "__main__":
            raise ValueError(f"{function.__qualname__} lives in __main__; workers import it by module name")
        if not items:
            return []
        outcomes: dict[int, Outcome[R]] = {}
        again: set[int] = set()
        size = max(1, min(CHUNK, len(items) // (4 * self.workers)))
        todo = deque(deque(range(i, min(i + size, len(items)))) for i in range(0, len(items), size))
        busy: dict[Any, _Job] = {}
        crew = self._current_crew()
        try:
            while todo or busy:
                while todo and (worker := crew.take(block=not busy)):
                    chunk = todo.popleft()
                    try:
                        worker.pipe.send_bytes(pickle.dumps((function, [items[i] for i in chunk])))
                    except OSError:  # it died while idle; nothing of the chunk has run
                        crew.replace(worker)
                        todo.appendleft(chunk)
                        continue
                    busy[worker.pipe] = _Job(worker, chunk, time.monotonic())
                self._collect(crew, busy, todo, outcomes, again)
        finally:
            for job in busy.values():  # only after an interrupt: their answers would reach the next caller
                crew.replace(job.worker)
        return [outcomes[i] for i in range(len(items))]

    def close(self) -> None:
        """Ends all workers; a later `map` would start new ones."""
        with self._lock:
            if self._crew:
                self._crew.close()
            self._crew = None

    def _current_crew(self) -> "_Crew":
        with self._lock:
            if self._crew is None or self._crew.owner != os.getpid():
                self._crew = _Crew(self.workers, self.memory_bytes)
            return self._crew

    def _collect(
        self,
        crew: "_Crew",
        busy: dict[Any, "_Job"],
        todo: deque[deque[int]],
        outcomes: dict[int, Outcome[Any]],
        again: set[int],
    ) -> None:
        """Waits for the next report or the next deadline, and acts on it."""
        patience = min(job.since for job in busy.values()) + self.deadline_s - time.monotonic()
        if todo:
            patience = min(patience, 0.05)  # how soon a worker that another thread gives back is noticed
        ready = wait(list(busy), timeout=max(0.0, patience))
        late = [pipe for pipe, job in busy.items() if self._is_late(job)]
        for pipe in {*ready, *late}:
            job = busy[pipe]
            retire = False
            while job.chunk and not retire and (pipe.poll() or self._is_late(job)):
                outcome, retire = self._hear(crew, job)
                if outcome.failure == _KILLED and job.chunk[0] not in again:
                    again.add(job.chunk[0])  # not the item's doing, as it seems: it stays where it is
                else:
                    outcomes[job.chunk.popleft()] = outcome
                job.since = time.monotonic()
            if retire or not job.chunk:
                del busy[pipe]
                if job.chunk:
                    todo.appendleft(job.chunk)
                if not retire:
                    crew.give_back(job.worker)

    def _is_late(self, job: "_Job") -> bool:
        """Whether its current item is; one that a report has just begun is not, however late the report was read."""
        return time.monotonic() - job.since > self.deadline_s

    def _hear(self, crew: "_Crew", job: "_Job") -> tuple[Outcome[Any], bool]:
        """The outcome of the item that a worker is at, and whether that worker is gone."""
        seconds = time.monotonic() - job.since
        # Asked again: the report may have come while this thread was not running.
        if not job.worker.pipe.poll():
            crew.replace(job.worker)
            return Outcome(None, "timeout", seconds), True
        try:
            outcome, retire = pickle.loads(job.worker.pipe.recv_bytes())  # noqa: S301  our own worker's report
        except (EOFError, OSError):
            return Outcome(None, f"crash: {crew.replace(job.worker, ended=True)}", seconds), True
        if retire:
            crew.replace(job.worker)
        return outcome, retire


@dataclass(slots=True)
class _Worker:
    pid: int
    pipe: Connection


@dataclass(slots=True)
class _Job:
    worker: _Worker
    chunk: deque[int]
    since: float  # when its current item began, by the parent's monotonic clock


@dataclass
class _Crew:
    """The server process and the workers that are idle."""

    size: int
    memory_bytes: int
    owner: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._start_server()
        for _ in range(self.size):
            self._idle.put(None)  # a place for a worker that is started when it is first needed

    def _start_server(self) -> None:
        ours, theirs = socket.socketpair()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            server = subprocess.Popen(  # noqa: S603  this interpreter, no shell, nothing from outside
                [
                    sys.executable,
                    "-c",
                    _SERVE,
                    json.dumps(sys.path),
                    str(theirs.fileno()),
                    str(self.memory_bytes),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | threads,
                process_group=0,  # Ctrl-C goes to a whole group, and while Python starts nothing ignores it
            )
        ours.settimeout(START_S)
        self._control = ours
        self.server_pid = server.pid
        self.close = weakref.finalize(self, _end_server, ours, server, self.owner)

    def take(self, block: bool) -> _Worker | None:
        """An idle worker; None if there is none and we are not to wait."""
        try:
            worker = self._idle.get(block)
        except queue.Empty:
            return None
        return worker or self._start_worker()

    def give_back(self, worker: _Worker) -> None:
        self._idle.put(worker)

    def replace(self, worker: _Worker, ended: bool = False) -> str:
        """Ends the worker, says how it ended, and leaves a place for its successor."""
        worker.pipe.close()
        with self._lock:
            try:
                self._control.sendall(struct.pack("<q", -worker.pid if ended else worker.pid))
                status = struct.unpack("<q", _receive(self._control, 8))[0]
            except OSError:
                status = -signal.SIGKILL  # the server is gone, and its workers with it
        self._idle.put(None)
        return f"signal {-status}" if status < 0 else f"exit {status}"

    def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            try:
                pid = self._ask_for_worker(theirs)
            except (EOFError, OSError):  # the server was killed: once more with a new one
                self.close()
                self._start_server()
                pid = self._ask_for_worker(theirs)
        return _Worker(pid, Connection(ours.detach()))

    def _ask_for_worker(self, theirs: socket.socket) -> int:
        socket.send_fds(self._control, [struct.pack("<q", 0)], [theirs.fileno()])
        return int(struct.unpack("<q", _receive(self._control, 8))[0])


def default_workers() -> int:
    """One per CPU that this process may use, at most 16."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cpus)


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError("the other side is gone")
        data += piece
    return data


def _end_server(control: socket.socket, server: "subprocess.Popen[bytes]", owner: int) -> None:
    control.close()
    if os.getpid() == owner:  # a forked copy must not wait for its parent's child
        server.wait()
