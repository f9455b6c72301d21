"""Which of the pairs are kept, and for what: by hashes of ids, so that no order decides."""

from typing import Literal

import polars as pl

from stepconf.core.ids import CONTENT_ID_BYTES, content_id

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
_BALANCED = ("correct_uncertain", "incorrect")


def hashed(ids: str, seed: int) -> pl.Expr:
    """A hash with `seed` of each id in a column: an order that nothing else decides."""
    return pl.col(ids).map_elements(lambda one: content_id(seed, one), return_dtype=pl.String)


def capped(pairs: pl.DataFrame, limit: int | None, seed: int) -> pl.DataFrame:
    """At most `limit` pairs of each problem, in the order given; reads pair_id and problem_id."""
    if limit is None:
        return pairs
    place = pl.col("hashed").rank("ordinal").over("problem_id")
    return pairs.with_columns(hashed=hashed("pair_id", seed)).filter(place <= limit).drop("hashed")


def surplus(pairs: pl.DataFrame, seed: int) -> pl.Series:
    """The ids of pairs to drop so that `correct_uncertain` and `incorrect` are equally many.

    Args:
        pairs: with pair_id and kind; other kinds are left alone.
        seed: of the hashes that choose.
    """
    size = min(pairs.filter(pl.col("kind") == kind).height for kind in _BALANCED)
    ours = pairs.filter(pl.col("kind").is_in(_BALANCED)).with_columns(hashed=hashed("pair_id", seed))
    return ours.filter(pl.col("hashed").rank("ordinal").over("kind") > size)["pair_id"]


def split_of(problem_id: str, validation: float) -> Split:
    """`validation` for that share of all problems: the same in every run, whatever else is in it."""
    return "validation" if problem_id < least_of_train(validation) else "train"


def least_of_train(validation: float) -> str:
    """The problem id, a hash in hexadecimal, below which that share (in [0, 1)) of all problems is."""
    return f"{int(validation * 2 ** (8 * CONTENT_ID_BYTES)):0{2 * CONTENT_ID_BYTES}x}"
