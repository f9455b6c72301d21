"""Speed and memory of the trainer, or of TRL's, on made-up pairs: `python -m stepconf.training.measure`.

In a process of its own, whose peak memory is then the trainer's. `stepconf doctor --bench` calls it.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from stepconf.core.trees import Example
from stepconf.recipe import TrainRecipe

STEPS = 4  # of a solution; each is a pair: the step against one with a wrong sum
BATCH = 64
TRL_PER_DEVICE = 8  # its default


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two steps after the same ones.

    Args:
        before: the question as it is put, and the steps before; each has its own tokens.
        chosen: the better step.
        rejected: the other.
        solution: whose steps they are; pairs of one solution can share a prefix.
        is_last: the steps end the solution, and so end with the end token.
    """

    before: tuple[str, ...]
    chosen: str
    rejected: str
    solution: str
    is_last: bool = False


def made_pairs(n: int) -> list[TextPair]:
    """`n` pairs of a made-up solution's steps, each against one with a wrong sum."""
    pairs = []
    for i in range(n):
        solution, step = divmod(i, STEPS)
        question = f"Question: Start with {solution + 11}, and {STEPS} times add {solution + 7}.\nAnswer:\n"
        texts = [_step(solution, j, 0) for j in range(STEPS)]
        before = (question, *texts[:step])
        pairs.append(TextPair(before, texts[step], _step(solution, step, 1), str(solution)))
    return pairs


def _step(solution: int, j: int, off: int) -> str:
    before, add = solution + 11 + j * (solution + 7), solution + 7
    return f"In step {j + 1} we have {before} and add {add}, so that {before} + {add} = {before + add + off}.\n\n"


def run_stepconf(model: str, dtype: str, pairs: Sequence[TextPair]) -> dict[str, float]:
    """Train on the pairs, and say the seconds and the tokens with and without shared prefixes.

    Tokenising, the reference's forward and compilation are part of the seconds; loading and saving are not.
    """
    from transformers import AutoTokenizer

    from stepconf.training.loop import optimise
    from stepconf.training.models import open_policy
    from stepconf.training.ranks import join

    recipe = TrainRecipe.model_validate({"batch_size": min(BATCH, len(pairs)), "dtype": dtype})
    tokenizer, ranks = AutoTokenizer.from_pretrained(model, trust_remote_code=False), join()
    policy = open_policy(model, None, recipe, ranks)
    ends: list[float] = []
    seen: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any]) -> None:
        if "step" in metrics:
            ends.append(time.perf_counter())
            seen.append(metrics)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    started = time.perf_counter()
    examples = []
    for i, pair in enumerate(pairs):
        end = [tokenizer.eos_token_id] if pair.is_last else []
        sides = ((*ids(side), *end) for side in (pair.chosen, pair.rejected))
        prefix = tuple(chain.from_iterable(map(ids, pair.before)))
        examples.append(Example(str(i), pair.solution, prefix, tuple(sides)))
    with tempfile.TemporaryDirectory() as scratch:
        optimise(policy, examples, recipe, Path(scratch), model, ranks, report)
    tokens = {name: sum(one[name] for one in seen) for name in ("tokens", "tokens_unpacked")}
    return {"seconds": ends[-1] - started, **tokens}


def run_trl(
    model: str, dtype: str, pairs: Sequence[TextPair], per_device: int = TRL_PER_DEVICE
) -> dict[str, float]:
    """The same with TRL's DPOTrainer, without gradient checkpointing."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    kind = getattr(torch, dtype)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(model, dtype=kind, trust_remote_code=False) for _ in range(2)
    )
    rows = [{"prompt": "".join(one.before), "chosen": one.chosen, "rejected": one.rejected} for one in pairs]
    with tempfile.TemporaryDirectory() as scratch:
        config = DPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=max(min(BATCH, len(pairs)) // per_device, 1),
            gradient_checkpointing=False,
            num_train_epochs=1,
            max_length=None,
            bf16=dtype == "bfloat16" and torch.cuda.is_available(),
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
        return {"seconds": time.perf_counter() - started}


def peak_gib() -> float:
    """This process's peak memory so far: the GPU's where there is one."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(trainer: str, model: str) -> dict[str, Any]:
    """Pairs per second and peak memory; on a GPU in bfloat16 on more pairs.

    Args:
        trainer: `stepconf` or `trl`; TRL gets fewer pairs, since its own share nothing.
    """
    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu else "float32"
    n = {"stepconf": 512 if gpu else 32, "trl": 128 if gpu else 8}[trainer]
    run = run_stepconf if trainer == "stepconf" else run_trl
    seconds = run(model, dtype, made_pairs(n))["seconds"]
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "dtype": dtype,
        "pairs": n,
        "seconds": round(seconds, 2),
        "pairs_per_second": round(n / seconds, 3),
        "peak_gib": round(peak_gib(), 2),
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
