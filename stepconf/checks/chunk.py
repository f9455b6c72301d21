"""A chunk of a run or a part of it, looked at by itself: `check` puts what is found here together. For any thread."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepconf.core.checks.branches import check_branches
from stepconf.core.checks.columns import IDS, check_pair_sides, check_schema, check_values
from stepconf.core.checks.findings import Findings
from stepconf.core.checks.secrets import finds, hits
from stepconf.core.checks.steps import check_chunk
from stepconf.core.schema import upgraded
from stepconf.run.parquet import parquet_file

_READ_TEXTS = {
    "solutions": ("problem", "gold_answer", "text", "external_id", "source", "extra"),
    "pairs": ("chosen", "rejected"),  # a critic may have written them; what is before them is in `solutions`
}
# What is asked of solutions and pairs once all chunks are known.
_LATER = {
    "solutions": ["problem_id", "problem", "gold_answer", "text", "n_steps", "parent_solution_id"],
    "pairs": ["pair_id", "solution_id", "problem_id", "step_index"],
}
_DIGITS = 9  # of the size of a vocabulary, as the metadata say it


class Looked(NamedTuple):
    """What was found in some shards, and what is needed of them later, by table. Ids are 64-bit hashes."""

    found: Findings
    n_shards: int
    rows: dict[str, int]
    ids: dict[str, np.ndarray]
    later: dict[str, Any]
    labels: Counter[str]
    n_verdicts: int


def look(run: Path, shards: Sequence[tuple[str, int]]) -> Looked:
    """Check shards (name, rows that its manifest says) against the schema and against each other."""
    found = Findings()
    tables = {}
    for name, n_rows in shards:
        table = name.partition("/")[0]
        rows = _read(run, table, name, n_rows, found)
        if rows is None:
            continue
        tables[table] = rows
        check_values(table, rows, found)
        _scan_texts(table, rows, found)
        if table == "pairs":
            check_pair_sides(rows, found)
    labels, n_verdicts = Counter[str](), 0
    if "steps" in tables:
        steps = tables["steps"]
        labels, n_verdicts = _labels(steps)
        if "solutions" in tables:
            check_branches(check_chunk(tables["solutions"], steps, _vocabulary(steps), found), found)
    return Looked(
        found,
        len(shards),
        {table: len(rows) for table, rows in tables.items()},
        {table: hashed(rows[IDS[table]]) for table, rows in tables.items()},
        {table: rows.select(_LATER[table]) for table, rows in tables.items() if table in _LATER},
        labels,
        n_verdicts,
    )


def _read(run: Path, table: str, name: str, n_rows: int, found: Findings) -> Any:
    """The rows of a shard; None where they cannot be looked at."""
    import pyarrow as pa

    file = run / name
    if not file.exists():
        return None
    try:
        with parquet_file(file) as shard:
            if not check_schema(table, shard.schema_arrow, name, found):
                return None
            rows = upgraded(table, shard.read())
        rows.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        found.add("shard-unreadable", f"{name}: {error}")
        return None
    if len(rows) != n_rows:
        found.add("shard-rows", f"{name}: {len(rows):,} rows, its manifest says {n_rows:,}")
    return rows


def _labels(steps: Any) -> tuple[Counter[str], int]:
    """How many steps have each label, and how many verdicts there are."""
    import pyarrow.compute as pc

    counted = pc.value_counts(steps["label"]).to_pylist()
    n_verdicts = int(pc.sum(pc.list_value_length(steps["verdicts"])).as_py() or 0)
    return Counter({one["values"]: one["counts"] for one in counted}), n_verdicts


def _scan_texts(table: str, rows: Any, found: Findings) -> None:
    import pyarrow.compute as pc

    columns = {name: rows[name] for name in _READ_TEXTS.get(table, ())}
    if table == "steps":
        verdicts = pc.list_flatten(rows["verdicts"])
        columns = {name: pc.struct_field(verdicts, name) for name in ("reason", "reference")}
    for name, column in columns.items():
        texts = pc.unique(column)  # samples share their problem, steps their reasons
        for row in hits(texts):
            for check, what in finds(texts[row].as_py()):
                found.add(check, f"{table}.{name}: {what}")


def _vocabulary(rows: Any) -> int | None:
    said = (rows.schema.metadata or {}).get(b"vocabulary", b"")
    return int(said) if said.isdigit() and len(said) <= _DIGITS else None


def hashed(ids: Any) -> np.ndarray:
    """64-bit hashes of a column of ids."""
    import polars as pl

    hashes: np.ndarray = pl.Series(pl.from_arrow(ids)).hash(seed=0).to_numpy()
    return hashes
