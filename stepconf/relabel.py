"""`stepconf relabel`: a run's steps labelled anew from the verdicts that it holds; no verifier runs.

Order, and what a kill leaves behind:

1. The pairs go: they were made of the old labels.
2. `recipe.yaml` names the new policy. From here on the old command is refused for the key that differs, so
   that no run goes on under two policies unnoticed; with `--set verify.policy=NEW` it goes on.
3. Chunk by chunk, the shard is replaced whole by a rename, then its manifest, which names the chunk's policy.

Killed at any point, every shard is whole and every step has the labels of one policy or the other. Killed
between the two files of one chunk, the manifest still has the size and hash of the replaced shard. The same
command again does all chunks and so mends both; until then `summary.json` is the old one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from stepconf.chunks import Tick
from stepconf.core.labels import POLICIES
from stepconf.errors import StepconfError
from stepconf.judge import labelled
from stepconf.shards import Run, read_metadata, read_recipe, read_solved, write_atomically
from stepconf.summary import write_summary


def relabel(path: Path, policy: str, tick: Tick) -> dict[str, Any]:
    """Label every step of a run by `policy`, and return the new summary.

    Raises:
        StepconfError: the folder is not a run, another process writes it, or the policy is unknown.
    """
    if policy not in POLICIES:
        raise StepconfError(f"unknown label policy {policy!r}.", f"Choose from: {', '.join(POLICIES)}.")
    recipe = read_recipe(path)
    with Run(path, recipe) as run:
        run.clear_pairs()
        recipe["verify"]["policy"] = policy
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
        write_atomically(path / "recipe.yaml", text.encode())
        manifests = {manifest["chunk"]: manifest for manifest in run.manifests()}
        run.metadata = read_metadata(path)
        tick("relabel", -sum(manifest["solutions"] for manifest in manifests.values()))
        for name, part in read_solved(path):
            anew = [labelled(one, [[] for _ in one.steps], policy) for one in part]
            tables: dict[str, Sequence[Any]] = {
                "solutions": [one.solution for one in anew],
                "steps": [step for one in anew for step in one.steps],
            }
            kept = {key: value for key, value in manifests[name].items() if key not in ("chunk", "files")}
            run.commit(name, tables, kept | {"policy": policy})
            tick("relabel", len(part))
        return write_summary(run)
