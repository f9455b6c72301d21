"""`stepconf train` on a run of the tiny model: what it learns from, what it leaves, what it refuses."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from stepconf.engines.tokenizer import Tokenizer
from stepconf.examples import Reading, examples_of, usable
from stepconf.recipe import TrainRecipe
from tests.forked import forked
from tests.invariants import rows_of
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import Ended, stepconf, tiny_model, with_tiny

FAST = ["--set", "train.learning_rate=1e-3", "--set", "train.batch_size=2", "--set", "train.epochs=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Given solutions, right and wrong, scored by the tiny model; with pairs."""
    folder = tmp_path_factory.mktemp("run")
    wrong = GIVEN[2] | {"steps": ["7 - 3 = 5.\n\nThe answer is \\boxed{5}"]}  # differs in a step that ends
    given = [*GIVEN, wrong]
    answers = ["9", "9", "4", "4"]
    rows = [
        row | {"answer": answer, "id": str(i)}
        for i, (row, answer) in enumerate(zip(given, answers, strict=True))
    ]
    file = write_jsonl(folder / "given.jsonl", rows)
    assert stepconf("score", file, "--out", folder / "run", *with_tiny()).code == 0
    assert stepconf("pairs", folder / "run", "--tau", 1.0, "--set", "pairs.validation=0").code == 0
    assert rows_of(folder / "run", "pairs")
    return folder / "run"


def train(run: Path, out: Path, *options: object) -> Ended:
    return stepconf("train", run, "--model", tiny_model(), "--out", out, *FAST, *options)


def test_a_model_comes_out_that_every_command_accepts(run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "t")
    assert ended.code == 0, ended.err
    summary = json.loads((tmp_path / "t" / "summary.json").read_text())
    assert summary["examples"] == len(rows_of(run, "pairs")) and summary["last_step"]["margin"] > 0
    assert (
        len((tmp_path / "t" / "state" / "metrics.jsonl").read_text().splitlines())
        == summary["last_step"]["of"]
    )
    again = stepconf(
        "score",
        run.parent / "given.jsonl",
        "--out",
        tmp_path / "again",
        *with_tiny(),
        "--model",
        tmp_path / "t/model",
    )
    assert again.code == 0, again.err
    before, after = rows_of(run, "steps"), rows_of(tmp_path / "again", "steps")
    assert [s["text"] for s in before] == [s["text"] for s in after]
    assert [s["logprob_sum"] for s in before] != [s["logprob_sum"] for s in after]
    assert "chosen" in ended.out and str(tmp_path / "t/model") in ended.out.replace("\n", "")


