"""The commands as a person meets them: help, versions, order of imports, the table at the end."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepconf import __version__
from stepconf.cli import GROUPS, app
from tests.edited_run import good_run
from tests.test_pipeline import GIVEN, PROBLEMS, write_jsonl
from tests.tiny import Ended, stepconf, with_tiny

COMMANDS = sorted(command.name for group in GROUPS.values() for command in group)
HEAVY = {"torch", "vllm", "transformers", "datasets", "polars", "pyarrow", "numpy", "sympy", "rich"}


def imported_by(arguments: list[str], modules: set[str] = HEAVY) -> set[str]:
    """Which of the modules a command has imported by its end, in a fresh interpreter."""
    code = (
        "import json, sys; from stepconf.cli import main; sys.argv = ['stepconf', *json.loads(sys.argv[1])]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(json.dumps(sorted({modules!r} & set(sys.modules))))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return set(found)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(re.search(rf"\b{name}\b", shown.output) for name in COMMANDS)
    assert imported_by(["--help"]) == set()
    assert imported_by(["generate", "--help"]) == set()
    assert imported_by(["--version"]) == set()


def test_a_wrong_option_does_not_wait_for_torch() -> None:
    assert imported_by(["generate", "--problems", "gsm8k", "--out", "r", "--set", "modle=1"]) == set()
    assert imported_by(["score", "f.jsonl", "--out", "r", "--verify", "oracle"]) == set()
    assert imported_by(["generate", "--out", "r"]) == set()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 120])
def test_every_command_has_help(command: str, columns: int) -> None:
    ended = stepconf(command, "--help", columns=columns)
    assert ended.code == 0 and ended.err == ""
    assert f"stepconf {command}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= columns


def test_version_and_no_arguments() -> None:
    assert stepconf("--version") == Ended(0, f"{__version__}\n", "")
    assert "generate" in stepconf().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generat"], "generate"),
        (["generate", "--problems", "gsm8k"], "--out"),
        (["segment", "--out", "r"], "FILE"),
        (["generate", "--out", "r", "--limit", "many"], "--limit"),
        (["generate", "--out", "r", "--smaples", "3"], "--samples"),
    ],
)
def test_a_mistyped_command_line_is_explained(arguments: list[str], said: str) -> None:
    ended = stepconf(*arguments)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Ended, Path]:
    """`score` of solutions with right and wrong steps, and `pairs` of them."""
    folder = tmp_path_factory.mktemp("made")
    rows = [row | {"id": f"{i}"} for i, row in enumerate(GIVEN)]
    file = write_jsonl(folder / "given.jsonl", [*rows, {"problem": "1 + 1?", "solution": ""}])
    scored = stepconf("score", file, "--out", folder / "run", *with_tiny())
    paired = stepconf("pairs", folder / "run", "--tau", 0.001)
    assert (scored.code, paired.code) == (0, 0), scored.err + paired.err
    return scored, paired, folder / "run"


def test_the_table_says_what_is_in_the_run_and_what_to_type_next(made: tuple[Ended, Ended, Path]) -> None:
    scored, paired, run = made
    summary = json.loads((run / "summary.json").read_text())
    assert summary["solutions"] == 3 and summary["steps"] == 7 and summary["problems"] == 2
    assert summary["drops"] == {"no steps": 1}
    assert "2, 3, 7" in scored.out and "1 no steps" in scored.out
    assert f"{run}/steps/*.parquet" in scored.out
    assert f"stepconf pairs {run}" in scored.out, "the next command, on one line"
    assert sum(summary["pairs"].values()) >= 1
    assert f"{summary['pairs']['incorrect']} incorrect" in paired.out and "tau 0.001" in paired.out
    for name, found in summary["verifiers"].items():
        assert f"steps by {name}" in paired.out
        assert found["correct"] + found["incorrect"] + found["unknown"] <= 7


def test_pairs_counts_add_up(made: tuple[Ended, Ended, Path]) -> None:
    summary = json.loads((made[2] / "summary.json").read_text())
    assert sum(summary["pairs"].values()) + sum(summary["pair_drops"].values()) == summary["steps"]


def test_the_table_fits_a_narrow_terminal(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    ended = stepconf("verify", file, "--out", tmp_path / "r", columns=70)
    assert ended.code == 0, ended.err
    rows = [line for line in ended.out.splitlines() if line.startswith(("│", "┌", "└"))]
    assert rows and max(map(len, rows)) <= 70


def test_tables_are_readable_on_a_terminal_without_width(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    commands: list[list[object]] = [
        ["verify", file, "--out", tmp_path / "r", "--verify", "final,symbolic", "--report"],
        ["status", tmp_path / "r"],
        ["check", tmp_path / "r"],
        ["audit", "--on", "processbench", file],
        ["push", tmp_path / "r", "me/set", "--dry-run", "--out", tmp_path / "set"],
    ]
    for command in commands:
        ended = stepconf(*command, columns=1)
        assert ended.code == 0, (command, ended.err)
        lines = ended.out.splitlines()
        assert len(lines) < 100 and sum(len(line.strip()) == 1 for line in lines) <= 1, ended.out


def test_a_terminal_in_ascii_shows_any_name(tmp_path: Path) -> None:
    run = shutil.copytree(good_run(), tmp_path / "ėà\u202e漢")
    for command in (["status", run], ["check", run], ["verify", run, "--out", tmp_path / "é", "--report"]):
        ended = subprocess.run(
            [sys.executable, "-m", "stepconf", *command],
            env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"},
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended.stderr
        assert ended.stdout.isascii() and len(ended.stdout.splitlines()) > 1


def test_a_name_that_is_not_in_utf_8_is_refused(tmp_path: Path) -> None:
    shutil.copytree(good_run(), os.fsdecode(bytes(tmp_path) + b"/a\xff"))
    for command in (["status"], ["pairs"], ["relabel", "--policy", "consensus"], ["report"]):
        refused = stepconf(command[0], os.fsdecode(bytes(tmp_path) + b"/a\xff"), *command[1:])
        assert (
            refused.code == 1
            and r"a\xff' is no text in UTF-8" in refused.err
            and "another name" in refused.err
        )


def test_the_data_go_to_stdout_and_progress_to_stderr(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "problems.jsonl", PROBLEMS[:2])
    options = ["--samples", 1, "--max-tokens", 4, "--verify", ""]
    ended = stepconf("generate", "--problems", file, "--out", tmp_path / "r", *with_tiny(), *options)
    assert "sample" in ended.err and "2/2" in ended.err
    assert ended.out.startswith("Run ") and "2/2" not in ended.out
    again = stepconf("generate", "--problems", file, "--out", tmp_path / "r", *with_tiny(), *options)
    assert again.code == 0 and again.out == ended.out, "a finished run shows its table again"


def test_a_file_that_cannot_be_written_comes_with_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "steps.json"
    file.mkdir()
    folder = stepconf("schema", "--folder", tmp_path, columns=300)
    assert folder.code == 1 and f"Is a directory ({file})" in folder.err and "give a file" in folder.err
    file.rmdir()
    file.symlink_to(tmp_path / "no" / "file")
    lost = stepconf("schema", "--folder", tmp_path, columns=300)
    assert lost.code == 1 and f"({file})" in lost.err and "Check this path" in lost.err


def test_schema_files_are_written_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    missing = stepconf("schema", "--check", "--folder", folder)
    assert missing.code == 1 and "missing" in missing.err and "stepconf schema" in missing.err
    assert stepconf("schema", "--folder", folder).code == 0
    assert sorted(file.name for file in folder.iterdir()) == ["pairs.json", "solutions.json", "steps.json"]
    assert stepconf("schema", "--check", "--folder", folder).code == 0
    (folder / "steps.json").write_text("{}")
    stale = stepconf("schema", "--check", "--folder", folder)
    assert stale.code == 1 and "steps.json differs" in stale.err
