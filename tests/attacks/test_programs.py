"""Programs that pass without solving anything, over whole benchmarks."""

import json
from pathlib import Path
from typing import Any

import pytest

from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.evaluation.code_grading import gradable, grade_code
from stepconf.problems.load import load_problems
from stepconf.recipe import ProblemsRecipe
from stepconf.workers.sandbox import SandboxError, check_sandbox
from tests.shared_data import shared_path, shared_rows

pytestmark = pytest.mark.slow
HUMANEVAL = "benchmarks/humaneval.jsonl.gz"


@pytest.fixture(autouse=True)
def sandbox() -> None:
    try:
        check_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def stub(row: dict[str, Any]) -> str:
    return f"def {row['entry_point']}(*args):\n    return None"


def leaver(row: dict[str, Any]) -> str:
    return f"import os\ndef {row['entry_point']}(*args):\n    os._exit(0)"


def failed(problems: list[Problem], answers: dict[str, str], passes: bool) -> list[str | None]:
    """The problems whose answer is not graded so."""
    graded = grade_code([(one, answers[one.external_id or ""]) for one in problems], 2)
    return [one.external_id for one, passed in zip(problems, graded, strict=True) if passed is not passes]


def test_of_humaneval_all_canonical_solutions_pass_and_no_other() -> None:
    rows = {row["task_id"]: row for row in shared_rows(HUMANEVAL)}
    problems = load_problems(f"humaneval@{shared_path(HUMANEVAL)}", ProblemsRecipe()).problems
    assert len(problems) == len(rows) and gradable(problems, 2) == (problems, {})
    assert failed(problems, {name: row["canonical_solution"] for name, row in rows.items()}, True) == []
    for wrong in (stub, leaver):
        assert failed(problems, {name: wrong(row) for name, row in rows.items()}, False) == []


def test_the_test_column_of_humaneval_decides_with_its_entry_point_alone(tmp_path: Path) -> None:
    """As a file of one's own: `check` is only defined in it."""
    rows = {row["task_id"]: row for row in shared_rows(HUMANEVAL)}
    options = ProblemsRecipe(answer_column="test", id_column="task_id", answer_type="code")
    problems = load_problems(str(shared_path(HUMANEVAL)), options).problems
    assert gradable(problems, 2) == (problems, {})
    assert failed(problems, {name: row["canonical_solution"] for name, row in rows.items()}, True) == []
    assert failed(problems, {name: stub(row) for name, row in rows.items()}, False) == []

    without = tmp_path / "humaneval.jsonl"
    n, kept = len(rows), [{key: row[key] for key in ("task_id", "prompt", "test")} for row in rows.values()]
    without.write_text("".join(json.dumps(row) + "\n" for row in kept))
    with pytest.raises(
        StepconfError, match=rf"none of its {n} .*: its tests pass without a solution \({n}\)"
    ):
        gradable(load_problems(str(without), options).problems, 2)
