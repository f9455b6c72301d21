"""From the rows of one source to problems and solutions: which columns are read, which rows are dropped."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from stepconf.core.answers import gold_answer
from stepconf.core.ids import problem_id
from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.problems.fields import (
    Text,
    as_answer,
    as_text,
    is_unicode,
    jsonable,
    missing_column,
    one_column,
    settled,
)
from stepconf.problems.files import Row
from stepconf.problems.sets import NamedSet

# Tried in this order where no column is named.
PROBLEM_COLUMNS = "{problem|question|Problem|Question|input|prompt|instruction}"
ANSWER_COLUMNS = "{answer|gold_answer|final_answer|ground_truth|expected_answer|Answer|target}"
WORKED_COLUMNS = ("solution", "gold_solution", "Solution")
SOLUTION_COLUMNS = "{solution|text|response|Solution|completion}"
ID_COLUMNS = "id|external_id|unique_id|problem_id|question_id|task_id|qid|idx|ID"

_PEEKED_ROWS = 100  # rows whose columns are looked at before it is settled which are read
_BARE_ANSWER = 100  # characters up to which an unmarked line in a worked column is the answer itself


@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """How problems are read. A column or type that is not given is that of the set, or found by its name.

    `limit` keeps the first N usable problems. `seed` is that of reasoning-gym's generator. Without
    `require_gold`, problems that have no gold answer are kept.
    """

    problem_column: str | None = None
    answer_column: str | None = None
    id_column: str | None = None
    split: str | None = None
    answer_type: str | None = None
    limit: int | None = None
    seed: int = 0
    require_gold: bool = True


@dataclass(frozen=True, kw_only=True)
class SolutionOptions(ProblemOptions):
    """How solutions are read: a text column, or a column with lists of steps."""

    solution_column: str | None = None
    steps_column: str | None = None
    require_gold: bool = False


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
class Columns:
    """Which columns of a source's rows are read."""

    problem: Text
    answer: Text | None
    id: str | None
    solution: str | None  # the text of a solution, or
    steps: str | None  # its steps; both None where only problems are read


class Dropped(Exception):
    """A row that cannot be used; the message is the reason under which it is counted."""


def settle_columns(source: Source, options: ProblemOptions) -> tuple[Iterator[Row], Columns]:
    """The source's rows and which of their columns are read, judged by the first hundred rows.

    Raises:
        StepconfError: there are no rows, or a column that is needed is in none of them.
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
    solution = steps = None
    if isinstance(options, SolutionOptions):
        solution, steps = _solution_columns(source, options, first, seen)
    id_names = [options.id_column] if options.id_column else (named.id if named else ID_COLUMNS).split("|")
    id_column = next((name for name in id_names if name in seen), None)
    if options.id_column and id_column is None:
        raise missing_column(source.where, "with ids", options.id_column, "", "--id-column", seen)
    answer = _answer_text(source, options, [name for name in seen if name not in {solution, steps}])
    return chain(first, rows), Columns(problem, answer, id_column, solution, steps)


def problem_of(row: Row, columns: Columns, source: Source, options: ProblemOptions) -> Problem:
    """The row's problem.

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
    gold, answer_type = _gold(row, columns, source, options)
    if gold is None and options.require_gold:
        raise Dropped("no gold answer")
    if not is_unicode(text) or not is_unicode(gold or ""):
        raise Dropped("not valid Unicode")
    held = _held(row, columns, source, gold)
    return Problem(
        problem_id=problem_id(text, gold),
        text=text,
        gold_answer=gold,
        answer_type=answer_type,
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


def _settled(column: str | None, template: str, seen: list[str]) -> Text | None:
    if column is None:
        return settled(template, seen)
    return one_column(column) if column in seen else None


def _answer_text(source: Source, options: ProblemOptions, seen: list[str]) -> Text | None:
    template = source.named.answer if source.named else ANSWER_COLUMNS
    answer = _settled(options.answer_column, template, seen)
    if answer is None and options.answer_column is None and not isinstance(options, SolutionOptions):
        answer = settled("{" + "|".join(WORKED_COLUMNS) + "}", seen)
    if answer is None and (options.require_gold or options.answer_column):
        raise missing_column(
            source.where, "with the gold answer", options.answer_column, template, "--answer-column", seen
        )
    return answer


def _solution_columns(
    source: Source, options: SolutionOptions, first: list[Row], seen: list[str]
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


def _gold(row: Row, columns: Columns, source: Source, options: ProblemOptions) -> tuple[str | None, str]:
    """The gold answer, out of its worked solution where it stands in one, and the type of the answer."""
    named = source.named
    kind = options.answer_type or (named.answer_type if named else None)
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
