"""The run folder, and the only module that writes data files; `tables.py` reads them.

What is written into a copy goes on to its URL (`stores/`).

RUN/solutions/part-00003.parquet   one shard per table and chunk of problems, or several (`parts.py`)
RUN/steps/part-00003.parquet
RUN/manifests/00003.json           written last: no manifest, no shard
RUN/pairs/train-00003.parquet      made later, all or none (and validation-00003.parquet), with one manifest,
RUN/manifests/pairs.json           written last; until they are whole they lie in RUN/.pairs
RUN/recipe.yaml                    the resolved recipe; RUN/summary.json, the counts
RUN/metrics.json                   how far it is; written while it is made, for `stepconf status`
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import yaml

from stepconf.core.documents import differences, manifest_checksum
from stepconf.core.records import Pair
from stepconf.core.schema import TABLES, arrow_schema, to_columns
from stepconf.errors import StepconfError
from stepconf.run.damage import damaged_manifests, live_manifests
from stepconf.run.events import warn
from stepconf.run.new_folder import visible
from stepconf.run.parquet import parquet_file
from stepconf.run.parts import PAIRS
from stepconf.run.shard import Shard, as_declared, in_parts
from stepconf.run.tables import METRICS, read_manifests, read_recipe
from stepconf.stores.names import SHARD
from stepconf.stores.opening import writer

_STAGED = ".pairs"


class Run:
    """A run folder, locked for writing while it is open.

    Args:
        path: the folder; made if absent.
        recipe: the resolved recipe as plain values, which must equal that of a run already there.
        repair: take chunks with a damaged shard out of the run, found by their checksums.

    Attributes:
        metadata: what goes into every shard's schema metadata (engine, model, dtype, ...).

    Raises:
        StepconfError: the folder holds something else, a run of another recipe, a damaged shard that is not
            to be repaired, or another process writes it.
    """

    def __init__(self, path: Path, recipe: dict[str, Any], repair: bool = False) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._staged: dict[Path, dict[str, Any]] = {}
        if path.exists() and not path.is_dir():
            raise StepconfError(f"{path} is a file, not a folder.", "Give another --out.")
        if path.is_dir() and not (path / "recipe.yaml").exists() and any(visible(path)):
            raise StepconfError(f"{path} is not empty and not a run.", "Give a new folder with --out.")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self._store = contextlib.ExitStack()
        try:
            self._send = self._store.enter_context(writer(path, at_end=False))
            self._settle_recipe(recipe)
            if repair:
                self._take_out_damaged()
            self._sweep()
        except BaseException:  # Ctrl-C too must give the lock back
            self._close()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        try:
            self._store.close()
        finally:
            self._lock.close()

    def _take_lock(self) -> BinaryIO:
        lock = (self.path / ".lock").open("wb")
        for pause_s in (0.05, 0.05, None):  # who looks whether it is locked holds it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if pause_s is not None:
                    time.sleep(pause_s)
                    continue
                lock.close()
                raise StepconfError(
                    f"another process is writing {self.path}.",
                    f"Wait for it (stepconf status {self.path} --watch), or give another --out.",
                ) from error
        return lock

    def _settle_recipe(self, recipe: dict[str, Any]) -> None:
        file = self.path / "recipe.yaml"
        differing = differences(read_recipe(self.path), recipe) if file.exists() else []
        # Before the first commit there is nothing that another recipe could have made: a mistyped model or
        # option must not bar the folder.
        if not file.exists() or (differing and not any((self.path / "manifests").glob("*.json"))):
            self.write_recipe(recipe)
        elif differing:
            raise StepconfError(
                f"{self.path} holds a run of another recipe; it differs in: " + "; ".join(differing),
                "Give the same options to continue it, or another --out.",
            )

    def _take_out_damaged(self) -> None:
        """Undo the commit of every chunk with damage; the rest of it is swept. Its pairs go with it.

        Pairs may be made of any chunk, and a chunk that is sampled again need not hold the same solutions.
        """
        damaged = damaged_manifests(self.path)
        for manifest, what in damaged.items():
            warn("damaged", f"{self.path}: {what}; taken out of the run.", manifest=manifest.name)
        if damaged and (self.path / "manifests" / f"{PAIRS}.json").exists():
            warn("pairs removed", f"{self.path}: its pairs are removed; type stepconf pairs again.")
            self.clear_pairs()
        for manifest in damaged:
            self._undo(manifest)

    def _sweep(self) -> None:
        """Remove what a killed process left: temporary files, manifests that do not count, shards without one."""
        live = live_manifests(self.path)
        for manifest in sorted((self.path / "manifests").glob("*.json")):
            if manifest not in live:
                self._undo(manifest)
        kept = {name for manifest in read_manifests(self.path) for name in manifest["files"]}
        for table in TABLES:
            self._remove_shards(table, kept)
        for folder in ("", "manifests", *TABLES):
            for file in (self.path / folder).glob(".*.tmp"):
                if file.is_file():
                    file.unlink()
        shutil.rmtree(self.path / _STAGED, ignore_errors=True)

    def _remove_shards(self, table: str, kept: Container[str] = ()) -> None:
        """Remove a table's shards, but those kept; what others have put into its folder stays."""
        for file in (self.path / table).glob("*.parquet"):
            name = f"{table}/{file.name}"
            if SHARD.fullmatch(name) and name not in kept and file.is_file():
                file.unlink()

    def manifests(self) -> list[dict[str, Any]]:
        """The manifests of all committed chunks of solutions and steps, in order."""
        return [m for m in read_manifests(self.path) if m["chunk"] != PAIRS]

    def clear_pairs(self) -> None:
        """Take the pairs out of the run: their manifest first, which unmakes them, then the shards."""
        self._undo(self.path / "manifests" / f"{PAIRS}.json")
        self._remove_shards(PAIRS)

    def replace(
        self,
        older: Sequence[dict[str, Any]],
        name: str,
        shards: Iterable[tuple[str, Any]],
        facts: dict[str, Any],
    ) -> None:
        """Put one manifest in the place of others that hold the same rows, which are removed once it is written.

        Args:
            older: the manifests; one of them may have the new one's name.
            name: the new one's.
            shards: the names of its shards and their rows, an Arrow table each, or None for an older one's shard that
                stays; no other has a name that an older one's has.
            facts: what it keeps beside them; the chunks that it stands for.
        """
        before = {shard: found for manifest in older for shard, found in manifest["files"].items()}
        files = {
            shard: before[shard] if rows is None else self._write_shard(self.path / shard, rows)
            for shard, rows in shards
        }
        self._write_manifest(name, files, facts)
        for manifest in older:
            if manifest["chunk"] != name:
                self._undo(self.path / "manifests" / f"{manifest['chunk']}.json")
        for shard in before.keys() - files.keys():
            (self.path / shard).unlink(missing_ok=True)

    def _undo(self, manifest: Path) -> None:
        manifest.unlink(missing_ok=True)
        self._send()

    def stage_pairs(self, name: str, pairs: Sequence[Pair]) -> None:
        """Write a shard of pairs (`train-00003`) where no reader looks, until `commit_pairs`."""
        self._stage(name, Shard.of(self._table("pairs", pairs)))

    def stage_table(self, name: str, pairs: Any) -> None:
        """As `stage_pairs`, of an Arrow table from elsewhere.

        Raises:
            ValueError: it has other columns than the schema.
        """
        self._stage(name, Shard.of(self._as_declared("pairs", pairs)))

    def _stage(self, name: str, shard: Shard) -> None:
        file = self.path / _STAGED / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, shard.data)
        self._staged[file] = shard.facts

    def staged(self) -> list[Path]:
        """The files of the staged shards, in order."""
        return sorted(self._staged)

    def drop_staged(self, pair_ids: set[str]) -> None:
        """Take pairs out of the staged shards."""
        if not pair_ids:
            return
        import pyarrow as pa
        import pyarrow.compute as pc

        dropped = pa.array(sorted(pair_ids), pa.string())
        for file in list(self._staged):
            with parquet_file(file) as shard:
                rows = shard.read()
            kept = rows.filter(pc.invert(pc.is_in(rows["pair_id"], value_set=dropped)))
            if len(kept):
                self.stage_table(file.stem, kept)
            else:
                file.unlink()
                del self._staged[file]

    def commit_pairs(self, facts: dict[str, Any]) -> None:
        """Put the staged pairs in the place of older ones, then write their manifest: until then there are none."""
        self.clear_pairs()
        folder = self.path / PAIRS
        for file in self._staged:
            folder.mkdir(exist_ok=True)
            file.replace(folder / file.name)
        shutil.rmtree(self.path / _STAGED, ignore_errors=True)
        files = {f"{PAIRS}/{file.name}": found for file, found in sorted(self._staged.items())}
        self._write_manifest(PAIRS, files, facts)
        self._staged = {}

    def commit(self, name: str, tables: dict[str, Sequence[Any]], facts: dict[str, Any]) -> None:
        """Write the shards of solutions and steps, then the manifest, which makes them part of the run.

        `name` is the chunk's; `facts` (counts, drops, seconds, input digest) are kept in the manifest.
        """
        started = time.perf_counter()
        made = {table: self._table(table, rows) for table, rows in tables.items()}
        files = self._write_shards(in_parts(name, made["solutions"], made["steps"]))
        seconds = facts.get("seconds", {}) | {"write": round(time.perf_counter() - started, 3)}
        self._write_manifest(name, files, facts | {"seconds": seconds})

    def commit_tables(self, name: str, shards: dict[str, Any], facts: dict[str, Any]) -> None:
        """Make a chunk of a run that lay elsewhere part of this one: its shards' Arrow tables, its manifest's facts.

        None stands for a table without rows.

        Raises:
            ValueError: a table has other columns than the schema.
        """
        declared = [
            (shard, self._as_declared(shard.partition("/")[0], rows)) for shard, rows in shards.items()
        ]
        self._write_manifest(name, self._write_shards(declared), facts)

    def _table(self, table: str, rows: Sequence[Any]) -> Any:
        import pyarrow as pa

        return pa.Table.from_pydict(to_columns(table, rows), schema=arrow_schema(table, self.metadata))

    def _as_declared(self, table: str, rows: Any) -> Any:
        return arrow_schema(table, self.metadata).empty_table() if rows is None else as_declared(table, rows)

    def _write_shards(self, shards: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {shard: self._write_shard(self.path / shard, rows) for shard, rows in shards}

    def _write_shard(self, file: Path, rows: Any) -> dict[str, Any]:
        """Write an Arrow table; what its manifest is to say of it."""
        shard = Shard.of(rows)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, shard.data)
        return shard.facts

    def recommit(
        self, manifest: dict[str, Any], shards: Iterable[tuple[str, Shard]], facts: dict[str, Any]
    ) -> None:
        """Put shards in the place of a committed chunk's, by name, then write its manifest with more facts.

        The shards that the chunk keeps are given without data: what the manifest says of them is renewed.
        """
        files = dict(manifest["files"])
        for name, shard in shards:
            if shard.data:
                write_atomically(self.path / name, shard.data)
            files[name] = shard.facts
        kept = {key: value for key, value in manifest.items() if key not in ("chunk", "files")}
        self._write_manifest(manifest["chunk"], files, kept | facts)

    def _write_manifest(self, name: str, files: dict[str, Any], facts: dict[str, Any]) -> None:
        folder = self.path / "manifests"
        folder.mkdir(exist_ok=True)
        manifest = {"chunk": name, "files": files, **facts}
        manifest["checksum"] = manifest_checksum(manifest)
        write_atomically(folder / f"{name}.json", json.dumps(manifest, indent=1).encode())
        self._send()

    def write_recipe(self, recipe: dict[str, Any]) -> None:
        """Write RUN/recipe.yaml."""
        self.write_bytes("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write RUN/name."""
        self.write_bytes(name, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write RUN/name."""
        write_atomically(self.path / name, data)
        self._send()

    def write_metrics(self, value: dict[str, Any]) -> None:
        """Write RUN/metrics.json whole, but unsynced, and not at all where that fails: no run ends for it."""
        temporary = self.path / f".{METRICS}.tmp"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
            temporary.rename(self.path / METRICS)


def write_atomically(file: Path, data: Any) -> None:
    """Write bytes to a temporary name, sync, rename: the file is there whole or not at all."""
    # Hidden: a folder that holds nothing else is still an empty one.
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of plain values for other programs: JSON lines, or Parquet of an inferred schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(file, text.encode("utf-8", "surrogatepass"))
        return
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, compression="zstd")
    write_atomically(file, sink.getvalue().to_pybytes())
