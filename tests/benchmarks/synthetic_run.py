"""A run of any number of steps, made up in seconds: the real schema, real manifests, and every law kept.

8 samples of each problem, 5 steps each, 20 to 30 tokens a step. Samples of a problem share their first steps, so
that siblings exist: what a step says depends on the steps before it, its place and a coin. Two verifiers spoke:
`symbolic` of every step, `final` of the last. In a branched run, samples that take their problem's first sample's first
step are branches of it.
"""

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from stepconf.core.ids import prefix_ids, problem_id
from stepconf.core.schema import TABLES, arrow_schema
from stepconf.recipe import identity, load_recipe
from stepconf.run import step_figures
from stepconf.run.shard import Shard
from stepconf.run.shards import Run
from stepconf.run.summary import summarise
from stepconf.run.tables import read_recipe
from tests.tiny import tiny_model

SAMPLES, STEPS, PROMPT = 8, 5, 80
_BASES = 16
_LABELS = ("correct", "incorrect", "unknown")


def make_run(run: Path, n_problems: int, problems_per_shard: int, branched: bool = False) -> None:
    """Write the run folder, as `generate` leaves it, and beside it the model that it names."""
    from stepconf.engines.tokenizer import Tokenizer

    model = str(shutil.copytree(tiny_model(), run.parent / "model", dirs_exist_ok=True))
    recipe = {"command": "generate", **identity(load_recipe(None, {"model": model}))}
    metadata = {"model": model, "tokenizer": Tokenizer(model).digest}
    for folder in ("solutions", "steps", "manifests"):
        (run / folder).mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    starts = range(0, n_problems, problems_per_shard)
    shards = [np.arange(start, min(start + problems_per_shard, n_problems)) for start in starts]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(partial(_write_shard, run, metadata, branched), range(len(shards)), shards))
    resamples, step_figures.RESAMPLES = step_figures.RESAMPLES, 10
    with Run(run, read_recipe(run)) as opened:
        summarise(opened, Counter())
    step_figures.RESAMPLES = resamples


