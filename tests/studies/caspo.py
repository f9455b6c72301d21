"""CASPO beside what it is compared with: each method trains one base model on the same samples, with as many steps.

    python -m tests.studies.caspo demo --out studies/demo --seeds 0,1
    python -m tests.studies.caspo small --model FOLDER --out studies/small --methods caspo,caspo+nll

Type the same command again to continue. Every stage is a run folder, or one of `stepconf train`:

OUT/recipe.json                      the options, which stay the same
OUT/base/{sampled,greedy,tree.json}          the base model on held-out problems
OUT/seed-S/samples                           what all methods learn from: samples and branches of the base model
OUT/seed-S/data/NAME                         a copy with the pairs of a strategy, or with flipped labels
OUT/seed-S/METHOD/{training,sampled,greedy,tree.json}
OUT/table.md, table.json                     the measures, with intervals and paired differences over problems
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepconf.api.text import pool
from stepconf.core.documents import differences, read_object, read_yaml
from stepconf.core.records import Problem
from stepconf.demo import RECIPE
from stepconf.engines.guard import Guard
from stepconf.evaluation.evaluate import answered
from stepconf.evaluation.infer import equality, open_pool
from stepconf.pairs.make import make_pairs
from stepconf.pipeline import generate
from stepconf.problems.load import load_problems
from stepconf.recipe import Recipe, load_recipe, with_options
from stepconf.rounds import engine_of, evaluation_recipe, problem_ids, round_recipe
from stepconf.run.shards import write_atomically
from stepconf.run.tables import pairs_manifest, read_shards
from stepconf.trainer import train
from tests.studies.measures import Measured, measure

AGAINST = ("base", "caspo")  # differences are to these


@dataclass(frozen=True, slots=True)
class Method:
    """How a policy is made of the samples: keys of `train`, pairs and label noise of its data, share of the steps."""

    keys: dict[str, Any] = field(default_factory=dict)
    pairs: str = ""
    noise: float = 0.0
    share: float = 1.0


SFT = {"objective": "sft"}
SFT_RATE = 5.0  # its learning rate, as a multiple of the others'
METHODS = {
    "sft": Method(SFT),
    "dpo-vp": Method(pairs="dpo-vp"),
    "pcpo": Method(pairs="pcpo"),
    "step-dpo": Method(pairs="step-dpo"),
    "caspo": Method(pairs="caspo"),
    "caspo+nll": Method({"nll_weight": 1.0}, "caspo"),
    "caspo+margin": Method({"margin_weight": 1.0, "entropy_margin": 0.5}, "caspo"),
    "caspo+nll+margin": Method({"nll_weight": 1.0, "margin_weight": 1.0, "entropy_margin": 0.5}, "caspo"),
    "caspo-half": Method(pairs="caspo", share=0.5),  # what caspo-sft has before its SFT
    "caspo-sft": Method({"stages": [{"objective": "dpo"}, SFT]}, "caspo"),
    "rstar": Method(pairs="rstar"),
    "rloo": Method({"objective": "rloo"}),
    "grpo": Method({"objective": "grpo"}),
    "pure": Method({"objective": "pure"}),
    **{f"caspo-noise-{round(100 * x)}": Method(pairs="caspo", noise=x) for x in (0.1, 0.2, 0.3)},
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything; `recipe`: keys of the base model's recipe. steps: of the optimiser, for every method."""

    recipe: dict[str, Any]
    train: str
    held_out: str
    n_train: int
    n_held_out: int
    samples: int
    steps: int
    batch: int
    learning_rate: float
    tree: int  # held-out problems that CaT answers
    k: int
    methods: tuple[str, ...]


_CHAINS = "reasoning-gym:chain_sum?min_terms=3&max_terms=4&min_digits=1&max_digits=1&size="
SIZES = {
    "demo": Size(
        {"branch.budget": 2.0, "branch.n": 4}, f"{_CHAINS}96", f"{_CHAINS}32", 24, 24, 8, 8, 12, 1e-5, 8, 4,
        tuple(METHODS),
    ),
    "small": Size(
        {"branch.budget": 1.0, "branch.n": 4, "engine.dtype": "float32", "engine.max_model_len": 1024,
         "sampling.max_tokens": 256, "verify.verifiers": ["final", "symbolic", "rollout"]},
        "svamp", "svamp", 40, 24, 8, 8, 8, 5e-6, 6, 4, ("caspo", "caspo+nll", "caspo-sft", "rloo"),
    ),
}  # fmt: skip


