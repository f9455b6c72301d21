"""Rows of a local JSON or JSON-lines file, plain or gzipped; errors name the line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

from stepconf.errors import StepconfError

Row = dict[str, Any]
FileKind = Literal["jsonl", "json", "parquet"]

_SHOWN = 80  # characters of a broken line that an error message repeats
_HINT_FORMS = "Give JSON lines (.jsonl, .jsonl.gz), a JSON list (.json, .json.gz) or Parquet."
_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


def file_kind(path: Path) -> FileKind:
    """What the file holds, by its first bytes and, where they leave it open, its name.

    Raises:
        StepconfError: the file is empty, truncated (Parquet, gzip) or in no form that is read here.
    """
    try:
        with path.open("rb") as stream:
            head, size = stream.read(4), path.stat().st_size
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
    except OSError as error:
        raise StepconfError(f"{path}: cannot be read: {error.strerror}.") from error
    if size == 0:
        raise StepconfError(f"{path}: the file is empty.", _HINT_FORMS)
    if head == b"PAR1":
        if size < 12 or tail != b"PAR1":
            raise StepconfError(
                f"{path}: the Parquet file is truncated: its {size:,} bytes do not end in a footer.",
                "Write or copy the file again.",
            )
        return "parquet"
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes and suffixes[-1] == ".parquet":
        raise StepconfError(f"{path}: not a Parquet file: it starts with {head!r}.", _HINT_FORMS)
    first = _first_character(path)
    if not first:
        raise StepconfError(f"{path}: the file is empty but for white space.", _HINT_FORMS)
    if first == b"[" or (suffixes and suffixes[-1] == ".json"):
        return "json"
    if first == b"{" or (suffixes and suffixes[-1] in {".jsonl", ".ndjson"}):
        return "jsonl"
    raise StepconfError(f"{path}: not a file of rows: it starts with {first!r}.", _HINT_FORMS)


def json_rows(path: Path, kind: FileKind) -> Iterator[Row]:
    """The rows of a JSON-lines file (streamed) or of a JSON file (read whole).

    Blank lines are skipped; a byte-order mark is allowed. Lone surrogates (`"\\ud800"`) come through as they
    are: the reader of a row's text decides about them.

    Raises:
        StepconfError: a line is not JSON, not an object or not UTF-8 (with its number and what was seen), or
            the gzip stream is cut off or corrupt.
    """
    if kind == "jsonl":
        yield from _lines(path)
        return
    text = _decoded(path, 1, _whole(path))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _lines(path)  # JSON lines in a file called .json: datasets' own export writes that
            return
        raise _broken(path, getattr(error, "lineno", 1), text, error) from error
    yield from _rows_of(path, value)


def _lines(path: Path) -> Iterator[Row]:
    for number, raw in _raw_lines(path):
        line = _decoded(path, number, raw).strip()
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _broken(path, number, line, error) from error
        if not isinstance(row, dict):
            raise StepconfError(
                f"{path}, line {number}: {_kind_of(row)}, not an object with columns: {_shown(line)}",
                'Every line is one row: {"problem": ..., "answer": ...}.',
            )
        yield row


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _opened(path) as stream:
            for number, raw in enumerate(stream, start=1):
                yield number, raw
    except _BROKEN_GZIP as error:
        raise _broken_gzip(path, f"after line {number}", error) from error


def _whole(path: Path) -> bytes:
    try:
        with _opened(path) as stream:
            return stream.read()
    except _BROKEN_GZIP as error:
        raise _broken_gzip(path, "before its end", error) from error


def _first_character(path: Path) -> bytes:
    try:
        with _opened(path) as stream:
            return stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except _BROKEN_GZIP as error:
        raise _broken_gzip(path, "at its start", error) from error


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if zipped else path.open("rb")


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        raise StepconfError(
            f"{path}, line {line}: not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}.",
            f"Convert it first: iconv -f latin1 -t utf-8 {path.name} (or whatever encoding it is in).",
        ) from error


def _rows_of(path: Path, value: Any) -> Iterator[Row]:
    """A JSON document's rows: a list of objects, or an object with one such list under some name."""
    if isinstance(value, dict):
        lists = [
            held for held in value.values() if isinstance(held, list) and held and isinstance(held[0], dict)
        ]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise StepconfError(f"{path}: {_kind_of(value)} where a list of rows is needed.", _HINT_FORMS)
    for index, row in enumerate(value):
        if not isinstance(row, dict):
            raise StepconfError(
                f"{path}: item {index} of the list is {_kind_of(row)}, not an object with columns.",
                _HINT_FORMS,
            )
        yield row


def _broken(path: Path, number: int, line: str, error: Exception) -> StepconfError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    position = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    return StepconfError(
        f"{path}, line {number}: broken JSON ({what}{position}): {_shown(line)}",
        f"Mend or remove that line: sed -n {number}p shows it.",
    )


def _broken_gzip(path: Path, where: str, error: Exception) -> StepconfError:
    return StepconfError(
        f"{path}: the gzip file is cut off or corrupt {where} ({error}).", "Copy the file again."
    )


def _shown(line: str) -> str:
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")


def _kind_of(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true/false",
        dict: "an object",
    }
    return names.get(type(value), "null")
