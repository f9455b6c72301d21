"""The one place that knows where labelled data lies: the large sets where they are, else samples in `tests/data`.

The large sets are no part of this repository: `STEPCONF_TEST_DATA`, or a folder beside the checkout.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parent / "data"
_LARGE = Path(os.environ.get("STEPCONF_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
if os.environ.get("STEPCONF_TEST_DATA") and not _LARGE.is_dir():
    raise NotADirectoryError(f"STEPCONF_TEST_DATA is {_LARGE}, which is no folder")

Row = dict[str, Any]


def shared_path(name: str) -> Path:
    """The file of a set, e.g. `processbench/gsm8k_dev.jsonl.gz`: the large one, else its sample.

    Skips the test where there is neither: a set whose licence forbids a sample.
    """
    path = _LARGE / name
    if not path.exists():
        path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"{name} has no sample, as its licence has it (set STEPCONF_TEST_DATA)")
    return path


def is_sample(name: str) -> bool:
    """Whether only the sample of the set is on this machine."""
    return not (_LARGE / name).exists()


def shared_rows(name: str) -> list[Row]:
    """The rows of `shared_path(name)`. The sample's are among the large set's, in the same order."""
    return read_rows(shared_path(name))


def large_rows(name: str) -> list[Row]:
    """The rows of the large set, for what is meaningless on a sample.

    Raises:
        FileNotFoundError: it is not on this machine.
    """
    return read_rows(_LARGE / name)


def sample_rows(name: str) -> list[Row]:
    """The rows of the sample, the same on every machine."""
    return read_rows(SAMPLES / name)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines, gzipped or not, or of all such files of a folder, by name."""
    if path.is_dir():
        return [row for file in sorted(path.glob("*.jsonl*")) for row in read_rows(file)]
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]
