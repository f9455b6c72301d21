"""Which chunks a manifest stands for, and which of its shards lie side by side.

A chunk is one shard of each table, or several where its rows are many bytes: the steps of the solutions in
`solutions/part-00003.001.parquet` are those in `steps/part-00003.001.parquet`. Small chunks that `compact` has put
together are `part-00000-00007.parquet`, and their manifest, 00000-00007.json, names all of them: from its writing
on, manifests of theirs that are still there do not count.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

PAIRS = "pairs"  # name of their manifest
SHARD_BYTES = 64 << 20  # of solutions and their steps in memory; a few of them are held at a time
GROUP_BYTES = 16 << 20  # of a row group, as much as must be decoded to see one row


class Part(NamedTuple):
    """Shards of one chunk, or of several: solutions, and their steps."""

    name: str
    solutions: str
    steps: str


def chunks_of(manifest: dict[str, Any]) -> dict[str, str]:
    """The chunks that a manifest stands for, in order, with the digests of their input."""
    merged: dict[str, str] | None = manifest.get("chunks")
    return merged or {manifest["chunk"]: manifest.get("input", "")}


def superseded(manifests: Iterable[dict[str, Any]]) -> set[str]:
    """The names of those whose chunks another one has put together with more."""
    held = list(manifests)
    merged = [chunks_of(one).keys() for one in held if "chunks" in one]
    return {one["chunk"] for one in held if any(chunks_of(one).keys() < more for more in merged)}


def parts_of(manifest: dict[str, Any]) -> list[Part]:
    """A chunk's shards, in the order of its rows."""
    names = {table: table_shards(manifest, table) for table in ("solutions", "steps")}
    return [
        Part(stem_of(own).removeprefix("part-"), own, steps)
        for own, steps in zip(*names.values(), strict=True)
    ]


def table_shards(manifest: dict[str, Any], table: str) -> list[str]:
    """The names of a chunk's shards of one table, in order."""
    return sorted(name for name in manifest["files"] if name.startswith(f"{table}/"))


def stem_of(shard: str) -> str:
    """`part-00003.001` of `steps/part-00003.001.parquet`."""
    return shard.partition("/")[2].removesuffix(".parquet")


def shard_names(chunk: str, n: int) -> list[str]:
    """What the parts of a chunk are called if they are so many."""
    return [f"part-{chunk}.parquet"] if n == 1 else [f"part-{chunk}.{k:03d}.parquet" for k in range(n)]


def cut(solutions: Any, steps: Any, limit: int) -> Iterator[tuple[Any, Any]]:
    """Arrow tables of solutions and their steps, in pieces of at most `limit` bytes.

    Halved where a problem ends, within a problem where a sample and its branches do; those stay together. Steps that
    are not in the order of their solutions are not cut.
    """
    place = {key: row for row, key in enumerate(solutions["solution_id"].to_pylist())}
    owner = [place.get(key, -1) for key in steps["solution_id"].to_pylist()]
    if not owner or owner[0] < 0 or any(after < before for before, after in pairwise(owner)):
        yield solutions, steps
        return
    starts = [bisect_left(owner, row) for row in range(len(solutions) + 1)]
    problems = solutions["problem_id"].to_pylist()
    is_sample = solutions["parent_solution_id"].is_null().to_pylist()

    def pieces(low: int, high: int) -> Iterator[tuple[Any, Any]]:
        piece = solutions.slice(low, high - low), steps.slice(starts[low], starts[high] - starts[low])
        samples = [row for row in range(low + 1, high) if is_sample[row]]
        if not samples or piece[0].nbytes + piece[1].nbytes <= limit:
            yield piece
            return
        ends = [row for row in samples if problems[row] != problems[row - 1]]
        middle = (starts[low] + starts[high]) / 2
        at = min(ends or samples, key=lambda row: abs(starts[row] - middle))
        yield from pieces(low, at)
        yield from pieces(at, high)

    yield from pieces(0, len(solutions))
