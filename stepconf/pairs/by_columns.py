"""Step pairs of a run of any size, part by part. What is kept of all its pairs is their ids and kinds."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from stepconf.core.schema import arrow_schema
from stepconf.pairs.columns import whole_parts
from stepconf.pairs.tables import Made, Texts, make_part
from stepconf.pairs.tally import KINDS, Tally, as_bytes
from stepconf.recipe import PairsRecipe
from stepconf.run.ahead import ahead
from stepconf.run.events import Tick
from stepconf.run.shards import Run
from stepconf.run.tables import all_parts

MANY_STEPS = 2_000_000  # from here on, processes gain more than it takes to start them, on two cores too
_CORRECT_UNCERTAIN, _INCORRECT = KINDS.index("correct_uncertain"), KINDS.index("incorrect")


def make_by_columns(
    run: Run, options: PairsRecipe, tau: float | None, tokenizer: Texts, tally: Tally, tick: Tick
) -> None:
    """Stage the pairs by caspo, or by step-dpo where `tau` is None, and count them.

    A pair that several parts give, from problems that are worded alike, is the first one's. Such pairs are looked
    for when all parts are made: few runs have any, and the parts that have are made again, without them.
    """
    schema = arrow_schema("pairs", run.metadata)
    make = partial(make_part, run=run.path, options=options, tau=tau, tokenizer=tokenizer, schema=schema)
    parts, all_made = all_parts(run.path), []
    many = sum(manifest["steps"] for manifest in run.manifests()) >= MANY_STEPS
    for part, made in zip(parts, ahead(make, whole_parts(run.path), many), strict=True):
        all_made.append(_staged(run, part.name, made))
        tick("pairs", made.n_solutions)
    shared, given = shared_ids([made.ids for made in all_made]), set[bytes]()
    for index, part in enumerate(whole_parts(run.path)) if shared else ():
        own = shared.get(index, set())
        if known := own & given:
            run.unstage_shards([f"{split}-{part.own.name}" for split in all_made[index].kept])
            all_made[index] = _staged(run, part.own.name, make(part, known=known))
        given |= own & _kept(all_made[index])
    for made in all_made:
        tally.drops.update(made.drops)
        for split, rows in made.kept.items():
            tally.add(split, made.ids[rows], np.where(made.incorrect[rows], _INCORRECT, _CORRECT_UNCERTAIN))


def _staged(run: Run, name: str, made: Made) -> Made:
    """What is left of a part when its shards are written."""
    for split, shard in made.shards.items():
        run.stage_shard(f"{split}-{name}", shard)
    return made._replace(shards={})


def _kept(made: Made) -> set[bytes]:
    return {one for rows in made.kept.values() for one in as_bytes(made.ids[rows])}


def shared_ids(ids: Sequence[Any]) -> dict[int, set[bytes]]:
    """Of arrays of ids (p, 10), those ids that are in several of them, by the number of the array.

    An id is as good as its first 8 bytes but for one chance in many millions, which costs a look in vain.
    """
    heads = [np.ascontiguousarray(own[:, :8]).view(np.uint64)[:, 0] for own in ids]
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *heads]), return_counts=True)
    several = values[counts > 1]
    if not len(several):
        return {}
    rows = [np.isin(own, several) for own in heads]
    return {index: set(as_bytes(ids[index][own])) for index, own in enumerate(rows) if own.any()}
