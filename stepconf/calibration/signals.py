"""What the steps and the answers of a run's samples say of their confidence: a row for each that was decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stepconf.errors import StepconfError
from stepconf.run.scan import scan_samples
from stepconf.run.summary import polars_reads
from stepconf.run.tables import check_is_run, shard_files

if TYPE_CHECKING:
    import polars as pl

Column = npt.NDArray[Any]
Kind = Literal["steps", "answers"]

# +1: a higher value speaks for correctness. C, the product of the confidences so far, is what CaT ranks by.
SIGNS = {
    "length": -1,
    "max_prob_mean": 1,
    "perplexity": -1,
    "entropy_mean": -1,
    "entropy_max": -1,
    "entropy_sum": -1,
    "cumulative_confidence": 1,
}
TOPK = "entropy_topk"  # not of a run's own columns: see `truncated.py`


@dataclass(frozen=True, slots=True)
class Units:
    """Steps that are labelled correct or incorrect, or answers that were decided; all of them scored.

    `problems`: problem ids; `correct`: booleans; `confidence`: exp(-mean entropy), in (0, 1]; `signals`: the
    columns named in `SIGNS`, and `TOPK` where it was computed, over the step's or the whole solution's tokens.
    `left_out`: rows without a verdict or without scored tokens.
    """

    kind: Kind
    problems: Column
    correct: Column
    confidence: Column
    signals: Mapping[str, Column]
    left_out: int

    @property
    def scores(self) -> dict[str, Column]:
        """The signals turned so that higher speaks for correctness."""
        return {name: SIGNS.get(name, -1) * values for name, values in self.signals.items()}


def read_units(run: Path, kind: Kind, topk: Mapping[str, float] | None = None) -> Units:
    """The decided steps or answers of a run's samples; none is an empty column, not an error.

    Args:
        run: a run folder.
        kind: which rows.
        topk: what `truncated.topk_entropies` gives for the run.

    Raises:
        StepconfError: the folder is not a run, or a shard cannot be read.
    """
    check_is_run(run)
    names = [*SIGNS, *([] if topk is None else [TOPK])]
    if not shard_files(run, "steps"):
        empty = np.empty(0)
        return Units(kind, empty, empty, empty, dict.fromkeys(names, empty), 0)
    with polars_reads(run):
        frame = (_steps if kind == "steps" else _answers)(run, topk).collect()
    decided = frame.drop_nulls(["correct", "entropy_mean"])
    found = {name: decided[name].to_numpy() for name in ("problem_id", "correct", "confidence", *names)}
    problems, correct, confidence = (found.pop(name) for name in ("problem_id", "correct", "confidence"))
    return Units(kind, problems, correct, confidence, found, len(frame) - len(decided))


def lowest_on_the_way(run: Path, length_normalised: bool) -> Column:
    """Of each right sample of a run, the lowest C that it has before its last step; 1 where that is its first.

    C is the product of the steps' confidences so far, or with `length_normalised` their geometric mean. The
    last step has the answer, and a branch with its answer is not pruned.

    Raises:
        StepconfError: the folder is not a run, a shard cannot be read, or no scored solution in it is right.
    """
    import polars as pl

    check_is_run(run)
    right = pl.DataFrame({"solution_id": []}, schema={"solution_id": pl.String})
    lowest = pl.DataFrame(schema={"solution_id": pl.String, "lowest": pl.Float64})
    if shard_files(run, "steps"):
        exponent = 1 / (pl.col("step_index") + 1) if length_normalised else 1.0
        scored = scan_samples(run, "solutions").filter(
            pl.col("answer_correct") & pl.col("entropy_mean").is_not_null()
        )
        on_the_way = (
            scan_samples(run, "steps")
            .filter(pl.col("step_index") < pl.col("n_steps") - 1)
            .group_by("solution_id")
            .agg((pl.col("cumulative_confidence") ** exponent).min().alias("lowest"))
        )
        with polars_reads(run):
            right, lowest = scored.select("solution_id").collect(), on_the_way.collect()
    if not len(right):
        raise StepconfError(
            f"no scored solution in {run} is right, so there is no quantile to take tau from.",
            "Give tau itself (--tau 0.01), or a run of problems that the model can solve.",
        )
    return right.join(lowest, "solution_id", "left")["lowest"].fill_null(1.0).to_numpy()


def _scan(run: Path, topk: Mapping[str, float] | None) -> "pl.LazyFrame":
    """The steps of the run's samples, with the column `TOPK` (null where none was computed)."""
    import polars as pl

    steps = scan_samples(run, "steps")
    if topk is None:
        return steps.with_columns(pl.lit(None, pl.Float64).alias(TOPK))
    columns = {"step_id": list(topk), TOPK: list(topk.values())}
    computed = pl.LazyFrame(columns, {"step_id": pl.String, TOPK: pl.Float64})
    return steps.join(computed, "step_id", "left")


def _steps(run: Path, topk: Mapping[str, float] | None) -> "pl.LazyFrame":
    import polars as pl

    length = pl.col("token_end") - pl.col("token_start")
    return _scan(run, topk).select(
        "problem_id",
        "confidence",
        TOPK,
        pl.when(pl.col("label") != "unknown").then(pl.col("label") == "correct").alias("correct"),
        length.alias("length"),
        (pl.col("entropy_mean") * length).alias("entropy_sum"),
        *(name for name in SIGNS if name not in ("length", "entropy_sum")),
    )


def _answers(run: Path, topk: Mapping[str, float] | None) -> "pl.LazyFrame":
    """The signals of whole solutions, put together from those of their steps."""
    import polars as pl

    length = pl.col("token_end") - pl.col("token_start")
    tokens = pl.col("length")
    of_steps = (
        _scan(run, topk)
        .group_by("solution_id")
        .agg(
            length.sum().alias("length"),
            (pl.col(TOPK) * length).sum().alias("topk_sum"),
            (pl.col("entropy_mean") * length).sum().alias("entropy_sum"),
            pl.col("entropy_max").max(),
            (pl.col("max_prob_mean") * length).sum().alias("max_prob_sum"),
            pl.col("logprob_sum").sum(),
            pl.col("cumulative_confidence").min(),
        )
    )
    solutions = scan_samples(run, "solutions").select(
        "solution_id", "problem_id", "entropy_mean", "confidence", pl.col("answer_correct").alias("correct")
    )
    return solutions.join(of_steps, "solution_id").with_columns(
        (pl.col("max_prob_sum") / tokens).alias("max_prob_mean"),
        (pl.col("topk_sum") / tokens).alias(TOPK),
        (-pl.col("logprob_sum") / tokens).clip(upper_bound=700.0).exp().alias("perplexity"),
    )
