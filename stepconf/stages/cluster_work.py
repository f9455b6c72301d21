"""What an actor of the cluster runs: the pipeline's own stages, as generators that are fed from outside."""

import logging
import pickle
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from threading import Thread
from typing import Any, Literal

from stepconf.recipe import Recipe
from stepconf.run.meter import BusyClock
from stepconf.stages.branch import check_tokens, open_brancher
from stepconf.stages.chunks import Chunk
from stepconf.stages.models import open_guarded
from stepconf.stages.solutions import branch, divide, metadata_of, sample, teacher_force
from stepconf.stages.verify import open_pool, open_verifiers, shares_engine, verify_chunk

Command = Literal["generate", "score", "segment", "verify"]


@dataclass
class Parcel:
    """A chunk on its way: with the metadata of the engine that made it, and what else there is to tell.

    `warnings` are those of `events.warn`; `failure` ends the run in the process that started it.
    """

    chunk: Chunk[Any]
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    failure: Exception | None = None


# Chunks in, chunks out in any order; None says that there is none to add now.
Work = Callable[[Iterator[Any]], Iterator[tuple[Chunk[Any], dict[str, str]]]]


def making(
    chunks: Iterator[Chunk[Any] | None], command: Command, recipe: Recipe
) -> Iterator[tuple[Chunk[Any], dict[str, str]]]:
    """Chunks sampled or scored; judged too, where a verifier runs the same model."""
    clock = BusyClock()
    with (
        closing(open_guarded(recipe)) as engine,
        open_pool(recipe) as pool,
        open_brancher(recipe, engine, pool, _untold) as brancher,
        open_verifiers(recipe, pool, engine) if shares_engine(recipe) else nullcontext() as verifiers,
    ):
        metadata = metadata_of(engine, recipe)

        def made(some: Iterator[Chunk[Any] | None]) -> Iterator[Chunk[Any]]:
            if command == "generate":
                return sample(some, engine, recipe, _untold, brancher)
            return branch(teacher_force(some, engine, recipe, _untold), brancher)

        if verifiers is None:
            yield from ((chunk, metadata) for chunk in made(chunks))
            return
        for chunk in chain.from_iterable(made(iter([one])) for one in chunks):
            yield verify_chunk(chunk, verifiers, recipe.verify.policy, _untold, clock), metadata


def judging(
    chunks: Iterator[Chunk[Any]], command: Command, recipe: Recipe, tokenizer: str
) -> Iterator[tuple[Chunk[Any], dict[str, str]]]:
    """Chunks verified and labelled; those of `segment` are made first, and given solutions are branched."""
    clock = BusyClock()
    given = command in ("segment", "verify")
    with (
        open_pool(recipe) as pool,
        open_brancher(recipe, None, pool, _untold) if given else nullcontext() as brancher,
        open_verifiers(recipe, pool) as verifiers,
    ):
        engine = brancher.engine if brancher else None
        if command == "segment":
            chunks = divide(chunks, recipe, _untold, engine)
        elif given:
            check_tokens({"tokenizer": tokenizer} if tokenizer else {}, brancher)
        metadata = metadata_of(engine, recipe) if engine and command == "segment" else {}
        for chunk in branch(chunks, brancher):
            yield verify_chunk(chunk, verifiers, recipe.verify.policy, _untold, clock), metadata


def _untold(stage: str, n: int) -> None:
    """Progress is reported where the chunks are committed."""


class Worker:
    """Runs `work` in a thread of its own, from the first parcel on. Call it from as many threads as parcels.

    An engine keeps its batch full over the chunks of all callers: they share one generator.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
        self._under_way: dict[str, tuple[Parcel, Future[None]]] = {}
        self._given = 0
        self._failure: Exception | None = None
        self._warnings = _Warnings()
        logging.getLogger("stepconf").addHandler(self._warnings)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, parcel: Parcel) -> Parcel:
        """The parcel with its chunk done, or with the failure that ended the work."""
        if parcel.failure:
            return parcel
        done: Future[None] = Future()
        self._under_way[parcel.chunk.name] = (parcel, done)
        self._waiting.put(parcel)
        if not self._failure:
            done.result()
        if parcel.chunk.name in self._under_way:
            parcel.failure = self._failure
        parcel.warnings += self._warnings.taken()
        return parcel

    def _run(self) -> None:
        try:
            for chunk, metadata in self._work(self._chunks()):
                parcel, done = self._under_way.pop(chunk.name)
                self._given -= 1
                chunk.items = []
                parcel.chunk, parcel.metadata = chunk, parcel.metadata | metadata
                done.set_result(None)
        except Exception as error:  # noqa: BLE001  whatever it is ends the run, where the user sees it
            self._failure = _sendable(error)
        for _, done in list(self._under_way.values()):
            done.set_result(None)

    def _chunks(self) -> Iterator[Chunk[Any] | None]:
        while True:
            try:
                # Work on other chunks must not wait for one more.
                parcel = self._waiting.get(block=not self._given)
            except queue.Empty:
                yield None
            else:
                self._given += 1
                yield parcel.chunk


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  what cannot be pickled is reported as text
        return RuntimeError(repr(error))
    return error


class _Warnings(logging.Handler):
    """Keeps warnings until a parcel takes them along."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: queue.SimpleQueue[tuple[str, str, dict[str, Any]]] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        event, facts = getattr(record, "event", "warning"), getattr(record, "facts", {})
        self._kept.put((event, record.getMessage(), facts))

    def taken(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [self._kept.get() for _ in range(self._kept.qsize())]
