"""The run folder, and the only module that writes data files.

RUN/solutions/part-00003.parquet   one shard per table and chunk of problems
RUN/steps/part-00003.parquet
RUN/manifests/00003.json           written last: no manifest, no shard
RUN/pairs/part-00003.parquet       made later, with RUN/manifests/pairs-00003.json
RUN/recipe.yaml                    the resolved recipe; RUN/summary.json, the counts
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import yaml

from stepconf.core.records import Solved, Step
from stepconf.core.schema import TABLES, arrow_schema, solution_of, step_of, to_columns
from stepconf.errors import StepconfError

PAIRS_PREFIX = "pairs-"


class Run:
    """A run folder, locked for writing while it is open.

    Args:
        path: the folder; made if absent.
        recipe: the resolved recipe as plain values, which must equal that of a run already there.
        metadata: what goes into every shard's schema metadata (engine, model, dtype, ...).

    Raises:
        StepconfError: the folder holds something else, a run of another recipe, or another process writes it.
    """

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        if path.exists() and not path.is_dir():
            raise StepconfError(f"{path} is a file, not a folder.", "Give another --out.")
        if path.is_dir() and not (path / "recipe.yaml").exists() and any(_visible(path)):
            raise StepconfError(f"{path} is not empty and not a run.", "Give a new folder with --out.")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self._settle_recipe(recipe)
            self._sweep()
        except BaseException:  # Ctrl-C too must give the lock back
            self._lock.close()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.close()

    def _take_lock(self) -> BinaryIO:
        lock = (self.path / ".lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise StepconfError(
                f"another process is writing {self.path}.", "Wait for it, or give another --out."
            ) from error
        return lock

    def _settle_recipe(self, recipe: dict[str, Any]) -> None:
        file = self.path / "recipe.yaml"
        differing = sorted(_differences(read_recipe(self.path), recipe)) if file.exists() else []
        # Before the first commit there is nothing that another recipe could have made: a mistyped model or
        # option must not bar the folder.
        if not file.exists() or (differing and not read_manifests(self.path)):
            write_atomically(file, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode())
        elif differing:
            raise StepconfError(
                f"{self.path} holds a run of another recipe; it differs in: " + "; ".join(differing),
                "Give the same options to continue it, or another --out.",
            )

    def _sweep(self) -> None:
        """Remove what a killed process left: temporary files, and shards without a manifest."""
        kept = {name for manifest in read_manifests(self.path) for name in manifest["files"]}
        for table in TABLES:
            for file in (self.path / table).glob("*"):
                if f"{table}/{file.name}" not in kept:
                    file.unlink()
        for file in self.path.rglob("*.tmp"):
            file.unlink()

    def manifests(self) -> list[dict[str, Any]]:
        """The manifests of all committed chunks of solutions and steps, in order."""
        return [m for m in read_manifests(self.path) if not m["chunk"].startswith(PAIRS_PREFIX)]

    def clear_pairs(self) -> None:
        """Take the pairs out of the run: their manifests first, which unmakes them, then the shards."""
        for file in (self.path / "manifests").glob(f"{PAIRS_PREFIX}*.json"):
            file.unlink()
        self._sweep()

    def commit(self, name: str, tables: dict[str, Sequence[Any]], facts: dict[str, Any]) -> None:
        """Write one shard per table, then the manifest, which makes them part of the run.

        `name` is the chunk's; `facts` (counts, drops, seconds, input digest) are kept in the manifest.
        """
        started = time.perf_counter()
        files = {}
        for table, rows in tables.items():
            file = self.path / table / f"part-{name.removeprefix(PAIRS_PREFIX)}.parquet"
            files[f"{table}/{file.name}"] = {"rows": len(rows), **self._write_shard(table, file, rows)}
        seconds = facts.get("seconds", {}) | {"write": round(time.perf_counter() - started, 3)}
        manifest = {"chunk": name, "files": files, **facts, "seconds": seconds}
        folder = self.path / "manifests"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{name}.json", json.dumps(manifest, indent=1).encode())

    def _write_shard(self, table: str, file: Path, rows: Sequence[Any]) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = arrow_schema(table, self.metadata)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pydict(to_columns(table, rows), schema=schema), sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, data)
        return {"bytes": len(data), "blake2b": blake2b(data, digest_size=16).hexdigest()}

    def write_json(self, name: str, value: Any) -> None:
        """Write RUN/name."""
        write_atomically(self.path / name, json.dumps(value, indent=1, ensure_ascii=False).encode())


def write_atomically(file: Path, data: bytes) -> None:
    """Write to a temporary name, sync, rename: the file is there whole or not at all."""
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


def read_manifests(run: Path) -> list[dict[str, Any]]:
    """The manifests of a run folder, in the order of their names."""
    files = sorted((run / "manifests").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def check_is_run(run: Path) -> None:
    """Raise StepconfError where `run` is not a run folder."""
    if not (run / "recipe.yaml").exists():
        raise StepconfError(
            f"{run} is not a run folder (no recipe.yaml in it).", "Make one: stepconf generate --out RUN ..."
        )


def read_recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run, as plain values."""
    check_is_run(run)
    file = run / "recipe.yaml"
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StepconfError(f"{file} is not YAML: {error}", "Give another folder.") from error
    if not isinstance(loaded, dict) or "command" not in loaded:
        raise StepconfError(f"{file} is not the recipe of a run.", "Give another folder.")
    return loaded


def shard_files(run: Path, table: str) -> list[Path]:
    """The committed shards of one table, in order."""
    names = [name for m in read_manifests(run) for name in m["files"] if name.startswith(table + "/")]
    return [run / name for name in sorted(names)]


def read_shards(run: Path, table: str, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """The rows of one table as plain values, one committed shard at a time.

    Raises:
        StepconfError: a shard is missing or cannot be read; it names the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in shard_files(run, table):
        try:
            yield pq.read_table(file, columns=columns).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise StepconfError(
                f"the shard {file} cannot be read: {error}",
                f"Delete {run / 'manifests' / (file.stem.removeprefix('part-') + '.json')} and run the same "
                "command again to make it anew.",
            ) from error


def read_solved(run: Path) -> Iterator[tuple[str, list[Solved]]]:
    """Each committed chunk's name, with its solutions and their steps."""
    steps = read_shards(run, "steps")
    for file, solutions in zip(shard_files(run, "solutions"), read_shards(run, "solutions"), strict=True):
        by_solution: dict[str, list[Step]] = {}
        for step in map(step_of, next(steps)):
            by_solution.setdefault(step.solution_id, []).append(step)
        chunk = [
            Solved(solution, by_solution.get(solution.solution_id, []))
            for solution in map(solution_of, solutions)
        ]
        yield file.stem.removeprefix("part-"), chunk


def read_metadata(run: Path) -> dict[str, str]:
    """The schema metadata of a run's steps (engine, model, dtype, ...); empty for an empty run."""
    import pyarrow.parquet as pq

    files = shard_files(run, "steps")
    found = pq.read_schema(files[0]).metadata if files else None
    return {key.decode(): value.decode() for key, value in (found or {}).items()}


def _visible(path: Path) -> Iterator[Path]:
    return (p for p in path.iterdir() if not p.name.startswith("."))


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield f"{prefix} (there {old!r}, now {new!r})"
