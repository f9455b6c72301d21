"""`stepconf pairs`: preference pairs out of a run.

A strategy of `core.pairs` chooses pairs, some whole problems at a time (`read.py`); they are capped, and split into
train and validation by problem. All shards become part of the run together, at the end: a run has all of its pairs or
none. Killed before that, the older pairs stand.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from stepconf.core.pairs.frames import Frames, PairStrategy, Rules
from stepconf.core.pairs.reasons import CAPPED, OTHER_PART, SAME_PAIR, SURPLUS
from stepconf.core.pairs.select import SPLITS, capped, least_of_train, surplus
from stepconf.core.schema import arrow_schema
from stepconf.demo_model import check_model_of_run, resolve_model
from stepconf.engines.base import TEXT_ALONE
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.kinds import PAIR_STRATEGIES
from stepconf.pairs.read import batches, frames_of
from stepconf.pairs.rows import Writer, named_pairs, pair_rows
from stepconf.recipe import PairsRecipe, Recipe, recipe_of
from stepconf.run.columns import confidence_quantile
from stepconf.run.events import Tick
from stepconf.run.parquet import scan_files
from stepconf.run.parts import PAIRS
from stepconf.run.shards import Run
from stepconf.run.summary import write_summary
from stepconf.run.tables import pairs_manifest, read_manifests, read_metadata, read_recipe


def make_pairs(
    path: Path, options: PairsRecipe, tick: Tick, trust_remote_code: bool = False, model: str = ""
) -> dict[str, Any]:
    """Make the run's pairs again and return its summary with them.

    Args:
        path, options, tick: the run; its pairs; progress.
        trust_remote_code: run Python code that the run's model brings.
        model: the run's model, where the user names it too; without it no model at a URL is opened.

    Raises:
        StepconfError: the folder is not a run, or has no scored steps; its model has another tokenizer by now, or is
            at a URL; or it was sampled at a server that gives no token ids.
    """
    started = time.perf_counter()
    recipe, metadata = read_recipe(path), read_metadata(path)
    if metadata.get("runner") == TEXT_ALONE:
        raise StepconfError(
            f"{path} has no token ids, which pairs need: its server gave text alone.",
            "Sample at a server that returns them: stepconf serve, or vLLM (return_token_ids).",
        )
    tokenizer = open_tokenizer(path, trust_remote_code, model)
    tau = _tau(path, options)
    with Run(path, recipe) as run:
        run.metadata = metadata
        total = sum(m["solutions"] for m in run.manifests())
        tick("pairs", -total)
        writer = Writer(tokenizer, metadata["model"], options.round)
        drops = stage_pairs(run, options, 1.0 if tau is None else tau, writer, tick)
        facts = {"tau": tau, "options": options.model_dump(), "solutions": total, **staged_facts(run)}
        facts["drops"] = {reason: n for reason, n in drops.most_common() if n}
        run.commit_pairs(facts | {"seconds": {"pairs": round(time.perf_counter() - started, 3)}})
        return write_summary(run, same_steps=True)


def stage_pairs(run: Run, options: PairsRecipe, tau: float, writer: Writer, tick: Tick) -> Counter[str]:
    """Stage the pairs of all problems; how many steps, prefixes or solutions make none, by reason.

    A pair that two problems give, which are worded alike, is the first one's.
    """
    strategy: PairStrategy = PAIR_STRATEGIES.load(options.strategy)
    rules = Rules(tau, options.after_error, options.margin, options.seed)
    drops: Counter[str] = Counter()
    given: set[str] = set()
    for batch in batches(run.path, with_logprobs=strategy.reads_logprobs):
        frames = frames_of(batch)
        choice = strategy.choose(frames, rules)
        chosen = _of_part(choice.pairs, frames, options.part)
        named = named_pairs(chosen, frames, writer.tokenizer)
        new = named.filter(pl.Series([one not in given for one in named["pair_id"]], dtype=pl.Boolean))
        kept = capped(new, options.max_per_problem, options.seed)
        given.update(kept["pair_id"])
        drops.update(choice.dropped)
        drops[OTHER_PART] += choice.pairs.height - chosen.height
        drops[SAME_PAIR] += chosen.height - new.height
        drops[CAPPED] += new.height - kept.height
        _stage(run, batch.name, pair_rows(kept, frames, writer), options.validation)
        tick("pairs", batch.solutions.height)
    if options.balance:
        drops[SURPLUS] = _balance(run, options.seed)
    return drops


def _of_part(pairs: pl.DataFrame, frames: Frames, part: str) -> pl.DataFrame:
    """The pairs that a step of the part gives rise to, and those of whole solutions."""
    if part == "all":
        return pairs
    own = frames.steps.filter(pl.col("part") == part)["row"]
    return pairs.filter(pl.col("origin").is_in(own.implode()) | (pl.col("kind") == "trajectory"))


def open_tokenizer(path: Path, trust_remote_code: bool = False, model: str = "") -> Tokenizer:
    """The tokenizer that a run's tokens are of; `trust_remote_code` and `model` as in `make_pairs`.

    Raises:
        StepconfError: the run has no tokens; its model is gone, has another tokenizer by now or is at a URL.
    """
    metadata = read_metadata(path)
    if "tokenizer" not in metadata:
        raise StepconfError(
            f"{path} has no scored tokens, and pairs are made of exact tokens.",
            f"Type: stepconf score {path}/solutions --model MODEL --out ANOTHER, or stepconf generate",
        )
    policy = _policy(read_recipe(path), metadata, trust_remote_code)
    if policy.model != model:
        check_model_of_run(policy.model, f"Where you trust it: --set model={policy.model}")
    tokenizer = Tokenizer(
        resolve_model(policy.model), policy.model_revision, metadata["tokenizer"], trust_remote_code
    )
    if tokenizer.digest != metadata["tokenizer"]:
        raise StepconfError(
            f"{policy.model!r} has another tokenizer than the run's tokens, so it cannot read them.",
            "Put the model back as it was when the run was made.",
        )
    return tokenizer


def has_pairs(path: Path, options: PairsRecipe | None) -> bool:
    """Whether the run holds pairs made of all of it, with these options (None: with any)."""
    found = pairs_manifest(path)
    if found is None or (options is not None and found["options"] != options.model_dump()):
        return False
    return bool(
        found["solutions"] == sum(m["solutions"] for m in read_manifests(path) if m["chunk"] != PAIRS)
    )


def _tau(path: Path, options: PairsRecipe) -> float | None:
    if not PAIR_STRATEGIES.load(options.strategy).takes_tau:
        return None
    return options.tau if options.tau is not None else confidence_quantile(path, options.tau_quantile)


def _policy(run: dict[str, Any], metadata: dict[str, str], trust_remote_code: bool) -> Recipe:
    """The recipe of the run's own model; a run that `verify` made out of another names none itself."""
    recipe = recipe_of(run, trust_remote_code)
    if recipe.model:
        return recipe
    model = {"model": metadata["model"], "model_revision": metadata.get("model_revision") or None}
    return recipe.model_copy(update=model)


