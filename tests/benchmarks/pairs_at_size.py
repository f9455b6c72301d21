"""`stepconf pairs` over a run of a million steps: seconds, peak memory, and whether the count is right.

The run is that of `synthetic_run`. The command runs in a process of its own, as from a shell. The count is
compared with that of a Polars query which shares no code with it.

    python -m tests.benchmarks.pairs_at_size [steps]
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tests.benchmarks.measured import measured
from tests.benchmarks.synthetic_run import SAMPLES, STEPS, make_run

LIMIT_S, LIMIT_GB = 60, 3


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
    others = steps.filter(pl.col("label") != "correct").join(
        correct, on=["problem_id", "before", "text"], how="anti"
    )
    made = [
        _best(incorrect, correct).select("before", chosen="token_ids_right", rejected="token_ids"),
        _best(uncertain, others).select("before", chosen="token_ids", rejected="token_ids_right"),
    ]
    return pl.concat(made).unique().height


def _best(steps: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Each step beside the likeliest candidate of the same prefix and another text; those without one go."""
    distinct = candidates.sort("likely", "solution_id").unique(
        ["problem_id", "before", "token_ids"], keep="last"
    )
    return (
        steps.join(distinct, on=["problem_id", "before"])
        .filter(pl.col("text") != pl.col("text_right"))
        .sort("likely_right", "solution_id_right")
        .unique("step_id", keep="last")
    )


def _lines(steps: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = time.perf_counter()
        make_run(run, steps // (SAMPLES * STEPS), 512)
        yield f"a run of {steps:,} steps, made in {time.perf_counter() - started:.0f} s"
        seconds, memory, code = measured(["pairs", str(run)])
        if code:
            raise SystemExit(f"stepconf pairs ended with {code}")
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