def recipe_of(size: Size, name: str, model: str) -> Recipe:
    """The base model's recipe; held-out problems are those that the training does not see."""
    keys = {
        "model": model,
        "chunk": 8,
        "problems.source": size.train,
        "problems.split": "train" if name == "small" else None,
        "problems.limit": size.n_train,
        "sampling.samples": size.samples,
        "pairs.validation": 0.0,
        "train.nll_weight": 0.0,  # as printed; a method says what it adds
        "train.max_steps": size.steps,
        "train.batch_size": size.batch,
        "train.learning_rate": size.learning_rate,
        "train.warmup_ratio": 0.0,
        "train.checkpoint_every": 4,
        "infer.k": size.k,
        "loop.evaluation.source": size.held_out,
        "loop.evaluation.split": "test" if name == "small" else None,
        "loop.evaluation.limit": size.n_held_out,
        "loop.evaluation.samples": size.samples,
    }
    return load_recipe(RECIPE if name == "demo" else None, keys | size.recipe)


def evaluate(folder: Path, recipe: Recipe, policy: str, size: Size) -> None:
    """Sample, decode greedily, and answer by CaT what was held out."""
    with engine_of(recipe, policy) as engine:
        sampled = evaluation_recipe(recipe, policy)
        if "rollout" in recipe.verify.verifiers:  # steps are labelled by completions of the measured policy
            branch = recipe.branch.model_copy(update={"where": ["first-error"]})
            sampled = sampled.model_copy(update={"branch": branch})
        generate(sampled, folder / "sampled", _quiet, engine)
        one = sampled.sampling.model_copy(update={"samples": 1, "temperature": 0.0})
        generate(sampled.model_copy(update={"sampling": one}), folder / "greedy", _quiet, engine)
        if (folder / "tree.json").exists():
            return
        rows: list[dict[str, Any]] = []
        if size.tree and engine:
            rows = _tree_rows(folder / "sampled", sampled, engine(), size)
        write_atomically(folder / "tree.json", json.dumps(rows).encode())


