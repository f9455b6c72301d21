"""Every command that prints what it read: hostile texts in a run, a file, a name, a model's answer are only shown."""

import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stepconf.core.printable import printable
from stepconf.evaluation.infer_view import TreeView, show
from stepconf.inference.base import Growth, Question, Result, StepScore, failed
from stepconf.inference.base import Spent as Cost
from stepconf.inference.run import Clock
from stepconf.ui.console import console, output
from tests.edited_run import edit, good_run
from tests.hostile_texts import HOSTILE, NAME, check_inert, check_shown
from tests.hub_server import hub_server
from tests.test_hub import hub
from tests.test_infer import SMALL
from tests.test_pipeline import GIVEN, PROBLEMS, write_jsonl
from tests.tiny import stepconf, tiny_model

pytestmark = pytest.mark.slow

STORED = HOSTILE.replace("\ud800", "")  # what a column of texts can hold
SEEN = "[/INST] [old] [link=https://a.example]y[/link]"
WIDE = 600  # columns, so that no cell is wrapped


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run in a folder with a hostile name."""
    return Path(shutil.copytree(good_run(), tmp_path / NAME))


@pytest.fixture
def spoiled(run: Path) -> Path:
    """The run with hostile names of verifiers, reasons, texts and reasons of drops."""

    def steps(rows: list[dict[str, Any]]) -> None:
        for i, row in enumerate(rows):
            for name, label in ((STORED, "correct"), (f"other {STORED}", "incorrect")):
                row["verdicts"].append(
                    row["verdicts"][0] | {"verifier": name, "label": label, "reason": STORED}
                )
            if i == 0:
                row["text"] = STORED

    edit(run, "steps", steps)
    for file in sorted((run / "manifests").glob("0*.json")):
        manifest = json.loads(file.read_text()) | {"drops": {STORED: 2}}
        manifest.pop("checksum", None)
        file.write_text(json.dumps(manifest))
    return run


def test_names_of_folders(run: Path, tmp_path: Path) -> None:
    name = printable(NAME)
    for command, shown in (
        (("status", run), name),
        (("compact", run), f"{name}: "),
        (("check", run), ""),
        (("relabel", run, "--policy", "majority"), f"{name}/steps/*.parquet"),
        (("pairs", run, "--tau", 0.99), f"{name}/pairs/*.parquet"),
        (("pairs", run, "--export", "trl", "--out", tmp_path / f"export {NAME}"), f"export {name}/README.md"),
        (("calibrate", run, "--resamples", 3), f"{name}/calibration/calibration.json"),
        (("report", run), f"{name}/report.html"),
        (("push", run, "me/set", "--dry-run", "--out", tmp_path / f"hub {NAME}"), f"hub {name}"),
    ):
        check_shown(stepconf(*command, columns=WIDE), shown)
    trained = stepconf("train", run, "--model", tiny_model(), "--out", tmp_path / f"t {NAME}", columns=WIDE)
    check_shown(trained, f"t {name}/state/metrics.jsonl")


def test_texts_of_a_run(spoiled: Path, tmp_path: Path) -> None:
    for command, code in (
        (("status", spoiled), 0),
        (("check", spoiled), 1),
        (("relabel", spoiled, "--policy", "majority"), 0),
        (("push", spoiled, "me/set", "--dry-run", "--out", tmp_path / "hub"), 1),
        (("verify", spoiled, "--verify", "symbolic", "--out", tmp_path / "v", "--report"), 0),
    ):
        check_shown(stepconf(*command, columns=WIDE), code=code)
    for command in (("status", spoiled), ("relabel", spoiled, "--policy", "consensus")):
        check_shown(stepconf(*command, columns=WIDE), SEEN)
    for command, code in ((("status", spoiled, "--json"), 0), (("check", spoiled, "--json"), 1)):
        ended = stepconf(*command)
        check_shown(ended, code=code)
        assert json.loads(ended.out)


def test_agreement_shows_names_and_reasons(spoiled: Path) -> None:
    from stepconf.labels.agreement import agreement_of, render

    out = StringIO()
    output.width = WIDE
    with redirect_stdout(out):
        for table in render(*agreement_of(spoiled)):
            output.print(table)
    check_inert(out.getvalue())
    assert out.getvalue().count(SEEN) > 5


def test_files(tmp_path: Path) -> None:
    name = f"x {NAME}.jsonl"
    file = write_jsonl(tmp_path / name, GIVEN)
    check_shown(stepconf("audit", "--on", "processbench", file, columns=WIDE), r"\x1b]0;owned\x07")
    check_shown(stepconf("audit", "--on", "prm800k", file), printable(name), code=1)
    ended = stepconf("audit", "--on", "processbench", file, "--json")
    check_shown(ended)
    assert json.loads(ended.out)["file"] == str(file)
    write_jsonl(file, [{STORED: 1}])
    check_shown(stepconf("segment", file, "--out", tmp_path / "o"), "[link=https://a.example]", code=1)
    file.write_text(f"{{{STORED}")
    check_shown(stepconf("segment", file, "--out", tmp_path / "o"), "broken JSON", code=1)
    (tmp_path / "r.yaml").write_text(json.dumps({"model": [STORED], STORED: 1}))
    for options in (
        ("--recipe", tmp_path / "r.yaml"),
        ("--set", f"{STORED}=1"),
        ("--set", f"model=[{STORED!r}]"),
    ):
        check_shown(stepconf("segment", file, "--out", tmp_path / "o", *options), code=1)


def test_models_and_evaluations(tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model(), tmp_path / f"m {NAME}"))
    file = write_jsonl(tmp_path / f"p {NAME}.jsonl", [row | {"problem": STORED} for row in PROBLEMS[:2]])
    own = ["--engine", "transformers", "--model", model, *SMALL]
    outs = [tmp_path / f"{letter} {NAME}" for letter in "ab"]
    for out in outs:
        check_shown(
            stepconf("evaluate", "--benchmark", file, "--out", out, *own, columns=WIDE), printable(str(model))
        )
    compared = stepconf("evaluate", "--compare", *outs, "--out", tmp_path / f"c {NAME}", columns=WIDE)
    check_shown(compared, f"first:  {printable(str(model))}")
    check_shown(stepconf("infer", STORED, *own, "--strategy", "cat", columns=WIDE))
    check_shown(stepconf("infer", file, *own, "--strategy", "greedy", columns=WIDE))
    ended = stepconf(
        "doctor", "--model", model, "--engine", "transformers", "--dtype", "float32", columns=WIDE
    )
    check_shown(ended, printable(NAME), " ok ")
    for folder in outs:
        for kept in folder.rglob("*.json"):
            kept.write_text(json.dumps({STORED: 1}))
    check_shown(stepconf("evaluate", "--compare", *outs), "is not what stepconf evaluate has written", code=1)


def test_answers_of_a_model() -> None:
    step = StepScore(STORED, [1], 0.1, 0.9, 0.9)
    result = Result("k", "q", STORED, "", STORED, [], [], [step], 0.9, [], strategy=STORED)
    none = replace(failed(Question("k", "q", ([],)), STORED, Cost()), strategy=STORED)
    out, err = StringIO(), StringIO()
    output.width = console.width = WIDE
    with redirect_stdout(out), redirect_stderr(err):
        with TreeView() as view:
            view.grow(Growth("k", 1, 1, 1, 1, 0.5, 1))
            view.done(result, 1)
        for results in ([result], [none], [result, none]):
            show(results, Clock())
    check_inert(out.getvalue())
    check_inert(err.getvalue())
    assert out.getvalue().count(SEEN) == 7


def test_what_was_published(run: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        pushed = hub(server, "push", run, "me/set", home=tmp_path)
        assert pushed.code == 0 and "Pushed" in pushed.out
        check_inert(pushed.out)
        pulled = hub(server, "pull", "me/set", "--out", tmp_path / f"pulled {NAME}", home=tmp_path)
        assert pulled.code == 0 and f"Run {printable(str(tmp_path / f'pulled {NAME}'))}" in pulled.out
        check_inert(pulled.out)  # huggingface_hub draws its bars on stderr
    published = tmp_path / "hub"
    assert stepconf("push", run, "me/set", "--dry-run", "--out", published).code == 0
    manifests = published / "stepconf" / "manifests.jsonl"
    manifests.write_text(manifests.read_text().replace('"00000"', json.dumps(STORED)))
    from stepconf.errors import StepconfError
    from stepconf.hub.restore import read_folder

    with pytest.raises(StepconfError) as refused:
        read_folder(published, tmp_path / "again", "me/set", lambda stage, n: None)
    check_inert(printable(str(refused.value)))
