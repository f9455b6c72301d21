"""On the same rows our losses are TRL's: DPO where both sides end their solution, RLOO and GRPO on any samples."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stepconf.core.trees import Example, plant
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe
from stepconf.training.batches import collate
from stepconf.training.objectives.base import Sample
from stepconf.training.objectives.dpo import dpo_loss
from stepconf.training.policy import Policy
from stepconf.training.reference import Known
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


REWARDS = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def samples_of(name: str, recipe: TrainRecipe, model: Any) -> list[Example]:
    """Two groups of three samples, with what the objective credits them and log-probabilities near the model's."""
    draw = torch.Generator().manual_seed(2)
    found = []
    for group in range(2):
        rewards = REWARDS[3 * group : 3 * group + 3]
        credits = OBJECTIVES.load(name).credit([Sample(one, (None,)) for one in rewards], recipe)
        for i, own in enumerate(credits):
            length = 3 + i
            side = tuple(torch.randint(3, 300, (length,), generator=draw).tolist())
            key, prompt = f"{group}/{i}", (5, 6, 7 + group)
            with torch.no_grad():
                said = model(torch.tensor([prompt + side])).logits[0, 2:-1].log_softmax(-1)
            noise = 0.5 * torch.randn(length, generator=draw)
            logprobs = (said[torch.arange(length), list(side)] + noise).tolist()
            found.append(
                Example(key, str(group), prompt, (side,), (tuple(own * length),), (tuple(logprobs),))
            )
    return found


def padded(rows: list[Any], value: float) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("options", [{}, {"divide_by_std": False}, {"kl_weight": 0.2}])
@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_policy_gradients_equal_trls_on_the_same_rows(
    name: str, options: dict[str, Any], temperature: float, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if name == "rloo" and "kl_weight" in options:
        pytest.skip("TRL's RLOO puts the divergence into the reward, not the loss")
    recipe = TrainRecipe(objective=name, clip=0.9, **options)
    model = AutoModelForCausalLM.from_pretrained(tiny_model())
    examples = samples_of(name, recipe, model.eval())
    config_of, trainer_of = (
        (trl.GRPOConfig, trl.GRPOTrainer) if name == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    )
    own = {"loss_type": "grpo", "use_bias_correction_kl": False} if name == "grpo" else {}
    trainer = trainer_of(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config_of(
            str(tmp_path), report_to="none", use_cpu=True, bf16=False, epsilon=recipe.clip, num_generations=3,
            per_device_train_batch_size=6, beta=recipe.kl_weight, temperature=temperature, **own,
        ),
        train_dataset=Dataset.from_list([{"prompt": "What is 1 + 1?"}] * 6),
        processing_class=AutoTokenizer.from_pretrained(tiny_model()),
    )  # fmt: skip
    trainer.model.eval()
    reference = [(torch.tensor(one.logprobs[0]) + 0.1).tolist() for one in examples]
    logprobs = padded([one.logprobs[0] for one in examples], 0.0)
    advantages = torch.tensor([one.credits[0][0] for one in examples])
    given = {
        "prompt_ids": torch.tensor([one.prompt_ids for one in examples]),
        "prompt_mask": torch.ones(len(examples), 3, dtype=torch.long),
        "completion_ids": padded([one.sides[0] for one in examples], 0).long(),
        "completion_mask": padded([[1] * len(one.sides[0]) for one in examples], 0).long(),
        "advantages": advantages,
        "old_logps": logprobs.sum(1),
        "old_per_token_logps": logprobs,
        "ref_per_token_logps": padded(reference, 0.0),
    }
    with torch.no_grad():
        theirs = trainer._compute_loss(trainer.model, given).item()
        batch = collate(plant(examples, range(len(examples)), 10_000))
        known = Known(examples, torch.tensor([value for row in reference for value in row]))
        scores = Policy(model.eval())(batch, temperature)
        ours = OBJECTIVES.load(name).loss(scores, known.of(batch), recipe).values.mean().item()
    assert abs(theirs) > 0.01 and ours == pytest.approx(theirs, abs=1e-3)
    in_trl = torch.tensor(REWARDS).view(-1, 3)
    expected = in_trl - in_trl.mean(1, keepdim=True)
    if name == "rloo":
        expected = in_trl - (in_trl.sum(1, keepdim=True) - in_trl) / 2
    elif recipe.divide_by_std:
        expected = expected / (in_trl.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages, expected.flatten())
