"""From the shards of a run to the frames that strategies read: whole problems, a few parts at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import polars as pl

from stepconf.core.ids import prefix_ids
from stepconf.core.pairs.frames import Frames, reading
from stepconf.core.pairs.steps import corrected
from stepconf.core.records import CUT
from stepconf.run.parts import Part
from stepconf.run.tables import all_parts, read_manifests, read_part, read_shard
from stepconf.workers.ahead import ahead

SOLUTION_COLUMNS = ["solution_id", "parent_solution_id", "branch_step", "problem_id", "problem", "text"]
SOLUTION_COLUMNS += [
    "finish_reason",
    "answer_correct",
    "confidence",
    "model",
    "prompt_token_ids",
    "token_ids",
]
STEP_COLUMNS = ["solution_id", "problem_id", "prefix_id", "step_index", "n_steps", "text", "char_start"]
STEP_COLUMNS += ["token_start", "token_ids", "logprob_sum", "confidence", "label", "after_error", "part"]
STEP_COLUMNS += ["fitted_confidence"]
_REFERENCES = "verdicts.list.element.reference"
_BATCH_BYTES = 24 << 20  # of shards that are read together: their pairs make a file worth its while
_ALL = 2**31  # characters


class Batch(NamedTuple):
    """All rows of some problems, as they lie in the run; `name` is that of the first part."""

    name: str
    solutions: pl.DataFrame
    steps: pl.DataFrame


def batches(run: Path, with_logprobs: bool = False) -> Iterator[Batch]:
    """A run, some parts at a time. The rows of a problem may lie in several parts: they are held until the last.

    Args:
        run: a run folder.
        with_logprobs: read the tokens' log-probabilities too.
    """
    parts, n_bytes = all_parts(run), _bytes_of_shards(run)
    last = _last_parts(run, parts)
    of_steps = [*STEP_COLUMNS, _REFERENCES, *(["token_logprobs"] if with_logprobs else [])]
    tables = ahead(lambda part: read_part(run, part, SOLUTION_COLUMNS, of_steps), parts)
    name, size = "", 0
    held: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    for index, (part, own) in enumerate(zip(parts, tables, strict=True)):
        name, size = name or part.name, size + n_bytes[part.solutions] + n_bytes[part.steps]
        held.append((_frame(own[0], SOLUTION_COLUMNS), _frame(own[1], of_steps)))
        if size < _BATCH_BYTES and index + 1 < len(parts):
            continue
        solutions, steps = (pl.concat(frames, how="vertical_relaxed") for frames in zip(*held, strict=True))
        ended = pl.col("problem_id").is_in(last.filter(pl.col("part") <= index)["problem_id"].implode())
        held = [(solutions.filter(~ended), steps.filter(~ended))]
        yield Batch(name, solutions.filter(ended), steps.filter(ended))
        name, size = "", 0


def frames_of(batch: Batch) -> Frames:
    """What strategies and `rows.pair_rows` read. Rows go problem by problem, steps in the order of their solutions.

    Beside `core.pairs.frames.STEPS` and `SOLUTIONS`, solutions keep `SOLUTION_COLUMNS`, and `root`, the row of the
    solution from which their path starts, and `lead`, the path's text before their own; steps have `owner`, the row of
    their solution, and `is_terminal`, whether that ended by itself after the step.
    """
    problem_order = pl.int_range(pl.len()).min().over("problem_id")
    solutions = batch.solutions.sort(problem_order, maintain_order=True).with_row_index("row")
    owners = solutions.select("solution_id", "answer_correct", "finish_reason", owner="row")
    steps = batch.steps.join(owners, on="solution_id").sort("owner", "step_index").with_row_index("row")
    steps = _with_prefix_ids(steps, solutions)
    solutions = _with_paths(solutions, steps)
    scored = pl.col("logprob_sum").is_not_null()
    steps = steps.join(
        solutions.select("is_root", owner="row"), on="owner", maintain_order="left"
    ).with_columns(
        next_prefix_id=_next_prefix(steps, solutions),
        reads=reading(pl.col("text")),
        n_tokens=pl.when(scored).then(pl.col("token_ids").list.len().cast(pl.Int64)).otherwise(0),
        is_terminal=(pl.col("step_index") == pl.col("n_steps") - 1) & ~pl.col("finish_reason").is_in(CUT),
        corrected=_corrected(steps),
    )
    steps = steps.with_columns(
        mean_logprob=pl.when(pl.col("n_tokens") > 0).then(pl.col("logprob_sum") / pl.col("n_tokens")),
        sureness=pl.coalesce("fitted_confidence", "confidence"),
    )
    return Frames(steps.drop("verdicts", "fitted_confidence"), _with_logprobs(solutions, steps))


def _frame(table: Any, columns: list[str]) -> pl.DataFrame:
    """An Arrow table as a frame; shards of several versions may have their columns in another order."""
    return cast(pl.DataFrame, pl.from_arrow(table)).select(name.partition(".")[0] for name in columns)


def _bytes_of_shards(run: Path) -> dict[str, int]:
    return {name: facts["bytes"] for one in read_manifests(run) for name, facts in one["files"].items()}


def _last_parts(run: Path, parts: list[Part]) -> pl.DataFrame:
    """The number of the part in which each problem ends."""
    ids = ahead(
        lambda part: _frame(read_shard(run, part.solutions, ["problem_id"]), ["problem_id"]).unique(), parts
    )
    numbered = [own.with_columns(part=pl.lit(index)) for index, own in enumerate(ids)]
    empty = pl.DataFrame(schema={"problem_id": pl.String, "part": pl.Int32})
    return pl.concat([empty, *numbered]).group_by("problem_id").agg(pl.col("part").max())


def _with_prefix_ids(steps: pl.DataFrame, solutions: pl.DataFrame) -> pl.DataFrame:
    """Runs of schema 1.0 have no ids of prefixes: they are computed of the tokens."""
    missing = steps.filter(pl.col("prefix_id").is_null())
    if not missing.height:
        return steps
    found = []
    tokens = solutions.select("row", "prompt_token_ids", "token_ids").join(
        missing.group_by(row="owner", maintain_order=True).agg("token_start"),
        on="row",
        maintain_order="right",
    )
    for _, prompt, own, starts in tokens.iter_rows():
        found += prefix_ids([*prompt, *own], (len(prompt) + start for start in starts))
    ids = missing.select("row", found=pl.Series(found, dtype=pl.String))
    return steps.join(ids, on="row", how="left", maintain_order="left").with_columns(
        prefix_id=pl.coalesce("prefix_id", "found")
    )


def _with_paths(solutions: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """The solutions with `root`, `lead`, `prompt_id` and `is_root`, one level of branches after the other."""
    leaves = steps.select(parent_solution_id="solution_id", branch_step="step_index", at="char_start")
    branches = solutions.join(leaves, on=["parent_solution_id", "branch_step"], how="left").select(
        "solution_id", "parent_solution_id", "text", at=pl.col("at").fill_null(_ALL)
    )
    level = solutions.filter(pl.col("parent_solution_id").is_null()).select(
        "solution_id", "text", root="row", lead=pl.lit("")
    )
    levels = [level.drop("text")]
    while level.height:
        parents = level.select("root", "lead", parent_solution_id="solution_id", before="text")
        level = branches.join(parents, on="parent_solution_id").select(
            "solution_id", "text", "root", lead=pl.col("lead") + pl.col("before").str.slice(0, pl.col("at"))
        )
        levels.append(level.drop("text"))
    first = steps.filter(pl.col("step_index") == 0)
    return (
        solutions.join(pl.concat(levels), on="solution_id", how="left", maintain_order="left")
        .with_columns(pl.coalesce("root", "row").alias("root"), pl.col("lead").fill_null(""))
        .join(first.select(root="owner", prompt_id="prefix_id"), on="root", how="left", maintain_order="left")
        .join(first.select(row="owner", first_id="prefix_id"), on="row", how="left", maintain_order="left")
        .with_columns(is_root=(pl.col("first_id") == pl.col("prompt_id")).fill_null(True))
    )


def _next_prefix(steps: pl.DataFrame, solutions: pl.DataFrame) -> pl.Series:
    """The prefix after each step: that of the step after it, or of a branch that goes on where its solution was cut."""
    going_on = solutions.select(
        solution_id="parent_solution_id", step_index=pl.col("branch_step") - 1, going_on="first_id"
    ).unique(["solution_id", "step_index"])
    return (
        steps.join(going_on, on=["solution_id", "step_index"], how="left", maintain_order="left")
        .select(pl.coalesce(pl.col("prefix_id").shift(-1).over("owner"), "going_on"))
        .to_series()
    )


def _corrected(steps: pl.DataFrame) -> pl.Series:
    """Incorrect steps as a critic wants them; null elsewhere."""
    references = pl.col("verdicts").list.eval(pl.element().struct.field("reference")).list.drop_nulls()
    wrong = steps.filter(pl.col("label") == "incorrect").select("row", "text", references=references)
    named = wrong.filter(pl.col("references").list.len() > 0)
    texts = [corrected(text, references) for _, text, references in named.iter_rows()]
    found = named.select("row", corrected=pl.Series(texts, dtype=pl.String))
    return steps.select("row").join(found, on="row", how="left", maintain_order="left")["corrected"]


def _with_logprobs(solutions: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    if "token_logprobs" not in steps.columns:
        return solutions
    own = steps.group_by(row="owner").agg(pl.col("token_logprobs").explode())
    return solutions.join(own, on="row", how="left", maintain_order="left")
