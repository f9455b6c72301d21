"""A run's tables as lazy Polars frames, and which of their rows are of samples: figures of a run are those of samples.

Branches start from chosen places, so their answers and steps say little of how often the model is right, or sure.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from stepconf.core.schema import arrow_schema
from stepconf.errors import StepconfError
from stepconf.run.parquet import scan_files
from stepconf.run.tables import shard_files

if TYPE_CHECKING:
    import polars as pl


def scan(run: Path, table: str) -> "pl.LazyFrame":
    """The rows of a table that has shards; columns that older versions of the schema lack are null."""
    return scan_files(shard_files(run, table), arrow_schema(table))


def scan_pairs(run: Path) -> "pl.LazyFrame":
    """The pairs of both splits, with the column `split`: train or validation.

    Raises:
        StepconfError: the run has no pairs.
    """
    import polars as pl

    from stepconf.core.pairs.select import SPLITS

    shards = {split: shard_files(run, "pairs", split) for split in SPLITS}
    parts = [
        scan_files(files, arrow_schema("pairs")).with_columns(split=pl.lit(split))
        for split, files in shards.items()
        if files
    ]
    if not parts:
        raise StepconfError(f"{run} has no pairs.", f"Type: stepconf pairs {run}")
    return pl.concat(parts)


def scan_samples(run: Path, table: str) -> "pl.LazyFrame":
    """The rows of samples: solutions that are no branch, or their steps."""
    rows, branches = scan(run, table), _branches(run)
    if not len(branches):
        return rows
    return rows.join(branches.lazy(), "solution_id", "anti", maintain_order="left")


def scan_branches(run: Path, table: str) -> "pl.LazyFrame":
    """The rows of branches, or of their steps."""
    return scan(run, table).join(_branches(run).lazy(), "solution_id", "semi")


def _branches(run: Path) -> "pl.DataFrame":
    import polars as pl

    is_branch = pl.col("parent_solution_id").is_not_null()
    return scan(run, "solutions").filter(is_branch).select("solution_id").collect(engine="streaming")
