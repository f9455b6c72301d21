"""`stepconf.rewards` in a real GRPOTrainer, and what `step-kto` and `rstar` export in TRL's trainers."""

from pathlib import Path

import pytest

from stepconf import rewards
from tests.tiny import tiny_model

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
