"""What an end-of-sequence token behind every step teaches: the same step pairs through stock TRL and through us.

Both train the demo model on the first pairs of a run (default: what `stepconf demo` wrote), at the same learning
rate, batch and beta. Then each answers the run's problems again: steps per answer, and the share of them
that stop before the answer.

    python -m tests.benchmarks.eos_corruption [--run demo-run] [--pairs 64] [--problems 24]
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from stepconf.core.records import Pair
from stepconf.demo import RECIPE
from stepconf.demo_model import resolve_model
from stepconf.pipeline import generate
from stepconf.recipe import Recipe, TrainRecipe, load_recipe
from stepconf.run.tables import read_pairs, read_shards

TRAIN = {"learning_rate": 1e-5, "batch_size": 8, "schedule": "constant", "warmup_ratio": 0.0, "beta": 0.1}


def train_trl(pairs: list[Pair], out: Path) -> None:
    """TRL's DPOTrainer on the texts of the pairs, as its documentation shows."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model = resolve_model("demo")
    config = DPOConfig(
        output_dir=str(out / "scratch"),
        per_device_train_batch_size=TRAIN["batch_size"],
        num_train_epochs=1,
        learning_rate=TRAIN["learning_rate"],
        lr_scheduler_type="constant",
        beta=TRAIN["beta"],
        max_length=None,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    rows = {name: [getattr(pair, name) for pair in pairs] for name in ("prompt", "chosen", "rejected")}
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))


def train_ours(pairs: list[Pair], out: Path) -> None:
    """The same pairs by their token ids."""
    from stepconf.core.trees import Example
    from stepconf.engines.tokenizer import Tokenizer
    from stepconf.training.loop import optimise
    from stepconf.training.models import open_policy, save_policy
    from stepconf.training.ranks import join

    model, recipe, ranks = resolve_model("demo"), TrainRecipe.model_validate(TRAIN), join()
    eos = Tokenizer(model).eos_id
    examples = [
        Example(
            pair.pair_id,
            pair.problem_id,
            tuple(pair.prompt_ids),
            (
                (*pair.chosen_ids, *([eos] if pair.chosen_is_terminal else [])),
                (*pair.rejected_ids, *([eos] if pair.rejected_is_terminal else [])),
            ),
        )
        for pair in pairs
    ]
    policy = open_policy(model, None, recipe, ranks)
    optimise(policy, examples, recipe, out / "state", model, ranks, lambda _: None)
    save_policy(policy, model, None, out / "model", "float32", ranks)


def answers(model: str, recipe: Recipe, out: Path) -> tuple[float, float]:
    """Steps per answer, and the share that never comes to the line that the examples end with."""
    generate(recipe.model_copy(update={"model": model}), out, lambda stage, n: None)
    rows: list[dict[str, Any]] = [
        row for shard in read_shards(out, "solutions", ["n_steps", "text"]) for row in shard
    ]
    return fmean(row["n_steps"] for row in rows), fmean(
        "answer is" not in row["text"].lower() for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, default=Path("demo-run"))
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--problems", type=int, default=24)
    args = parser.parse_args()
    pairs = [pair for shard in read_pairs(args.run) for pair in shard][: args.pairs]
    open_ended = sum(not pair.chosen_is_terminal for pair in pairs)
    print(f"{len(pairs)} pairs, {open_ended} of them with a chosen step that does not end its solution")
    recipe = load_recipe(
        RECIPE,
        {"problems.limit": args.problems, "sampling.samples": 4, "sampling.seed": 7},
        ["verify.verifiers=[]"],
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train_trl(pairs, folder / "trl")
        train_ours(pairs, folder / "ours")
        for name, model in (
            ("before", "demo"),
            ("TRL", str(folder / "trl" / "model")),
            ("stepconf", str(folder / "ours" / "model")),
        ):
            steps, unfinished = answers(model, recipe, folder / f"{name}-answers")
            print(f"{name:<9} {steps:.2f} steps per answer, {unfinished:.1%} without an answer", flush=True)


if __name__ == "__main__":
    main()
