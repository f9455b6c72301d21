"""How chunks go through: their requests as one stream of an engine, and work on one beside the making of the next."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import Any, TypeVar

from stepconf.engines.guard import Failed
from stepconf.errors import StepconfError
from stepconf.run.events import Tick
from stepconf.run.meter import EngineClock
from stepconf.stages.chunks import Chunk, T

C = TypeVar("C")
_AT_WORK = 4  # chunks made and not yet written: then the making waits. A few hard answers take a chunk's time


def through(
    chunks: Iterator[Chunk[T] | None],
    run_engine: Callable[[Iterator[Any]], Iterator[tuple[Any, Any]]],
    request: Callable[[str, T], Any],
    stage: str,
    weight: int,
    tick: Tick,
) -> Iterator[Chunk[T]]:
    """Stream every chunk's requests through the engine; yield each chunk, with its answers, when the last is in.

    Results come in any order; within a chunk they are put back into the order of its items, so that what is
    written depends on the requests alone. `request` may give a reason instead. `weight` is how many solutions a
    request stands for.
    """
    where: dict[str, tuple[Chunk[T], int]] = {}
    results: dict[str, dict[int, tuple[Any, Any]]] = {}
    missing: dict[str, int] = {}
    ready: list[Chunk[T]] = []

    def requests() -> Iterator[Any]:
        for chunk in chunks:
            if chunk is None and ready:
                return  # they come out when the engine has run out; the caller begins anew
            if chunk is None:
                yield None
                continue
            made = [request(f"{chunk.name}/{i}", item) for i, item in enumerate(chunk.items)]
            refused = [reason for reason in made if isinstance(reason, str)]
            for reason in refused:
                chunk.drops[reason] += weight
            tick(stage, weight * len(refused))
            results[chunk.name], missing[chunk.name] = {}, len(made) - len(refused)
            if not missing[chunk.name]:
                ready.append(chunk)
            for index, one in enumerate(made):
                if not isinstance(one, str):
                    where[one.key] = (chunk, index)
                    yield one

    clock = EngineClock()
    started = time.perf_counter()
    for asked, result in clock.taking(run_engine(clock.feeding(requests()))):
        chunk, index = where.pop(asked.key)
        results[chunk.name][index] = (asked, result)
        missing[chunk.name] -= 1
        tick(stage, weight)
        if not missing[chunk.name]:
            for i, (original, found) in sorted(results.pop(chunk.name).items()):
                if isinstance(found, Failed):
                    chunk.drops[found.reason] += weight
                else:
                    chunk.answers.append((chunk.items[i], original, found))
            now = time.perf_counter()
            chunk.seconds |= {stage: now - started, "idle": clock.lap()}
            started = now
            yield chunk
        yield from (ready.pop() for _ in range(len(ready)))
    yield from ready


def overlapped(
    chunks: Iterable[C],
    work: Callable[[C], None],
    finish: Callable[[C], None],
    beside: int,
) -> None:
    """`work` on chunks in threads, on `beside` at a time, while the next are made; then `finish`, on one at a time.

    Chunks may change places. Those made before an interrupt, or before the making failed, are still worked on and
    finished; none is begun behind one that failed.
    """
    interrupt: KeyboardInterrupt | StepconfError | None = None
    finishing, failed = Lock(), Event()

    def through_both(chunk: C) -> None:
        if failed.is_set():
            return
        try:
            work(chunk)
            with finishing:
                finish(chunk)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(beside) as threads:
        waiting: set[Future[None]] = set()
        try:
            for chunk in chunks:
                waiting.add(threads.submit(through_both, chunk))
                patience = None if len(waiting) > _AT_WORK else 0
                done, waiting = wait(waiting, patience, FIRST_COMPLETED)
                for future in done:
                    future.result()
        except (KeyboardInterrupt, StepconfError) as error:
            interrupt = error
        for future in waiting:
            future.result()
    if interrupt:
        raise interrupt
