"""How chunks go through: their requests as one stream of an engine, and work on one beside the making of the next."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from stepconf.engines.guard import Failed
from stepconf.errors import StepconfError
from stepconf.run.events import Tick
from stepconf.run.meter import EngineClock
from stepconf.stages.chunks import Chunk, T


def through(
    chunks: Iterator[Chunk[T] | None],
    run_engine: Callable[[Iterator[Any]], Iterator[tuple[Any, Any]]],
    request: Callable[[str, T], Any],
    solve: Callable[[Chunk[T], int, Any, Any], None],
    stage: str,
    weight: int,
    tick: Tick,
) -> Iterator[Chunk[T]]:
    """Stream every chunk's requests through the engine; yield each chunk when its last result is in.

    Results come in any order; within a chunk they are put back into the order of its items, so that what is
    written depends on the requests alone. `weight` is how many solutions a request stands for.
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
                    solve(chunk, i, original, found)
            now = time.perf_counter()
            chunk.seconds |= {stage: now - started, "idle": clock.lap()}
            started = now
            yield chunk
        yield from (ready.pop() for _ in range(len(ready)))
    yield from ready


def overlapped(chunks: Iterable[Chunk[T]], work: Callable[[Chunk[T]], Chunk[T]]) -> Iterator[Chunk[T]]:
    """`work` on each chunk in a thread of its own, while the next chunk is being made.

    Chunks made before an interrupt, or before the making failed, are still worked on and yielded.
    """
    interrupt: KeyboardInterrupt | StepconfError | None = None
    with ThreadPoolExecutor(1) as thread:
        waiting: list[Future[Chunk[T]]] = []
        try:
            for chunk in chunks:
                waiting.append(thread.submit(work, chunk))
                while waiting and (waiting[0].done() or len(waiting) > 2):
                    done = waiting[0].result()
                    del waiting[0]
                    yield done
        except (KeyboardInterrupt, StepconfError) as error:
            interrupt = error
        for future in waiting:
            yield future.result()
    if interrupt:
        raise interrupt
