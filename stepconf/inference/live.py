"""Searches that come at any time and from any thread, over one engine: what a server needs of `run.answer`.

None waits for another: a question that comes while others are under way joins their stream.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from stepconf.engines.base import Engine
from stepconf.inference.base import Question, Result, Search, Spent, failed
from stepconf.inference.run import answer


@dataclass(eq=False, slots=True)
class _Job:
    key: str
    begin: Callable[[], Search]
    done: Callable[[Result | Exception], None]
    search: Search | None = None
    fault: Exception | None = None
    unwanted: bool = False


class Live:
    """Answers what is submitted, in the thread that calls `run`; the other methods may be called from any.

    Args:
        engine: used by the thread of `run` alone.
    """

    def __init__(self, engine: Engine) -> None:
        self.fault: Exception | None = None
        self._engine = engine
        self._lock = threading.Lock()
        self._open: dict[str, _Job] = {}
        self._coming: SimpleQueue[_Job | None] = SimpleQueue()
        self._unwanted: SimpleQueue[_Job] = SimpleQueue()
        self._stopped = False

    def submit(
        self, key: str, begin: Callable[[], Search], done: Callable[[Result | Exception], None]
    ) -> None:
        """Answer a question when the engine has room.

        Args:
            key: the question's own; no other under way may have it.
            begin: makes the search, whose result has this key; called in the engine's thread.
            done: gets the result, or what `begin` or the search raised, in the engine's thread; of the
                engine's end in any.
        """
        job = _Job(key, begin, done)
        with self._lock:
            fault = self.fault
            if fault is None:
                self._open[key] = job
                self._coming.put(job)
        if fault is not None:
            done(fault)

    def give_up(self, key: str) -> None:
        """Cancel a question: its search is closed, the engine drops its requests, `done` is not called."""
        with self._lock:
            job = self._open.pop(key, None)
        if job is not None:
            job.unwanted = True
            self._unwanted.put(job)

    def stop(self) -> None:
        """Let `run` return once nothing is under way."""
        self._coming.put(None)

    def run(self) -> None:
        """Answer until `stop`. A request that crashes a living engine fails alone. An engine that fails otherwise ends
        it: `fault` says how, and all waiting requests end with it."""
        try:
            while not self._stopped and (job := self._coming.get()) is not None:
                for result in answer(self._engine, self._arrivals(job), abandoned=self._abandoned):
                    self._finish(result)
        except Exception as error:  # noqa: BLE001  every client gets an error, whatever it was
            with self._lock:
                self.fault = error
                waiting = list(self._open.values())
                self._open.clear()
            for job in waiting:
                job.done(error)

    def _finish(self, result: Result) -> None:
        with self._lock:
            job = self._open.pop(result.key, None)
        if job is not None:
            job.done(job.fault or result)

    def _arrivals(self, job: _Job | None) -> Iterator[Search | None]:
        """The first job's search, then those of all that come; None while none does."""
        while True:
            if job is not None and not job.unwanted:
                job.search = _guarded(job)
                yield job.search
            try:
                job = self._coming.get_nowait()
                self._stopped = self._stopped or job is None
            except Empty:
                job = None
                yield None

    def _abandoned(self) -> Iterator[Search]:
        while True:
            try:
                job = self._unwanted.get_nowait()
            except Empty:
                return
            if job.search is not None:
                yield job.search


def _guarded(job: _Job) -> Search:
    """The job's search; what it raises is kept for its client and ends no other."""
    try:
        return (yield from job.begin())
    except Exception as error:  # noqa: BLE001  the client gets an error, whatever it was
        job.fault = error
        return failed(Question(job.key, "", ([],)), "", Spent())
