"""How chunks go through: their items as tasks over one stream of an engine, and work on one beside the next.

A task is a generator that yields requests, is sent their results, and returns what became of its item. While it looks
at results, in a thread, the engine goes on with the requests of others.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, Generic, TypeVar

from stepconf.core.records import Solved
from stepconf.engines.base import SampleRequest, ScoreRequest
from stepconf.errors import StepconfError
from stepconf.run.meter import BusyClock, EngineClock
from stepconf.stages.chunks import Chunk, T

C = TypeVar("C")
R = TypeVar("R", SampleRequest, ScoreRequest)
BRANCH = "branch"  # the stage whose stream runs between two chunks of another
_AT_WORK = 4  # chunks made and not yet written: then the making waits. A few hard answers take a chunk's time


@dataclass
class Made:
    """What became of an item: its solutions, and what was left out, counted by reason."""

    solved: list[Solved] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)


Task = Generator[list[R], list[Any], Made]


def through(
    chunks: Iterator[Chunk[T] | None],
    run_engine: Callable[[Iterator[Any]], Iterator[tuple[Any, Any]]],
    task: Callable[[T], "Task[R]"],
    stage: str,
) -> Iterator[Chunk[T]]:
    """Run a task for every item of the chunks over one engine; yield each chunk when its last item is done.

    Results come in any order; solutions are put back into the order of the items, so that what is written depends
    on the requests alone. A None among the chunks says that there is none to add now. A task begins in the caller's
    thread and goes on in others. Where the engine fails or is interrupted, chunks of which all is in come first.

    A chunk's seconds run from the one before it, those of waiting for requests and for whoever takes the chunks
    included. Those in which that one was branched, by a stream of its own, are left out: they are in `branch`.
    """
    stream: _Stream[T, R] = _Stream(chunks, task)
    try:
        while True:
            results = run_engine(stream.clock.feeding(stream.requests()))
            for asked, result in stream.clock.taking(results):
                stream.take(asked.key, result)
                yield from stream.finished(stage)
            yield from stream.finished(stage)
            if stream.is_over:
                return
    except (KeyboardInterrupt, StepconfError):
        stream.settle()
        yield from stream.finished(stage)
        raise
    finally:
        stream.close()


@dataclass(slots=True)
class _Open(Generic[T, R]):
    """A task under way: it waits for `missing` results of its last round of requests."""

    chunk: Chunk[T]
    index: int
    task: "Task[R]"
    rounds: int = 0
    results: list[Any] = field(default_factory=list)
    missing: int = 0


class _Stream(Generic[T, R]):
    def __init__(self, chunks: Iterator[Chunk[T] | None], task: Callable[[T], "Task[R]"]) -> None:
        self._chunks: Iterator[Chunk[T] | None] = chunks
        self._task: Callable[[T], Task[R]] = task
        self._threads = ThreadPoolExecutor(_AT_WORK)
        self._ready: deque[R] = deque()
        self._asked: dict[str, tuple[_Open[T, R], int]] = {}
        self._in_engine = self._in_threads = 0
        self._back: SimpleQueue[tuple[_Open[T, R], Future[list[R] | Made]]] = SimpleQueue()
        self._made: dict[str, dict[int, Made]] = {}
        self._done: deque[Chunk[T]] = deque()
        self._exhausted = False
        self._busy, self._started = BusyClock(), time.perf_counter()
        self.clock = EngineClock()

    @property
    def is_over(self) -> bool:
        """There is no chunk to come and none under way."""
        return self._exhausted and not self._made

    def settle(self) -> None:
        """Wait for the tasks that are looking at results."""
        while self._in_threads:
            self._absorb(wait_for_one=True)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(cancel_futures=True)

    def requests(self) -> Iterator[R | None]:
        """The engine's stream: later rounds first, so that chunks end; it ends to let finished chunks out."""
        while True:
            self._absorb(wait_for_one=False)
            if self._ready:
                self._in_engine += 1
                yield self._ready.popleft()
            elif not self._exhausted and self._begin_chunk():
                continue
            elif self._in_engine:
                yield None
            elif self._done:
                return
            elif self._in_threads:
                self._absorb(wait_for_one=True)
            elif self._exhausted:
                return

    def take(self, key: str, result: Any) -> None:
        """Put a result where it is waited for."""
        one, part = self._asked.pop(key)
        self._in_engine -= 1
        one.results[part] = result
        one.missing -= 1
        if not one.missing:
            self._in_threads += 1
            future = self._threads.submit(self._advance, one)
            future.add_done_callback(lambda done: self._back.put((one, done)))

    def finished(self, stage: str) -> Iterator[Chunk[T]]:
        """The chunks whose items are all done."""
        self._absorb(wait_for_one=False)
        while self._done:
            chunk = self._done.popleft()
            now = time.perf_counter()
            chunk.seconds |= {stage: now - self._started, "idle": self.clock.lap()}
            self._started = now
            yield chunk
            if stage != BRANCH and (elsewhere := chunk.seconds.get(BRANCH)):
                self._started += elsewhere
                self.clock.leave_out(elsewhere)

    def _begin_chunk(self) -> bool:
        """Begin the next chunk; False where there is none now."""
        chunk = next(self._chunks, _END)
        if chunk is _END or chunk is None:
            self._exhausted = chunk is _END
            return False
        self._made[chunk.name] = {}
        for index, item in enumerate(chunk.items):
            one: _Open[T, R] = _Open(chunk, index, self._task(item))
            self._go_on(one, _step(one.task))
        if not chunk.items:
            self._finish(chunk)
        return True

    def _advance(self, one: _Open[T, R]) -> list[R] | Made:
        self._busy.begin()
        try:
            return _step(one.task, one.results)
        finally:
            seconds = one.chunk.seconds
            seconds["segment"] = seconds.get("segment", 0.0) + self._busy.end()

    def _absorb(self, wait_for_one: bool) -> None:
        while wait_for_one or not self._back.empty():
            one, future = self._back.get()
            wait_for_one = False
            self._in_threads -= 1
            self._go_on(one, future.result())

    def _go_on(self, one: _Open[T, R], what: list[R] | Made) -> None:
        if isinstance(what, Made):
            made = self._made[one.chunk.name]
            made[one.index] = what
            if len(made) == len(one.chunk.items):
                self._finish(one.chunk)
            return
        one.rounds += 1
        one.results, one.missing = [None] * len(what), len(what)
        for part, request in enumerate(what):
            key = f"{one.chunk.name}/{one.index}/{one.rounds}/{part}"
            self._asked[key] = (one, part)
            self._ready.append(replace(request, key=key))

    def _finish(self, chunk: Chunk[T]) -> None:
        for _, made in sorted(self._made.pop(chunk.name).items()):
            chunk.solved += made.solved
            chunk.drops.update(made.drops)
        self._done.append(chunk)


_END: Any = object()


def _step(task: "Task[R]", results: list[Any] | None = None) -> list[R] | Made:
    """Until the task has requests to make, or is done."""
    try:
        while not (requests := next(task) if results is None else task.send(results)):
            results = []
        return requests
    except StopIteration as end:
        made: Made = end.value
        return made


def overlapped(
    chunks: Iterable[C],
    work: Callable[[C], None],
    finish: Callable[[C], None],
    beside: int,
) -> None:
    """`work` on chunks in threads, on `beside` at a time, while the next are made; then `finish`, on one at a time.

    Chunks may change places. Those made before an interrupt, or before the making failed, are still worked on and
    finished; none is begun after one that failed.
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
