"""Chunks sampled and verified on a Ray cluster.

    chunks -> making (an engine, GPUs) -> judging (verifiers, CPUs) -> this process, which commits them

Ray Data moves the chunks: it starts actors, restarts lost ones, slows sampling when verification is slower, and
grows both pools. An actor runs the same stages as one machine does (`cluster_work.py`). Only this process writes
shards and manifests, so a run continues with Ray or without.

Chunks lost with an actor or a node are retried last, `ray.retries` times. If a chunk still fails, its items run
one at a time; an item that fails twice alone is dropped and counted.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stepconf.core.paths import families
from stepconf.errors import StepconfError
from stepconf.kinds import ENGINES
from stepconf.recipe import Recipe
from stepconf.run.events import warn
from stepconf.stages.chunks import Chunk, T
from stepconf.stages.cluster_connection import connected, from_head
from stepconf.stages.cluster_work import Command, Parcel, Work, Worker, judging, making
from stepconf.stages.verify import shares_engine

LOST = "lost with its worker"
# Chunks that an engine has at once: the second one fills the batch while the first one runs out.
_AT_ONCE = 2
_COLUMN = "parcel"
_ANY = 10_000  # actors of a pool that the cluster's room limits


def on_cluster(
    waves: Iterable[Sequence[Chunk[T]]], command: Command, recipe: Recipe, tokenizer: str = ""
) -> Generator[Parcel, None, None]:
    """The chunks, made and judged, in any order, each with the metadata of the engine that made it.

    Args:
        waves: the chunks, so many at a time as may be in memory; each wave starts its own actors.
        tokenizer: digest of the tokenizer that made the items' tokens, if they have any.

    Raises:
        StepconfError: Ray is not installed, its address does not answer, it lacks what an engine asks for, an
            actor met with such an error, or more items were lost with their workers than came through.
    """
    with connected(str(recipe.ray.address)) as ray:
        stages = _stages(command, recipe, tokenizer, ray)
        weight = recipe.sampling.samples if command == "generate" else 1
        for wave in waves:
            stages = yield from _made(wave, stages, recipe.ray.retries, weight, ray)


def _made(
    todo: Sequence[Chunk[T]], stages: list["_Stage"], retries: int, weight: int, ray: Any
) -> Generator[Parcel, None, list["_Stage"]]:
    """The chunks of a wave; those that are lost with their workers are made again. `weight`: solutions an item.

    It returns the stages as the cluster has room for them.
    """
    missing = {chunk.name: chunk for chunk in todo}
    for again in range(retries + 1):
        if again:
            warn("workers lost", f"{len(missing)} chunks lost their workers, and are made again.")
        with closing(_streamed(list(missing.values()), stages, _AT_ONCE, ray)) as parcels:
            for parcel in parcels:
                missing.pop(parcel.chunk.name).solved = []  # the list of all chunks is kept to the end
                yield parcel
        if not missing:
            return stages
        # Of a cluster that has lost nodes, engines must not take the room that the verifiers need.
        stages = [replace(stage, smallest=1) for stage in stages]
    made = sum(len(chunk.items) for chunk in todo if chunk.name not in missing)
    alone = partial(_streamed, stages=stages, at_once=1, ray=ray)
    yield from _item_by_item(list(missing.values()), alone, made, weight)
    return stages


def _item_by_item(
    lost: Sequence[Chunk[T]], alone: Callable[[list[Chunk[T]]], Iterator[Parcel]], made: int, weight: int
) -> Iterator[Parcel]:
    """Chunks that took their workers with them, made in chunks of one; what is lost twice more is counted."""
    names = ", ".join(chunk.name for chunk in lost)
    warn("workers lost", f"chunks {names} lost their workers; each of their items is now tried alone.")
    held = {chunk.name: list(families(chunk.solved)) for chunk in lost}
    ones = [
        Chunk(f"{chunk.name}/{i}", chunk.digest, [item], solved=held[chunk.name][i] if chunk.solved else [])
        for chunk in lost
        for i, item in enumerate(chunk.items)
    ]
    found = {parcel.chunk.name: parcel for parcel in alone(ones)}
    # What was on its way to an actor that another item killed was lost with it.
    if again := [one for one in ones if one.name not in found]:
        found |= {parcel.chunk.name: parcel for parcel in alone(again)}
    if len(ones) - len(found) > made + len(found):
        raise StepconfError(
            f"{len(ones) - len(found)} items were lost with their workers, more than came through.",
            "Look at the nodes' memory and at Ray's logs, then type the same command again.",
        )
    for chunk in lost:
        parts = [found.get(f"{chunk.name}/{i}") for i in range(len(chunk.items))]
        chunk.solved = []
        for part in parts:
            if part is None:
                chunk.drops[LOST] += weight
            else:
                chunk.solved += part.chunk.solved
                chunk.drops.update(part.chunk.drops)
                for stage, seconds in part.chunk.seconds.items():
                    chunk.seconds[stage] = chunk.seconds.get(stage, 0.0) + seconds
        metadata = next((part.metadata for part in parts if part), {})
        yield Parcel(chunk, metadata)


def _streamed(
    chunks: Sequence[Chunk[T]], stages: Sequence["_Stage"], at_once: int, ray: Any
) -> Generator[Parcel, None, None]:
    """What becomes of the chunks; nothing for those that were lost with their workers."""
    rows = [{_COLUMN: pickle.dumps(Parcel(chunk))} for chunk in chunks]
    source = partial(_packed, rows, stages, at_once)
    try:
        with closing(from_head(ray, source) if ray.util.client.ray.is_connected() else source()) as found:
            for packed in found:
                parcel: Parcel = pickle.loads(packed)  # noqa: S301  our own actor's
                for event, sentence, facts in parcel.warnings:
                    warn(event, sentence, **facts)
                if parcel.failure is not None:
                    raise parcel.failure
                yield parcel
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0]
        raise StepconfError(
            f"the Ray cluster failed: {reason}",
            "What was committed is kept. Type the same command again, with --ray or without.",
        ) from error


def _packed(
    rows: list[dict[str, bytes]], stages: Sequence["_Stage"], at_once: int
) -> Generator[bytes, None, None]:
    """The stages over pickled parcels, by Ray Data. It runs in a process of the cluster.

    An actor has `at_once` chunks, and as many more are on their way to it where that is more than one: they
    share its fate. Ray does not try them again, since it would do so with the same actor, which waits for ever
    where no node has room for it any more.
    """
    import ray.data

    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    data.context.max_errored_blocks = -1
    with warnings.catch_warnings():
        # Ray 2.60 has no named parameter for the number of retries yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        for stage in stages:
            data = data.map_batches(
                stage.actor,
                fn_constructor_args=(stage.work,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=min(stage.smallest, len(rows)),
                    max_size=min(stage.largest, len(rows)),
                    max_concurrent_calls_per_actor=at_once,
                    max_tasks_in_flight_per_actor=2 * at_once if at_once > 1 else 1,
                    enable_true_multi_threading=True,
                ),
                num_cpus=stage.cpus,
                num_gpus=stage.gpus,
                max_restarts=-1,
                max_task_retries=0,
            )
    # Nothing is fetched ahead: what is made is committed at once.
    with closing(iter(data.iter_batches(batch_size=None, prefetch_batches=0))) as batches:
        for batch in batches:
            yield from batch[_COLUMN]


class _Actor:
    """What Ray Data starts, one chunk a call; the classes below only give it a name in Ray's dashboard."""

    def __init__(self, work: Work) -> None:
        # Its threads are as many as its CPUs. vLLM would bind those of all engines of a machine to the same ones.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        self._worker = Worker(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        (packed,) = batch[_COLUMN]
        return {_COLUMN: [pickle.dumps(self._worker(pickle.loads(packed)))]}  # noqa: S301  the driver's


