"""The published form of a run: the folder that `push` uploads, and the way back from it to a run.

README.md                                  the card
data/steps/train-00000-of-00002.parquet    each table's shards, joined into few files, rows in the same order
data/pairs/validation-00000-of-00001...    beside train, where pairs are split
stepconf/recipe.yaml, summary.json, source.json
stepconf/manifests.jsonl                   the run's manifests, a line each: they say which rows were whose
stepconf/checksums.json                    BLAKE2b of each file of data/
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepconf import __version__
from stepconf.check_files import file_digest, missing_parts, stale_summary
from stepconf.chunks import Tick
from stepconf.core.card import CONFIGS, Published, Source, card
from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.problem_sets import NAMED_SETS
from stepconf.shards import (
    PAIRS,
    Run,
    check_is_run,
    read_manifests,
    read_metadata,
    read_recipe,
    shard_files,
    write_atomically,
)

GROUP_ROWS = 10_000  # the viewer reads a row group at a time, and gives up above some 100 MB
GROUP_BYTES = 64 << 20  # uncompressed
FILE_BYTES = 1 << 30  # uncompressed; well below half of it on disk
_CHUNK_NAME = re.compile(r"\d{5,9}")
_PAIRS_FILE = re.compile(r"pairs/((train|validation)-\d{5,9})\.parquet")
_GENERATORS = {"reasoning-gym": "Apache-2.0"}


def write_folder(
    run: Path, folder: Path, name: str, licence: str | None, partial: bool, tick: Tick
) -> list[Path]:
    """Write the published form of `run` into the empty or absent `folder`; its files, in order.

    Raises:
        StepconfError: not a run, an unfinished one without `partial`, an empty one, or the folder is not empty.
    """
    check_is_run(run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StepconfError(f"{folder} is not an empty folder.", "Give another one with --out.")
    missing = missing_parts(run)
    if missing and not partial:
        raise StepconfError(
            f"{run} is not finished: {'; '.join(missing)}.",
            "Type the command that made it again, or add --partial to go on without the rest.",
        )
    rows = {table: by_split for table in CONFIGS if (by_split := _rows(run, table))}
    if "solutions" not in rows:
        raise StepconfError(f"{run} holds no solutions, so there is nothing to publish.")
    tick("write", -sum(len(shard_files(run, table)) for table in rows))
    for table, by_split in rows.items():
        for split in by_split:
            _write_table(_shards(run, table, split), folder / "data" / table, split, tick)
    about = folder / "stepconf"
    about.mkdir(parents=True)
    for file in ("recipe.yaml", "source.json", "summary.json"):
        if (run / file).exists():
            (about / file).write_bytes((run / file).read_bytes())
    manifests = "".join(json.dumps(manifest) + "\n" for manifest in read_manifests(run))
    (about / "manifests.jsonl").write_text(manifests, encoding="utf-8")
    data = sorted((folder / "data").rglob("*.parquet"))
    sums = {file.relative_to(folder).as_posix(): file_digest(file) for file in data}
    (about / "checksums.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    text = card(_published(run, name, rows, licence, missing))
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _published(
    run: Path, name: str, rows: dict[str, dict[str, int]], licence: str | None, missing: list[str]
) -> Published:
    from stepconf.summary import read_summary

    file = run / "summary.json"
    current = file.exists() and not missing and not stale_summary(run, read_manifests(run))
    return Published(
        name=name,
        recipe=read_recipe(run),
        summary=json.loads(file.read_text(encoding="utf-8")) if current else read_summary(run),
        metadata=read_metadata(run),
        rows=rows,
        sources=_sources(run),
        version=__version__,
        licence=licence,
        missing=missing,
    )


def _sources(run: Path) -> list[Source]:
    import pyarrow.parquet as pq

    splits: dict[str, set[str]] = {}
    for file in shard_files(run, "solutions"):
        table = pq.read_table(file, columns=["source", "split"]).group_by(["source", "split"]).aggregate([])
        for row in table.to_pylist():
            splits.setdefault(row["source"], set()).add(row["split"])
    return [Source(name, tuple(sorted(of)), _licence_of(name)) for name, of in sorted(splits.items())]


def _licence_of(source: str) -> str | None:
    named = NAMED_SETS.get(source)
    return named.licence if named else _GENERATORS.get(source.partition(":")[0])


def _rows(run: Path, table: str) -> dict[str, int]:
    """Rows of a table by split; only splits that have some."""
    counts: dict[str, int] = {}
    for manifest in read_manifests(run):
        for name, facts in manifest["files"].items():
            if name.startswith(table + "/") and facts["rows"]:
                counts[_split(name)] = counts.get(_split(name), 0) + facts["rows"]
    return dict(sorted(counts.items()))


def _split(shard: str) -> str:
    """The split of `pairs/validation-00003.parquet`; chunks of solutions and steps are `train`."""
    stem = shard.rpartition("/")[2].partition("-")[0]
    return "train" if stem == "part" else stem


def _shards(run: Path, table: str, split: str) -> list[Path]:
    return shard_files(run, table, split if table == "pairs" else "part")


def _write_table(shards: list[Path], folder: Path, split: str, tick: Tick) -> None:
    """The shards of a table as few files: without their number while it is not known."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    writer, size = None, 0
    for group in _groups(shards, tick):
        # Another engine version or model goes on in a file of its own: metadata belong to a file.
        if (
            writer is None
            or size >= FILE_BYTES
            or not group.schema.equals(writer.schema, check_metadata=True)
        ):
            if writer is not None:
                writer.close()
            files.append(folder / f"{split}.{len(files):05d}")
            writer, size = _writer(files[-1], group.schema), 0
        writer.write_table(group, row_group_size=len(group))
        size += group.nbytes
    if writer is not None:
        writer.close()
    for index, file in enumerate(files):
        file.rename(folder / f"{split}-{index:05d}-of-{len(files):05d}.parquet")