def _stage(run: Run, name: str, rows: pl.DataFrame, validation: float) -> None:
    held_out = pl.col("problem_id") < least_of_train(validation)
    schema = arrow_schema("pairs", run.metadata)
    for split, own in zip(SPLITS, (rows.filter(~held_out), rows.filter(held_out)), strict=True):
        if own.height:
            table = own.to_arrow(compat_level=pl.CompatLevel.oldest())
            run.stage_table(f"{split}-{name}", table.cast(schema))


def _balance(run: Run, seed: int) -> int:
    """Take out the surplus of a kind in each split; how many pairs that is."""
    pairs = _staged(run)
    dropped = pl.concat(surplus(pairs.filter(pl.col("split") == split), seed) for split in SPLITS)
    run.drop_staged(set(dropped))
    return len(dropped)


def staged_facts(run: Run) -> dict[str, Any]:
    """What the manifest says of the staged pairs: by kind and split, and of how many problems they are."""
    pairs = _staged(run)
    by_kind, by_split = (
        dict(pairs.group_by(name).len().sort(name).iter_rows()) for name in ("kind", "split")
    )
    return {"kinds": by_kind, "splits": by_split, "problems": pairs["problem_id"].n_unique()}


def _staged(run: Run) -> pl.DataFrame:
    files = run.staged()
    if not files:
        return pl.DataFrame(schema=dict.fromkeys(("pair_id", "problem_id", "kind", "split"), pl.String))
    of_file = (
        scan_files([file], arrow_schema("pairs")).select(
            "pair_id", "problem_id", "kind", split=pl.lit(file.stem.partition("-")[0])
        )
        for file in files
    )
    frame: pl.DataFrame = pl.concat(of_file).collect()
    return frame
