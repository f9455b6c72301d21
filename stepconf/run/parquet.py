"""How a Parquet file is opened: a path is the name of one file, and nothing else.

Polars takes a path for a pattern, to which `z[1]` is `z1`; Arrow expands `~` and takes `s3:x` for a URL. The rows would
be those of another run. So no other module calls their readers and writers of files.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepconf.errors import StepconfError

if TYPE_CHECKING:
    import polars as pl


def parquet_file(source: Path | Any, as_codes: Sequence[str] = ()) -> Any:
    """A `pyarrow.parquet.ParquetFile` of a path or of an open stream; `as_codes` come dictionary-encoded.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(**_place(source), read_dictionary=list(as_codes))


@contextmanager
def opened(file: Path, refused: Callable[[Exception], StepconfError]) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`; what it cannot read is raised as `refused` says."""
    import pyarrow as pa

    try:
        with parquet_file(file) as parquet:
            yield parquet
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise refused(error) from error


def scan_files(files: Sequence[Path], schema: Any) -> "pl.LazyFrame":
    """The rows of files, in order, for Polars, with the columns of an Arrow schema: null where a file lacks one.

    The same holds for a field in a column's structs.
    """
    import polars as pl

    return pl.scan_parquet(
        [_exact(file) for file in files],
        glob=False,
        hive_partitioning=False,
        schema=pl.DataFrame(schema.empty_table()).schema,
        missing_columns="insert",
        cast_options=pl.ScanCastOptions(missing_struct_fields="insert"),
    )


def parquet_writer(file: Path, schema: Any, **options: Any) -> Any:
    """A `pyarrow.parquet.ParquetWriter` of a new file."""
    import pyarrow.parquet as pq

    place = _place(file)
    return pq.ParquetWriter(place["source"], schema, filesystem=place["filesystem"], **options)


def _place(source: Path | Any) -> dict[str, Any]:
    from pyarrow.fs import LocalFileSystem

    if not isinstance(source, Path):
        return {"source": source}
    return {"source": _exact(source), "filesystem": LocalFileSystem()}


def _exact(file: Path) -> str:
    """The path with `./` before a relative one, which a Path leaves out: no `~` and no protocol can lead it."""
    return os.path.join(".", file)  # noqa: PTH118
