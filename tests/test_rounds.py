"""Whole rounds on the tiny model: sample, verify, pair, optimise, measure; killed in every stage and continued."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Forked, forked
from tests.invariants import check_invariants, rows_of
from tests.test_pipeline import write_jsonl
from tests.tiny import VOCABULARY, stepconf, tiny_model, with_tiny

Tracked = Callable[[str], tuple[Path, dict[str, dict[int, float]]]]
# A line ends a solution: random text has answers only where it ends by itself.
LINE = ["--set", 'prompt.stop=["\\n"]']
SAMPLING = [*LINE, "--set", "sampling.samples=8", "--set", "sampling.max_tokens=32"]
OPTIONS = [
    *SAMPLING,
    *["--set", "verify.verifiers=[final]", "--set", "verify.workers=1", "--set", "pairs.tau=1.0"],
    *["--set", "train.learning_rate=1e-3", "--set", "train.batch_size=8", "--set", "train.checkpoint_every=2"],
    *["--set", "loop.temperatures=[0.7, 1.0]", "--set", "loop.evaluation.samples=3"],
]  # fmt: skip


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems that a random model solves sometimes: the gold answer is one that it gave in a trial."""
    folder = tmp_path_factory.mktemp("problems")
    asked = [{"problem": f"What is {i} + {i}?", "answer": "0"} for i in range(10)]
    file = write_jsonl(folder / "asked.jsonl", asked)
    options = [*LINE, "--samples", 8, "--max-tokens", 32, "--verify", "", "--seed", 1042]
    assert (
        stepconf("generate", "--problems", file, "--out", folder / "trial", *with_tiny(), *options).code == 0
    )
    for row in rows_of(folder / "trial", "solutions"):
        if row["predicted_answer"] and row["n_steps"] == 1:  # the label of a lone step is its answer's
            next(one for one in asked if one["problem"] == row["problem"])["answer"] = row["predicted_answer"]
    return write_jsonl(folder / "problems.jsonl", asked)


