"""Step pairs of a run of any size, part by part. What is kept of all its pairs is their ids and kinds."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stepconf.core.schema import arrow_schema
from stepconf.pairs.columns import WholePart, whole_parts
from stepconf.pairs.tables import Made, Means, Texts, Written, make_part, make_parts
from stepconf.pairs.tally import KINDS, Tally, as_bytes
from stepconf.recipe import PairsRecipe
from stepconf.run.ahead import ahead
from stepconf.run.events import Tick
from stepconf.run.shards import Run

MANY_STEPS = 2_000_000  # from here on, processes gain more than it takes to start them, on two cores too
GROUP_BYTES = 24 << 20  # of shards whose pairs are written together
_CORRECT_UNCERTAIN, _INCORRECT = KINDS.index("correct_uncertain"), KINDS.index("incorrect")


def make_by_columns(
    run: Run, options: PairsRecipe, tau: float | None, tokenizer: Texts, tally: Tally, tick: Tick
) -> None:
    """Stage the pairs by caspo, or by step-dpo where `tau` is None, and count them.

    A pair that several parts give, from problems that are worded alike, is the first one's. Such pairs are looked
    for when all parts are made: few runs have any, and the parts that have are made again, without them.
    """
    means = Means(run.path, options, tau, tokenizer, arrow_schema("pairs", run.metadata))
    many = sum(manifest["steps"] for manifest in run.manifests()) >= MANY_STEPS
    names: list[str] = []
    groups: list[list[Made]] = []
    for written in ahead(partial(make_parts, means=means), _named(_groups(run.path), names), many):
        groups.append(_staged(run, names[len(groups)], written))
        tick("pairs", sum(made.n_solutions for made in groups[-1]))
    _without_shared(run, means, names, groups)
    for made in (made for group in groups for made in group):
        tally.drops.update(made.drops)
        for split, rows in made.kept.items():
            tally.add(split, made.ids[rows], np.where(made.incorrect[rows], _INCORRECT, _CORRECT_UNCERTAIN))


def _groups(run: Path) -> Iterator[list[WholePart]]:
    """The parts, so many at a time that their pairs make a file that is worth its while."""
    group: list[WholePart] = []
    size = 0
    for part in whole_parts(run):
        own = sum((run / shard).stat().st_size for shard in (part.own.solutions, part.own.steps))
        if group and (part.tables or size + own > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(part)
        size += own if part.tables is None else GROUP_BYTES
    if group:
        yield group


def _named(groups: Iterable[list[WholePart]], names: list[str]) -> Iterator[list[WholePart]]:
    """The groups; each one's name, that of its first part, is added to `names`."""
    for group in groups:
        names.append(group[0].own.name)
        yield group


def _staged(run: Run, name: str, written: Written) -> list[Made]:
    for split, shard in written.shards.items():
        run.stage_shard(f"{split}-{name}", shard)
    return written.made


def _without_shared(run: Run, means: Means, names: list[str], groups: list[list[Made]]) -> None:
    """Make the groups anew that give pairs which a part before gives, too."""
    shared = iter(shared_ids([made.ids for group in groups for made in group]))
    of_groups = [[next(shared, set[bytes]()) for _ in group] for group in groups]
    given: set[bytes] = set()
    for index, parts in enumerate(_groups(run.path)) if any(map(any, of_groups)) else ():
        own = of_groups[index]
        if len(given.union(*own)) == len(given) + sum(map(len, own)):  # given here for the first time
            given.update(*(ids & _kept(made) for ids, made in zip(own, groups[index], strict=True)))
            continue
        run.unstage_shards(f"{split}-{names[index]}" for split in {s for m in groups[index] for s in m.kept})
        anew = []
        for part, ids in zip(parts, own, strict=True):
            anew.append(make_part(part, means, known=ids & given))
            given |= ids & _kept(anew[-1])
        groups[index] = _staged(run, names[index], Written.of(anew))


def _kept(made: Made) -> set[bytes]:
    return {one for rows in made.kept.values() for one in as_bytes(made.ids[rows])}


def shared_ids(ids: Sequence[Any]) -> Iterator[set[bytes]]:
    """Of each of several arrays of ids (p, 10), those that are in another one, too; nothing where none is.

    Two ids whose first 8 bytes are equal count as equal: a chance of one in millions, which costs a look in vain.
    """
    heads = [np.ascontiguousarray(own[:, :8]).view(np.uint64)[:, 0] for own in ids]
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *heads]), return_counts=True)
    several = values[counts > 1]
    for own, head in zip(ids, heads, strict=True) if len(several) else ():
        yield set(as_bytes(own[np.isin(head, several)]))
