"""`stepconf audit`: verifiers against people's step labels, on ProcessBench or PRM800K files."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from stepconf.core.audit import (
    FlagMetrics,
    OutcomeCheck,
    ProcessBenchMetrics,
    first_error_flags,
    outcome_check,
    predicted_first_error,
    processbench_metrics,
    step_flags,
)
from stepconf.core.bootstrap import Interval
from stepconf.core.ids import content_id, problem_id
from stepconf.core.records import Problem, Solved, Step, Verdict, bare_solution
from stepconf.core.steps import build_steps
from stepconf.errors import StepconfError
from stepconf.problems.files import Row, file_kind, json_rows
from stepconf.problems.load import load_problems
from stepconf.recipe import ProblemsRecipe, Recipe, with_branches, with_options
from stepconf.run.events import Tick
from stepconf.stages.branch import ROLLOUT, Brancher, open_brancher
from stepconf.stages.chunks import Chunk
from stepconf.stages.models import Prompter
from stepconf.stages.solutions import branch
from stepconf.stages.verify import open_pool, open_verifiers
from stepconf.verifiers.base import OpenVerifier
from stepconf.verifiers.critic.verifier import Tally

if TYPE_CHECKING:
    from rich.table import Table

Benchmark = Literal["processbench", "prm800k"]
SEPARATOR = "\n\n"  # between steps; it ends the step before it, so that the steps partition the text
CHUNK = 64  # solutions per call of a verifier


@dataclass(frozen=True, slots=True)
class CriticCost:
    """What a critic's replies cost, and how well they could be read.

    `readable`: share of the questions with a reply that was read. `asked_again`: share of those asked twice. Tokens
    are means per solution.
    """

    readable: float
    asked_again: float
    tokens_read: float
    tokens_written: float


@dataclass(frozen=True, slots=True)
class Audited:
    """What one verifier came out with. `coverage`: share of the steps on which it decided.

    On PRM800K, which labels steps, `processbench` and `outcomes` are None; `critic` is None for other verifiers.
    """

    verifier: str
    version: str
    coverage: float
    seconds_per_solution: float
    flags: FlagMetrics
    processbench: ProcessBenchMetrics | None
    outcomes: OutcomeCheck | None
    critic: CriticCost | None


@dataclass(frozen=True, slots=True)
class Audit:
    """Every verifier on one file; `to_dict` is what `--json` prints."""

    benchmark: Benchmark
    file: str
    n_solutions: int
    n_with_answer: int
    results: list[Audited]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A solution and its label: index of the first wrong step or -1; in PRM800K the last step's rating."""

    solved: Solved
    label: int | None


