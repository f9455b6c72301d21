"""`stepconf schema`: the tables' JSON Schemas as files, for those who do not read Arrow."""

import json
from pathlib import Path

from stepconf.core.schema import TABLES, json_schema
from stepconf.errors import StepconfError


def write_schemas(folder: Path) -> list[Path]:
    """Write one JSON Schema per table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        (folder / f"{table}.json").write_text(_text(table), encoding="utf-8")
    return [folder / f"{table}.json" for table in TABLES]


def check_schemas(folder: Path) -> None:
    """Raise StepconfError where a file is missing or differs from what the code declares."""
    for table in TABLES:
        file = folder / f"{table}.json"
        if not file.exists() or file.read_text(encoding="utf-8") != _text(table):
            state = "differs from the code" if file.exists() else "is missing"
            raise StepconfError(f"{file} {state}.", f"Type: stepconf schema --folder {folder}")


def _text(table: str) -> str:
    return json.dumps(json_schema(table), indent=2, ensure_ascii=False) + "\n"
