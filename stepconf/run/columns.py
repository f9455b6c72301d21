"""Columns of a run's samples, for who computes with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.errors import StepconfError
from stepconf.run.damage import damage_error
from stepconf.run.scan import scan, scan_samples
from stepconf.run.tables import shard_files

Column = npt.NDArray[Any]


@contextmanager
def polars_reads(path: Path) -> Iterator[None]:
    """A shard of the run that Polars cannot read is damage: StepconfError."""
    import polars as pl

    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise damage_error(path, f"a shard of {path} cannot be read: {error}") from error


def confidence_quantile(path: Path, quantile: float) -> float:
    """The quantile of the confidences of correct steps in the run, the fitted ones if it has them: the default tau.

    Raises:
        StepconfError: no step is labelled correct, or a shard cannot be read.
    """
    import polars as pl

    correct = scan(path, "steps").filter(pl.col("label") == "correct")
    asked = correct.select(pl.coalesce("fitted_confidence", "confidence").quantile(quantile, "linear"))
    with polars_reads(path):
        value = asked.collect(engine="streaming").item()
    if value is None:
        raise StepconfError(
            f"no step in {path} is labelled correct, so there is no quantile to take tau from.",
            "Give a value: --tau 0.8",
        )
    return float(value)


def step_columns(path: Path) -> tuple[Column, Column, Column, Column]:
    """Of the samples' steps that are labelled correct or incorrect: problem, mean entropy, confidence, correct.

    Problems are numbered in the order of their ids: a million strings would be objects. Raises as `polars_reads`.
    """
    import polars as pl

    if not shard_files(path, "steps"):
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    steps = scan_samples(path, "steps").filter(
        pl.col("label").is_in(["correct", "incorrect"]) & pl.col("entropy_mean").is_not_null()
    )
    with polars_reads(path):
        ids = steps.select(pl.col("problem_id").unique()).collect(engine="streaming").to_series().sort()
        numbers = pl.LazyFrame(
            {"problem_id": ids, "problem": pl.arange(len(ids), eager=True, dtype=pl.UInt32)}
        )
        frame = (
            steps.join(numbers, "problem_id", maintain_order="left")
            .select("problem", "entropy_mean", "confidence", (pl.col("label") == "correct").alias("correct"))
            .collect(engine="streaming")
        )
    problems, entropy, confidence, correct = (column.to_numpy() for column in frame.get_columns())
    return problems, entropy, confidence, correct


def answer_columns(path: Path) -> tuple[Column, Column]:
    """Of the samples whose answer was decided: problem id, whether it is right. Raises as `polars_reads`."""
    import polars as pl

    if not shard_files(path, "solutions"):
        return np.empty(0), np.empty(0)
    decided = pl.col("answer_correct").is_not_null()
    with polars_reads(path):
        frame = (
            scan_samples(path, "solutions").filter(decided).select("problem_id", "answer_correct").collect()
        )
    return frame["problem_id"].to_numpy(), frame["answer_correct"].to_numpy()
