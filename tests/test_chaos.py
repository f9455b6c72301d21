"""Every kind of fault once, at a moment drawn by its number. A hundred: `python -m tests.benchmarks.chaos`."""

from pathlib import Path

import pytest

from tests.chaos import FAULTS, Case
from tests.test_pipeline import write_jsonl
from tests.test_resume import PROBLEMS, Undisturbed


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("problems") / "problems.jsonl", PROBLEMS)


@pytest.fixture(scope="module")
def whole(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(problems, tmp_path_factory.mktemp("whole"), "")


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_no_fault_changes_a_row(number: int, problems: Path, tmp_path: Path, whole: Undisturbed) -> None:
    Case(number, problems, tmp_path, whole).check()