class Rollouts:
    """Branches as a verifier of solutions that others wrote; the branches themselves are not kept.

    Args:
        brancher: which samples and judges them.
        recipe: how a problem is put to its model.
    """

    name = ROLLOUT

    def __init__(self, brancher: Brancher, recipe: Recipe) -> None:
        self._brancher, self.version = brancher, brancher.version
        self._prompter = Prompter(brancher.engine.tokenizer, recipe.prompt)

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step; the seconds are shared among all steps."""
        started = time.perf_counter()
        chunk: Chunk[str] = Chunk("audit", "", [], solved=[self._with_tokens(one) for one in solved])
        (grown,) = branch(iter([chunk]), self._brancher)
        rows = {one.solution.solution_id: one.steps for one in grown.solved}  # none of one without steps
        seconds = (time.perf_counter() - started) / max(1, sum(len(one.steps) for one in solved))
        return [
            [_verdict_of(self.name, step, seconds) for step in rows.get(one.solution.solution_id, [])]
            for one in solved
        ]

    def _with_tokens(self, one: Solved) -> Solved:
        solution, tokenizer = one.solution, self._brancher.engine.tokenizer
        ids, starts = tokenizer.encode_with_starts(solution.text)
        prompt = self._prompter.ids(solution.problem)
        solution = replace(solution, token_ids=ids, n_tokens=len(ids), prompt_token_ids=prompt)
        spans = [(step.char_start, step.char_end) for step in one.steps]
        steps = build_steps(
            solution.solution_id, solution.problem_id, solution.text, spans, ids, starts, prompt_ids=prompt
        )
        return Solved(solution, steps)


def _verdict_of(name: str, step: Step, seconds: float) -> Verdict | None:
    found = next((verdict for verdict in step.verdicts if verdict.verifier == name), None)
    return found and replace(found, seconds=seconds)


def audit_file(benchmark: Benchmark, path: Path, recipe: Recipe, answers: str | None, tick: Tick) -> Audit:
    """`audit` with the verifiers and the limit of a recipe; `answers`: a set or file of problems. Raises as they do."""
    # No pairs are made here, so nobody needs the step that should follow.
    recipe = with_options(with_branches(recipe, "audit"), {"verify.critic.reference": False})
    if recipe.branch.where and not answers:
        raise StepconfError(
            "branches need gold answers, which this file does not hold.", "Add --answers gsm8k, say."
        )
    problems = load_problems(answers, ProblemsRecipe()).problems if answers else []
    with (
        open_pool(recipe) as pool,
        open_brancher(recipe, None, pool, tick) as brancher,
        open_verifiers(recipe, pool) as verifiers,
    ):
        own = [Rollouts(brancher, recipe)] if brancher else []
        return audit(benchmark, path, [*verifiers, *own], problems, recipe.problems.limit)


def audit(
    benchmark: Benchmark,
    path: Path,
    verifiers: Sequence[OpenVerifier],
    answers: Sequence[Problem] = (),
    limit: int | None = None,
) -> Audit:
    """Run each verifier over the file and compare it with the labels.

    Args:
        benchmark: which kind of file it is.
        path: JSON lines, plain or gzipped.
        verifiers: each is reported on its own.
        answers: problems with gold answers, joined by their text; these files have none of their own.
        limit: only the first so many rows.

    Raises:
        StepconfError: the file cannot be read, a row lacks a field, or there is no row.
    """
    read = _processbench_row if benchmark == "processbench" else _prm800k_row
    found = islice(json_rows(path, _kind(path)), limit)
    rows = [read(row, f"{path}: row {i + 1}") for i, row in enumerate(found)]
    if not rows:
        raise StepconfError(f"{path}: no rows.", "Give a file of ProcessBench or of PRM800K.")
    golds = {problem_id(problem.text, None): problem for problem in answers}
    rows = [replace(row, solved=_with_gold(row.solved, golds)) for row in rows]
    n_answers = sum(row.solved.solution.gold_answer is not None for row in rows)
    if answers and not n_answers:
        raise StepconfError(
            f"none of the {len(answers):,} problems with answers is in {path}.",
            "Give the set it was made of.",
        )
    results = [_audited(benchmark, rows, verifier) for verifier in verifiers]
    return Audit(benchmark, str(path), len(rows), n_answers, results)


def _with_gold(one: Solved, golds: dict[str, Problem]) -> Solved:
    problem = golds.get(problem_id(one.solution.problem, None))
    if problem is None:
        return one
    solution = replace(one.solution, gold_answer=problem.gold_answer, answer_type=problem.answer_type)
    return Solved(solution, one.steps)


def _kind(path: Path) -> Literal["jsonl", "json"]:
    kind = file_kind(path)
    if kind == "parquet":
        raise StepconfError(
            f"{path}: is Parquet.", "Give the JSON lines of the benchmark (.jsonl, .jsonl.gz)."
        )
    return kind


def _audited(benchmark: Benchmark, rows: Sequence[_Labelled], verifier: OpenVerifier) -> Audited:
    verdicts: list[list[Verdict | None]] = []
    for start in range(0, len(rows), CHUNK):
        verdicts += verifier.verify([row.solved for row in rows[start : start + CHUNK]])
    problems = [row.solved.solution.problem_id for row in rows]
    labels = [row.label for row in rows]
    spoken = [verdict for one in verdicts for verdict in one]
    tally: Tally | None = getattr(verifier, "tally", None)
    if benchmark == "processbench":
        predictions = [predicted_first_error(one, must_decide=tally is not None) for one in verdicts]
        known = [-1 if label is None else label for label in labels]
        flags = first_error_flags(problems, known, predictions)
        metrics = processbench_metrics(problems, known, predictions)
        outcomes = outcome_check(problems, [one >= 0 for one in known], [one >= 0 for one in predictions])
    else:
        spoken = [one[-1] for one in verdicts]
        flagged = [verdict is not None and verdict.label == "incorrect" for verdict in spoken]
        flags = step_flags(problems, [None if label is None else label < 0 for label in labels], flagged)
        metrics, outcomes = None, None
    seconds = sum(verdict.seconds for one in verdicts for verdict in one if verdict is not None)
    decided = sum(verdict is not None and verdict.label != "unknown" for verdict in spoken)
    return Audited(
        verifier.name,
        verifier.version,
        decided / max(1, len(spoken)),
        seconds / len(rows),
        flags,
        metrics,
        outcomes,
        _cost(tally, len(rows)) if tally else None,
    )


def _cost(tally: Tally, n_solutions: int) -> CriticCost:
    asked = max(1, tally.asked)
    return CriticCost(
        tally.readable / asked,
        tally.again / asked,
        tally.tokens_read / n_solutions,
        tally.tokens_written / n_solutions,
    )


def _processbench_row(row: Row, where: str) -> _Labelled:
    steps, label = row.get("steps"), row.get("label")
    if not _texts(steps) or not isinstance(label, int) or not isinstance(row.get("problem"), str):
        raise StepconfError(
            f"{where}: not a row of ProcessBench: it has the fields {sorted(row)}.",
            "It needs `problem`, `steps` (a list of texts) and `label` (an integer).",
        )
    if not -1 <= label < len(steps):
        raise StepconfError(
            f"{where}: label {label} is no step of {len(steps)}.", "Labels count from 0; -1 is none."
        )
    return _Labelled(_solved(row["problem"], steps), label)


def _prm800k_row(row: Row, where: str) -> _Labelled:
    before, step, rating = row.get("responses"), row.get("next_response"), row.get("rating")
    if not _texts(before) or not isinstance(step, str) or not isinstance(row.get("instruction"), str):
        raise StepconfError(
            f"{where}: not a row of PRM800K: it has the fields {sorted(row)}.",
            "It needs `instruction`, `responses` (a list of texts), `next_response` and `rating`.",
        )
    if rating not in (-1, 0, 1, None):
        raise StepconfError(f"{where}: rating {rating!r}.", "Ratings are -1, 0, 1 or null.")
    begun = _solved(row["instruction"], [*before, step])
    # More would follow: such a solution has no answer yet, and completions may go on from its last step.
    return _Labelled(Solved(replace(begun.solution, finish_reason="length"), begun.steps), rating)


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _solved(problem: str, texts: Iterable[str]) -> Solved:
    parts = [text + SEPARATOR for text in texts]
    text = "".join(parts)
    ends = list(accumulate(len(part) for part in parts))
    solution_id, its_problem = content_id(problem, text), problem_id(problem, None)
    steps = build_steps(solution_id, its_problem, text, list(pairwise([0, *ends])))
    bare = bare_solution(its_problem, problem, None, text)
    solution = replace(bare, solution_id=solution_id, source="audit", engine="imported", n_steps=len(steps))
    return Solved(solution, steps)


def render(report: Audit) -> "Table":
    """The audit as a table for a terminal: a column per verifier; per cent, with 95 % intervals."""
    from rich.table import Table

    answers = f", {report.n_with_answer:,} with a gold answer" if report.n_with_answer else ""
    title = f"{report.benchmark}: {report.n_solutions:,} solutions of {Path(report.file).name}{answers}"
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for one in report.results:
        table.add_column(f"{one.verifier} {one.version}", justify="right")
    bench = [one.processbench for one in report.results if one.processbench is not None]
    flags = [one.flags for one in report.results]
    if bench:
        table.add_row("error accuracy", *(_percent(one.error_accuracy) for one in bench))
        table.add_row("correct accuracy", *(_percent(one.correct_accuracy) for one in bench))
        table.add_row("F1", *(_interval(one.f1_interval) for one in bench))
        balanced = [one.outcomes.balanced_accuracy for one in report.results if one.outcomes]
        table.add_row("balanced accuracy", *map(_interval, balanced), end_section=True)
    table.add_row("precision of flags", *(_interval(one.precision) for one in flags))
    if bench:
        table.add_row("precision, strict", *(_interval(one.strict_precision) for one in flags))
    table.add_row("recall", *(_interval(one.recall) for one in flags))
    table.add_row("false alarms", *(_interval(one.false_alarm_rate) for one in flags), end_section=True)
    table.add_row("coverage of steps", *(_percent(one.coverage) for one in report.results))
    table.add_row("s/solution", *(f"{one.seconds_per_solution:.4f}" for one in report.results))
    costs = [one.critic for one in report.results]
    if any(costs):
        _add_costs(table, costs)
    return table


def _add_costs(table: "Table", costs: Sequence[CriticCost | None]) -> None:
    def row(title: str, shown: Callable[[CriticCost], str]) -> None:
        table.add_row(title, *("" if one is None else shown(one) for one in costs))

    row("readable replies", lambda one: _percent(one.readable))
    row("asked again", lambda one: _percent(one.asked_again))
    row("tokens read/solution", lambda one: f"{one.tokens_read:,.0f}")
    row("tokens written/solution", lambda one: f"{one.tokens_written:,.0f}")


def warnings(report: Audit) -> list[str]:
    """A sentence for each verifier whose errors found may be chance."""
    return [
        f"{one.verifier} tells nothing here: it finds an error in "
        f"{one.outcomes.n_wrong - one.outcomes.wrong_passed:,} of {one.outcomes.n_wrong:,} wrong solutions and in "
        f"{one.outcomes.right_flagged:,} of {one.outcomes.n_right:,} right ones."
        for one in report.results
        if one.outcomes and one.outcomes.tells_nothing
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(value: Interval) -> str:
    if value.low is None or value.high is None:
        return _percent(value.estimate)
    return f"{_percent(value.estimate)} [{_percent(value.low)}, {_percent(value.high)}]"
