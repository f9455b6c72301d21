"""`stepconf.rewards` in a real GRPOTrainer, and what `step-kto` and `rstar` export in TRL's trainers."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from stepconf import rewards
from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Scores, Sides
from stepconf.training.objectives.step_kto import STEP_KTO
from tests.invariants import rows_of
from tests.scripted_engine import branched_run
from tests.tiny import stepconf, tiny_model

ASKED = [
    {"prompt": f"What is {a} + {a}?\n", "answer": str(2 * a), "problem": f"What is {a} + {a}?"}
    for a in (1, 2, 3)
]


@pytest.mark.slow
def test_a_grpo_trainer_takes_our_rewards(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked: list[list[str]] = []

    def seen(completions: list[str], **columns: list[str]) -> list[float | None]:
        asked.append(completions)
        return rewards.sound_steps(["1 + 1 = 2", "1 + 1 = 3"] * (len(completions) // 2))

    config = trl.GRPOConfig(
        str(tmp_path), max_steps=2, num_generations=2, per_device_train_batch_size=4, max_completion_length=12,
        report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model()),
        reward_funcs=[rewards.final_answer, rewards.sound_steps, rewards.calibrated, seen],
        args=config,
        train_dataset=Dataset.from_list(ASKED),
        processing_class=AutoTokenizer.from_pretrained(tiny_model()),
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/seen/mean" in entry]
    assert len(logged) == 2 and len(asked) == 2
    assert all(entry["rewards/seen/mean"] == 0.5 for entry in logged)
    assert all(
        any(key.startswith(f"rewards/{name}") for key in logged[0])
        for name in ("final_answer", "sound_steps", "calibrated")
    )


def exported(run: Path, library: str, out: Path, *options: object) -> list[dict[str, object]]:
    import polars as pl

    sets = ["--set", "pairs.validation=0"]
    ended = stepconf("pairs", run, "--export", library, "--out", out, *options, *sets)
    assert ended.code == 0, ended.err
    return pl.read_parquet(out / "train.parquet").to_dicts()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(branched_run(), tmp_path / "run"))


def test_step_kto_is_read_by_trl(run: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoTokenizer

    rows = exported(run, "step-kto", tmp_path / "x")
    assert "KTOTrainer" in (tmp_path / "x/README.md").read_text()
    assert {row["label"] for row in rows} == {True, False} and rows[0].keys() == {
        "prompt",
        "completion",
        "label",
    }
    assert len({(row["prompt"], row["completion"]) for row in rows}) == len(rows)
    labels = {(row["text"], row["label"]) for row in rows_of(run, "steps")}
    assert all((row["completion"], "correct" if row["label"] else "incorrect") in labels for row in rows)
    config = trl.KTOConfig(
        str(tmp_path / "out"), report_to="none", use_cpu=True, bf16=False, loss_type="apo_zero_unpaired"
    )
    trainer = trl.KTOTrainer(
        model=str(tiny_model()),
        args=config,
        train_dataset=Dataset.from_list(rows[:8]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model()),
    )
    assert len(trainer.train_dataset) == 8


def test_rstar_pairs_are_read_by_trl(run: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoTokenizer

    rows = exported(run, "trl", tmp_path / "x", "--strategy", "rstar")
    assert rows and {row["kind"] for row in rows_of(run, "pairs")} == {"outcome"}
    trainer = trl.DPOTrainer(
        str(tiny_model()),
        args=trl.DPOConfig(str(tmp_path / "out"), report_to="none", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_model()),
    )
    said = trainer.processing_class.decode(trainer.train_dataset[0]["chosen_ids"])
    assert str(rows[0]["chosen"]) in said


def test_step_kto_loses_what_trls_unpaired_loss_does() -> None:
    """`apo_zero_unpaired`: 1 - sigmoid(b r) for a right side, sigmoid(b r) for a wrong one."""
    ratios, right = torch.tensor([0.3, -0.2, 1.5]), torch.tensor([1.0, -1.0, -1.0])
    sides = Sides(torch.arange(3), torch.ones(3), right, torch.zeros(3), torch.zeros(3))
    found = STEP_KTO.loss(Scores(ratios, torch.zeros(3)), sides, TrainRecipe(beta=0.7)).values
    expected = [1 - sigmoid(0.21), sigmoid(-0.14), sigmoid(1.05)]
    assert found.tolist() == pytest.approx(expected)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
