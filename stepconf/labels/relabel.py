"""`stepconf relabel`: a run's steps labelled again from its verdicts; no verifier runs.

Order, and what remains after a kill:

1. The pairs go: they were made of the old labels.
2. `recipe.yaml` names the new policy and noise. From here on the old command is refused for the key that differs, so
   that no run goes on under two policies unnoticed; with `--set verify.policy=NEW` it goes on.
3. Chunk by chunk, each shard that changes is replaced whole by a rename, then the chunk's manifest, which names
   the policy.

Killed at any point, every shard is whole and every step has the labels of one policy or the other. Killed
between the files of one chunk, the manifest still has the size and hash of a replaced shard. The same
command again looks at all chunks and so mends both; until then `summary.json` is the old one.
"""

from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from stepconf.core.labels import POLICIES
from stepconf.core.noise import Noise, check_noise
from stepconf.core.schema import plain, upgraded
from stepconf.errors import StepconfError
from stepconf.labels.columns import Labelled, label_chunk
from stepconf.labels.noise import with_noise
from stepconf.run.damage import damage_error
from stepconf.run.events import Tick
from stepconf.run.parquet import parquet_file
from stepconf.run.parts import Part, parts_of
from stepconf.run.shard import Shard, as_declared, shard_facts
from stepconf.run.shards import Run
from stepconf.run.summary import write_summary
from stepconf.run.tables import read_recipe
from stepconf.workers.ahead import ahead

_NO_NOISE = Noise()


def relabel(path: Path, policy: str | None, tick: Tick, noise: Noise = _NO_NOISE) -> dict[str, Any]:
    """Label every step of a run by `policy` (None: the run's own), turn some labels over, and return the new summary.

    Raises:
        StepconfError: the folder is not a run, another process writes it, a shard cannot be read, the policy
            is unknown, or the rate of the noise is none.
    """
    check_noise(noise)
    recipe = read_recipe(path)
    known = recipe.get("verify", {})
    policy = policy or str(known.get("policy", POLICIES[0]))
    if policy not in POLICIES:
        raise StepconfError(f"unknown label policy {policy!r}.", f"Choose from: {', '.join(POLICIES)}.")
    with Run(path, recipe) as run:
        run.clear_pairs()
        recipe["verify"] = known | {"policy": policy}
        if noise.rate or "noise" in known:
            recipe["verify"] |= {"noise": noise.rate, "noise_seed": noise.seed}
        run.write_recipe(recipe)
        manifests = run.manifests()
        tick("relabel", -sum(manifest["solutions"] for manifest in manifests))
        parts = [parts_of(manifest) for manifest in manifests]
        # Threads read, label and compress; what is done to the folder is done here, in order.
        made = ahead(partial(_relabelled, path, policy, noise), chain.from_iterable(parts))
        for manifest, own in zip(manifests, parts, strict=True):
            run.recommit(manifest, chain.from_iterable(islice(made, len(own))), {"policy": policy})
            tick("relabel", manifest["solutions"])
        return write_summary(run)


def _relabelled(path: Path, policy: str, noise: Noise, part: Part) -> list[tuple[str, Shard]]:
    """The shards of a part, by name: those that change with their new bytes."""
    names = {"solutions": part.solutions, "steps": part.steps}
    read = {table: _read(path / name, path) for table, name in names.items()}
    labelled = label_chunk(read["solutions"][0], read["steps"][0], policy)
    if noise.rate:
        steps = with_noise(labelled.solutions, labelled.steps, noise)
        labelled = Labelled(labelled.solutions, steps, ("solutions", "steps"))
    return [
        (
            name,
            Shard.of(as_declared(table, getattr(labelled, table)))
            if table in labelled.changed
            else Shard(read[table][1]),
        )
        for table, name in names.items()
    ]


def _read(file: Path, run: Path) -> tuple[Any, dict[str, Any]]:
    """The rows of a shard and what a manifest says of it."""
    import pyarrow as pa

    try:
        data = file.read_bytes()
        rows = parquet_file(pa.BufferReader(data)).read()
        plain(rows.schema.metadata)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise damage_error(run, f"the shard {file} cannot be read: {error}") from error
    return upgraded(file.parent.name, rows), shard_facts(len(rows), data)
