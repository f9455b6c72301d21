"""From one row of any file or set to the texts of a problem: which columns, how they are written out."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from stepconf.core.documents import read_json
from stepconf.errors import StepconfError

_PLACE = re.compile(r"\{([^{}]+)\}")
_MAX_DEPTH = 100  # of lists and objects in one another: far from where Python and JSON give up


@dataclass(frozen=True)
class Text:
    """A template with its columns settled: literal pieces and the columns after them."""

    pieces: tuple[tuple[str, str | None, bool], ...]  # (literal before, column or None at the end, optional)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that are written out, in order."""
        return tuple(column for _, column, _ in self.pieces if column is not None)

    @cached_property
    def is_one_column(self) -> bool:
        """Whether the text is one column's value and nothing else."""
        return len(self.columns) == 1 and not any(literal for literal, _, _ in self.pieces)

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The row's text, stripped; None where a column that is needed is missing or empty."""
        written = []
        for literal, column, optional in self.pieces:
            value = "" if column is None else as_text(row.get(column)) or ""
            if column is not None and not value and not optional:
                return None
            written.append(literal + value)
        return "".join(written).strip() or None


def one_column(name: str) -> Text:
    """The text that is one column's value, whatever characters its name has."""
    return Text((("", name, False),))


def settled(template: str, columns: Collection[str]) -> Text | None:
    """The template with each `{one|other}` settled on the first of its columns that is there.

    Returns None where none of a place's columns is there and the place is not optional (`{column?}`).
    """
    pieces: list[tuple[str, str | None, bool]] = []
    end = 0
    for place in _PLACE.finditer(template):
        names, optional = place[1].removesuffix("?").split("|"), place[1].endswith("?")
        column = next((name for name in names if name in columns), None)
        if column is None and not optional:
            return None
        pieces.append((template[end : place.start()], column, optional))
        end = place.end()
    return Text((*pieces, (template[end:], None, True)))


def as_text(value: Any) -> str | None:
    """A column's value as it is written into a problem or compared as an answer; None if there is none.

    Whole floats lose their `.0`, true and false become yes and no, a list becomes lettered options and a
    table of `columns` and `data` a Markdown table.
    """
    if isinstance(value, str):
        table = _table_in(value)
        return _markdown(table) if table else value.strip()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list | tuple):
        return "\n".join(f"{_letter(index)}. {as_text(item) or ''}" for index, item in enumerate(value))
    if isinstance(value, dict):
        return _markdown(value) if _is_table(value) else json.dumps(jsonable(value), ensure_ascii=False)
    return str(value)


def as_answer(value: Any) -> str | None:
    """A gold answer: as `as_text`, but several answers in a list are joined by commas, and an object is none."""
    if isinstance(value, dict):
        return None
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(as_answer, value))) or None
    return as_text(value) or None


def jsonable(value: Any, depth: int = 0) -> Any:
    """The value with everything in it that JSON cannot hold turned into something that it can.

    Raises:
        RecursionError: it is nested more than a hundred levels deep.
    """
    if isinstance(value, str):
        return value if is_unicode(value) else value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == _MAX_DEPTH:
        raise RecursionError("nested too deeply")
    if isinstance(value, Mapping):
        return {str(jsonable(key, depth + 1)): jsonable(held, depth + 1) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item, depth + 1) for item in value), key=repr)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return jsonable(str(value), depth + 1)


def is_unicode(text: str) -> bool:
    """Whether the text can be stored: JSON's escapes can smuggle in lone surrogates, which UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def missing_column(
    where: str, what: str, named: str | None, template: str, option: str, columns: Collection[str]
) -> StepconfError:
    """The error for a column that is not there, with those that are.

    Args:
        named: the column that the user named, or None where those of `template` were tried.
    """
    tried = [name for place in _PLACE.findall(template) for name in place.removesuffix("?").split("|")]
    sought = f"called {named!r}" if named else f"{what} (tried {', '.join(tried)})"
    close = get_close_matches(named or "", list(columns), n=1)
    return StepconfError(
        f"{where}: no column {sought}; columns seen: {', '.join(columns)}.",
        f"Did you mean {option} {close[0]}?" if close else f"Name it: {option} COLUMN",
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("columns"), list)
        and isinstance(value.get("data"), list)
    )


def _table_in(text: str) -> dict[str, Any] | None:
    """The table that the text is, where the Hub's copy holds it as JSON in a text column."""
    if not text.startswith("{") or '"columns"' not in text:
        return None
    try:
        value = read_json(text)
    except ValueError:
        return None
    return value if _is_table(value) else None


def _markdown(table: dict[str, Any]) -> str:
    header = [_cell(name) for name in table["columns"]]
    rows = [[_cell(value) for value in row] for row in table["data"] if isinstance(row, list)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join((as_text(value) or "").replace("|", "\\|").split())
