"""What the steps and the answers of a run's samples say of their confidence: a row for each that was decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stepconf.core.paths import first_steps
from stepconf.core.schema import STEP_SIGNALS
from stepconf.core.signals import (
    AGREEMENT,
    CONFIDENCE,
    CUMULATIVE,
    ENTROPY_MEAN,
    LENGTH,
    NOT_OF_TOKENS,
    PICSAR,
    SIGNALS,
    TOPK,
    Signal,
)
from stepconf.core.signals.shape import picsar
from stepconf.core.spans import TOKEN_LISTS, Tokens, over_spans, spread
from stepconf.errors import StepconfError
from stepconf.run.columns import polars_reads
from stepconf.run.scan import scan_samples
from stepconf.run.tables import check_is_run, read_aligned, shard_files

if TYPE_CHECKING:
    import polars as pl

Column = npt.NDArray[Any]
Kind = Literal["steps", "answers"]

_OF_SOLUTIONS = [
    *("solution_id", "problem_id", "parent_solution_id", "branch_step", "predicted_answer", "answer_correct"),
    *(ENTROPY_MEAN.name, CONFIDENCE.name),
]
_OF_STEPS = [
    *("step_id", "solution_id", "problem_id", "step_index", "label", "is_first_error", "after_error", "part"),
    *(CUMULATIVE.name, *TOKEN_LISTS),
    *(signal.name for signal in STEP_SIGNALS),
]


# Of each row, beside its signals.
_ROW = (
    *(
        "problem_id",
        "solution_id",
        "correct",
        "decided",
        "in_chain",
        "position",
        "is_first_error",
        "after_error",
        "part",
    ),
    CONFIDENCE.name,
)


@dataclass(frozen=True, slots=True)
class Chains:
    """All scored steps of the solutions whose first error is known (n,): the first error among its own.

    `problems`: ids; `solutions`: ids; `is_first_error`; `signals`: by name, NaN where one has no value.
    """

    problems: Column
    solutions: Column
    is_first_error: Column
    signals: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Units:
    """Steps that are labelled correct or incorrect, or answers that were decided; all of them scored.

    `problems`: problem ids; `correct`: booleans; `confidence`: exp(-mean entropy), in (0, 1]; `signals`: by name, over
    the step's or the whole solution's tokens, NaN where a signal has no value, and `higher_is_better` of each;
    `left_out`: rows without a verdict or without scored tokens; `failures`: why a signal first had no value;
    `without_value`: built-in signals that have none on any row. Of steps, `positions` in their solutions, from 0,
    whether they come `after_error`, their `chains`, and their `parts`: reasoning or answer.
    """

    kind: Kind
    problems: Column
    correct: Column
    confidence: Column
    signals: Mapping[str, Column] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    left_out: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    without_value: tuple[str, ...] = ()
    positions: Column = field(default_factory=lambda: np.empty(0))
    after_error: Column = field(default_factory=lambda: np.empty(0, bool))
    chains: Chains | None = None
    parts: Column = field(default_factory=lambda: np.empty(0))

    @property
    def scores(self) -> dict[str, Column]:
        """The signals turned so that higher speaks for correctness."""
        return self.turned(self.signals)

    def turned(self, signals: Mapping[str, Column]) -> dict[str, Column]:
        """Values of signals, turned so that higher speaks for correctness: as declared, whatever the labels say."""
        return {n: values if self.higher_is_better[n] else -values for n, values in signals.items()}


def read_units(
    run: Path,
    kind: Kind,
    topk: Mapping[str, float] | None = None,
    own: Sequence[Signal] = (),
    branches: bool = False,
) -> Units:
    """The decided steps or answers of a run's samples; none is an empty column, not an error.

    Branches leave samples at chosen steps: with theirs, accuracy is no longer that of the model's own steps.

    Args:
        run: a run folder.
        kind: which rows.
        topk: what `truncated.topk_entropies` gives for the run.
        own: signals beside the built-in ones.
        branches: the steps of branches too, each at its position on the whole path.

    Raises:
        StepconfError: the folder is not a run, a shard cannot be read, or one of `own` has no value on any row.
    """
    check_is_run(run)
    signals = [one for one in (*SIGNALS, *own) if one.higher_is_better is not None]
    higher = {one.name: bool(one.higher_is_better) for one in (*signals, *NOT_OF_TOKENS)}
    names = (*_ROW, *higher)
    found: dict[str, list[Column]] = {name: [np.empty(0)] for name in names}
    left_out, failures = 0, dict[str, str]()
    for _, solutions, steps in read_aligned(run, _OF_SOLUTIONS, _OF_STEPS):
        rows, tokens, n_undecided = _rows(kind, solutions, steps, topk, branches)
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
    units = replace(_units(kind, columns, higher), left_out=left_out, failures=failures)
    for signal in own:
        if signal.name in units.without_value:
            raise StepconfError(
                f"the signal {signal.name!r} has no value on any of {units.correct.size:,} {kind} of {run}: "
                f"{failures[signal.name]}.",
                "Its formula takes the scores of a span of tokens: stepconf.core.records.TokenScores.",
            )
    return units


def _units(kind: Kind, columns: Mapping[str, Column], higher: Mapping[str, bool]) -> Units:
    """From the columns of `_ROW` and the signals, a value for each row, to those that are decided, and the chains."""
    decided, in_chain = columns["decided"].astype(bool), columns["in_chain"].astype(bool)
    # What is of steps alone, or of answers alone, is no column of the others.
    signals = {name: columns[name] for name in higher if columns[name].size == decided.size}
    empty = [name for name, values in signals.items() if decided.any() and np.isnan(values[decided]).all()]
    signals = {name: values.astype(float) for name, values in signals.items() if name not in empty}
    units = Units(
        kind,
        columns["problem_id"][decided],
        columns["correct"][decided].astype(bool),
        columns[CONFIDENCE.name][decided].astype(float),
        {name: values[decided] for name, values in signals.items()},
        {name: higher[name] for name in signals},
        without_value=tuple(empty),
    )
    if kind == "answers":
        return units
    chains = Chains(
        columns["problem_id"][in_chain],
        columns["solution_id"][in_chain],
        columns["is_first_error"][in_chain].astype(bool),
        {name: values[in_chain] for name, values in signals.items()},
    )
    after_error = columns["after_error"][decided].astype(bool)
    position, part = columns["position"][decided], columns["part"][decided]
    return replace(units, positions=position, after_error=after_error, chains=chains, parts=part)


def lowest_on_the_way(run: Path, length_normalised: bool) -> Column:
    """Of each problem's first right sample, the lowest C that it has before its last step; 1 where that is its first.

    C is the product of the steps' confidences so far, or with `length_normalised` their geometric mean. The
    last step has the answer, and a branch with its answer is not pruned.

    Raises:
        StepconfError: the folder is not a run, a shard cannot be read, or no scored solution in it is right.
    """
    import polars as pl

    check_is_run(run)
    right = pl.DataFrame(schema={"solution_id": pl.String})
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
            first = scored.sort("sample_index", "solution_id").unique(
                "problem_id", keep="first", maintain_order=True
            )
            right, lowest = first.select("solution_id").collect(), on_the_way.collect()
    if not len(right):
        raise StepconfError(
            f"no scored solution in {run} is right, so there is no quantile to take tau from.",
            "Give tau itself (--tau 0.01), or a run of problems that the model can solve.",
        )
    return right.join(lowest, "solution_id", "left")["lowest"].fill_null(1.0).to_numpy()


def _rows(
    kind: Kind, solutions: Any, steps: Any, topk: Mapping[str, float] | None, branches: bool
) -> tuple["pl.DataFrame", Tokens, int]:
    """Of a part of a run the rows that are scored and decided, or in a chain with a first error, and their tokens.

    Also how many rows are not decided and scored. Of the signals, the rows have those that are columns, and those
    that do not follow from tokens.
    """
    import polars as pl

    # Without their metadata, which others may have written and Polars takes for text.
    solutions, steps = (pl.DataFrame(rows.replace_schema_metadata(None)) for rows in (solutions, steps))
    samples = solutions.filter(pl.col("parent_solution_id").is_null())
    wanted = (solutions if branches and kind == "steps" else samples).select("solution_id")
    firsts = first_steps(solutions.select("solution_id", "parent_solution_id", "branch_step").iter_rows())
    wanted = wanted.with_columns(
        first=pl.Series([firsts[one] for one in wanted["solution_id"]], dtype=pl.Int32)
    )
    own = steps.join(wanted, "solution_id").sort("solution_id", "step_index")
    own = own.with_columns(
        pl.col(TOKEN_LISTS[0]).list.len().alias(LENGTH.name),
        pl.Series(TOPK.name, [(topk or {}).get(step) for step in own["step_id"]], pl.Float64),
        position=pl.col("step_index") + pl.col("first"),
    )
    rows = _step_rows(own, solutions) if kind == "steps" else _answer_rows(own, samples)
    scored = rows.filter(pl.col(ENTROPY_MEAN.name).is_not_null(), pl.col(LENGTH.name) > 0).with_columns(
        decided=pl.col("correct").is_not_null()
    )
    n_undecided = len(rows) - int(scored["decided"].sum())
    scored = scored.filter(pl.col("decided") | pl.col("in_chain")).with_columns(
        pl.col("correct").fill_null(False)
    )
    spans = scored if kind == "steps" else own.join(scored, "solution_id", "semi", maintain_order="left")
    return scored, _tokens(spans.filter(pl.col(LENGTH.name) > 0)), n_undecided


def _step_rows(own: "pl.DataFrame", solutions: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    is_known = pl.col("label") != "unknown"
    answers = solutions.filter(pl.col("parent_solution_id").is_not_null()).group_by(
        "parent_solution_id", "branch_step", "predicted_answer"
    )
    answer = pl.col("predicted_answer")
    agreed = (
        answers.agg(n=pl.len())
        .group_by("parent_solution_id", "branch_step")
        .agg(most=pl.col("n").filter(answer.is_not_null()).max(), n=pl.col("n").sum())
        .filter(pl.col("n") > 1)
        .select(
            pl.col("parent_solution_id").alias("solution_id"),
            (pl.col("branch_step") - 1).cast(pl.Int32).alias("step_index"),
            (pl.col("most") / pl.col("n")).alias(AGREEMENT.name),
        )
    )
    return own.with_columns(
        correct=pl.when(is_known).then(pl.col("label") == "correct"),
        in_chain=pl.col("is_first_error").any().over("solution_id"),
    ).join(agreed, ["solution_id", "step_index"], "left", maintain_order="left")


def _answer_rows(own: "pl.DataFrame", samples: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    length = pl.col(LENGTH.name)
    is_given = pl.col(TOPK.name).is_not_null().any()
    topk_mean = pl.when(is_given).then((pl.col(TOPK.name) * length).sum() / length.sum())
    whole = own.group_by("solution_id").agg(
        length.sum(), pl.col(CUMULATIVE.name).min(), topk_mean.alias(TOPK.name), pl.col(TOKEN_LISTS[0])
    )
    likely = [
        picsar([one for step in steps[:-1] for one in step], steps[-1])
        for steps in whole[TOKEN_LISTS[0]].to_list()
    ]
    whole = whole.drop(TOKEN_LISTS[0]).with_columns(pl.Series(PICSAR.name, likely, pl.Float64))
    return (
        samples.rename({"answer_correct": "correct"})
        .join(whole, "solution_id")
        .sort("solution_id")
        .with_columns(
            in_chain=False, position=0, is_first_error=False, after_error=False, part=pl.lit("answer")
        )
    )


def _tokens(spans: "pl.DataFrame") -> Tokens:
    lengths = spans[LENGTH.name].to_numpy().astype(np.int64)
    columns = []
    for name in TOKEN_LISTS:
        given = spans[name].is_not_null()
        flat = spans[name].filter(given).explode().to_numpy().astype(np.float64)
        columns.append(spread(flat, given.to_numpy(), lengths))
    return Tokens(*columns)
