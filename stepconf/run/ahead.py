"""Work that is done a little ahead of whoever needs it, in threads or in processes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

from stepconf.run.processes import Processes

T = TypeVar("T")
R = TypeVar("R")

# What is read and written for more would fill the memory, and the disk is the limit by then.
_MOST_THREADS = 4


def ahead(work: Callable[[T], R], items: Iterable[T], in_processes: bool = False) -> Iterator[R]:
    """`work` of each item, in order: at most as many results wait as there are threads, whatever comes.

    Threads do for work that leaves the interpreter, as Arrow, Polars and large NumPy arrays do. For processes twice as
    many wait, so that none is idle while the first result is slow: what they send is smaller than what they read.

    Args:
        work: what is to be done.
        items: of which.
        in_processes: in a process per thread, which takes a second to start; `work` and items are pickled then.
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = min(ours, _MOST_THREADS)
    most = 2 * size if in_processes else size
    waiting: deque[Future[R]] = deque()
    with (
        Processes(work, size) if in_processes else nullcontext(work) as do,
        ThreadPoolExecutor(size) as threads,
    ):
        for item in items:
            waiting.append(threads.submit(do, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