def _write_shard(run: Path, metadata: dict[str, str], branched: bool, shard: int, problems: Any) -> None:
    """Problems of their own, solved as in one of a few first shards: to make each anew would take minutes."""
    rng = np.random.default_rng(shard)
    bases = _bases(len(problems), shard % _BASES)
    of_problem = pa.array(np.repeat(np.arange(len(problems)), SAMPLES))
    n = len(of_problem)
    of_step = pa.array(np.repeat(np.arange(n), STEPS))
    told = pa.array([f"Problem {p}: what comes out?" for p in problems.tolist()])
    ids = pa.array([problem_id(text, "1") for text in told.to_pylist()])
    digits = np.array([299 ** (k % 3) for k in range(PROMPT)])  # the problem's number, over and over
    prompt = (problems[:, None] // digits % 299).astype(np.int32)
    shared = {"solution_id": _ids(rng, n), "problem_id": ids.take(of_problem)}
    own = {
        "solutions": {
            **shared,
            "problem": told.take(of_problem),
            "prompt_token_ids": _lists(np.repeat(prompt, SAMPLES, axis=0).ravel(), np.arange(n + 1) * PROMPT),
            "model": _words(np.zeros(n), (metadata["model"],)),
        },
        "steps": {
            "step_id": _ids(rng, n * STEPS),
            **{name: column.take(of_step) for name, column in shared.items()},
        },
    }
    own["steps"]["prefix_id"] = _prefixes(prompt, bases)
    tables = {
        table: pa.table(bases[table] | own[table], schema=arrow_schema(table, metadata)) for table in bases
    }
    _write(run, shard, _branched(tables) if branched else tables)


def _prefixes(prompts: Any, bases: dict[str, dict[str, Any]]) -> Any:
    starts = bases["steps"]["token_start"].to_numpy().reshape(-1, STEPS)
    tokens = bases["solutions"]["token_ids"]
    found: list[str] = []
    for row, own in enumerate(starts):
        prompt = prompts[row // SAMPLES].tolist()
        found += prefix_ids([*prompt, *tokens[row].as_py()], (len(prompt) + start for start in own.tolist()))
    return pa.array(found)


def _branched(tables: dict[str, Any]) -> dict[str, Any]:
    """Make branches, before step 1, of samples that have the first step of their problem's first sample."""
    solutions, steps = (cast(pl.DataFrame, pl.from_arrow(rows)) for rows in tables.values())
    first = steps.filter(pl.col("step_index") == 0).select(
        "solution_id", first_ids="token_ids", first_text="text", cut=pl.col("token_end"), chars="char_end"
    )
    rows = solutions.join(first, on="solution_id", maintain_order="left")
    parent = pl.col("solution_id").first().over("problem_id")
    leaves = (pl.col("first_ids") == pl.col("first_ids").first().over("problem_id")) & (
        pl.col("solution_id") != parent
    )
    cuts = rows.select("solution_id", "cut", "chars", leaves=leaves)
    rest = pl.col("cut")
    branches = (
        rows.with_columns(parent=parent)
        .filter(leaves)
        .with_columns(
            parent_solution_id="parent",
            branch_step=pl.lit(1, pl.Int32),
            prompt_token_ids=pl.concat_list("prompt_token_ids", "first_ids"),
            text=pl.col("text").str.slice(pl.col("chars")),
            token_ids=pl.col("token_ids").list.slice(rest),
            n_steps=pl.col("n_steps") - 1,
            n_tokens=pl.col("n_tokens") - rest,
        )
    )
    own = steps.join(cuts, on="solution_id", maintain_order="left")
    own = own.filter(~pl.col("leaves") | (pl.col("step_index") > 0)).with_columns(
        pl.when("leaves").then(pl.col(name) - by).otherwise(name).alias(name)
        for name, by in (
            ("step_index", 1), ("n_steps", 1), ("token_start", rest), ("token_end", rest),
            ("char_start", pl.col("chars")), ("char_end", pl.col("chars")),
        )
    )  # fmt: skip
    # The first error of the path is that of the branch, or of what it leaves.
    own = own.with_columns(
        cumulative_confidence=pl.col("confidence").log().cum_sum().over("solution_id").exp()
    )
    roots = rows.filter(~leaves)
    frames = {"solutions": pl.concat([frame.select(solutions.columns) for frame in (roots, branches)])}
    frames["steps"] = own.select(steps.columns)
    total = (pl.col("entropy_mean") * pl.col("token_ids").list.len()).sum() / pl.col(
        "token_ids"
    ).list.len().sum()
    means = frames["steps"].group_by("solution_id").agg(mean=total)
    frames["solutions"] = (
        frames["solutions"]
        .join(means, on="solution_id", maintain_order="left")
        .with_columns(entropy_mean="mean", confidence=(-pl.col("mean")).exp())
        .select(solutions.columns)
    )
    return {
        table: frames[table].to_arrow(compat_level=pl.CompatLevel.oldest()).cast(rows.schema)
        for table, rows in tables.items()
    }


@lru_cache(maxsize=_BASES)
def _bases(n_problems: int, seed: int) -> dict[str, dict[str, Any]]:
    """All columns of a shard but those that name a problem."""
    rng = np.random.default_rng(seed)
    n = n_problems * SAMPLES
    coins = rng.choice(3, (n, STEPS), p=[0.55, 0.3, 0.15])
    path = np.zeros((n, STEPS), dtype=np.int64)
    for depth in range(STEPS):
        path[:, depth] = (path[:, depth - 1] if depth else 0) * 3 + coins[:, depth] + 1
    owner = np.repeat(np.arange(n_problems), SAMPLES) + seed * n_problems
    node = (owner[:, None] * 400 + path).ravel()  # equal where the steps up to here are equal
    sizes = 20 + node * 40503 % 11
    steps = {
        "step_index": np.tile(np.arange(STEPS), n),
        "n_steps": np.full(n * STEPS, STEPS),
        **_texts(node),
        **_tokens(node, sizes),
        **_labels(node),
    }
    solutions = {
        "sample_index": np.tile(np.arange(SAMPLES), n_problems),
        **_of_solutions(steps, sizes, n),
    }
    return {table: _typed(table, columns) for table, columns in (("solutions", solutions), ("steps", steps))}


def _typed(table: str, columns: dict[str, Any]) -> dict[str, Any]:
    """The columns as Arrow arrays, and blanks for those that are not given."""
    schema, size = arrow_schema(table), len(columns["n_steps"])
    filled = {f.name: columns.get(f.name, _blank(f.kind, size)) for f in TABLES[table]}
    return {
        name: values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type)
        for name, values in filled.items()
    }


def _tokens(node: Any, sizes: Any) -> dict[str, Any]:
    """The token columns of the steps and what is computed of them, as `core.steps` does."""
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], sizes)
    token = np.repeat(node, sizes) * 1000003 + within * 7919  # the same after the same tokens
    noise = (token * 2654435761 % 2**32) / 2**32  # as hard to compress as what a model says
    entropies = (0.05 + np.repeat(node * 7919 % 997, sizes) / 600 + noise).astype(np.float32)
    logprobs = -entropies
    most = np.exp(logprobs)
    total = {name: np.add.reduceat(values.astype(np.float64), bounds[:-1]) for name, values in
             (("entropy", entropies), ("logprob", logprobs), ("most", most))}  # fmt: skip
    mean = total["entropy"] / sizes
    ends = np.cumsum(sizes.reshape(-1, STEPS), axis=1).ravel()
    ids = (token % 40009).astype(np.int32)
    return {
        "token_start": ends - sizes,
        "token_end": ends,
        "token_ids": _lists(ids, bounds),
        "token_logprobs": _lists(logprobs, bounds),
        "token_entropies": _lists(entropies, bounds),
        "token_max_probs": _lists(most, bounds),
        "entropy_mean": mean,
        "entropy_max": np.maximum.reduceat(entropies, bounds[:-1]).astype(np.float64),
        "logprob_sum": total["logprob"],
        "perplexity": np.exp(-total["logprob"] / sizes),
        "max_prob_mean": total["most"] / sizes,
        "confidence": np.exp(-mean),
        "cumulative_confidence": np.exp(-np.cumsum(mean.reshape(-1, STEPS), axis=1).ravel()),
    }


