"""What a file of a folder is, by its name: part of a run, news, or one that says that others are whole."""

import re
from collections.abc import Container

from stepconf.core.schema import TABLES

MANIFEST = re.compile(r"(.*/)?manifests/[\w-]+\.json")
# What others put beside the shards has other names: it stays, and is a file like any other.
SHARD = re.compile(rf"(.*/)?(?:{'|'.join(TABLES)})/(?:part|train|validation)-[0-9.-]+\.parquet")
_CHECKPOINT = re.compile(r"(.*/)?checkpoint-\d{6}")
_LAST = ("state.json", "summary.json", "report.json", "comparison.json", "rounds.json")


def turn(name: str) -> tuple[int, str]:
    """In which order files are sent: a recipe makes a run, so it is first; then shards before their manifests."""
    base = name.rpartition("/")[2]
    if base in _LAST:
        return 4 + _LAST.index(base), name
    return 0 if base == "recipe.yaml" else 3 if MANIFEST.fullmatch(name) else 2 if SHARD.fullmatch(
        name
    ) else 1, name


def run_of(shard: str) -> str:
    """The folder of the run that a shard or a manifest is in: empty, or with a slash at its end."""
    return "/".join((*shard.split("/")[:-2], ""))


def staged(shard: str, digest: str) -> str:
    """Where a shard waits until its manifest is there."""
    return f"{run_of(shard)}.staged/{digest}"


def is_staged(name: str) -> bool:
    """Whether it is such a place."""
    return "/.staged/" in f"/{name}"


def is_shard(name: str, names: Container[str]) -> bool:
    """Whether it is one of a run that is among these names."""
    return SHARD.fullmatch(name) is not None and f"{run_of(name)}recipe.yaml" in names


def is_news(name: str) -> bool:
    """Whether it says how far a run is."""
    return name.rpartition("/")[2] == "metrics.json"


def is_part(name: str, names: Container[str]) -> bool:
    """Whether it is part of the folder: in it, not hidden, no scratch file, of no checkpoint that is not whole.

    A store takes any name: one that begins with a slash, or has `..` in it, would be a path outside of the copy.
    """
    plain = "\0" not in name and all(part and not part.startswith(".") for part in name.split("/"))
    return plain and not (name.endswith(".tmp") or is_cut(name, names))


def is_cut(name: str, names: Container[str]) -> bool:
    """Whether it is of a checkpoint that lacks what is written last."""
    folder = name.rpartition("/")[0]
    return _CHECKPOINT.fullmatch(folder) is not None and f"{folder}/state.json" not in names
