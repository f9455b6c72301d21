"""How a run is getting on: who waits for whom, and RUN/metrics.json, kept current while it is made."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Literal, TypeVar

from stepconf.errors import StepconfError
from stepconf.run.events import Tick, log
from stepconf.run.parts import chunks_of
from stepconf.run.shards import Run

EVERY_S = 1.0  # metrics.json is written at most so often
T = TypeVar("T")
State = Literal["running", "finished", "interrupted", "failed"]


class EngineClock:
    """How long an engine waits for those who make its requests and take its results, in seconds.

    Tokenising falls into the first; verification and writing, where they hold the pipeline up, into the
    second. An engine in a process of its own may work on meanwhile: the figure is then an upper bound.
    """

    def __init__(self) -> None:
        self._idle = self._left_out = 0.0

    def feeding(self, requests: Iterator[T]) -> Iterator[T]:
        """The requests; the time to make each one counts."""
        started = time.perf_counter()
        for one in requests:
            self._idle += time.perf_counter() - started
            yield one
            started = time.perf_counter()
        self._idle += time.perf_counter() - started

    def taking(self, results: Iterator[T]) -> Iterator[T]:
        """The results; the time until the next one is asked for counts."""
        for one in results:
            started, self._left_out = time.perf_counter(), 0.0
            yield one
            self._idle += time.perf_counter() - started - self._left_out

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last result was no waiting: another stream of requests ran."""
        self._left_out += seconds

    def lap(self) -> float:
        """Seconds since the last lap."""
        idle, self._idle = self._idle, 0.0
        return idle


class BusyClock:
    """How long at least one of several threads is at a piece of work, in seconds; each `end` gives its share."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at_work, self._since = 0, 0.0

    def begin(self) -> None:
        """A thread begins."""
        with self._lock:
            if not self._at_work:
                self._since = time.perf_counter()
            self._at_work += 1

    def end(self) -> float:
        """It is done: the seconds since another was, or since there was work again."""
        with self._lock:
            self._at_work -= 1
            now = time.perf_counter()
            lap, self._since = now - self._since, now
            return lap


@dataclass
class _Stage:
    done: int = 0
    total: int | None = None


class Meter:
    """Progress of a run: passed on to `tick`, and kept in RUN/metrics.json. Call it as `tick`.

    Counts and drops are those of the whole run, stages and rates those of this attempt at it.
    """

    def __init__(self, run: Run, tick: Tick) -> None:
        self._run, self._tick, self._lock = run, tick, Lock()
        self._clock = self._opened = time.monotonic()
        self._written = float("-inf")
        self._stages: dict[str, _Stage] = {}
        self._chunks, self._todo = 0, 0
        self._counts: Counter[str] = Counter(dict.fromkeys(("solutions", "steps", "tokens"), 0))
        self._drops: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        for manifest in run.manifests():
            self._add(manifest, len(chunks_of(manifest)))
        self._seconds.clear()

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            state: State = "finished"
        else:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        said = error.problem if isinstance(error, StepconfError) else repr(error) if error else None
        with self._lock:
            self._write(state, said)
        log(state, run=str(self._run.path), **({"error": said} if said else {}))

    def __call__(self, stage: str, n: int) -> None:
        """`n` more done in `stage`; a negative n announces so many more to do."""
        self._tick(stage, n)
        with self._lock:
            if stage not in self._stages:
                first = next(iter(self._stages.values()), None)
                self._stages[stage] = _Stage(total=0 if n < 0 else first.total if first else None)
            if n < 0:
                self._stages[stage].total = (self._stages[stage].total or 0) - n
            self._stages[stage].done += max(n, 0)
            if time.monotonic() - self._written >= EVERY_S:
                self._write("running")

    def begin(self, n_chunks: int) -> None:
        """The engine is loaded: rates count from here; `n_chunks` are to be made."""
        with self._lock:
            self._todo, self._clock = n_chunks, time.monotonic()
            self._write("running")
        log("begin", run=str(self._run.path), chunks=n_chunks, chunks_before=self._chunks)

    def committed(self, name: str, facts: dict[str, Any]) -> None:
        """A chunk with these facts (those of its manifest) is now part of the run."""
        with self._lock:
            self._add(facts)
            self._todo -= 1
        log("commit", chunk=name, **facts)

    def _add(self, facts: dict[str, Any], n_chunks: int = 1) -> None:
        self._chunks += n_chunks
        self._counts.update({name: facts.get(name, 0) for name in self._counts})
        self._drops.update(facts.get("drops", {}))
        self._seconds.update(facts.get("seconds", {}))

    def _write(self, state: State, error: str | None = None) -> None:
        now = time.monotonic()
        elapsed = now - self._clock
        stages = {name: _figures(stage, elapsed) for name, stage in self._stages.items()}
        left = [one["eta_s"] for one in stages.values() if one["eta_s"] is not None]
        self._written = now
        self._run.write_metrics(
            {
                "state": state,
                "error": error,
                "pid": os.getpid(),
                "updated": time.time(),
                "elapsed_s": round(now - self._opened, 3),
                "eta_s": max(left, default=None),
                "chunks": {"done": self._chunks, "total": self._chunks + self._todo},
                **self._counts,
                "stages": stages,
                "drops": dict(self._drops.most_common()),
                "engine_idle_share": idle_share(self._seconds),
            }
        )


def idle_share(seconds: Counter[str]) -> float | None:
    """The share of the engine's time that it waited (see `EngineClock`); None where no engine ran."""
    engine = seconds["sample"] + seconds["score"] + seconds["branch"]
    return round(min(seconds["idle"] / engine, 1.0), 4) if engine > 0 and "idle" in seconds else None


def _figures(stage: _Stage, elapsed: float) -> dict[str, Any]:
    rate = stage.done / elapsed if stage.done and elapsed > 0 else None
    eta = max(stage.total - stage.done, 0) / rate if rate and stage.total is not None else None
    return {
        "done": stage.done,
        "total": stage.total,
        "per_second": None if rate is None else round(rate, 3),
        "eta_s": None if eta is None else round(eta, 1),
    }
