"""What `import stepconf` gives: these names, each with an example that runs, and nothing heavy before it is used."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import stepconf
from stepconf import api, metrics, rewards
from stepconf.errors import StepconfError

NAMES = {
    "Run",
    "check_steps",
    "extract_answer",
    "load_run",
    "metrics",
    "rewards",
    "segment",
    "verify_answer",
}


def test_the_names_are_these_and_documented() -> None:
    assert set(stepconf.__all__) == NAMES <= set(dir(stepconf))
    assert all(getattr(stepconf, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        stepconf.solve  # noqa: B018


@pytest.mark.parametrize("module", [stepconf, api, metrics, rewards])
def test_examples_run(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried and not failed


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, stepconf; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "polars", "pyarrow", "sympy", "flint", "torch", "typer"} & set(loaded)


def test_answers_that_nothing_marks_are_not_called_wrong() -> None:
    assert stepconf.verify_answer("7", "He has 3 of them, and 4 more came.") is None
    assert stepconf.verify_answer("7", "The answer is 4.") is False


def test_rewards_take_conversations_and_columns() -> None:
    said = [
        [{"role": "assistant", "content": "The answer is 4."}],
        [{"role": "assistant", "content": "He has 3 of them."}],
    ]
    assert rewards.answer(said, ["4", "4"], prompts=["", ""]) == [1.0, None]
    assert rewards.steps(["2 + 2 = 4.\n\n2 + 2 = 5."], problem=["What is 2 + 2?"]) == [0.5]


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepconfError):
        stepconf.load_run(tmp_path)
