"""What the JSON of a run folder must say: others may have written it, or a Hub may have kept it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_json
from stepconf.core.schema import TABLES
from stepconf.run.parts import PAIRS, stem_of, table_shards

_NUMBER = re.compile(r"[0-9]{1,9}")  # of a chunk
_MOST = 1 << 63  # whole numbers of JSON may have thousands of digits, and their sums more than Python prints
_LONE = re.compile("[\ud800-\udfff]")
Kinds = dict[str, Callable[[Any], bool]]


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written: a lone surrogate cannot."""
    return isinstance(value, str) and not _LONE.search(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, of which sums can be taken and shown."""
    return type(value) in (int, float) and abs(value) < _MOST


def is_count(value: Any) -> bool:
    """Whether it is a number of things."""
    return type(value) is int and 0 <= value < _MOST


def each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether something is a mapping of which each value `fits`."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_OF_SHARD: Kinds = {"rows": is_count, "bytes": is_count, "blake2b": is_text}
_OF_CHUNK: Kinds = {
    "solutions": is_count,
    "steps": is_count,
    "tokens": is_count,
    "drops": each(is_count),
    "seconds": each(is_number),
}
# What later versions say in addition.
_MORE_OF_PAIRS: Kinds = {"problems": is_count}
_OF_PAIRS: Kinds = {
    "solutions": is_count,
    "kinds": each(is_count),
    "splits": each(is_count),
    "drops": each(is_count),
    "options": lambda value: isinstance(value, dict) and is_text(value.get("strategy")),
    "tau": lambda value: value is None or is_number(value),
}


def from_json(text: str | bytes) -> Any:
    """What a text of JSON holds.

    Raises:
        ValueError: as `read_json`; or it has a lone surrogate in a text: nobody could write that again.
    """
    value = read_json(text)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def manifest_flaw(manifest: Any) -> str | None:
    """What is wrong with what was read as a manifest, wherever it lay; None where nothing is."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return "names no files"
    if not is_text(chunk := manifest.get("chunk")):
        return f"is of chunk {chunk!r}"
    chunks = manifest.get("chunks", {chunk: ""})
    if chunk != PAIRS and not (chunks and each(is_text)(chunks) and all(map(_NUMBER.fullmatch, chunks))):
        return f"stands for {chunks!r}"
    for name, facts in manifest["files"].items():
        table, _, shard = name.partition("/")
        if table not in TABLES or Path(shard).name != shard:
            return f"names {name!r}, which is no shard of a run"
        if odd := _odd(facts, _OF_SHARD):
            return f"has no valid {odd!r} of {name}"
    said = {name: fits for name, fits in _MORE_OF_PAIRS.items() if name in manifest}
    if odd := _odd(manifest, _OF_PAIRS | said if chunk == PAIRS else _OF_CHUNK):
        return f"has no valid {odd!r}"
    names = [[stem_of(name) for name in table_shards(manifest, table)] for table in ("solutions", "steps")]
    if names[0] != names[1]:
        return "names solutions and steps that do not lie side by side"
    return None


def _odd(facts: Any, kinds: Kinds) -> str | None:
    """The first of the kinds that is not among the facts, or is something else there."""
    known = facts if isinstance(facts, dict) else {}
    return next((name for name, fits in kinds.items() if name not in known or not fits(known[name])), None)