class _Making(_Actor):
    pass


class _Judging(_Actor):
    pass


@dataclass(frozen=True)
class _Stage:
    """A pool of actors, each with so many CPUs and GPUs."""

    actor: type[_Actor]
    work: Work
    cpus: float
    gpus: float
    smallest: int
    largest: int


def _stages(command: Command, recipe: Recipe, tokenizer: str, ray: Any) -> list[_Stage]:
    """The pools of a command, one after the other.

    Raises:
        StepconfError: no node has what one actor asks for, or all together have not what the smallest pools do.
    """
    wanted = recipe.ray
    own_engine = shares_engine(recipe) or (command in ("segment", "verify") and bool(recipe.branch.where))
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    gpus = float(recipe.engine.tensor_parallel * has_gpus) if wanted.gpus is None else wanted.gpus
    recipe = _on_a_share(recipe, gpus)
    most = wanted.max_engines or (_ANY if gpus else len(nodes))
    engines = (wanted.cpus, gpus, wanted.min_engines, max(wanted.min_engines, most))
    most = wanted.max_verifiers or _ANY
    verifiers = (
        wanted.verifier_cpus,
        wanted.verifier_gpus,
        wanted.min_verifiers,
        max(wanted.min_verifiers, most),
    )
    stages = []
    if command in ("generate", "score"):
        stages += [_Stage(_Making, partial(making, command=command, recipe=recipe), *engines)]
    if command in ("segment", "verify") or not shares_engine(recipe):
        judge = partial(judging, command=command, recipe=recipe, tokenizer=tokenizer)
        stages += [_Stage(_Judging, judge, *(engines if own_engine else verifiers))]
    _check_room("GPU", "gpus", [(stage.gpus, stage.smallest) for stage in stages], nodes)
    _check_room("CPU", "cpus", [(stage.cpus, stage.smallest) for stage in stages], nodes)
    return stages


def _check_room(
    resource: str, key: str, pools: list[tuple[float, int]], nodes: list[dict[str, float]]
) -> None:
    """Ray would wait for ever for what is not there."""
    there = [node.get(resource, 0) for node in nodes]
    one, together = max(each for each, _ in pools), sum(each * n for each, n in pools)
    if one > max(there, default=0) or together > sum(there):
        raise StepconfError(
            f"the Ray cluster has {sum(there):g} {resource}s, at most {max(there, default=0):g} on a node; "
            f"one actor asks for {one:g} and the smallest pools for {together:g}.",
            f"Ask for less with --set ray.{key}=N, or start more nodes.",
        )


def _on_a_share(recipe: Recipe, gpus: float) -> Recipe:
    """The recipe for one actor: no more memory and processes than its share of a node."""
    options, verify = recipe.engine.options, recipe.verify
    if 0 < gpus < 1:
        options = ENGINES.load(recipe.engine.name).on_share(gpus) | options
    workers = verify.workers or max(1, int(recipe.ray.verifier_cpus))
    return recipe.model_copy(
        update={
            "engine": recipe.engine.model_copy(update={"options": options}),
            "verify": verify.model_copy(update={"workers": workers}),
        }
    )
