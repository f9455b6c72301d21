"""Where both sides of a pair end their solution, a stock trainer is right: our loss is then its loss."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stepconf.core.trees import Example
from stepconf.training.objectives.dpo import dpo_loss
from stepconf.training.policy import Policy
from tests.tiny import tiny_model
from tests.training.test_policy import packed

PAIRS = [(f"What is {a} + {b}?\n", f"{a} + {b} = {a + b}", f"{a} + {b} is about {a + b + 1}.") for a, b in
         ((2, 3), (4, 5), (10, 7), (6, 6), (1, 9), (12, 30))]  # fmt: skip


def test_loss_equals_trls_on_terminal_pairs(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, reference = (AutoModelForCausalLM.from_pretrained(tiny_model()) for _ in range(2))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    data = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    config = trl.DPOConfig(
        output_dir=str(tmp_path),
        per_device_eval_batch_size=2,
        beta=0.1,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=config,
        train_dataset=data,
        eval_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(tiny_model()),
    )
    theirs = trainer.evaluate()["eval_loss"]
    rows: list[dict[str, Any]] = list(trainer.eval_dataset)
    examples = [
        Example(str(i), str(i), tuple(r["prompt_ids"]), (tuple(r["chosen_ids"]), tuple(r["rejected_ids"])))
        for i, r in enumerate(rows)
    ]
    eos = trainer.processing_class.eos_token_id
    assert all(side[-1] == eos for one in examples for side in one.sides), "TRL ends both sides"
    with torch.no_grad():
        ours = dpo_loss(
            packed(Policy(policy.eval()), examples, 10_000),
            packed(Policy(reference), examples, 10_000),
            beta=0.1,
        )[0].mean()
    assert abs(theirs - 0.6931) > 0.01, "the reference is another model"
    assert ours.item() == pytest.approx(theirs, abs=1e-3)
