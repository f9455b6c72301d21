"""From the rows that a strategy chooses to rows of `pairs`."""

from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import polars as pl

from stepconf.core.ids import pair_id
from stepconf.core.pairs.frames import Frames
from stepconf.core.records import CUT
from stepconf.core.schema import PAIRS

_TOKEN_BYTES = 4
_TOKENS = ["prompt_ids", "chosen_ids", "rejected_ids"]


class Texts(Protocol):
    """A tokenizer: of critics' texts, and of prompts."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode_all(self, token_ids: Any, ends: Any) -> list[str]:
        """Texts of lists of ids that lie one after the other."""


class Writer(NamedTuple):
    """What all pairs of a run are written with.

    Args:
        tokenizer: the run's.
        policy: the model whose run it is; a side that another model wrote is a `completer`'s.
        round: of iterative training.
    """

    tokenizer: Texts
    policy: str
    round: int


def named_pairs(pairs: pl.DataFrame, frames: Frames, tokenizer: Texts) -> pl.DataFrame:
    """Chosen pairs (`core.pairs.frames.PAIRS`) with problem, tokens and id; each three token sequences once."""
    sides = _sides(pairs, frames)
    origins = sides.select("owner", "problem_id", "prefix_id", "token_start", "corrected", origin="row")
    written = pl.when(pl.col("chosen").is_null()).then("corrected")
    before = pl.concat_list("prompt_token_ids", pl.col("token_ids").list.head(pl.col("token_start")))
    prompts = frames.solutions.select("prompt_token_ids", "token_ids", owner="row")
    found = (
        _joined(_joined(_joined(pairs, origins, "origin"), _ids(sides, "chosen")), _ids(sides, "rejected"))
        .with_columns(corrected=written)
        .with_columns(
            chosen_ids=pl.coalesce(
                "chosen_ids",
                pl.col("corrected").map_elements(tokenizer.encode, return_dtype=pl.List(pl.Int32)),
            )
        )
        .unique(["prefix_id", "chosen_ids", "rejected_ids"], keep="first", maintain_order=True)
    )
    found = _joined(found, prompts, "owner").with_columns(prompt_ids=before)
    named = map(pair_id, *(_as_bytes(found[name]) for name in _TOKENS))
    return found.select(
        *pairs.columns,
        "owner",
        "problem_id",
        "corrected",
        *_TOKENS,
        pair_id=pl.Series(list(named), dtype=pl.String),
    )


def pair_rows(named: pl.DataFrame, frames: Frames, writer: Writer) -> pl.DataFrame:
    """The rows of `pairs` that `named_pairs` stand for."""
    sides = _sides(named, frames)
    models = frames.solutions.select("model", owner="row")
    sides = _joined(sides.select("row", "owner", "text", "is_terminal", "confidence"), models, "owner")
    origins = _sides(named, frames).select("step_index", "char_start", origin="row")
    solutions = frames.solutions.select(
        "solution_id", "root", "lead", "problem", "model", own_text="text", owner="row"
    )
    rows = _joined(_joined(named, origins, "origin"), solutions, "owner")
    for side in ("chosen", "rejected"):
        of_side = {name: f"{side}_{name}" for name in ("text", "is_terminal", "confidence", "model")}
        rows = _joined(rows, sides.select("row", *of_side).rename({"row": side, **of_side}), side)
    prefix = pl.col("lead") + pl.col("own_text").str.slice(0, pl.col("char_start"))
    message = pl.struct(role=pl.lit("user"), content="problem")
    rows = _joined(rows, _prompts(rows, frames, writer.tokenizer), "root").with_columns(
        prefix=prefix, prompt=pl.col("prompt_text") + prefix, messages=pl.concat_list(message)
    )
    rows = rows.with_columns(
        chosen_source=_source("chosen", writer.policy),
        rejected_source=_source("rejected", writer.policy),
        chosen=pl.coalesce("chosen_text", "corrected"),
        rejected="rejected_text",
        chosen_is_terminal=pl.col("chosen_is_terminal").fill_null(False),
        round=pl.lit(writer.round, pl.Int32),
        policy="model",
    )
    return rows.select(field.name for field in PAIRS)


def _sides(pairs: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    """The frame whose rows the pairs name: the steps, or whole solutions in the form of one step each."""
    if not (pairs["kind"] == "trajectory").any():
        return frames.steps
    return frames.solutions.with_columns(
        owner="row",
        prefix_id="prompt_id",
        step_index=pl.lit(0, pl.Int32),
        char_start=pl.lit(0, pl.Int32),
        token_start=pl.lit(0, pl.Int32),
        is_terminal=~pl.col("finish_reason").is_in(CUT),
        corrected=pl.lit(None, pl.String),
    )


def _ids(sides: pl.DataFrame, side: str) -> pl.DataFrame:
    return sides.select(pl.col("row").alias(side), pl.col("token_ids").alias(f"{side}_ids"))


def _joined(rows: pl.DataFrame, more: pl.DataFrame, on: str = "") -> pl.DataFrame:
    """Rows with more columns, found by the first column of `more` that both have; in the same order."""
    key = on or next(name for name in more.columns if name in rows.columns)
    return rows.join(more, on=key, how="left", maintain_order="left")


def _prompts(rows: pl.DataFrame, frames: Frames, tokenizer: Texts) -> pl.DataFrame:
    """The text of the prompt of each root; one that several share is decoded once."""
    roots = frames.solutions.join(rows.select(row="root").unique(), on="row", how="semi")
    prompts = roots.select("prompt_id", "prompt_token_ids").unique("prompt_id", keep="first")
    ids = prompts["prompt_token_ids"]
    texts = tokenizer.decode_all(ids.explode().drop_nulls(), ids.list.len().cum_sum())
    decoded = prompts.select("prompt_id", prompt_text=pl.Series(texts, dtype=pl.String))
    return roots.select("prompt_id", root="row").join(decoded, on="prompt_id").drop("prompt_id")


def _source(side: str, policy: str) -> pl.Expr:
    return (
        pl.when(pl.col(side).is_null())
        .then(pl.lit("critic"))
        .when(pl.col(f"{side}_model") != policy)
        .then(pl.lit("completer"))
        .when(pl.col("kind") == "trajectory")
        .then(pl.lit("solution"))
        .when(pl.col(side) == pl.col("origin"))
        .then(pl.lit("step"))
        .otherwise(pl.lit("candidate"))
    )


def _as_bytes(lists: pl.Series) -> list[bytes]:
    """Lists of token ids as they are hashed: four bytes a token."""
    sizes = lists.list.len()
    data = lists.filter(sizes > 0).explode().to_numpy().tobytes()
    ends = accumulate((_TOKEN_BYTES * size for size in sizes.to_list()), initial=0)
    return [data[start:end] for start, end in pairwise(ends)]
