"""Step pairs of a run of any size, part by part. What is kept of all its pairs is their ids and kinds."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stepconf.core.schema import arrow_schema
from stepconf.pairs.columns import WholePart, whole_parts
from stepconf.pairs.tables import Made, Means, Task, Texts, Written, make_part, make_parts, shard_names
from stepconf.pairs.tally import KINDS, Tally, as_bytes
from stepconf.recipe import PairsRecipe
from stepconf.run.ahead import ahead
from stepconf.run.events import Tick
from stepconf.run.parts import parts_of
from stepconf.run.shards import Run

Manifests = list[dict[str, Any]]
MANY_STEPS = 2_000_000  # from here on, processes gain more than it takes to start them, on two cores too
GROUP_BYTES = 24 << 20  # of shards whose pairs are written together
_CORRECT_UNCERTAIN, _INCORRECT = (np.uint8(KINDS.index(kind)) for kind in ("correct_uncertain", "incorrect"))


def make_by_columns(
    run: Run,
    options: PairsRecipe,
    tau: Callable[[], float | None],
    tokenizer: Texts,
    tally: Tally,
    tick: Tick,
) -> None:
    """Stage the pairs by caspo, or by step-dpo where `tau` gives None, and count them.

    A pair that several parts give, from problems that are worded alike, is the first one's. Such pairs are looked
    for when all parts are made: few runs have any, and the parts that have are made again, without them.
    """
    means = Means(run.path, options, tokenizer, arrow_schema("pairs", run.metadata))
    manifests = run.manifests()
    many = sum(manifest["steps"] for manifest in manifests) >= MANY_STEPS
    groups: list[list[Made]] = []
    for written in ahead(partial(make_parts, means=means), _tasks(run.path, manifests, tau), many):
        groups.append(_staged(run, written))
        tick("pairs", sum(made.n_solutions for made in written.made))
    _without_shared(run, manifests, tau(), means, groups)
    for made in chain.from_iterable(groups):
        tally.drops.update(made.drops)
        for split, rows in made.kept.items():
            tally.add(split, made.ids[rows], np.where(made.incorrect[rows], _INCORRECT, _CORRECT_UNCERTAIN))


def _tasks(run: Path, manifests: Manifests, tau: Callable[[], float | None]) -> Iterator[Task]:
    """What tau is taken from is read while processes start and the parts are looked through."""
    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(tau)
        for parts in _groups(run, manifests):
            yield Task(parts, told.result())


def _groups(run: Path, manifests: Manifests) -> Iterator[list[WholePart]]:
    """The parts, so many at a time that their pairs make a file that is worth its while."""
    n_bytes = {name: facts["bytes"] for one in manifests for name, facts in one["files"].items()}
    group: list[WholePart] = []
    size = 0
    for part in whole_parts(run, [part for one in manifests for part in parts_of(one)]):
        own = n_bytes[part.own.solutions] + n_bytes[part.own.steps] if part.tables is None else GROUP_BYTES
        if group and size + own > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(part)
        size += own
    if group:
        yield group


def _staged(run: Run, written: Written) -> list[Made]:
    for name, shard in written.shards.items():
        run.stage_shard(name, shard)
    return written.made


def _without_shared(
    run: Run, manifests: Manifests, tau: float | None, means: Means, groups: list[list[Made]]
) -> None:
    """Make the groups anew that give pairs which a part before gives, too."""
    shared = shared_ids([made.ids for made in chain.from_iterable(groups)])
    if not any(shared):
        return
    given: set[bytes] = set()
    for index, parts in enumerate(_groups(run.path, manifests)):
        own, shared = shared[: len(parts)], shared[len(parts) :]
        if len(given.union(*own)) == len(given) + sum(map(len, own)):  # none of them has been given before
            given.update(*(ids & _kept_ids(made) for ids, made in zip(own, groups[index], strict=True)))
            continue
        run.unstage_shards(shard_names(parts, groups[index]).values())
        anew: list[Made] = []
        for part, ids in zip(parts, own, strict=True):
            anew.append(make_part(part, tau, means, known=ids & given))
            given |= ids & _kept_ids(anew[-1])
        groups[index] = _staged(run, Written.of(parts, anew))


def _kept_ids(made: Made) -> set[bytes]:
    return {one for rows in made.kept.values() for one in as_bytes(made.ids[rows])}


def shared_ids(ids: Sequence[Any]) -> list[set[bytes]]:
    """Of each of several arrays of ids (p, 10), those that are in another one, too.

    Two ids whose first 8 bytes are equal count as equal: a chance of one in millions, which costs a look in vain.
    """
    heads = [np.ascontiguousarray(own[:, :8]).view(np.uint64)[:, 0] for own in ids]
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *heads]), return_counts=True)
    several = values[counts > 1]
    if not len(several):
        return [set() for _ in ids]
    return [set(as_bytes(own[np.isin(head, several)])) for own, head in zip(ids, heads, strict=True)]
