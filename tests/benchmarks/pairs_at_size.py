"""`stepconf pairs` over a run of a million steps: seconds, peak memory, and whether the count is right.

The run is synthetic and has the real schema: 8 samples of each problem, 5 steps each, 20 to 30 tokens a step,
and samples that share their first steps, so that siblings exist. The command runs in a process of its own, as
from a shell. The count is compared with that of a Polars query which shares no code with it.

    python -m tests.benchmarks.pairs_at_size [steps]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stepconf import summary
from stepconf.core.schema import TABLES, arrow_schema
from stepconf.damage import file_digest
from stepconf.recipe import identity, load_recipe
from stepconf.shards import Run, read_recipe
from tests.tiny import tiny_model

SAMPLES, STEPS, PROMPT = 8, 5, 80
LIMIT_S, LIMIT_GB = 60, 3


def make_run(run: Path, n_problems: int, problems_per_shard: int) -> None:
    """Write a synthetic run: what a step says depends on the steps before it, its place and a coin."""
    from stepconf.engines.tokenizer import Tokenizer

    recipe = {"command": "generate", **identity(load_recipe(None, {"model": str(tiny_model())}))}
    metadata = {"model": str(tiny_model()), "tokenizer": Tokenizer(str(tiny_model())).digest}
    for folder in ("solutions", "steps", "manifests"):
        (run / folder).mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for shard, start in enumerate(range(0, n_problems, problems_per_shard)):
        _write_shard(run, shard, np.arange(start, min(start + problems_per_shard, n_problems)), metadata)
    resamples, summary.RESAMPLES = summary.RESAMPLES, 10
    with Run(run, read_recipe(run)) as opened:
        summary.write_summary(opened)  # as `generate` leaves it
    summary.RESAMPLES = resamples


def _write_shard(run: Path, shard: int, problems: Any, metadata: dict[str, str]) -> None:
    rng = np.random.default_rng(shard)
    n = len(problems) * SAMPLES
    owner = np.repeat(problems, SAMPLES)
    coins = rng.choice(3, (n, STEPS), p=[0.55, 0.3, 0.15])
    path = np.zeros((n, STEPS), dtype=np.int64)
    for depth in range(STEPS):
        path[:, depth] = (path[:, depth - 1] if depth else 0) * 3 + coins[:, depth] + 1
    node = (owner[:, None] * 400 + path).ravel()  # equal where the steps up to here are equal
    kind = node * 2654435761 % 100
    sizes = 20 + node * 40503 % 11
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], sizes)
    tokens = ((np.repeat(node, sizes) * 1000003 + within * 7919) % 40009).astype(np.int32)
    entropies = (0.05 + np.repeat(node * 7919 % 997, sizes) / 500 + within / 1000).astype(np.float32)
    logprobs = -entropies
    sums = {name: np.add.reduceat(x.astype(np.float64), bounds[:-1]) for name, x in
            (("entropy", entropies), ("logprob", logprobs))}  # fmt: skip
    mean = sums["entropy"] / sizes
    texts = [f"Step by way {n}: so {n % 89} + {n % 97} = {n % 89 + n % 97}.\n" for n in node.tolist()]
    chars = np.array([len(text) for text in texts]).reshape(n, STEPS)
    char_ends = np.cumsum(chars, axis=1)
    token_ends = np.cumsum(sizes.reshape(n, STEPS), axis=1)
    ids = [f"{shard:06x}{i:014x}" for i in range(n)]
    labels = np.array(["correct", "incorrect", "unknown"])[np.digitize(kind, [65, 88])]
    wrong = (labels == "incorrect").reshape(n, STEPS)
    first = wrong & (np.cumsum(wrong, axis=1) == 1)
    starts = [f"Problem {p}" for p in owner.tolist()]
    of_solution = np.repeat(np.arange(n), STEPS).tolist()
    steps: dict[str, Any] = {
        "step_id": [f"{shard:06x}{i:014x}" for i in range(n * STEPS)],
        "solution_id": [ids[i] for i in of_solution],
        "problem_id": [starts[i] for i in of_solution],
        "step_index": np.tile(np.arange(STEPS), n),
        "n_steps": np.full(n * STEPS, STEPS),
        "text": texts,
        "char_start": (char_ends - chars).ravel(),
        "char_end": char_ends.ravel(),
        "token_start": (token_ends - sizes.reshape(n, STEPS)).ravel(),
        "token_end": token_ends.ravel(),
        "token_ids": _lists(tokens, bounds),
        "token_logprobs": _lists(logprobs, bounds),
        "token_entropies": _lists(entropies, bounds),
        "token_max_probs": _lists(np.exp(logprobs), bounds),
        "logprob_sum": sums["logprob"],
        "entropy_mean": mean,
        "confidence": np.exp(-mean),
        "verdicts": [
            [{"verifier": "symbolic", "version": "1", "label": label, "reason": "", "seconds": 0.0}]
            for label in labels.tolist()
        ],
        "label": labels.tolist(),
        "label_source": ["symbolic"] * len(texts),
        "is_first_error": first.ravel(),
    }
    whole = np.concatenate([[0], np.cumsum(sizes.reshape(n, STEPS).sum(axis=1))])
    digits = np.array([299 ** (k % 3) for k in range(PROMPT)])  # the problem's number, over and over
    prompt = ((np.repeat(owner, PROMPT) // np.tile(digits, n)) % 299).astype(np.int32)
    solutions: dict[str, Any] = {
        "solution_id": ids,
        "problem_id": starts,
        "problem": [f"{start}: what comes out?" for start in starts],
        "gold_answer": ["1"] * n,
        "model": [metadata["model"]] * n,
        "prompt_token_ids": _lists(prompt, np.arange(n + 1) * PROMPT),
        "text": ["".join(texts[i : i + STEPS]) for i in range(0, n * STEPS, STEPS)],
        "token_ids": _lists(tokens, whole),
        "finish_reason": ["stop"] * n,
        "answer_correct": (~wrong.any(axis=1)),
        "extra": ["{}"] * n,
    }
    files = {}
    for table, columns in (("solutions", solutions), ("steps", steps)):
        schema = arrow_schema(table, metadata)
        size = len(columns["solution_id"])
        filled = {f.name: columns.get(f.name, _blank(f.kind, size)) for f in TABLES[table]}
        written = pa.table({k: pa.array(v, schema.field(k).type) if not isinstance(v, pa.Array) else v
                            for k, v in filled.items()}, schema=schema)  # fmt: skip
        file = run / table / f"part-{shard:05d}.parquet"
        pq.write_table(written, file, compression="zstd")
        said = {"rows": size, "bytes": file.stat().st_size, "blake2b": file_digest(file)}
        files[f"{table}/{file.name}"] = said
    facts = {"solutions": n, "steps": n * STEPS, "tokens": int(bounds[-1]), "drops": {}, "seconds": {}}
    manifest = {"chunk": f"{shard:05d}", "files": files, "input": "", **facts}
    (run / "manifests" / f"{shard:05d}.json").write_text(json.dumps(manifest))


def _lists(values: Any, bounds: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values))


def _blank(kind: str, size: int) -> list[Any]:
    return [None if kind.endswith("?") else "" if kind == "string" else 0] * size


def counted_by_polars(run: Path, tau_quantile: float = 0.5) -> int:
    """How many pairs algorithm 1 makes of the run, siblings as candidates, equal ones counted once."""
    labelled = pl.scan_parquet(run / "steps/*.parquet").filter(pl.col("label") == "correct")
    tau = labelled.select(pl.col("confidence").quantile(tau_quantile, "linear")).collect().item()
    files = sorted((run / "steps").glob("*.parquet"))
    return sum(_counted(file, run / "solutions" / file.name, tau) for file in files)


def _counted(steps_file: Path, solutions_file: Path, tau: float) -> int:
    prompts = pl.scan_parquet(solutions_file).select("solution_id", "prompt_token_ids", whole="token_ids")
    keep = [
        "solution_id",
        "problem_id",
        "step_id",
        "step_index",
        "token_start",
        "token_ids",
        "text",
        "label",
        "confidence",
    ]
    text = (pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in ("before", "token_ids"))
    steps = (
        pl.scan_parquet(steps_file)
        .select(*keep, "logprob_sum")
        .join(prompts, on="solution_id")
        .with_columns(before=pl.concat_list("prompt_token_ids", pl.col("whole").list.head("token_start")))
        .with_columns(*text, likely=pl.col("logprob_sum") / pl.col("token_ids").list.len())
        .with_columns(
            wrong_before=(pl.col("label") == "incorrect").cast(pl.Int32).cum_sum().shift(1, fill_value=0)
            .over("solution_id", order_by="step_index") > 0,
            text=pl.col("text").str.strip_chars(),
        )
        .collect()
    )  # fmt: skip
    usable = steps.filter(~pl.col("wrong_before"))
    incorrect = usable.filter(pl.col("label") == "incorrect")
    uncertain = usable.filter((pl.col("label") == "correct") & (pl.col("confidence") <= tau))
    correct = steps.filter(pl.col("label") == "correct")
    others = steps.filter(pl.col("label") != "correct")
    made = [
        _best(incorrect, correct).select("before", chosen="token_ids_right", rejected="token_ids"),
        _best(uncertain, others).select("before", chosen="token_ids", rejected="token_ids_right"),
    ]
    return pl.concat(made).unique().height


def _best(steps: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Each step beside the likeliest candidate of the same prefix and another text; those without one go."""
    distinct = candidates.sort("likely", "step_id").unique(["problem_id", "before", "token_ids"], keep="last")
    return (
        steps.join(distinct, on=["problem_id", "before"])
        .filter(pl.col("text") != pl.col("text_right"))
        .sort("likely_right", "step_id_right")
        .unique("step_id", keep="last")
    )


def timed_pairs(run: Path) -> tuple[float, float]:
    """Seconds and peak resident memory (GB) of the command."""
    command = [sys.executable, "-c", "from stepconf.cli import main; main()", "pairs", str(run)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def _lines(steps: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = time.perf_counter()
        make_run(run, steps // (SAMPLES * STEPS), 512)
        yield f"a run of {steps:,} steps, made in {time.perf_counter() - started:.0f} s"
        seconds, memory = timed_pairs(run)
        manifest = json.loads((run / "manifests/pairs.json").read_text())
        made = sum(manifest["kinds"].values())
        yield f"stepconf pairs: {made:,} pairs in {seconds:.1f} s, peak {memory:.2f} GB; {manifest['kinds']}"
        counted = counted_by_polars(run)
        yield f"the Polars query: {counted:,} pairs"
        if counted != made:
            raise SystemExit("the counts differ")
        yield f"ratio pairs_seconds_of_limit: {seconds / LIMIT_S:.2f}"
        yield f"ratio pairs_memory_of_limit: {memory / LIMIT_GB:.2f}"


if __name__ == "__main__":
    for line in _lines(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000):
        print(line, flush=True)
