"""From the rows of one source to problems and solutions: which columns are read, which rows are dropped."""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain, islice
from typing import Any, Literal

from stepconf.core.answers import gold_answer
from stepconf.core.documents import read_json
from stepconf.core.ids import problem_id
from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.problems.files import Row
from stepconf.problems.sets import NAMED_SETS, NamedSet
from stepconf.recipe import ProblemsRecipe

# Tried in this order where no column is named.
PROBLEM_COLUMNS = "{problem|question|Problem|Question|input|prompt|instruction}"
ANSWER_COLUMNS = "{answer|gold_answer|final_answer|ground_truth|expected_answer|Answer|target}"
WORKED_COLUMNS = ("solution", "gold_solution", "Solution")
SOLUTION_COLUMNS = "{solution|text|response|Solution|completion}"
ID_COLUMNS = "id|external_id|unique_id|problem_id|question_id|task_id|qid|idx|ID"

_PEEKED_ROWS = 100  # rows whose columns are looked at before it is settled which are read
_BARE_ANSWER = 100  # characters up to which an unmarked line in a worked column is the answer itself
_PLACE = re.compile(r"\{([^{}]+)\}")
_MAX_DEPTH = 100  # of lists and objects in one another: far from where Python and JSON give up

# What each row must hold beside its problem: nothing, a gold answer, or a solution.
Need = Literal["problem", "gold", "solution"]


@dataclass(frozen=True)
class Source:
    """Rows about to be read. `name` is stored with them, `where` is what messages call them."""

    rows: Iterable[Row]
    name: str
    where: str
    split: str
    named: NamedSet | None = None
    generated: bool = False  # every row says its own answer type


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


@dataclass(frozen=True)
class Columns:
    """Which columns of a source's rows are read."""

    problem: Text
    answer: Text | None
    id: str | None
    solution: str | None  # the text of a solution, or
    steps: str | None  # its steps; both None where only problems are read


class Dropped(Exception):
    """A row that cannot be used; the message is the reason under which it is counted."""


def settle_columns(source: Source, options: ProblemsRecipe, need: Need) -> tuple[Iterator[Row], Columns]:
    """The source's rows and which of their columns are read, judged by the first hundred rows.

    Raises:
        StepconfError: there are no rows, a column that is needed is in none of them, or the problems are in more
            columns than would be read.
    """
    rows = iter(source.rows)
    first = list(islice(rows, _PEEKED_ROWS))
    seen = list(dict.fromkeys(name for row in first for name in row))
    if not seen:
        raise StepconfError(f"{source.where}: there are no rows in it.", "Give a file with one row an item.")
    named = source.named
    template = named.problem if named else PROBLEM_COLUMNS
    problem = _settled(options.problem_column, template, seen)
    if problem is None:
        raise missing_column(
            source.where, "with the problem", options.problem_column, template, "--problem-column", seen
        )
    if named is None and not source.generated and options.problem_column is None:
        _check_whole(source, problem, seen)
    solution = steps = None
    if need == "solution":
        solution, steps = _solution_columns(source, options, first, seen)
    id_names = [options.id_column] if options.id_column else (named.id if named else ID_COLUMNS).split("|")
    id_column = next((name for name in id_names if name in seen), None)
    if options.id_column and id_column is None:
        raise missing_column(source.where, "with ids", options.id_column, "", "--id-column", seen)
    answer = _answer_text(source, options, need, [name for name in seen if name not in {solution, steps}])
    return chain(first, rows), Columns(problem, answer, id_column, solution, steps)


def problem_of(row: Row, columns: Columns, source: Source, answer_type: str | None, need: Need) -> Problem:
    """The row's problem, whose answer is of the given type, else of that of the set.

    Raises:
        Dropped: the row cannot be used.
    """
    named = source.named
    if named and named.only and named.only[0] in row and str(row[named.only[0]]) not in named.only[1]:
        raise Dropped(f"not in the set by its {named.only[0]}")
    only_column = columns.problem.columns[0] if len(columns.problem.columns) == 1 else None
    if only_column and isinstance(row.get(only_column), list | dict):
        raise Dropped("problem is not a text")
    try:
        clean: Row = jsonable(row)
    except RecursionError:
        raise Dropped("nested too deeply") from None
    text = columns.problem.of(row)
    if text is None:
        raise Dropped("no problem text")
    gold, kind = _gold(row, columns, source, answer_type)
    if gold is None and need == "gold":
        raise Dropped("no gold answer")
    if not is_unicode(text) or not is_unicode(gold or ""):
        raise Dropped("not valid Unicode")
    held = _held(row, columns, source, gold)
    return Problem(
        problem_id=problem_id(text, gold),
        text=text,
        gold_answer=gold,
        answer_type=kind,
        source=source.name,
        split=source.split,
        external_id=(jsonable(as_text(row.get(columns.id))) or None) if columns.id else None,
        extra={name: value for name, value in clean.items() if name not in held},
    )


