"""Reading a run folder: manifests, recipe, and the tables' committed shards, one at a time (see `shards.py`)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stepconf.core.documents import read_yaml
from stepconf.core.records import Pair, Solved, Step
from stepconf.core.schema import TABLES, UPGRADED_FROM, plain, solution_of, step_of, upgraded
from stepconf.core.steps import with_prefix_ids
from stepconf.errors import StepconfError
from stepconf.run.damage import damage_error, live_manifests
from stepconf.run.facts import is_text
from stepconf.run.parquet import opened
from stepconf.run.parts import PAIRS, Part, parts_of

METRICS = "metrics.json"


def read_manifests(run: Path) -> list[dict[str, Any]]:
    """The manifests of a run folder, in the order of their names.

    Raises:
        StepconfError: one cannot be read; it names the file.
    """
    found = []
    for file, manifest in live_manifests(run).items():
        if isinstance(manifest, str):
            raise damage_error(run, f"the manifest {file} {manifest}.")
        found.append(manifest)
    return found


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
        loaded = read_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StepconfError(f"{file} is not YAML as a run has it: {error}", "Give another folder.") from error
    if not (
        isinstance(loaded, dict)
        and is_text(loaded.get("command"))
        and is_text(loaded.get("model", ""))
        and isinstance(loaded.get("verify", {}), dict)
    ):
        raise StepconfError(f"{file} is not the recipe of a run.", "Give another folder.")
    return loaded


def is_file_of_rows(source: Path) -> bool:
    """Whether this is a Parquet file outside a run; a run may have any name."""
    return source.suffix == ".parquet" and not source.is_dir()


def shard_files(run: Path, table: str, stem: str = "") -> list[Path]:
    """The committed shards of one table, in order; only those whose names begin with `stem` (a split).

    A Parquet file outside a run is its own only shard.
    """
    if is_file_of_rows(run):
        return [run]
    names = [name for m in read_manifests(run) for name in m["files"] if name.startswith(f"{table}/{stem}")]
    return [run / name for name in sorted(names)]


def read_tables(run: Path, table: str, columns: list[str] | None = None, stem: str = "") -> Iterator[Any]:
    """One `pyarrow.Table` per committed shard of a table; `columns` may name fields inside lists.

    `stem`: only the shards whose names begin so, such as the split `train` of the table `pairs`.

    Raises:
        StepconfError: a shard is missing or cannot be read; it names the file.
    """
    for file in shard_files(run, table, stem):
        with _opened(run, file) as shard:
            read = _read(shard, table, columns)
        yield read


def read_shard(run: Path, shard: str, columns: list[str] | None = None) -> Any:
    """One shard, by the name that its manifest gives it; columns and errors as `read_tables`."""
    with _opened(run, run / shard) as file:
        return _read(file, shard.partition("/")[0], columns)


def read_aligned(
    run: Path, of_solutions: list[str] | None = None, of_steps: list[str] | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """The name of each part of a run, in order, its solutions and their steps; columns and errors as `read_tables`."""
    for part in all_parts(run):
        yield part.name, *read_part(run, part, of_solutions, of_steps)


def all_parts(run: Path) -> list[Part]:
    """The parts of a run, in order."""
    return [part for m in read_manifests(run) if m["chunk"] != PAIRS for part in parts_of(m)]


def read_part(
    run: Path, part: Part, of_solutions: list[str] | None = None, of_steps: list[str] | None = None
) -> tuple[Any, Any]:
    """The solutions of a part and their steps; columns and errors as `read_tables`."""
    with _opened(run, run / part.solutions) as solutions, _opened(run, run / part.steps) as steps:
        return _read(solutions, "solutions", of_solutions), _read(steps, "steps", of_steps)


def _read(shard: Any, table: str, columns: list[str] | None, group: int | None = None) -> Any:
    """Columns of a shard or of a row group; those that its version of the schema lacked are made from all it has."""
    read = shard.read if group is None else partial(shard.read_row_group, group)
    there = set(shard.schema_arrow.names)
    wanted = (
        [field.name for field in TABLES[table]] if columns is None else [c.partition(".")[0] for c in columns]
    )
    if there.issuperset(wanted):
        return read(columns)
    rows = upgraded(table, read())
    return (
        rows
        if columns is None
        else rows.select([name for name in dict.fromkeys(wanted) if name in rows.column_names])
    )


def read_footer(run: Path, shard: str) -> tuple[int, dict[str, str]]:
    """The bytes of a shard's columns before compression, and its schema metadata; errors as `read_tables`."""
    with _opened(run, run / shard) as file:
        groups = (file.metadata.row_group(group) for group in range(file.num_row_groups))
        return sum(group.total_byte_size for group in groups), plain(file.schema_arrow.metadata)


def _opened(run: Path, file: Path) -> AbstractContextManager[Any]:
    return opened(file, lambda why: damage_error(run, f"the shard {file} cannot be read: {why}"))


def read_shards(
    run: Path, table: str, columns: list[str] | None = None, stem: str = ""
) -> Iterator[list[dict[str, Any]]]:
    """The rows of one table as plain values, a row group of a committed shard at a time; otherwise as `read_tables`."""
    for file in shard_files(run, table, stem):
        with _opened(run, file) as shard:
            for group in range(shard.num_row_groups):
                yield _read(shard, table, columns, group).to_pylist()


def read_pairs(run: Path, split: Literal["train", "validation"] = "train") -> Iterator[list[Pair]]:
    """The pairs of one split, one shard at a time; none where `stepconf pairs` has not run to its end."""
    return ([Pair(**row) for row in rows] for rows in read_shards(run, "pairs", stem=split))


def pairs_manifest(run: Path) -> dict[str, Any] | None:
    """What is known of the run's pairs (options, tau, counts, drops); None where it has none."""
    return next((m for m in read_manifests(run) if m["chunk"] == PAIRS), None)


def read_solved(run: Path) -> Iterator[tuple[str, list[Solved]]]:
    """The name of each part of a run, with its solutions and their steps."""
    for name, solutions, steps in read_aligned(run):
        by_solution: dict[str, list[Step]] = {}
        for step in map(step_of, steps.to_pylist()):
            by_solution.setdefault(step.solution_id, []).append(step)
        part = [
            Solved(solution, with_prefix_ids(solution, by_solution.get(solution.solution_id, [])))
            for solution in map(solution_of, solutions.to_pylist())
        ]
        yield name, part


def read_ids(run: Path) -> list[str]:
    """The ids of all samples of a run, in the order of `read_solved`; branches are left out."""
    parts = read_aligned(run, ["solution_id", "parent_solution_id"], [])
    samples = (solutions.filter(solutions["parent_solution_id"].is_null()) for _, solutions, _ in parts)
    return [one for solutions in samples for one in solutions["solution_id"].to_pylist()]


def read_metadata(run: Path) -> dict[str, str]:
    """The schema metadata of a run's steps (engine, model, ...), {} if it has none; errors as `read_tables`."""
    for file in shard_files(run, "steps"):
        with _opened(run, file) as shard:
            said = plain(shard.schema_arrow.metadata)
            return {key: value for key, value in said.items() if key != UPGRADED_FROM}
    return {}
