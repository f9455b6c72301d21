"""`stepconf compact`: the small shards of a run put together into ones near `SHARD_BYTES`; no row changes.

Neighbouring chunks are put together group by group: new shards are written under names of their own, then the
manifest that names the chunks it stands for, then the older manifests and shards go. What a kill leaves:

- before the new manifest: shards without a manifest, which do not count;
- after it: older manifests, which no longer count, and their shards.

The next writer of the run removes these (`Run`), and the same command goes on with the groups that are left. Every
command here reads only what counts; who reads `steps/*.parquet` without the manifests may see rows twice until then.
The shards of pairs are put together in the same way, under their one manifest.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stepconf.run.damage import damage_error, damaged_manifests
from stepconf.run.events import Tick
from stepconf.run.parts import PAIRS, SHARD_BYTES, chunks_of, parts_of, stem_of
from stepconf.run.shard import put_together
from stepconf.run.shards import Run
from stepconf.run.tables import pairs_manifest, read_footer, read_manifests, read_recipe, read_shard

_SUMS = ("solutions", "steps", "tokens")
_COUNTS = ("drops", "seconds")


class Piece(NamedTuple):
    """Rows that stay together: what they are `of`, their size, what neighbours must have equal, and do they follow.

    `n_bytes`: before compression, which is some four fifths of what they are in memory.
    """

    of: Any
    n_bytes: int
    kind: tuple[Any, ...]
    follows: bool


def compact(path: Path, tick: Tick) -> tuple[int, int]:
    """Put the small shards of a run together; how many files it was, and how many it is.

    Raises:
        StepconfError: the folder is not a run, another process writes it, or a shard or manifest is damaged.
    """
    with Run(path, read_recipe(path)) as run:
        for what in damaged_manifests(path).values():
            raise damage_error(path, f"{path}: {what}.")
        before = _n_files(path)
        groups = [group for group in grouped(_chunk_pieces(path, run.manifests())) if len(group) > 1]
        tick("compact", -sum(map(len, groups)))
        for group in groups:
            _merge_chunks(run, group)
            tick("compact", len(group))
        pairs = pairs_manifest(path)
        if pairs is not None:
            _merge_pairs(run, pairs)
        return before, _n_files(path)


def grouped(pieces: Iterable[Piece]) -> Iterator[list[Any]]:
    """What neighbouring pieces are of, as many of one kind together as are not too large."""
    group: list[Piece] = []
    for piece in pieces:
        whole = sum(one.n_bytes for one in group) + piece.n_bytes <= SHARD_BYTES
        if group and not (whole and piece.follows and piece.kind == group[-1].kind):
            yield [one.of for one in group]
            group = []
        group.append(piece)
    if group:
        yield [one.of for one in group]


def _chunk_pieces(path: Path, manifests: list[dict[str, Any]]) -> Iterator[Piece]:
    """Chunks; where one is missing it may still come between its neighbours. The metadata are those of a file."""
    last = -1
    for manifest in manifests:
        shards = [shard for part in parts_of(manifest) for shard in (part.solutions, part.steps)]
        found = [read_footer(path, shard) for shard in shards]
        numbers = [int(name) for name in chunks_of(manifest)]
        kind = (manifest.get("policy"), *sorted({str(metadata) for _, metadata in found}))
        yield Piece(manifest, sum(size for size, _ in found), kind, numbers[0] == last + 1)
        last = numbers[-1]


def _merge_chunks(run: Run, manifests: list[dict[str, Any]]) -> None:
    chunks = {name: digest for manifest in manifests for name, digest in chunks_of(manifest).items()}
    first, *_, last = chunks
    parts = [part for manifest in manifests for part in parts_of(manifest)]
    shards = {"solutions": [part.solutions for part in parts], "steps": [part.steps for part in parts]}
    rows = (
        (f"{table}/part-{first}-{last}.parquet", _joined(run.path, table, own))
        for table, own in shards.items()
    )
    facts: dict[str, Any] = {"chunks": chunks}
    facts |= {key: sum(m[key] for m in manifests) for key in _SUMS if all(key in m for m in manifests)}
    for key in _COUNTS:
        counted: Counter[str] = Counter()
        for manifest in manifests:
            counted.update(manifest.get(key, {}))
        facts[key] = {what: round(n, 3) for what, n in counted.items()}
    facts |= {"policy": manifests[0]["policy"]} if "policy" in manifests[0] else {}
    run.replace(manifests, f"{first}-{last}", rows, facts)


def _merge_pairs(run: Run, manifest: dict[str, Any]) -> None:
    pieces = []
    for shard in sorted(manifest["files"]):
        size, metadata = read_footer(run.path, shard)
        pieces.append(Piece(shard, size, (stem_of(shard).partition("-")[0], str(metadata)), True))
    groups = {_pairs_name(group): group for group in grouped(pieces)}
    if len(groups) == len(pieces) or any(
        name in manifest["files"] for name, own in groups.items() if len(own) > 1
    ):
        return
    rows = (
        (name, _joined(run.path, PAIRS, group) if len(group) > 1 else None) for name, group in groups.items()
    )
    run.replace(
        [manifest],
        PAIRS,
        rows,
        {k: v for k, v in manifest.items() if k not in ("chunk", "files", "checksum")},
    )


def _pairs_name(shards: list[str]) -> str:
    """`pairs/train-00000-00007.parquet` of shards from `train-00000` to `train-00007`: in the order of the others."""
    if len(shards) == 1:
        return shards[0]
    split, first = stem_of(shards[0]).split("-")[:2]
    return f"{PAIRS}/{split}-{first}-{stem_of(shards[-1]).rpartition('-')[2].partition('.')[0]}.parquet"


def _joined(path: Path, table: str, shards: list[str]) -> Any:
    return put_together(table, (read_shard(path, shard) for shard in shards))


def _n_files(path: Path) -> int:
    return sum(len(manifest["files"]) for manifest in read_manifests(path))