def solution_of(row: Row, columns: Columns) -> tuple[str | None, list[str] | None]:
    """The row's solution, as its text or as its steps, exactly as they are given.

    Raises:
        Dropped: there is none.
    """
    if columns.steps is not None:
        steps = row.get(columns.steps)
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise Dropped("no steps" if steps is None else "steps are not a list of texts")
        if not any(step.strip() for step in steps):
            raise Dropped("no steps")
        if not all(map(is_unicode, steps)):
            raise Dropped("not valid Unicode")
        return None, steps
    text = row.get(columns.solution or "")
    if text is not None and not isinstance(text, str):
        raise Dropped("solution is not a text")
    if not text or not text.strip():
        raise Dropped("no solution text")
    if not is_unicode(text):
        raise Dropped("not valid Unicode")
    return text, None


def _check_whole(source: Source, problem: Text, seen: list[str]) -> None:
    """Raise StepconfError where a file looks like a named set whose problems are in more columns than `problem`."""
    for name, named in NAMED_SETS.items():
        whole, answer = settled(named.problem, seen), settled(named.answer, seen)
        if whole and answer and set(problem.columns) < set(whole.columns):
            raise StepconfError(
                f"{source.where} has the columns of {name}, whose problems are in {' and '.join(whole.columns)}: "
                f"only {problem.columns[0]} would be read.",
                f"Type {name}@{source.where}, or name one: --problem-column {problem.columns[0]}",
            )


def _settled(column: str | None, template: str, seen: list[str]) -> Text | None:
    if column is None:
        return settled(template, seen)
    return one_column(column) if column in seen else None


def _answer_text(source: Source, options: ProblemsRecipe, need: Need, seen: list[str]) -> Text | None:
    template = source.named.answer if source.named else ANSWER_COLUMNS
    answer = _settled(options.answer_column, template, seen)
    if answer is None and options.answer_column is None and need != "solution":
        answer = settled("{" + "|".join(WORKED_COLUMNS) + "}", seen)
    if answer is None and (need == "gold" or options.answer_column):
        raise missing_column(
            source.where, "with the gold answer", options.answer_column, template, "--answer-column", seen
        )
    return answer


def _solution_columns(
    source: Source, options: ProblemsRecipe, first: list[Row], seen: list[str]
) -> tuple[str | None, str | None]:
    """The solution column or the steps column; steps come first where the file has both and names neither."""
    if options.steps_column or options.solution_column:
        wanted, option = options.steps_column, "--steps-column"
        if not wanted:
            wanted, option = str(options.solution_column), "--solution-column"
        if wanted not in seen:
            raise missing_column(source.where, "with the solution", wanted, "", option, seen)
        return (None, wanted) if options.steps_column else (wanted, None)
    if any(isinstance(row.get("steps"), list) for row in first):
        return None, "steps"
    text = settled(SOLUTION_COLUMNS, seen)
    if text is None:
        raise missing_column(
            source.where, "with the solution", None, SOLUTION_COLUMNS + "{steps}", "--solution-column", seen
        )
    return text.columns[0], None


def _gold(row: Row, columns: Columns, source: Source, answer_type: str | None) -> tuple[str | None, str]:
    """The gold answer, out of its worked solution where it stands in one, and the type of the answer."""
    named = source.named
    kind = answer_type or (named.answer_type if named else None)
    kind = kind or (str(row["answer_type"]) if source.generated else None)
    if columns.answer is None:
        return None, kind or "math"
    names = columns.answer.columns
    if len(names) > 1:
        return columns.answer.of(row), kind or "math"
    value = row.get(names[0])
    kind = kind or ("yesno" if isinstance(value, bool) else "math")
    gold = as_answer(value)
    if gold is None or kind not in {"math", "number"}:
        return gold, kind
    final = gold_answer(gold)
    worked = names[0] in WORKED_COLUMNS or (named is not None and named.worked)
    if worked and final == gold and (len(gold) > _BARE_ANSWER or "\n" in gold):
        return None, kind  # a worked solution that marks no answer
    return final or None, kind


def _held(row: Row, columns: Columns, source: Source, gold: str | None) -> set[str | None]:
    """The columns that the problem or the solution already holds in full: they are not carried along."""
    held = {columns.id, columns.solution, columns.steps, "answer_type" if source.generated else None}
    if columns.problem.is_one_column:
        held.add(columns.problem.columns[0])
    if (
        columns.answer
        and columns.answer.is_one_column
        and as_answer(row.get(columns.answer.columns[0])) == gold
    ):
        held.add(columns.answer.columns[0])
    return held.union(source.named.leave_out if source.named else ())


# Templates


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


# Values


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