def _writer(file: Path, schema: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        file, schema, compression="zstd", write_page_index=True, use_content_defined_chunking=True
    )


def _groups(files: list[Path], tick: Tick) -> Iterator[Any]:
    """The rows of all shards in order, in tables fit for one row group; empty shards give none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held: list[Any] = []
    for file in files:
        try:
            rows = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise StepconfError(
                f"the shard {file} cannot be read: {error}", f"Type: stepconf check {file.parents[1]}"
            ) from error
        tick("write", 1)
        if held and not rows.schema.equals(held[0].schema, check_metadata=True):
            yield pa.concat_tables(held).combine_chunks()
            held = []
        most = max(1, min(GROUP_ROWS, GROUP_BYTES * len(rows) // max(rows.nbytes, 1)))
        for start in range(0, len(rows), most):
            part = rows.slice(start, most)
            if held and (
                sum(map(len, held)) + len(part) > GROUP_ROWS
                or sum(one.nbytes for one in held) + part.nbytes > GROUP_BYTES
            ):
                yield pa.concat_tables(held).combine_chunks()
                held = []
            held.append(part)
    if held:
        yield pa.concat_tables(held).combine_chunks()


# The way back


def read_folder(folder: Path, out: Path, where: str, tick: Tick) -> None:
    """Make the run `out` from a published folder; what `out` already holds of it is kept.

    Raises:
        StepconfError: the folder was not written by `push`, or is not whole; `out` holds something else.
    """
    about = folder / "stepconf"
    if not (about / "recipe.yaml").exists() or not (about / "manifests.jsonl").exists():
        raise StepconfError(
            f"{where} holds no run (no stepconf/recipe.yaml in it).",
            "pull brings back what stepconf push has published; any other set is read with datasets.",
        )
    _check_sums(folder, where)
    manifests = [json.loads(line) for line in (about / "manifests.jsonl").read_text("utf-8").splitlines()]
    recipe = read_recipe(about)
    streams = {
        (table, split): _Rows(sorted((folder / "data" / table).glob(f"{split}-*.parquet")), where)
        for table in TABLES
        for split in ("train", "validation")
    }
    with Run(out, recipe) as run:
        run.metadata = _metadata(folder)
        there = {manifest["chunk"] for manifest in read_manifests(out)}
        tick("unpack", -len(manifests))
        for manifest in manifests:
            rows = {name: _rows_of(name, f["rows"], streams, where) for name, f in manifest["files"].items()}
            if manifest["chunk"] not in there:
                try:
                    _restore(run, manifest, rows, where)
                except ValueError as error:  # Arrow's, of columns and types
                    raise StepconfError(f"{where}: its tables are not those of a run: {error}") from error
            tick("unpack", 1)
        for file in ("source.json", "summary.json"):
            if (about / file).exists():
                write_atomically(out / file, (about / file).read_bytes())


def _rows_of(name: str, n: int, streams: dict[tuple[str, str], "_Rows"], where: str) -> Any:
    """The next n rows of the table and split of the shard `name`; None for none of an absent table."""
    stream = streams.get((name.partition("/")[0], _split(name)))
    if stream is None:
        raise StepconfError(f"{where} names a shard {name!r}, which no run has.")
    return stream.take(n)


def _restore(run: Run, manifest: dict[str, Any], rows: dict[str, Any], where: str) -> None:
    chunk = manifest["chunk"]
    facts = {key: value for key, value in manifest.items() if key not in ("chunk", "files")}
    if chunk == PAIRS and all(_PAIRS_FILE.fullmatch(name) for name in rows):
        for name, pairs in rows.items():
            run.stage_table(Path(name).stem, pairs)
        run.commit_pairs(facts)
    elif _CHUNK_NAME.fullmatch(chunk):
        run.commit_tables(chunk, {name.partition("/")[0]: table for name, table in rows.items()}, facts)
    else:
        raise StepconfError(f"{where} names a chunk {chunk!r}, which no run has.")


def _check_sums(folder: Path, where: str) -> None:
    sums = json.loads((folder / "stepconf" / "checksums.json").read_text(encoding="utf-8"))
    for name, digest in sums.items():
        file = folder / name
        if ".." in Path(name).parts or not file.is_file() or file_digest(file) != digest:
            raise StepconfError(
                f"{where}: {name} is missing or not what was published.", "Type the same command again."
            )


def _metadata(folder: Path) -> dict[str, str]:
    """The schema metadata of the steps (engine, model, ...), for shards without rows."""
    import pyarrow.parquet as pq

    files = sorted((folder / "data" / "steps").glob("*.parquet"))
    found = pq.read_schema(files[0]).metadata if files else None
    return {key.decode(): value.decode() for key, value in (found or {}).items()}


class _Rows:
    """The rows of some Parquet files in order, taken n at a time; holds one row group."""

    def __init__(self, files: list[Path], where: str) -> None:
        self._groups, self._where = self._read(files), where
        self._held: Any = None

    def _read(self, files: list[Path]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        for path in files:
            with pq.ParquetFile(path) as file:
                for index in range(file.num_row_groups):
                    yield file.read_row_group(index)

    def take(self, n: int) -> Any:
        """The next n rows."""
        import pyarrow as pa

        parts: list[Any] = []
        while n > 0 or self._held is None:
            if self._held is None or len(self._held) == 0:
                self._held = next(self._groups, None)
                if self._held is None:
                    if n == 0:
                        return None
                    raise StepconfError(f"{self._where}: there are fewer rows than its manifests say.")
                continue
            parts.append(self._held.slice(0, n))
            n -= len(parts[-1])
            self._held = self._held.slice(len(parts[-1]))
        return pa.concat_tables(parts) if parts else self._held.slice(0, 0)
