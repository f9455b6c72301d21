"""The declared tables: one declaration behind records, Arrow, JSON Schema and the files in schemas/."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stepconf.core.records import Pair, Solution, Step, TokenScores, Verdict
from stepconf.core.schema import (
    ADDED,
    TABLES,
    VERSION,
    arrow_schema,
    json_schema,
    solution_of,
    step_of,
    to_columns,
    upgraded,
    was_unknown,
)
from stepconf.core.steps import measure
from stepconf.schema_files import check_schemas
from tests.test_shards import rounded, solved

ROOT = Path(__file__).parents[2]
NO_TOKENS = TokenScores([], [], [])
RECORDS = {"solutions": Solution, "steps": Step, "pairs": Pair}


def declared_by(record: type) -> list[tuple[str, str]]:
    """The name and type of each column; those of the signals of a step lie together in the record."""
    return [
        (name, str(field.type))
        for field in fields(record)
        for name in (measure(NO_TOKENS) if field.name == "signals" else [field.name])
    ]


def test_the_files_in_the_repository_are_current() -> None:
    check_schemas(ROOT / "schemas")
    assert {file.stem for file in (ROOT / "schemas").glob("*.json")} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_the_fields_of_the_record(table: str) -> None:
    assert [field.name for field in TABLES[table]] == [name for name, _ in declared_by(RECORDS[table])]
    assert arrow_schema(table).names == [field.name for field in TABLES[table]]
    assert all(field.meaning for field in TABLES[table])


@pytest.mark.parametrize("table", TABLES)
def test_a_column_is_nullable_where_its_record_says_so(table: str) -> None:
    for declared, (name, kind) in zip(arrow_schema(table), declared_by(RECORDS[table]), strict=True):
        assert declared.nullable == ("None" in kind), name


def test_the_verdict_column_is_the_record() -> None:
    declared = arrow_schema("steps").field("verdicts").type.value_type
    assert [declared.field(i).name for i in range(declared.num_fields)] == [f.name for f in fields(Verdict)]


@pytest.mark.parametrize("table", TABLES)
def test_metadata_says_how_entropy_was_estimated(table: str) -> None:
    metadata = arrow_schema(table, {"engine": "vllm"}).metadata
    assert metadata[b"stepconf_schema"] == VERSION.encode()
    assert metadata[b"entropy_unit"] == b"nats" and metadata[b"engine"] == b"vllm"
    assert b"full vocabulary" in metadata[b"entropy_estimator"]
    assert b"temperature 1" in metadata[b"entropy_distribution"]


def test_rows_come_back_as_they_went() -> None:
    one = solved(0)
    solutions = pa.Table.from_pydict(to_columns("solutions", [one.solution]), arrow_schema("solutions"))
    steps = pa.Table.from_pydict(to_columns("steps", one.steps), arrow_schema("steps"))
    solutions.validate(full=True)
    steps.validate(full=True)
    assert [solution_of(row) for row in solutions.to_pylist()] == [one.solution]
    assert [step_of(row) for row in steps.to_pylist()] == rounded(one).steps


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_answer_types_of_older_versions_come_out_of_extra(version: str) -> None:
    held = ['{"a": [1], "answer_type": "number"}', '{"a": 1}', "{}", '{"answer_type": "choice"}', "[broken"]
    rows = pa.Table.from_pydict(to_columns("solutions", [solved(i).solution for i in range(len(held))]))
    rows = rows.drop_columns([*ADDED[version]["solutions"], "extra"]).append_column("extra", pa.array(held))
    new = upgraded("solutions", rows.replace_schema_metadata({"stepconf_schema": version}))
    assert new["answer_type"].to_pylist() == ["number", "math", "math", "choice", "math"]
    assert new["extra"].to_pylist() == ['{"a": [1]}', '{"a": 1}', "{}", "{}", "[broken"]
    assert set(new.column_names) == {field.name for field in TABLES["solutions"]}
    assert new.schema.metadata[b"stepconf_schema"] == VERSION.encode()
    assert was_unknown("solutions", "answer_type", new) and not was_unknown("solutions", "text", new)
    assert upgraded("solutions", new) is new


def _check(schema: dict[str, Any], value: Any, where: str) -> None:
    """The part of JSON Schema that our files use."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    python = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
        "null": type(None),
    }
    assert isinstance(value, tuple(t for k in kinds for t in _as_tuple(python[k]))), (where, value)
    if isinstance(value, list):
        for item in value:
            _check(schema["items"], item, where)
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value) <= set(schema["properties"]), where
        for name, item in value.items():
            _check(schema["properties"][name], item, f"{where}.{name}")


def _as_tuple(kind: Any) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


@pytest.mark.parametrize("table", ["solutions", "steps"])
def test_written_rows_satisfy_the_json_schema(table: str) -> None:
    some = [solved(index) for index in range(3)]
    rows: list[Any] = [one.solution for one in some] if table == "solutions" else some[0].steps
    schema = json_schema(table)
    assert json.loads(json.dumps(schema)) == schema
    for row in pa.Table.from_pydict(to_columns(table, rows), arrow_schema(table)).to_pylist():
        _check(schema, row, table)
        with pytest.raises(AssertionError):
            _check(schema, row | {"more": 1}, table)
        with pytest.raises(AssertionError):
            _check(schema, row | {f"{table.removesuffix('s')}_id": None}, table)
