"""`stepconf audit`: verifiers against people's step labels, on ProcessBench or PRM800K files."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from stepconf.core.audit import (
    FlagMetrics,
    ProcessBenchMetrics,
    first_error_flags,
    predicted_first_error,
    processbench_metrics,
    step_flags,
)
from stepconf.core.bootstrap import Interval
from stepconf.core.ids import content_id, problem_id
from stepconf.core.records import Solved, Verdict, bare_solution
from stepconf.core.steps import build_steps
from stepconf.errors import StepconfError
from stepconf.problems.files import Row, file_kind, json_rows
from stepconf.verifiers.base import Verifier

if TYPE_CHECKING:
    from rich.table import Table

Benchmark = Literal["processbench", "prm800k"]
SEPARATOR = "\n\n"  # between steps; it ends the step before it, so that the steps partition the text
CHUNK = 64  # solutions per call of a verifier


@dataclass(frozen=True, slots=True)
class Audited:
    """What one verifier came out with. `coverage`: share of the steps on which it decided."""

    verifier: str
    version: str
    coverage: float
    seconds_per_solution: float
    flags: FlagMetrics
    processbench: ProcessBenchMetrics | None  # None on PRM800K


@dataclass(frozen=True, slots=True)
class Audit:
    """Every verifier on one file; `to_dict` is what `--json` prints."""

    benchmark: Benchmark
    file: str
    n_solutions: int
    results: list[Audited]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A solution and its label: index of the first wrong step or -1; in PRM800K the last step's rating."""

    solved: Solved
    label: int | None


def audit(benchmark: Benchmark, path: Path, verifiers: Sequence[Verifier]) -> Audit:
    """Run each verifier over the file and compare it with the labels.

    Args:
        benchmark: which kind of file it is.
        path: JSON lines, plain or gzipped.
        verifiers: each is reported on its own.

    Raises:
        StepconfError: the file cannot be read, a row lacks a field, or there is no row.
    """
    read = _processbench_row if benchmark == "processbench" else _prm800k_row
    rows = [read(row, f"{path}: row {i + 1}") for i, row in enumerate(json_rows(path, _kind(path)))]
    if not rows:
        raise StepconfError(f"{path}: no rows.", "Give a file of ProcessBench or of PRM800K.")
    results = [_audited(benchmark, rows, verifier) for verifier in verifiers]
    return Audit(benchmark, str(path), len(rows), results)


def _kind(path: Path) -> Literal["jsonl", "json"]:
    kind = file_kind(path)
    if kind == "parquet":
        raise StepconfError(
            f"{path}: is Parquet.", "Give the JSON lines of the benchmark (.jsonl, .jsonl.gz)."
        )
    return kind


def _audited(benchmark: Benchmark, rows: Sequence[_Labelled], verifier: Verifier) -> Audited:
    verdicts: list[list[Verdict | None]] = []
    for start in range(0, len(rows), CHUNK):
        verdicts += verifier.verify([row.solved for row in rows[start : start + CHUNK]])
    problems = [row.solved.solution.problem_id for row in rows]
    labels = [row.label for row in rows]
    spoken = [verdict for one in verdicts for verdict in one]
    if benchmark == "processbench":
        predictions = [predicted_first_error(one) for one in verdicts]
        known = [-1 if label is None else label for label in labels]
        flags = first_error_flags(problems, known, predictions)
        metrics = processbench_metrics(known, predictions)
    else:
        spoken = [one[-1] for one in verdicts]
        flagged = [verdict is not None and verdict.label == "incorrect" for verdict in spoken]
        flags = step_flags(problems, [None if label is None else label < 0 for label in labels], flagged)
        metrics = None
    seconds = sum(verdict.seconds for one in verdicts for verdict in one if verdict is not None)
    decided = sum(verdict is not None and verdict.label != "unknown" for verdict in spoken)
    return Audited(
        verifier.name, verifier.version, decided / max(1, len(spoken)), seconds / len(rows), flags, metrics
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
    return _Labelled(_solved(row["instruction"], [*before, step]), rating)


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

    table = Table(title=f"{report.benchmark}: {report.n_solutions:,} solutions of {Path(report.file).name}")
    table.add_column("", no_wrap=True)
    for one in report.results:
        table.add_column(f"{one.verifier} {one.version}", justify="right")
    bench = [one.processbench for one in report.results if one.processbench is not None]
    flags = [one.flags for one in report.results]
    if bench:
        table.add_row("error accuracy", *(_percent(one.error_accuracy) for one in bench))
        table.add_row("correct accuracy", *(_percent(one.correct_accuracy) for one in bench))
        table.add_row("F1", *(_percent(one.f1) for one in bench), end_section=True)
    table.add_row("precision of flags", *(_interval(one.precision) for one in flags))
    if bench:
        table.add_row("precision, strict", *(_interval(one.strict_precision) for one in flags))
    table.add_row("recall", *(_interval(one.recall) for one in flags))
    table.add_row("false alarms", *(_interval(one.false_alarm_rate) for one in flags), end_section=True)
    table.add_row("coverage of steps", *(_percent(one.coverage) for one in report.results))
    table.add_row("s/solution", *(f"{one.seconds_per_solution:.4f}" for one in report.results))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(value: Interval) -> str:
    if value.low is None or value.high is None:
        return _percent(value.estimate)
    return f"{_percent(value.estimate)} [{_percent(value.low)}, {_percent(value.high)}]"
