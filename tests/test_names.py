"""A folder or file may have any name: what is read, said and written is what it is under a plain one."""

import ast
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepconf.calibration import figures
from stepconf.errors import StepconfError
from stepconf.problems.load import load_solutions
from stepconf.recipe import ProblemsRecipe
from tests.edited_run import edit, good_run
from tests.invariants import rows_of
from tests.test_pipeline import GIVEN, write_jsonl
from tests.test_resume import without_seconds
from tests.tiny import Ended, stepconf, tiny_model

ODD = ["z[1]", "~", "file:x", "-x.parquet", "[!b]*? {a,b}::$HOME;&#%41'\"\\`é \u202e\n"]
SIBLINGS = ("z1", "a", "z")  # what such names mean as patterns


def done(*arguments: object, columns: int = 100) -> Ended:
    ended = stepconf(*arguments, columns=columns)
    assert ended.code == 0, (arguments, ended.err)
    return ended


def outcome(run: str, out: Path) -> dict[str, Any]:
    """All that the commands find in the run and make of it, without what the clock or the folder's name says."""
    found: dict[str, Any] = {"check": json.loads(done("check", run, "--json").out)}
    found["status"] = json.loads(done("status", run, "--json").out)["stages"]
    done("calibrate", run, "--out", out / "calibration", "--resamples", 10)
    measured = (out / "calibration/calibration.json").read_text()
    # The rows come in any order, so that the last bits of sums differ; as a text, NaN is itself.
    found["calibrate"] = json.loads(measured, parse_float=lambda text: f"{float(text):.9g}") | {"run": ""}
    done("report", run, "--out", out / "report.html")
    page = (out / "report.html").read_text().split('id="data">')[1].split("</script>")[0]
    found["report"] = {key: value for key, value in json.loads(page).items() if key != "name"}
    done("push", run, "me/set", "--dry-run", "--out", out / "set")
    found["push"] = json.loads((out / "set/stepconf/checksums.json").read_text())
    found["card"] = (out / "set/README.md").read_text()
    done("verify", run, "--verify", "final", "--out", out / "verified")
    found["verify"] = without_seconds(out / "verified")
    done("pairs", run)
    found["pairs"] = rows_of(Path(run), "pairs")
    done("relabel", run, "--policy", "consensus")
    found["relabel"] = rows_of(Path(run), "steps")
    found["summary"] = json.loads((Path(run) / "summary.json").read_text())
    done("compact", run)
    found["compact"] = rows_of(Path(run), "steps")
    shutil.rmtree(out)
    return found


@cache
def expected() -> dict[str, Any]:
    """Of the run under a plain name."""
    with tempfile.TemporaryDirectory() as folder:
        run = shutil.copytree(good_run(), Path(folder) / "run")
        return outcome(str(run), Path(folder) / "out")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw them takes seconds, and no name is in them."""
    monkeypatch.setattr(figures, "save", lambda *arguments: None)


@pytest.fixture
def among_siblings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; in it, under other names, is a run in which all is different."""
    monkeypatch.chdir(tmp_path)
    for name in SIBLINGS:
        other = Path(shutil.copytree(good_run(), tmp_path / name))
        edit(other, "steps", lambda rows: [row.update(confidence=0.99, label="correct") for row in rows])
    return tmp_path


@pytest.mark.parametrize("name", ODD)
def test_a_run_of_any_name_is_read_as_that_of_a_plain_one(name: str, among_siblings: Path) -> None:
    shutil.copytree(good_run(), among_siblings / name)
    assert outcome(f"./{name}", among_siblings / "out") == expected()


FILES = [*(f"{name}.jsonl" for name in ODD), "a[1]", "a[1].parquet", "~x.parquet"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_name_gives_its_own_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, rows in ((name, GIVEN[:1]), ("a1.parquet", GIVEN[1:]), ("a1", GIVEN[1:])):
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), (tmp_path / file).open("wb"))
        else:
            (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_solutions(f"./{name}", ProblemsRecipe())
    assert [row.steps for row in found.rows] == [GIVEN[0]["steps"]]


@pytest.mark.parametrize("name", ["a[1]", "a?", "a::b"])
def test_a_folder_that_datasets_would_take_for_another_is_refused(name: str, tmp_path: Path) -> None:
    for folder, rows in ((name, GIVEN[:1]), ("a1", GIVEN[1:])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StepconfError, match="another name"):
        load_solutions(str(tmp_path / name), ProblemsRecipe())
    assert len(load_solutions(str(tmp_path / "a1"), ProblemsRecipe()).rows) == len(GIVEN) - 1


def test_a_model_whose_weights_vllm_would_take_from_another_folder_is_refused(tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model(), tmp_path / "m[1]"))
    file = write_jsonl(tmp_path / "problems.jsonl", [{"problem": "1 + 1?", "answer": "2"}])
    refused = stepconf(
        "generate", "--problems", file, "--model", model, "--engine", "vllm", "--out", tmp_path / "r"
    )
    assert refused.code == 1 and "m[1]" in refused.err and "--engine transformers" in refused.err


def test_a_url_that_fsspec_would_take_for_two_is_refused() -> None:
    for command in (["status"], ["pairs"], ["relabel", "--policy", "consensus"]):
        refused = stepconf(command[0], "memory://b/z::x", *command[1:])
        assert refused.code == 1 and "::" in refused.err and "Traceback" not in refused.err


def test_what_to_type_next_names_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    monkeypatch.chdir(tmp_path)
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    shutil.copytree(good_run(), "z1")
    ended = done("segment", file, "--out", "z[1]", columns=200)
    (line,) = (line for line in ended.out.splitlines() if "scan_parquet" in line)
    asked = line.split("scan_parquet(")[1].removesuffix(")")
    found = pl.scan_parquet(ast.literal_eval(asked)).collect().to_dicts()
    assert found == rows_of(tmp_path / "z[1]", "steps")