def _texts(node: Any) -> dict[str, Any]:
    number = pl.select(n=pl.Series(node))
    a, b = pl.col("n") % 89, pl.col("n") % 97
    told = number.select(pl.format("Step by way {}: so {} + {} = {}.\n", "n", a, b, a + b)).to_series()
    chars = told.str.len_bytes().to_numpy().astype(np.int64)
    ends = np.cumsum(chars.reshape(-1, STEPS), axis=1).ravel()
    return {"text": told.to_arrow().cast(pa.string()), "char_start": ends - chars, "char_end": ends}


def _labels(node: Any) -> dict[str, Any]:
    """Verdicts and labels: `symbolic` decides; where it does not, `final` says that a last step is correct."""
    symbolic = np.digitize(node * 2654435761 % 100, [65, 88]).reshape(-1, STEPS)
    wrong = symbolic == 1
    answer_wrong = wrong.any(axis=1)
    by_final = np.zeros_like(wrong)
    by_final[:, -1] = (symbolic[:, -1] == 2) & ~answer_wrong
    label = np.where(by_final, 0, symbolic).ravel()
    spoken = np.concatenate([symbolic, answer_wrong[:, None].astype(np.int64)], axis=1).ravel()
    names = np.tile([0] * STEPS + [1], len(wrong))  # both verdicts of a last step lie side by side
    lengths = np.tile([1] * (STEPS - 1) + [2], len(wrong))
    n = len(spoken)
    verdicts = pa.StructArray.from_arrays(
        [_words(names, ("symbolic", "final")), _words(np.zeros(n, int), ("1",)), _words(spoken, _LABELS),
         pa.nulls(n, pa.float64()), _words(names, ("arithmetic", "")), pa.array(np.full(n, 0.001)),
         pa.nulls(n, pa.string())],
        ["verifier", "version", "label", "score", "reason", "seconds", "reference"],
    )  # fmt: skip
    source = np.where(label == 2, 2, by_final.ravel())
    return {
        "verdicts": pa.ListArray.from_arrays(pa.array(_bounds(lengths)), verdicts),
        "label": _words(label, _LABELS),
        "label_source": _words(source, ("symbolic", "final", "")),
        "is_first_error": (wrong & (np.cumsum(wrong, axis=1) == 1)).ravel(),
        "after_error": (np.cumsum(wrong, axis=1) > wrong).ravel(),
        "part": ["answer"] * wrong.size,
    }


def _of_solutions(steps: dict[str, Any], sizes: Any, n: int) -> dict[str, Any]:
    """What the steps of a solution say of it as a whole."""
    per_solution = sizes.reshape(n, STEPS).sum(axis=1)
    mean = (steps["entropy_mean"] * sizes).reshape(n, STEPS).sum(axis=1) / per_solution
    right = ~steps["is_first_error"].reshape(n, STEPS).any(axis=1)
    parts = pa.ListArray.from_arrays(pa.array(_bounds(np.full(n, STEPS))), steps["text"])
    return {
        "gold_answer": ["1"] * n,
        "answer_type": ["math"] * n,
        "text": pc.binary_join(parts, ""),
        "token_ids": _lists(steps["token_ids"].values, _bounds(per_solution)),
        "finish_reason": ["stop"] * n,
        "answer_correct": right,
        "n_steps": np.full(n, STEPS),
        "n_tokens": per_solution,
        "entropy_mean": mean,
        "confidence": np.exp(-mean),
        "extra": ["{}"] * n,
    }


def _write(run: Path, shard: int, tables: dict[str, Any]) -> None:
    files = {}
    for table, rows in tables.items():
        encoded, name = Shard.of(rows), f"{table}/part-{shard:05d}.parquet"
        (run / name).write_bytes(encoded.data)
        files[name] = encoded.facts
    counts = {table: len(rows) for table, rows in tables.items()}
    tokens = int(pc.sum(tables["solutions"]["n_tokens"]).as_py())
    facts = {**counts, "tokens": tokens, "drops": {}, "seconds": {}}
    manifest = {"chunk": f"{shard:05d}", "files": files, "input": "", **facts}
    (run / "manifests" / f"{shard:05d}.json").write_text(json.dumps(manifest))


def _ids(rng: Any, n: int) -> Any:
    """As content hashes look: 20 random hexadecimal digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, n * 20)]
    offsets = np.arange(n + 1, dtype=np.int32) * 20
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))


def _words(codes: Any, words: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())


def _lists(values: Any, bounds: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values))


def _bounds(lengths: Any) -> Any:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _blank(kind: str, size: int) -> list[Any]:
    if kind.startswith("list") and not kind.endswith("?"):
        return [[]] * size
    return [None if kind.endswith("?") else "" if kind == "string" else False if kind == "bool" else 0] * size
