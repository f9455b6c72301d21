"""Rows written once and kept: what a reader of today's tables relies on still loads, unchanged, tomorrow."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepconf.core.checks.columns import check_pair_sides, check_values
from stepconf.core.checks.findings import Findings
from stepconf.core.checks.steps import check_chunk
from stepconf.core.records import Pair
from stepconf.core.schema import TABLES, arrow_schema, solution_of, step_of, to_columns
from tests.core.test_schema import _check

GOLDEN = Path(__file__).parents[1] / "golden_rows"
SCHEMAS = Path(__file__).parents[2] / "schemas"


def golden(table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{table}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("table", TABLES)
def test_golden_rows_satisfy_the_schema_files(table: str) -> None:
    schema = json.loads((SCHEMAS / f"{table}.json").read_text("utf-8"))
    rows = golden(table)
    assert len(rows) >= 2
    for row in rows:
        _check(schema, row, table)
    nullable = {field.name for field in TABLES[table] if field.kind.endswith("?")}
    for name in nullable:
        assert {row[name] is None for row in rows} == {True, False}, f"{name}: with and without a value"


@pytest.mark.parametrize("table", TABLES)
def test_golden_rows_go_through_parquet_and_records_unchanged(table: str, tmp_path: Path) -> None:
    rows = golden(table)
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(table)), tmp_path / "rows.parquet")
    read = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert read == rows
    make = {"solutions": solution_of, "steps": step_of, "pairs": lambda row: Pair(**row)}[table]
    again = to_columns(table, [make(row) for row in read])
    assert pa.Table.from_pydict(again, schema=arrow_schema(table)).to_pylist() == rows


def test_golden_rows_hold_the_laws() -> None:
    tables = {table: pa.Table.from_pylist(golden(table), schema=arrow_schema(table)) for table in TABLES}
    found = Findings()
    for table, rows in tables.items():
        check_values(table, rows, found)
    check_chunk(tables["solutions"], tables["steps"], 64, found)
    check_pair_sides(tables["pairs"], found)
    assert found.all() == []


@pytest.mark.parametrize("kept", [0, 1])
def test_a_chunk_without_rows_holds_them_too(kept: int) -> None:
    """No solution at all, or one that was not scored alone."""
    solutions, steps = (
        pa.Table.from_pylist(
            [row for row in golden(table) if kept and row["n_steps"] == 1 and row["confidence"] is None],
            arrow_schema(table),
        )
        for table in ("solutions", "steps")
    )
    found = Findings()
    check_chunk(solutions, steps, 64, found)
    assert found.all() == [] and len(solutions) == kept