def test_a_file_of_pairs_is_as_good_as_its_run(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.parquet"
    pl.concat([pl.read_parquet(shard) for shard in sorted((run / "pairs").glob("*.parquet"))]).write_parquet(
        file
    )
    assert train(run, tmp_path / "a").code == 0
    ended = train(file, tmp_path / "b")
    assert ended.code == 0, ended.err
    a, b = (tmp_path / name / "model" / "model.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    refused = train(file, tmp_path / "c", "--objective", "sft")
    assert refused.code == 1 and "sft learns from the solutions" in " ".join(refused.err.split())
    other = train(next((run / "steps").glob("*.parquet")), tmp_path / "d")
    assert other.code == 1 and "has no column 'pair_id'" in " ".join(other.err.split())
    absent = train(tmp_path / "no.parquet", tmp_path / "e")
    assert absent.code == 1 and "no.parquet" in absent.err and "Traceback" not in absent.err


def test_sft_learns_right_solutions_and_no_others(run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "t", "--objective", "sft")
    assert ended.code == 0, ended.err
    right = [row for row in rows_of(run, "solutions") if row["answer_correct"]]
    assert json.loads((tmp_path / "t" / "summary.json").read_text())["examples"] == len(right) > 0
    assert len(right) < len(rows_of(run, "solutions"))


def test_only_sides_that_end_a_solution_get_the_end_token(run: Path) -> None:
    eos = Tokenizer(str(tiny_model())).eos_id
    pairs = {row["pair_id"]: row for row in rows_of(run, "pairs")}
    examples = list(examples_of(Reading(run, TrainRecipe(), eos)))
    assert {one.key for one in examples} == set(pairs)
    endings = set()
    for one in examples:
        row = pairs[one.key]
        for side, name in zip(one.sides, ("chosen", "rejected"), strict=True):
            terminal = row[f"{name}_is_terminal"]
            assert side == (*row[f"{name}_ids"], *([eos] if terminal else []))
            endings.add(terminal)
    assert endings == {True, False}


def test_what_cannot_be_learnt_from_is_counted(run: Path) -> None:
    examples = list(examples_of(Reading(run, TrainRecipe(), 0)))
    kept, dropped = usable(iter(examples), 10_000, {examples[0].group})
    assert dropped["held-out problem"] == len(examples) - len(kept) > 0
    _, dropped = usable(iter(examples), 5)
    assert dropped == {"longer than 5 tokens": len(examples)}


@pytest.mark.parametrize("point", [("os.replace", 1), ("os.rename", 1), ("os.rename", 2)])
def test_killed_and_continued(point: tuple[str, int], run: Path, tmp_path: Path) -> None:
    """While the reference is kept, a checkpoint is put in place, the model is put in place."""
    command = ["train", run, "--model", tiny_model(), *FAST, "--set", "train.checkpoint_every=2"]
    assert forked([*command, "--out", tmp_path / "whole"], tmp_path).code == 0
    killed = forked([*command, "--out", tmp_path / "t"], tmp_path, at=(*point, "before"))
    assert killed.code == -9, killed.err
    again = forked([*command, "--out", tmp_path / "t"], tmp_path)
    assert again.code == 0, again.err
    weights = "model/model.safetensors"
    assert (tmp_path / "t" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_no_folder_but_its_own_is_written_over(run: Path, tmp_path: Path) -> None:
    project, copy, empty = tmp_path / "project", tmp_path / "copy", tmp_path / "empty"
    shutil.copytree(tiny_model(), project / "model")
    (project / "state").mkdir()
    (project / "state" / "notes.txt").write_text("mine")
    shutil.copytree(run, copy)
    (copy / "state").mkdir()
    empty.mkdir()
    kept = contents(tmp_path)
    cases = [
        ([run, "--model", project / "model", "--out", project], "would be written over"),
        ([run, "--model", project / "model", "--out", project / "model"], "would be written over"),
        ([run, "--model", "demo", "--out", project], "not empty and not a training"),
        ([run, "--model", tiny_model(), "--out", project], "not empty and not a training"),
        ([copy, "--model", tiny_model(), "--out", copy], "would be written over"),
        ([run, "--model", tiny_model(), "--out", copy], "not empty and not a training"),
        (
            [copy / "pairs/train-00000.parquet", "--model", tiny_model(), "--out", copy / "pairs"],
            "written over",
        ),
        ([run, "--model", tiny_model(), "--out", project / "model/config.json"], "is a file"),
    ]
    for arguments, said in cases:
        ended = stepconf("train", *arguments, *FAST)
        assert ended.code == 1 and said in " ".join(ended.err.split()), (arguments, ended.err)
        assert "--out" in ended.err and contents(tmp_path) == kept
    assert train(run, empty, "--objective", "sft").code == 0
    assert stepconf("train", run, "--model", empty / "model", "--out", empty, *FAST).code == 1


@pytest.mark.parametrize("lost", ["state", "summary.json"])
def test_a_training_is_known_by_its_state_or_its_summary(lost: str, run: Path, tmp_path: Path) -> None:
    assert train(run, tmp_path / "t", "--objective", "sft").code == 0
    before = contents(tmp_path / "t/model")
    gone = tmp_path / "t" / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    ended = train(run, tmp_path / "t", "--objective", "sft")
    assert ended.code == 0 and contents(tmp_path / "t/model") == before, ended.err


def test_pairs_of_another_tokenizer_are_refused(run: Path, tmp_path: Path) -> None:
    model = tiny_model(chat=False)
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        text = file.read_bytes()
        if file.name == "tokenizer.json":
            data = json.loads(text)
            a, b = list(data["model"]["vocab"])[200:202]
            vocabulary = data["model"]["vocab"]
            vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
            text = json.dumps(data).encode()
        (other / file.name).write_bytes(text)
    ended = stepconf("train", run, "--model", other, "--out", tmp_path / "t")
    assert ended.code == 1 and "another tokenizer" in ended.err and "--model" in ended.err


def test_bad_input_is_one_clear_message(run: Path, tmp_path: Path) -> None:
    cases = [
        ([run, "--out", tmp_path / "t"], "no model is named"),
        ([tmp_path, "--model", tiny_model(), "--out", tmp_path / "t"], "not a run folder"),
        ([run, "--model", tiny_model(), "--rounds", 2, "--out", tmp_path / "t"], "both given"),
        (["--model", tiny_model(), "--rounds", 2, "--out", tmp_path / "t"], "rounds need problems"),
        (
            [run, "--model", tiny_model(), "--out", tmp_path / "t", "--set", "train.max_length=5"],
            "longer than 5",
        ),
        ([run, "--model", "no/such", "--out", tmp_path / "t"], "'no/such'"),
        ([run, "--model", tiny_model(), "--out", tmp_path / "t", "--set", "train.beta=0"], "train.beta"),
    ]
    for arguments, said in cases:
        ended = stepconf("train", *arguments)
        assert ended.code == 1 and said in " ".join(ended.err.split()), (arguments, ended.err)
        assert "Traceback" not in ended.err


def test_a_checkpoint_of_another_recipe_is_refused(run: Path, tmp_path: Path) -> None:
    assert train(run, tmp_path / "t", "--objective", "sft").code == 0
    ended = train(run, tmp_path / "t", "--objective", "sft", "--set", "train.seed=1")
    assert ended.code == 1 and "another recipe" in " ".join(ended.err.split()) and "--out" in ended.err
    assert "train.seed (there 42, now 1)" in " ".join(ended.err.split())


def test_adapters_are_trained_and_merged(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    import torch
    from safetensors.torch import load_file

    ended = train(run, tmp_path / "t", "--set", "train.lora={rank: 2}")
    assert ended.code == 0, ended.err
    before = load_file(tiny_model() / "model.safetensors")
    after = load_file(tmp_path / "t" / "model" / "model.safetensors")
    assert set(before) == set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("proj" in name for name in moved)
    ended = train(run, tmp_path / "head", "--set", "train.lora={rank: 2, targets: [q_proj, lm_head]}")
    assert ended.code == 1 and "includes the head" in " ".join(ended.err.split()), ended.err


def test_metrics_go_to_tensorboard_if_asked(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert train(run, tmp_path / "t", "--set", "train.log_to=tensorboard").code == 0
    assert list((tmp_path / "t" / "tensorboard").glob("events*"))


def trained_with(log_to: str, run: Path, folder: Path, **environment: str) -> dict[int, float]:
    """The losses by step of a training in a process of its own: what is left at its end is sent then."""
    arguments = ["train", run, "--model", tiny_model(), *FAST, "--set", f"train.log_to={log_to}"]
    command = [sys.executable, "-m", "stepconf", *map(str, arguments), "--out", str(folder)]
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    lines = (folder / "state/metrics.jsonl").read_text().splitlines()
    losses = {one["step"]: one["loss"] for one in map(json.loads, lines) if "step" in one}
    assert losses
    return losses


@pytest.mark.slow
def test_metrics_go_to_trackio_if_asked(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    losses = trained_with("trackio", run, tmp_path / "t", TRACKIO_DIR=str(tmp_path / "trackio"))
    with closing(sqlite3.connect(tmp_path / "trackio/stepconf.db")) as base:
        logged = base.execute("select step, metrics from metrics").fetchall()
    assert {step: json.loads(values)["loss"] for step, values in logged} == losses


@pytest.mark.slow
def test_metrics_go_to_mlflow_if_asked(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    place = {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    losses = trained_with("mlflow", run, tmp_path / "t", **place)
    (file,) = (tmp_path / "mlruns").glob("*/*/metrics/loss")
    lines = [line.split() for line in file.read_text().splitlines()]
    assert {int(step): float(loss) for _, loss, step, *_ in lines} == losses


@pytest.mark.slow
def test_metrics_go_to_wandb_if_asked(run: Path, tmp_path: Path) -> None:
    """Offline: its log, which `wandb sync` sends, holds each step."""
    pytest.importorskip("wandb")
    losses = trained_with("wandb", run, tmp_path / "t", WANDB_MODE="offline")
    (file,) = (tmp_path / "t/wandb").glob("offline-run-*/*.wandb")
    log = file.read_bytes()
    assert [loss for loss in losses.values() if json.dumps(loss).encode() not in log] == []


@pytest.mark.parametrize("limit", [60_000, 200_000, 1_000_000])
def test_no_room_for_a_file_is_one_clear_message(limit: int, run: Path, tmp_path: Path) -> None:
    """Too little for parameters or moments; then enough for all."""
    command = ["train", run, "--model", tiny_model(), *FAST, "--out", tmp_path / "t"]
    ended = forked(command, tmp_path, file_bytes=limit)
    if limit == 1_000_000:
        assert ended.code == 0, ended.err
        return
    assert ended.code == 1 and "Traceback" not in ended.err, ended.err
    assert "cannot write" in " ".join(ended.err.split()) and "same command again" in ended.err
    assert forked(command, tmp_path).code == 0
