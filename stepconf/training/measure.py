"""Speed and memory of the trainer, or of TRL's, on made-up pairs: `python -m stepconf.training.measure`.

In a process of its own, whose peak memory is then the trainer's. `stepconf doctor --bench` calls it.
"""

import json
import resource
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from stepconf.core.trees import Example
from stepconf.recipe import TrainRecipe

STEPS = 4  # of a solution; each is a pair: the step against one with a wrong sum
BATCH = 64
TRL_PER_DEVICE = 8  # its default


def made_pairs(n: int) -> list[tuple[list[str], str, str]]:
    """`n` pairs of steps: the texts before it, question first, the step, and a wrong one in its place."""
    pairs = []
    for i in range(n):
        solution, step = divmod(i, STEPS)
        question = f"Question: Start with {solution + 11}, and {STEPS} times add {solution + 7}.\nAnswer:\n"
        texts = [_step(solution, j, 0) for j in range(STEPS)]
        pairs.append(([question, *texts[:step]], texts[step], _step(solution, step, 1)))
    return pairs


def _step(solution: int, j: int, off: int) -> str:
    before, add = solution + 11 + j * (solution + 7), solution + 7
    return f"In step {j + 1} we have {before} and add {add}, so that {before} + {add} = {before + add + off}.\n\n"


def run_stepconf(model: str, dtype: str, n: int) -> float:
    """Seconds to train on `n` pairs: tokenising, the reference's forward and compilation are part of it."""
    from transformers import AutoTokenizer

    from stepconf.training.loop import optimise
    from stepconf.training.models import open_policy
    from stepconf.training.ranks import join

    recipe = TrainRecipe.model_validate({"batch_size": min(BATCH, n), "dtype": dtype})
    tokenizer, ranks = AutoTokenizer.from_pretrained(model, trust_remote_code=False), join()
    policy = open_policy(model, None, recipe, ranks)
    started = time.perf_counter()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    examples = [
        Example(str(i), str(i // STEPS), tuple(chain.from_iterable(map(ids, before))), (ids(good), ids(bad)))
        for i, (before, good, bad) in enumerate(made_pairs(n))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        optimise(policy, examples, recipe, Path(scratch), model, ranks, lambda metrics: None)
    return time.perf_counter() - started


def run_trl(model: str, dtype: str, n: int) -> float:
    """Seconds to train on `n` of the pairs with TRL's DPOTrainer: its default batch, no gradient checkpointing."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    kind = getattr(torch, dtype)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(model, dtype=kind, trust_remote_code=False) for _ in range(2)
    )
    rows = [{"prompt": "".join(p), "chosen": good, "rejected": bad} for p, good, bad in made_pairs(n)]
    with tempfile.TemporaryDirectory() as scratch:
        config = DPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=TRL_PER_DEVICE,
            gradient_accumulation_steps=max(min(BATCH, n) // TRL_PER_DEVICE, 1),
            gradient_checkpointing=False,
            num_train_epochs=1,
            max_length=None,
            bf16=dtype == "bfloat16",
            optim="adamw_torch_fused",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        started = time.perf_counter()
        trainer = DPOTrainer(
            model=policy,
            ref_model=reference,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model, trust_remote_code=False),
        )
        trainer.train()
        return time.perf_counter() - started


def measure(trainer: str, model: str) -> dict[str, Any]:
    """Pairs per second and peak memory; on a GPU in bfloat16 on more pairs.

    Args:
        trainer: `stepconf` or `trl`; TRL gets fewer pairs, since its own share nothing.
    """
    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu else "float32"
    n = {"stepconf": 512 if gpu else 32, "trl": 128 if gpu else 8}[trainer]
    seconds = (run_stepconf if trainer == "stepconf" else run_trl)(model, dtype, n)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "dtype": dtype,
        "pairs": n,
        "seconds": round(seconds, 2),
        "pairs_per_second": round(n / seconds, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30 if gpu else resident, 2),
    }


def main(trainer: str, model: str) -> None:
    """Print the figures as one JSON line; where it failed, why: `lacks`."""
    try:
        found = measure(trainer, model)
    except Exception as error:  # noqa: BLE001  a trainer's failure is a line of the table
        found = {"lacks": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3])
