"""The one place that knows where the shared measurement data lies; tests that need it skip without it."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(os.environ.get("STEPCONF_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared_path(name: str) -> Path:
    """The path of a shared data file, e.g. `processbench/gsm8k_dev.jsonl.gz`; skips the test if it is absent."""
    path = _ROOT / name
    if not path.exists():
        pytest.skip(f"measurement data {name} is not on this machine (set STEPCONF_TEST_DATA)")
    return path


def shared_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a shared JSON-lines file."""
    with gzip.open(shared_path(name), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
