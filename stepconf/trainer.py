"""`stepconf train`: pairs or right solutions of a run in, an optimised model out.

OUT/model/                an ordinary checkpoint, to be used wherever a model is accepted
OUT/state/metrics.jsonl   one line an optimiser step
OUT/summary.json          what it was trained on, what was left out and why, the last metrics
OUT/state/                also the checkpoint to continue from, the reference log-probabilities

Where OUT lies at a URL, every checkpoint goes there when it is whole.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

from stepconf.core.records import CUT
from stepconf.core.trees import Example
from stepconf.demo_model import resolve_model
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe, TrainRecipe
from stepconf.run.copies import shown
from stepconf.run.folders import mirrored
from stepconf.run.shards import write_atomically
from stepconf.run.tables import check_is_run, is_file_of_rows, read_metadata, read_shards

Report = Callable[[dict[str, Any]], None]
_PAIR_COLUMNS = [
    "pair_id", "problem_id", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_is_terminal", "rejected_is_terminal",
]  # fmt: skip
_SOLUTION_COLUMNS = [
    "solution_id", "parent_solution_id", "problem_id", "prompt_token_ids", "token_ids", "finish_reason",
    "answer_correct",
]  # fmt: skip


def train(
    source: Path, recipe: Recipe, out: Path, report: Report, exclude: Set[str] = frozenset()
) -> dict[str, Any]:
    """Optimise the recipe's model on a run; returns the summary that is written to OUT.

    `exclude`: ids of problems that must not be learnt from, those that the model is measured on.

    Raises:
        StepconfError: no usable example, pairs of another tokenizer, or what `training.loop.optimise` raises.
    """
    if not recipe.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    model, trust = resolve_model(recipe.model), recipe.engine.trust_remote_code
    _check_source(source, recipe.train)
    tokenizer = Tokenizer(model, recipe.model_revision, trust_remote_code=trust)
    _check_tokenizer(source, tokenizer)
    from stepconf.training.loop import optimise
    from stepconf.training.models import context_of, open_policy, save_policy
    from stepconf.training.ranks import join
    from stepconf.training.trackers import tracker

    ranks = join()
    policy = open_policy(model, recipe.model_revision, recipe.train, ranks, trust)
    limit = min(recipe.train.max_length, context_of(policy))
    examples, dropped = usable(examples_of(source, recipe.train, tokenizer.eos_id), limit, exclude)
    if not examples:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "there are none"
        raise StepconfError(
            f"{source} has no example to train on ({reasons}).",
            f"Type: stepconf pairs {source}; or raise --set train.max_length",
        )
    name = f"{recipe.model}@{recipe.model_revision or ''}"
    track = tracker(recipe.train.log_to if ranks.first else "none", out)

    def tell(metrics: dict[str, Any]) -> None:
        if ranks.first:
            report(metrics)
            track(metrics)

    with mirrored(out, ranks.first, ranks.wait) as push:
        metrics = optimise(policy, examples, recipe.train, out / "state", name, ranks, tell, push)
        save_policy(
            policy, model, recipe.model_revision, out / "model", recipe.train.save_dtype, ranks, trust
        )
        summary = {
            "model": str(shown(out / "model")),
            "from": recipe.model,
            "examples": len(examples),
            "dropped": dict(dropped),
            "last_step": metrics,
            "recipe": recipe.train.model_dump(),
        }
        if ranks.first:
            write_atomically(out / "summary.json", json.dumps(summary, indent=1).encode())
    return summary


def examples_of(source: Path, recipe: TrainRecipe, eos_id: int) -> Iterator[Example]:
    """The run's pairs, or for SFT its right samples, as token ids. What a branch adds is no solution by itself.

    An end-of-sequence token is added only where a side ends its solution.
    """
    table, columns = (
        ("pairs", _PAIR_COLUMNS) if recipe.objective == "dpo" else ("solutions", _SOLUTION_COLUMNS)
    )
    stem = "train" if table == "pairs" else ""
    for rows in read_shards(source, table, columns, stem):
        for row in rows:
            if recipe.objective == "dpo":
                sides = tuple(
                    (*row[f"{side}_ids"], *([eos_id] if row[f"{side}_is_terminal"] else ()))
                    for side in ("chosen", "rejected")
                )
                yield Example(row["pair_id"], row["problem_id"], tuple(row["prompt_ids"]), sides)
            elif row["answer_correct"] and row["parent_solution_id"] is None:
                ending = (eos_id,) if row["finish_reason"] not in CUT else ()
                side = (*row["token_ids"], *ending)
                prompt = tuple(row["prompt_token_ids"])
                yield Example(row["solution_id"], row["problem_id"], prompt, (side,))


def usable(
    examples: Iterator[Example], limit: int, exclude: Set[str] = frozenset()
) -> tuple[list[Example], Counter[str]]:
    """The examples that can be trained on, and why the others cannot, counted."""
    kept, dropped = [], Counter[str]()
    for example in examples:
        if example.group in exclude:
            dropped["held-out problem"] += 1
        elif not example.prompt_ids:
            dropped["no prompt"] += 1
        elif not all(example.sides):
            dropped["empty side"] += 1
        elif len(set(example.sides)) < len(example.sides):
            dropped["equal sides"] += 1
        elif example.length > limit:
            dropped[f"longer than {limit} tokens"] += 1
        else:
            kept.append(example)
    return kept, dropped


def _check_source(source: Path, recipe: TrainRecipe) -> None:
    """A run, or for DPO a Parquet file with the columns of `pairs`."""
    if not is_file_of_rows(source):
        check_is_run(source)
        return
    if recipe.objective == "sft":
        raise StepconfError(
            f"SFT learns from the solutions of a run, and {source} is a file.", "Give the run folder."
        )
    first: list[dict[str, Any]] = next(read_shards(source, "pairs", _PAIR_COLUMNS), [])
    missing = [name for name in _PAIR_COLUMNS if first and name not in first[0]]
    if missing:
        raise StepconfError(
            f"{source} has no column {missing[0]!r}.",
            f"Pairs have: {', '.join(_PAIR_COLUMNS)}; see schemas/pairs.json",
        )


def _check_tokenizer(source: Path, tokenizer: Tokenizer) -> None:
    made_with = read_metadata(source).get("tokenizer", "")
    if made_with and made_with != tokenizer.digest:
        raise StepconfError(
            f"{source} was made with another tokenizer ({made_with}, this model's is {tokenizer.digest}): its token "
            "ids mean something else to this model.",
            "Give the --model that made the run, or one that was trained from it; or make the run anew with this one.",
        )
