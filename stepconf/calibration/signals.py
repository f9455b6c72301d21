"""What the steps and the answers of a run's samples say of their confidence: a row for each that was decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stepconf.core.schema import STEP_SIGNALS
from stepconf.core.signals import CONFIDENCE, ENTROPY_MEAN, LENGTH, SIGNALS, Signal
from stepconf.core.spans import Tokens, over_spans
from stepconf.errors import StepconfError
from stepconf.run.scan import scan_samples
from stepconf.run.summary import polars_reads
from stepconf.run.tables import check_is_run, read_aligned, shard_files

if TYPE_CHECKING:
    import polars as pl

Column = npt.NDArray[Any]
Kind = Literal["steps", "answers"]

# No signals of a span's tokens: C is of the path of steps up to one (CaT ranks by it), the top-k entropy is of another
# forward of the model (`truncated.py`).
C, TOPK = "cumulative_confidence", "entropy_topk"
_LISTS = ("token_logprobs", "token_entropies", "token_max_probs")
_OF_SOLUTIONS = [
    *("solution_id", "problem_id", "parent_solution_id", "answer_correct"),
    *(ENTROPY_MEAN.name, CONFIDENCE.name),
]
_OF_STEPS = [
    *("step_id", "solution_id", "problem_id", "step_index", "label", "part", C, *_LISTS),
    *(signal.name for signal in STEP_SIGNALS),
]


@dataclass(frozen=True, slots=True)
class Units:
    """Steps that are labelled correct or incorrect, or answers that were decided; all of them scored.

    `problems`: problem ids; `correct`: booleans; `confidence`: exp(-mean entropy), in (0, 1]; `signals`: by name, over
    the step's or the whole solution's tokens, NaN where a signal has no value, and `higher_is_better` of each;
    `left_out`: rows without a verdict or without scored tokens; `failures`: why a signal first had no value; `parts`:
    reasoning or answer, of steps.
    """

    kind: Kind
    problems: Column
    correct: Column
    confidence: Column
    signals: Mapping[str, Column] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    left_out: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    parts: Column = field(default_factory=lambda: np.empty(0))

    @property
    def scores(self) -> dict[str, Column]:
        """The signals turned so that higher speaks for correctness."""
        return {n: values if self.higher_is_better[n] else -values for n, values in self.signals.items()}


def read_units(
    run: Path, kind: Kind, topk: Mapping[str, float] | None = None, own: Sequence[Signal] = ()
) -> Units:
    """The decided steps or answers of a run's samples; none is an empty column, not an error.

    Args:
        run: a run folder.
        kind: which rows.
        topk: what `truncated.topk_entropies` gives for the run.
        own: signals beside the built-in ones.

    Raises:
        StepconfError: the folder is not a run, a shard cannot be read, or one of `own` has no value on any row.
    """
    check_is_run(run)
    signals = [one for one in (*SIGNALS, *own) if one.higher_is_better is not None]
    higher = {one.name: bool(one.higher_is_better) for one in signals} | {C: True}
    if topk is not None:
        higher[TOPK] = False
    names = ("problem_id", "correct", CONFIDENCE.name, "part", *higher)
    found: dict[str, list[Column]] = {name: [np.empty(0)] for name in names}
    left_out, failures = 0, dict[str, str]()
    for _, solutions, steps in read_aligned(run, _OF_SOLUTIONS, _OF_STEPS):
        rows, tokens, n_undecided = _decided(kind, solutions, steps, topk)
        left_out += n_undecided
        lengths = rows[LENGTH.name].to_numpy().astype(np.int64)
        for name in names:
            if name in rows.columns:
                found[name].append(rows[name].to_numpy())
        for signal in signals:
            if signal.name not in rows.columns:
                values, why = over_spans(signal, tokens, lengths)
                found[signal.name].append(values)
                failures |= {signal.name: why} if why and signal.name not in failures else {}
    columns = {name: np.concatenate(parts[1:] or parts) for name, parts in found.items()}
    problems, correct, confidence, parts = (columns.pop(name) for name in names[:4])
    for signal in own:
        if correct.size and np.isnan(columns[signal.name]).all():
            raise StepconfError(
                f"the signal {signal.name!r} has no value on any of {correct.size:,} {kind} of {run}: "
                f"{failures[signal.name]}.",
                "Its formula takes log-probabilities, entropies and largest probabilities: three lists of floats.",
            )
    return Units(kind, problems, correct, confidence, columns, higher, left_out, failures, parts)


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


def _decided(
    kind: Kind, solutions: Any, steps: Any, topk: Mapping[str, float] | None
) -> tuple["pl.DataFrame", Tokens, int]:
    """Of a part of a run the rows that are decided and scored, their tokens, and how many rows are not.

    Of the signals, the rows have those that are columns, and those that do not follow from tokens.
    """
    import polars as pl

    # Without their metadata, which others may have written and Polars takes for text.
    solutions, steps = (pl.DataFrame(rows.replace_schema_metadata(None)) for rows in (solutions, steps))
    samples = solutions.filter(pl.col("parent_solution_id").is_null())
    of_samples = steps.join(samples, "solution_id", "semi").sort("solution_id", "step_index")
    own = of_samples.with_columns(
        pl.col(_LISTS[0]).list.len().alias(LENGTH.name),
        pl.Series(TOPK, [(topk or {}).get(step) for step in of_samples["step_id"]], pl.Float64),
    )
    if kind == "steps":
        is_known = pl.col("label") != "unknown"
        rows = own.with_columns(correct=pl.when(is_known).then(pl.col("label") == "correct"))
    else:
        length = pl.col(LENGTH.name)
        topk_mean = (pl.col(TOPK) * length).sum() / length.sum()
        whole = own.group_by("solution_id").agg(length.sum(), pl.col(C).min(), topk_mean.alias(TOPK))
        rows = samples.rename({"answer_correct": "correct"}).join(whole, "solution_id").sort("solution_id")
    scored = rows.filter(
        pl.col("correct").is_not_null(), pl.col(ENTROPY_MEAN.name).is_not_null(), pl.col(LENGTH.name) > 0
    )
    spans = scored if kind == "steps" else own.join(scored, "solution_id", "semi", maintain_order="left")
    lists = spans.filter(pl.col(LENGTH.name) > 0).select(_LISTS)
    tokens = Tokens(*(lists[name].explode().to_numpy().astype(np.float64) for name in _LISTS))
    return scored, tokens, len(rows) - len(scored)
