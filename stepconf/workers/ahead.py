"""Work that is done in threads, a little before its results are needed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# What is read and written for more would fill the memory, and the disk is the limit by then.
_MOST_THREADS = 4


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` of each item, in order: at most as many results wait as there are threads, whatever comes.

    Threads do for work that leaves the interpreter, as Arrow, Polars and large NumPy arrays do.

    Args:
        work: what is to be done.
        items: of which.
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = min(ours, _MOST_THREADS)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(size) as threads:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