@pytest.fixture(scope="module")
def held_out(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of them, which is solved sometimes and so makes pairs, is among the problems to learn from, too."""
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]
    asked = [json.loads(line) for line in problems.read_text().splitlines()]
    rows.append(next(one for one in asked if one["answer"] != "0"))
    return write_jsonl(tmp_path_factory.mktemp("held") / "held.jsonl", rows)


def rounds(problems: Path, held_out: Path, out: Path) -> list[Any]:
    sources = ["--set", f"problems.source={problems}", "--set", f"loop.evaluation.source={held_out}"]
    engine = ["--model", tiny_model(), "--set", "engine.name=transformers", "--set", "chunk=2"]
    return ["train", "--rounds", 2, "--out", out, *engine, *sources, *OPTIONS]


def measures(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / "rounds.json").read_text())
    return [{key: value for key, value in row.items() if key != "policy"} for row in rows]


@pytest.fixture(scope="module")
def whole(problems: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forked]:
    folder = tmp_path_factory.mktemp("whole")
    ended = forked(rounds(problems, held_out, folder / "r"), folder)
    assert ended.code == 0, ended.err
    return folder / "r", ended


def test_each_round_learns_from_the_policy_before(whole: tuple[Path, Forked]) -> None:
    out, ended = whole
    assert [row["round"] for row in measures(out)] == [0, 1, 2]
    for number in (1, 2):
        folder = out / f"round-{number}"
        solutions, _ = check_invariants(folder / "run", VOCABULARY)
        before = str(out / f"round-{number - 1}" / "training" / "model") if number > 1 else str(tiny_model())
        assert {one["model"] for one in solutions} == {before}
        assert {one["temperature"] for one in solutions} == {0.7 if number == 1 else 1.0}
        pairs = rows_of(folder / "run", "pairs")
        assert pairs and {pair["round"] for pair in pairs} == {number}
        assert json.loads((folder / "training" / "summary.json").read_text())["from"] == before
    assert "round 2" in ended.out and "final accuracy" in ended.out


def test_held_out_problems_are_not_learnt_from(whole: tuple[Path, Forked]) -> None:
    out, _ = whole
    dropped = json.loads((out / "round-1" / "training" / "summary.json").read_text())["dropped"]
    held = {one["problem_id"] for one in rows_of(out / "round-0" / "eval", "solutions")}
    both = [pair for pair in rows_of(out / "round-1" / "run", "pairs") if pair["problem_id"] in held]
    assert both and dropped.get("held-out problem", 0) == len(both)


def test_measures_are_those_of_the_rows(whole: tuple[Path, Forked]) -> None:
    out, _ = whole
    for row in measures(out):
        run = out / f"round-{row['round']}" / "eval"
        right = [
            one["answer_correct"] for one in rows_of(run, "solutions") if one["answer_correct"] is not None
        ]
        assert estimate(row["final_accuracy"]) == (pytest.approx(sum(right) / len(right)) if right else None)
        steps = [s for s in rows_of(run, "steps") if s["label"] != "unknown" and s["confidence"] is not None]
        squares = [(s["confidence"] - (s["label"] == "correct")) ** 2 for s in steps]
        assert estimate(row["brier"]) == (pytest.approx(sum(squares) / len(squares)) if squares else None)
        if steps:
            assert row["brier"]["n_clusters"] == len({s["problem_id"] for s in steps})
    assert measures(out)[0]["final_accuracy"] and measures(out)[0]["brier"]


def estimate(measure: dict[str, Any] | None) -> float | None:
    return measure and measure["estimate"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("train.learning_rate=2e-3", "train.learning_rate (there 0.001, now 0.002)"),
        ("train.lora={rank: 2}", "train.lora (there None, now {"),
        ("train.stages=[{objective: sft}]", "train.stages (there [], now ["),
        ("pairs.tau=0.9", "pairs.tau (there 1.0, now 0.9)"),
        ("pairs.part=answer", "pairs.part (there 'all', now 'answer')"),
    ],
)
def test_other_options_are_refused(
    changed: str, said: str, problems: Path, held_out: Path, whole: tuple[Path, Forked]
) -> None:
    before = measures(whole[0])
    ended = stepconf(*rounds(problems, held_out, whole[0]), "--set", changed, columns=1000)
    assert ended.code == 1 and "another --out" in ended.err
    assert said in ended.err and ended.err.count("(there") == 1
    assert measures(whole[0]) == before


def test_options_that_decide_no_result_may_change(
    problems: Path, held_out: Path, whole: tuple[Path, Forked]
) -> None:
    before = measures(whole[0])
    speed = ["--set", "train.tokens_per_batch=64", "--set", "train.checkpoint_every=7"]
    assert stepconf(*rounds(problems, held_out, whole[0]), *speed).code == 0
    assert measures(whole[0]) == before


def test_no_folder_but_its_own_is_written_over(problems: Path, held_out: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model(), tmp_path / "p/model")
    (tmp_path / "p/rounds.json").write_text("[]")
    for model, said in (
        (tmp_path / "p/model", "would be written over"),
        (tiny_model(), "not a folder of rounds"),
    ):
        ended = stepconf(*rounds(problems, held_out, tmp_path / "p"), "--model", model)
        assert ended.code == 1 and said in " ".join(ended.err.split()) and "--out" in ended.err
    assert (tmp_path / "p/rounds.json").read_text() == "[]"


@pytest.mark.parametrize(
    "share", [0.6, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.3, 0.95))]
)
def test_killed_in_any_stage_and_continued(
    share: float, problems: Path, held_out: Path, whole: tuple[Path, Forked], tmp_path: Path
) -> None:
    """The kill comes at a file's sync: every stage has some. The figures are those of the whole run."""
    out, ended = whole
    command = rounds(problems, held_out, tmp_path / "r")
    point = max(1, int(share * ended.calls["os.fsync"]))
    killed = forked(command, tmp_path, at=("os.fsync", point, "before"))
    assert killed.code == -9, killed.err
    again = forked(command, tmp_path)
    assert again.code == 0, again.err
    assert measures(tmp_path / "r") == measures(out)


@pytest.fixture(scope="module")
def tracked(problems: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Two rounds of two stages with a tracker, in a process; then the losses by run and step, by our own files."""

    def run(name: str) -> tuple[Path, dict[str, dict[int, float]]]:
        pytest.importorskip(name)
        folder = tmp_path_factory.mktemp(name)
        stages = "train.stages=[{objective: dpo}, {learning_rate: 5.0e-4}]"
        options = ["--set", f"train.log_to={name}", "--set", stages]
        command = [sys.executable, "-m", "stepconf", *rounds(problems, held_out, folder / "r"), *options]
        places = {"MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
        places |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio")}
        ended = subprocess.run(
            list(map(str, command)), env=os.environ | places, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return folder, {f"r-round-{number}": losses(folder / f"r/round-{number}") for number in (1, 2)}

    return run


def losses(folder: Path) -> dict[int, float]:
    """By step, over both stages."""
    files = [folder / f"training/state/stage-{number}/metrics.jsonl" for number in (1, 2)]
    found = [json.loads(line)["loss"] for file in files for line in file.read_text().splitlines()]
    assert len(found) > 2
    return dict(enumerate(found, 1))


def by_step(rows: Iterable[tuple[int, dict[str, float]]]) -> dict[int, float]:
    """The losses among the metrics of each step, which has those of one stage."""
    found: dict[int, float] = {}
    for step, metrics in rows:
        for key in ("stage-1/loss", "stage-2/loss"):
            if key in metrics:
                assert found.setdefault(step, metrics[key]) == metrics[key]
    return found


@pytest.mark.slow
def test_mlflow_has_a_run_of_each_round(tracked: Tracked) -> None:
    folder, expected = tracked("mlflow")
    found = {}
    for run in (file.parent for file in (folder / "mlruns").glob("*/*/metrics")):
        rows = [
            (int(line.split()[2]), {f"{file.parent.name}/{file.name}": float(line.split()[1])})
            for file in run.glob("metrics/stage-*/loss")
            for line in file.read_text().splitlines()
        ]
        found[(run / "tags/mlflow.runName").read_text()] = by_step(rows)
        assert "\nstatus: 3\n" in (run / "meta.yaml").read_text(), "FINISHED"
    assert found == expected


@pytest.mark.slow
def test_trackio_has_a_run_of_each_round(tracked: Tracked) -> None:
    folder, expected = tracked("trackio")
    with closing(sqlite3.connect(folder / "trackio/stepconf.db")) as base:
        logged = base.execute("select run_name, step, metrics from metrics").fetchall()
    found = {
        name: by_step((step, json.loads(metrics)) for one, step, metrics in logged if one == name)
        for name in {name for name, _, _ in logged}
    }
    assert found == expected


@pytest.mark.slow
def test_wandb_has_a_run_of_each_round(tracked: Tracked) -> None:
    """Offline: its log, which `wandb sync` sends, holds each step of both stages, and the run's name."""
    folder, expected = tracked("wandb")
    for number, (name, own) in enumerate(expected.items(), 1):
        (file,) = (folder / f"r/round-{number}/training/wandb").glob("offline-run-*/*.wandb")
        log = file.read_bytes()
        assert name.encode() in log
        assert [loss for loss in own.values() if json.dumps(loss).encode() not in log] == []
