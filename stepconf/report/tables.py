"""Parquet by column and by row: whole columns once, then only the row groups that hold the rows asked for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import RLock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.schema import ADDED, arrow_schema, plain
from stepconf.errors import StepconfError
from stepconf.report.source import Source
from stepconf.run.parquet import parquet_file

Rows = npt.NDArray[np.int64]
T = TypeVar("T")
_THREADS = 4  # decoding holds no lock of Python's
_OPEN = 64  # files kept open, with their footers


class Tables:
    """The tables of a source. Rows are numbered through all shards of a table, from 0."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open_files: dict[str, Any] = {}
        self._lock = RLock()  # a ParquetFile is read by one thread at a time
        self._bounds = cache(self._find_bounds)

    def columns(self, table: str, names: list[str], as_codes: Sequence[str] = ()) -> pa.Table | None:
        """Whole columns; `names` may name fields inside lists, `as_codes` come dictionary-encoded.

        A column that an older version of the schema lacks is null.

        Returns:
            None where the table has no shards.

        Raises:
            StepconfError: a shard cannot be read, or lacks a column.
        """

        def read(file: str) -> pa.Table:
            with parquet_file(self._source.open(file), as_codes) as shard:
                # Codes inside lists can be read of one row group alone.
                groups = [
                    shard.read_row_group(group, names, use_threads=False)
                    for group in range(shard.num_row_groups)
                ]
                found = pa.concat_tables(groups) if groups else shard.read(names)
                found = _with_later(found, shard.schema_arrow, table, names)
                heads = list(dict.fromkeys(name.partition(".")[0] for name in names))
                if absent := set(heads).difference(found.column_names):
                    raise KeyError(f"no column {min(absent)}")
                return found.select(heads).replace_schema_metadata()

        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(lambda file: _explained(read, file), self._source.files[table]))
        return pa.concat_tables(parts).unify_dictionaries() if parts else None

    def rows(
        self, table: str, at: Sequence[int] | Rows, names: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of these numbers as plain values, in the order asked for; reads only their row groups.

        A column in `names` that an older version of the schema lacks is None.
        """
        wanted = np.asarray(at, dtype=np.int64)
        if not wanted.size:
            return []
        with self._lock:
            return self._rows(table, wanted, names)

    def _rows(self, table: str, wanted: Rows, names: list[str] | None) -> list[dict[str, Any]]:
        starts, places = self._bounds(table)
        group = np.searchsorted(starts, wanted, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for one in np.unique(group).tolist():
            inside = wanted[group == one]
            file, index = places[one]

            def read(name: str, index: int = index) -> pa.Table:
                shard = self._file(name)
                found = shard.read_row_group(index, names)
                return _with_later(found, shard.schema_arrow, table, names or arrow_schema(table).names)

            rows = _explained(read, file)
            taken = rows.take(inside - starts[one]).to_pylist()
            found.update(zip(inside.tolist(), taken, strict=True))
        return [found[row] for row in wanted.tolist()]

    def metadata(self, table: str) -> dict[str, str]:
        """The schema metadata of the first shard (engine, model, ...)."""
        with self._lock:
            for file in self._source.files[table][:1]:
                return _explained(lambda name: plain(self._file(name).schema_arrow.metadata), file)
        return {}

    def _find_bounds(self, table: str) -> tuple[Rows, list[tuple[str, int]]]:
        """The first row of each row group, and where it is: its file, its number there."""
        starts, places, row = [], [], 0
        for file in self._source.files[table]:
            footer = _explained(lambda name: self._file(name).metadata, file)
            for index in range(footer.num_row_groups):
                starts.append(row)
                places.append((file, index))
                row += footer.row_group(index).num_rows
        return np.asarray(starts, dtype=np.int64), places

    def _file(self, name: str) -> Any:
        if name not in self._open_files:
            while len(self._open_files) >= _OPEN:
                self._open_files.pop(next(iter(self._open_files))).close()
            self._open_files[name] = parquet_file(self._source.open(name))
        return self._open_files[name]


def _with_later(rows: pa.Table, schema: pa.Schema, table: str, names: Sequence[str]) -> pa.Table:
    """The rows with those of `names` that the version of their shard lacks, as nulls."""
    for name in _later(schema, table).difference(rows.column_names).intersection(names):
        rows = rows.append_column(name, pa.nulls(len(rows), arrow_schema(table).field(name).type))
    return rows


def _later(schema: pa.Schema, table: str) -> set[str]:
    """The columns that the version of a shard's schema lacks."""
    version = (schema.metadata or {}).get(b"stepconf_schema", b"").decode(errors="replace")
    return set(ADDED.get(version, {}).get(table, ()))


def containing(texts: pa.ChunkedArray, wanted: str) -> npt.NDArray[np.bool_]:
    """Which of the texts contain `wanted`, in upper or lower case; of codes, each text is looked at once."""
    if pa.types.is_dictionary(texts.type):
        held = texts.combine_chunks()
        held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        codes: npt.NDArray[np.bool_] = containing(pa.chunked_array([held.dictionary]), wanted)
        return np.asarray(codes[held.indices.to_numpy(zero_copy_only=False)])
    hits = pc.match_substring(texts, wanted, ignore_case=True)
    return np.asarray(pc.fill_null(hits, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _explained(read: Callable[[str], T], file: str) -> T:
    try:
        return read(file)
    except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as error:
        raise StepconfError(
            f"the shard {file} cannot be read: {error}", "Type: stepconf check RUN, which says what is wrong."
        ) from error