def _tree_rows(sampled: Path, recipe: Recipe, engine: Guard, size: Size) -> list[dict[str, Any]]:
    """CaT with the tokens that voting spent on an average problem; its rows by `problem_id`."""
    columns = ["n_tokens", "parent_solution_id"]
    rows = (row for shard in read_shards(sampled, "solutions", columns) for row in shard)
    counts = [row["n_tokens"] for row in rows if row["parent_solution_id"] is None]
    budget = max(1, sum(counts) * size.samples // max(1, len(counts)))
    infer = recipe.infer.model_copy(update={"strategy": "cat", "token_budget": budget})
    problems = _problems(recipe)
    with open_pool(recipe) as workers:
        how = recipe.model_copy(update={"infer": infer})
        return answered(engine, workers, "held out", problems[: size.tree], "cat", how, _quiet).rows


def _problems(recipe: Recipe) -> list[Problem]:
    return load_problems(recipe.problems.source, recipe.problems, recipe.sampling.seed).problems


def data_of(method: Method, seed: Path, recipe: Recipe) -> Path:
    """The samples, or a copy of them with the pairs and the noise of a method."""
    if not method.pairs:
        return seed / "samples"
    noise = f"-noise-{round(100 * method.noise)}" if method.noise else ""
    copy = seed / "data" / f"{method.pairs}{noise}"
    if not copy.exists():
        scratch = copy.with_name(f".{copy.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(seed / "samples", scratch)
        if method.noise:
            _typed("relabel", str(scratch), "--noise", str(method.noise), "--seed", "0")
        scratch.rename(copy)
    if pairs_manifest(copy) is None:
        make_pairs(copy, recipe.pairs.model_copy(update={"strategy": method.pairs}), _quiet)
    return copy


def learner(method: Method, recipe: Recipe, number: int) -> Recipe:
    """The recipe of a method's training; stages share the steps."""
    steps = round(method.share * (recipe.train.max_steps or 0))
    keys = {"seed": number, "max_steps": steps, **method.keys}
    rate = {"learning_rate": SFT_RATE * recipe.train.learning_rate}
    if keys.get("objective") == "sft":
        keys |= rate
    if stages := keys.get("stages"):
        keys["max_steps"] = steps // len(stages)
        keys["stages"] = [one | rate if one["objective"] == "sft" else one for one in stages]
    values = recipe.model_dump()
    values["train"] |= keys
    return Recipe.model_validate(values)


def run_seed(out: Path, number: int, recipe: Recipe, size: Size, names: list[str]) -> None:
    """All stages of one seed."""
    seed = out / f"seed-{number}"
    with engine_of(recipe, recipe.model) as engine:
        say(f"seed {number}: samples of the base model")
        generate(round_recipe(recipe, recipe.model, number), seed / "samples", _quiet, engine)
    held_out = problem_ids(out / "base" / "sampled")
    for name in names:
        folder, method = seed / name, METHODS[name]
        if not (folder / "training" / "summary.json").exists():
            say(f"seed {number}: {name}, train")
            data = data_of(method, seed, recipe)
            train(data, learner(method, recipe, number), folder / "training", lambda _: None, held_out)
            for state in (folder / "training" / "state").glob("checkpoint-*"):
                shutil.rmtree(state)  # three times the model; a finished training needs none
        say(f"seed {number}: {name}, measure")
        evaluate(folder, recipe, str(folder / "training" / "model"), size)


def tabulate(out: Path, recipe: Recipe, numbers: list[int], names: list[str]) -> None:
    """Write and print the table: each method by the mean over its seeds, with differences."""
    held_out = evaluation_recipe(recipe, recipe.model)
    problems = [one.problem_id for one in _problems(held_out)]
    folders = {"base": [out / "base"]}
    folders |= {name: [out / f"seed-{number}" / name for number in numbers] for name in names}
    samples = held_out.sampling.samples
    found = {name: [_measures(folder, problems, samples) for folder in own] for name, own in folders.items()}
    mean = {name: {key: _average([one[key] for one in own]) for key in own[0]} for name, own in found.items()}
    others = [name for name in AGAINST if name in mean]
    rows = [_row(key, name, mean, others) for key in mean["base"] for name in mean]
    text = "".join(
        _table(key, [row for row in rows if row["measure"] == key], others) for key in mean["base"]
    )
    write_atomically(out / "table.md", text.encode())
    write_atomically(out / "table.json", json.dumps(rows, indent=1).encode())
    print(text)


def _row(key: str, name: str, mean: dict[str, dict[str, Measured]], others: list[str]) -> dict[str, Any]:
    """A measure of a method: its estimate with bounds, and the same of its differences."""
    own = mean[name][key]
    columns = {"": own} | {f"minus_{other}": own.minus(mean[other][key]) for other in others}
    row: dict[str, Any] = {"measure": key, "method": name}
    for prefix, value in columns.items():
        low, high = value.interval or (None, None)
        row |= {prefix or "estimate": value.estimate}
        row |= {f"{prefix}_low".strip("_"): low, f"{prefix}_high".strip("_"): high}
    return row


def _table(key: str, rows: list[dict[str, Any]], others: list[str]) -> str:
    head = f"\n**{key}**\n\n| method | 95 % interval |{''.join(f' - {other} |' for other in others)}\n"
    columns = ["estimate", *(f"minus_{other}" for other in others)]
    lines = [f"| {row['method']} | {' | '.join(_shown(row, one) for one in columns)} |" for row in rows]
    return head + "|---|---|" + "---|" * len(others) + "\n" + "\n".join(lines) + "\n"


def _measures(folder: Path, problems: Sequence[str], samples: int) -> dict[str, Measured]:
    tree = json.loads((folder / "tree.json").read_text())
    runs = (str(folder / name) for name in ("sampled", "greedy"))
    return measure(*runs, tree, problems, samples, lambda kind: equality(pool(), kind))


def _average(found: list[Measured]) -> Measured:
    """The mean over seeds, draw by draw; undefined where one of them is."""
    rows = zip(*[(one.estimate, *one.resamples) for one in found], strict=True)
    first, *rest = (None if None in row else sum(row) / len(row) for row in rows)
    return Measured(first, rest)


def _shown(row: dict[str, Any], column: str) -> str:
    if row[column] is None:
        return "-"
    low, high = (row[f"{column}_{end}".removeprefix("estimate_")] for end in ("low", "high"))
    return f"{row[column]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _typed(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "stepconf", *arguments], check=True)


def _quiet(stage: str, n: int) -> None:
    """No progress within a stage."""


def say(text: str) -> None:
    """A line at once."""
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="demo", help="the base model: Hub id, folder, or demo")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", help=f"comma-separated: {', '.join(METHODS)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any recipe key")
    options = parser.parse_args(arguments)
    size = SIZES[options.size]
    names = options.methods.split(",") if options.methods else list(size.methods)
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        parser.error(f"unknown methods {', '.join(unknown)}; there are {', '.join(METHODS)}")
    recipe = recipe_of(size, options.size, options.model)
    if options.set:
        recipe = _changed(recipe, options.set)
    numbers = [int(number) for number in options.seeds.split(",")]
    if differing := _differing(options.out, recipe):
        parser.error(f"{options.out} was made with other options; they differ in: {'; '.join(differing)}")
    say("base: measure")
    evaluate(options.out / "base", recipe, recipe.model, size)
    for number in numbers:
        run_seed(options.out, number, recipe, size, names)
    tabulate(options.out, recipe, numbers, names)


def _differing(out: Path, recipe: Recipe) -> list[str]:
    """The keys of the recipe that are others than at the first time; then they are written down."""
    file, own = out / "recipe.json", recipe.model_dump(mode="json")
    if file.exists():
        return differences(read_object(file.read_bytes()), own)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(own, indent=1).encode())
    return []


def _changed(recipe: Recipe, sets: list[str]) -> Recipe:
    return with_options(recipe, {one.partition("=")[0]: read_yaml(one.partition("=")[2]) for one in sets})


if __name__ == "__main__":
    main()
