"""Work in processes of its own, for what holds the interpreter too much for threads to share it.

Each is a fresh interpreter, started with exec: nothing of this one's memory, threads or `__main__` comes along.
Why not `concurrent.futures` or `multiprocessing`: what they start runs the caller's `__main__` again.
"""

import gc
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from json import dumps
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_SERVE = "import sys; from json import loads; sys.path[:] = loads(sys.argv[1]);"
_SERVE += "from stepconf.run.processes import serve; serve(int(sys.argv[2]), sys.argv[3])"
# The processes share the cores: threads of their own would only stand in each other's way. And glibc, which Arrow
# is to ask too, is not to give large arrays back at once, and to take huge pages: to get the same memory anew for
# each item, page by page, costs a third of some arithmetic.
_SETTINGS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
_SETTINGS |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 28))
_SETTINGS |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class Processes(Generic[T, R]):
    """A function that runs in one of several processes; where one is killed, its place works in this process.

    Args:
        work: it, its items, results and errors are pickled.
        n: how many processes; as many threads may call.
    """

    def __init__(self, work: Callable[[T], R], n: int) -> None:
        self._work = work
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        for _ in range(n):
            self._workers.append(_Worker(work))
            self._idle.put(self._workers[-1])

    def __enter__(self) -> "Processes[T, R]":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()

    def __call__(self, item: T) -> R:
        """`work` of an item; it raises what that raises."""
        worker = self._idle.get()
        try:
            answer = worker.answer(item) if worker else None
            if answer is None:
                worker = None
                return self._work(item)
        finally:
            self._idle.put(worker)
        value: R
        value, error = answer
        if error is not None:
            raise error
        return value


class _Worker:
    def __init__(self, work: Callable[[T], R]) -> None:
        ours, theirs = socket.socketpair()
        function = work.func if isinstance(work, partial) else work
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  this interpreter, no shell, nothing from outside
                [sys.executable, "-c", _SERVE, dumps(sys.path), str(theirs.fileno()), function.__module__],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | _SETTINGS,
                process_group=0,  # Ctrl-C, which goes to a whole group, is this process's to act upon
            )
        self._pipe = Connection(ours.detach())
        self._untold: Callable[[T], R] | None = work  # told with the first item: by then all are starting

    def answer(self, item: object) -> tuple[Any, Exception | None] | None:
        """The value or the error; None where the process is gone."""
        try:
            if self._untold:
                self._pipe.send(self._untold)
                self._untold = None
            self._pipe.send(item)
            answer: tuple[Any, Exception | None] = self._pipe.recv()
        except (EOFError, OSError):
            return None
        return answer

    def end(self) -> None:
        self._pipe.close()
        self._process.wait()


def serve(fd: int, module: str) -> None:
    """The other side: answers until the pipe is closed, as it is when the parent ends, however it does.

    What the work needs is imported before it comes: the parent may have something to do until then.
    """
    pipe = Connection(fd)
    sys.meta_path.insert(0, _NoPandas())
    import_module(module)
    with suppress(EOFError, OSError):
        work = pipe.recv()
        gc.freeze()  # what is there now stays: no need to look through it again and again
        while True:
            pipe.send(_answer(work, pipe.recv()))


class _NoPandas:
    """With its first array pyarrow imports pandas, to know its types again: a quarter of a second, for nothing here."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not in a process that works for another", name=name)


def _answer(work: Callable[[T], R], item: T) -> tuple[R | None, Exception | None]:
    try:
        return work(item), None
    except Exception as error:  # noqa: BLE001  raised again on the other side
        return None, error
