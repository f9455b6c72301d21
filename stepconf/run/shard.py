"""A shard before it is written: its rows as the bytes of a Parquet file, and how those of a chunk are divided."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

from stepconf.core.schema import arrow_schema, plain, upgraded
from stepconf.run.parts import GROUP_BYTES, SHARD_BYTES, cut, shard_names


class Shard(NamedTuple):
    """A Parquet file before it is written, or without `data` one that stays; `facts` are for its manifest."""

    facts: dict[str, Any]
    data: Any = b""

    @classmethod
    def of(cls, rows: Any) -> "Shard":
        """An Arrow table as a file. For any thread."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        leaves = [leaf for field in rows.schema for leaf in _leaves(field.name, field.type)]
        single = [name for name, kind in leaves if pa.types.is_float32(kind)]
        sink = pa.BufferOutputStream()
        # Without dictionaries zstd finds what repeats: as small, written in 6/7 and read in 2/3 of the time.
        # Byte by byte (the exponents together) what a model computes takes half of the room.
        # Statistics of numbers only: the least and the greatest of hashes, texts and tokens rule no rows out.
        pq.write_table(
            rows,
            sink,
            row_group_size=max(1, len(rows) * GROUP_BYTES // max(rows.nbytes, 1)),
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=single,
            write_statistics=[field.name for field in rows.schema if _is_number(field.type)],
        )
        data = sink.getvalue()
        return cls(shard_facts(len(rows), data), data)


def in_parts(chunk: str, solutions: Any, steps: Any) -> Iterator[tuple[str, Any]]:
    """The shards of a chunk, by name, that hold its Arrow tables."""
    pieces = [(solutions, steps)]
    if solutions.nbytes + steps.nbytes > SHARD_BYTES:
        pieces = list(cut(solutions, steps, SHARD_BYTES))
    for name, (own, theirs) in zip(shard_names(chunk, len(pieces)), pieces, strict=True):
        yield f"solutions/{name}", own
        yield f"steps/{name}", theirs


def as_declared(table: str, rows: Any) -> Any:
    """Rows of any version as this one declares them; readers rename list items, other writers let them be null."""
    rows = upgraded(table, rows)
    return rows.cast(arrow_schema(table, plain(rows.schema.metadata)))


def put_together(table: str, shards: Iterable[Any]) -> Any:
    """The rows of shards of one table, one after the other and `as_declared`."""
    import pyarrow as pa

    return pa.concat_tables([as_declared(table, rows) for rows in shards])


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _leaves(name: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """The columns that a field is in Parquet, with their types."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    else:
        yield name, kind


def shard_facts(n_rows: int, data: Any) -> dict[str, Any]:
    """What a manifest says of a shard with these bytes."""
    digest = blake2b(data, digest_size=16).hexdigest()
    return {"rows": n_rows, "bytes": len(data), "blake2b": digest}
