"""Reading a run folder: manifests, recipe, and the tables' committed shards, one at a time (see `shards.py`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from stepconf.core.records import Pair, Solved, Step
from stepconf.core.schema import solution_of, step_of
from stepconf.errors import StepconfError
from stepconf.run.damage import damage_told, read_manifest

PAIRS = "pairs"  # name of their manifest


def read_manifests(run: Path) -> list[dict[str, Any]]:
    """The manifests of a run folder, in the order of their names.

    Raises:
        StepconfError: one cannot be read; it names the file.
    """
    return [_whole(run, file) for file in sorted((run / "manifests").glob("*.json"))]


def _whole(run: Path, file: Path) -> dict[str, Any]:
    manifest = read_manifest(file)
    if isinstance(manifest, str):
        raise damage_told(run, f"the manifest {file} {manifest}.")
    return manifest


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


def shard_files(run: Path, table: str, stem: str = "") -> list[Path]:
    """The committed shards of one table, in order; only those whose names begin with `stem` (a split).

    A Parquet file outside a run is its own only shard.
    """
    if run.suffix == ".parquet":
        return [run]
    names = [name for m in read_manifests(run) for name in m["files"] if name.startswith(f"{table}/{stem}")]
    return [run / name for name in sorted(names)]


def read_tables(run: Path, table: str, columns: list[str] | None = None, stem: str = "") -> Iterator[Any]:
    """One `pyarrow.Table` per committed shard of a table; `columns` may name fields inside lists.

    `stem`: only the shards whose names begin so, such as the split `train` of the table `pairs`.

    Raises:
        StepconfError: a shard is missing or cannot be read; it names the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in shard_files(run, table, stem):
        try:
            with pq.ParquetFile(file) as shard:
                read = shard.read(columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise damage_told(run, f"the shard {file} cannot be read: {error}") from error
        yield read


def read_shards(
    run: Path, table: str, columns: list[str] | None = None, stem: str = ""
) -> Iterator[list[dict[str, Any]]]:
    """The rows of one table as plain values, one committed shard at a time; otherwise as `read_tables`."""
    return (read.to_pylist() for read in read_tables(run, table, columns, stem))


def read_pairs(run: Path, split: Literal["train", "validation"] = "train") -> Iterator[list[Pair]]:
    """The pairs of one split, one shard at a time; none where `stepconf pairs` has not run to its end."""
    return ([Pair(**row) for row in rows] for rows in read_shards(run, "pairs", stem=split))


def pairs_manifest(run: Path) -> dict[str, Any] | None:
    """What is known of the run's pairs (options, tau, counts, drops); None where it has none."""
    return next((m for m in read_manifests(run) if m["chunk"] == PAIRS), None)


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
    return plain(pq.read_schema(files[0]).metadata if files else None)


def plain(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Arrow's schema metadata as texts."""
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}
