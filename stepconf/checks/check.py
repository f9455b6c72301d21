"""`stepconf check RUN`: is the run what it says, and fit to be published?

One pass over the shards, in order: a part's two are read, checked as columns, and let go (`check_chunk`). What
is kept over all chunks is 8 bytes for each id and about 300 for each distinct problem.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepconf.checks.chunk import Looked, hashed, look
from stepconf.core.checks.columns import IDS
from stepconf.core.checks.findings import Finding, Findings, worst
from stepconf.core.checks.problems import ProblemChecks
from stepconf.core.checks.secrets import finds
from stepconf.core.checks.steps import numbers
from stepconf.run.events import Tick
from stepconf.run.files import check_files, missing_parts, stale_summary
from stepconf.run.parquet import parquet_file
from stepconf.run.parts import PAIRS, parts_of
from stepconf.run.tables import check_is_run
from stepconf.workers.ahead import ahead

_FEW_DECIDED = 100  # steps below which the balance of classes says nothing
_RARE = 0.02


class Report(NamedTuple):
    """What was found, and what was counted on the way."""

    findings: list[Finding]
    facts: dict[str, Any]

    @property
    def ok(self) -> bool:
        """No errors; warnings do not count."""
        return worst(self.findings) != "error"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"ok": self.ok, "findings": [f.to_dict() for f in self.findings], "facts": self.facts}


def check(run: Path, against: dict[str, list[str]], partial: bool, tick: Tick) -> Report:
    """Check a run.

    Args:
        run: its folder.
        against: texts of problems that must not be among the run's, by the name of their set.
        partial: an unfinished run is no finding.
        tick: progress, in shards.

    Raises:
        StepconfError: the folder is not a run.
    """
    check_is_run(run)
    found = Findings()
    manifests = check_files(run, found)
    if not partial:
        found.add("incomplete", *missing_parts(run))
    if stale := stale_summary(run, manifests):
        found.add("summary", stale)
    state = _State(run, found, ProblemChecks(against))
    tick("check", -sum(len(manifest["files"]) for manifest in manifests))
    # Pairs speak of solutions: first all solutions, then the pairs.
    for looked in ahead(lambda shards: look(run, shards), [*_chunks(manifests), *_pairs(manifests)]):
        state.take(looked)
        tick("check", looked.n_shards)
    state.finish()
    _scan_files(run, found)
    return Report(found.all(), state.facts())


def _chunks(manifests: list[dict[str, Any]]) -> Iterator[list[tuple[str, int]]]:
    """The shards that lie side by side, by name, with their rows."""
    for manifest in manifests:
        if manifest["chunk"] != PAIRS:
            for part in parts_of(manifest):
                yield [(name, manifest["files"][name]["rows"]) for name in (part.solutions, part.steps)]


def _pairs(manifests: list[dict[str, Any]]) -> Iterator[list[tuple[str, int]]]:
    for manifest in manifests:
        if manifest["chunk"] == PAIRS:
            yield from ([(name, facts["rows"])] for name, facts in manifest["files"].items())


class _State:
    """What is known across chunks. Ids are kept as 64-bit hashes."""

    def __init__(self, run: Path, found: Findings, problems: ProblemChecks) -> None:
        self.run, self.found, self.problems = run, found, problems
        self.ids: dict[str, list[np.ndarray]] = {table: [] for table in IDS}
        self.n_steps: list[np.ndarray] = []
        self.problem_of: list[np.ndarray] = []
        self.labels: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.verdicts = 0
        self._solutions: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def take(self, looked: Looked) -> None:
        """What was found in a chunk, or in a shard of pairs."""
        self.found.take(looked.found)
        self.rows.update(looked.rows)
        self.labels.update(looked.labels)
        self.verdicts += looked.n_verdicts
        for table, ids in looked.ids.items():
            self.ids[table].append(ids)
        if "solutions" in looked.later:
            self._take_solutions(looked.later["solutions"])
        if "pairs" in looked.later:
            self._check_pairs(looked.later["pairs"])

    def _take_solutions(self, rows: Any) -> None:
        self.n_steps.append(numbers(rows["n_steps"]))
        self.problem_of.append(hashed(rows["problem_id"]))
        self.problems.add(rows, self.problem_of[-1], self.found)

    def _check_pairs(self, rows: Any) -> None:
        if self._solutions is None:
            ids, order = np.unique(_joined(self.ids["solutions"]), return_index=True)
            n_steps, problem = (
                np.concatenate(all_ or [np.zeros(0, np.uint64)]) for all_ in (self.n_steps, self.problem_of)
            )
            self._solutions = ids, n_steps[order], problem[order]
        ids, n_steps, problem = self._solutions
        wanted = hashed(rows["solution_id"])
        at = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
        known = ids[at] == wanted if len(ids) else np.zeros(len(wanted), bool)
        step = numbers(rows["step_index"])
        orphan = ~known
        orphan[known] |= (step[known] < 0) | (step[known] >= n_steps[at[known]])
        self.found.add_rows("orphan-pair", orphan, rows["pair_id"])
        foreign = known.copy()
        foreign[known] = problem[at[known]] != hashed(rows["problem_id"])[known]
        self.found.add_rows("foreign-problem", foreign, rows["pair_id"])

    def finish(self) -> None:
        """What can be said only once all chunks were seen."""
        self.problems.finish(self.found)
        for table, ids in self.ids.items():
            all_ids = np.sort(_joined(ids))
            twice = np.unique(all_ids[1:][all_ids[1:] == all_ids[:-1]])
            if len(twice):
                self._name_duplicates(table, twice)
        decided = self.labels["correct"] + self.labels["incorrect"]
        rare = min(self.labels["correct"], self.labels["incorrect"])
        if decided >= _FEW_DECIDED and rare < _RARE * decided:
            self.found.add("balance", f"{rare:,} of {decided:,} decided steps are of the rarer class")
        elif self.verdicts and not decided:
            self.found.add("balance", f"none of {self.rows['steps']:,} steps is decided")

    def _name_duplicates(self, table: str, twice: np.ndarray) -> None:
        """Read the ids again, to say which and where; only when there is something to say."""
        seen: Counter[str] = Counter()
        for name, ids in _columns(self.run, table, IDS[table]):
            for row in np.flatnonzero(np.isin(hashed(ids), twice)):
                key = ids[int(row)].as_py()
                seen[key] += 1
                if seen[key] > 1:
                    self.found.add("duplicate-id", f"{IDS[table]} {key} again in {name}")

    def facts(self) -> dict[str, Any]:
        """Counts, for the reader."""
        return {
            "rows": dict(self.rows),
            "labels": dict(sorted(self.labels.items())),
            **self.problems.facts(),
        }


def load_against(names: list[str]) -> dict[str, list[str]]:
    """The problems' texts of each named set or file.

    Raises:
        StepconfError: one of them cannot be read.
    """
    from stepconf.problems.load import load_problems
    from stepconf.recipe import ProblemsRecipe

    found = {name: load_problems(name, ProblemsRecipe(), require_gold=False) for name in names}
    return {name: [problem.text for problem in loaded.problems] for name, loaded in found.items()}


def render(report: Report, run: Path | str) -> list[Any]:
    """The table of findings, and lines below it, for a person."""
    from rich.table import Table

    from stepconf.ui.console import styled

    facts = report.facts
    rows = ", ".join(f"{n:,} {table}" for table, n in facts["rows"].items()) or "no rows"
    labels = ", ".join(f"{n:,} {label}" for label, n in facts["labels"].items()) or "none"
    lines: list[Any] = [f"{rows} of {facts['problems']:,} problems. Step labels: {labels}."]
    if facts["repeated_samples"]:
        lines.append(f"{facts['repeated_samples']:,} solutions repeat another sample word for word.")
    lines += [
        f"{name}: {leak['problems']:,} problems of the run in it." for name, leak in facts["leaks"].items()
    ]
    if report.findings:
        table = Table(title=f"Check of {run}", title_justify="left")
        for column in ("", "check", "count"):
            table.add_column(column, justify="right" if column == "count" else "left")
        table.add_column("what, and the first of them", overflow="fold")
        for one in report.findings:
            examples = "".join(f"\n  {example}" for example in one.examples)
            severity = styled((one.severity, "red" if one.severity == "error" else "yellow"))
            what = styled((one.meaning, ""), (examples, "dim"))
            table.add_row(severity, one.check, f"{one.count:,}", what)
        lines.append(table)
    if any(one.check == "manifest" or one.check.startswith("shard-") for one in report.findings):
        lines.append("Damaged chunks: the command that made the run makes them again with --repair.")
    errors = sum(one.severity == "error" for one in report.findings)
    warnings = len(report.findings) - errors
    lines.append(
        f"{errors} kinds of errors, {warnings} of warnings." if report.findings else "Nothing found."
    )
    return lines


def _columns(run: Path, table: str, column: str) -> Iterator[tuple[str, Any]]:
    for file in sorted((run / table).glob("*.parquet")):
        with parquet_file(file) as shard:
            rows = shard.read([column])
        yield f"{table}/{file.name}", rows[column]


def _scan_files(run: Path, found: Findings) -> None:
    """The recipe and what else goes along when the run is published."""
    for name in ("recipe.yaml", "summary.json", "source.json"):
        if (run / name).exists():
            for check_name, what in finds((run / name).read_text(encoding="utf-8", errors="replace")):
                found.add(check_name, f"{name}: {what}")


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)
