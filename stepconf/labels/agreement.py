"""`stepconf verify --report`: a run's verifiers side by side, and the steps on which they differ most."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepconf.core.agreement import Agreement, agreement
from stepconf.core.records import Verdict
from stepconf.run.tables import read_shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

MAX_TEXT = 160  # characters of a step that are shown


def agreement_of(run: Path, n_disagreements: int = 10) -> tuple[Agreement, dict[str, dict[str, Any]]]:
    """The agreement of a run's verifiers, and by id the rows of the steps that it lists."""

    def rows() -> "Iterator[tuple[str, list[Verdict]]]":
        for shard in read_shards(run, "steps", ["step_id", "verdicts"]):
            for row in shard:
                # Without the texts, which would be held in memory for the whole run.
                yield (
                    row["step_id"],
                    [Verdict(**(v | {"reason": "", "reference": None})) for v in row["verdicts"]],
                )

    found = agreement(rows(), n_disagreements)
    wanted = {each.step_id for each in found.disagreements}
    columns = ["step_id", "solution_id", "step_index", "text", "verdicts"]
    shown = {
        row["step_id"]: row
        for shard in (read_shards(run, "steps", columns) if wanted else ())
        for row in shard
        if row["step_id"] in wanted
    }
    return found, shown


def render(found: Agreement, shown: dict[str, dict[str, Any]]) -> "list[Table]":
    """Three tables for a terminal: verifiers, pairs of them, steps."""
    from rich.table import Table

    others = f" ({found.n_others:,} others are not shown)" if found.n_others else ""
    verifiers = Table(title=f"Verifiers{others}", title_justify="left")
    for column in ("verifier", "decides", "incorrect of decided", "unknown", "seconds", "ms/step"):
        verifiers.add_column(column, justify="left" if column == "verifier" else "right")
    for one in found.verifiers:
        per_step = 1000 * one.seconds / max(1, one.n_verdicts)
        verifiers.add_row(
            one.verifier,
            _percent(one.coverage),
            _percent(one.incorrect_rate),
            f"{one.n_unknown:,}",
            f"{one.seconds:,.2f}",
            f"{per_step:,.2f}",
        )
    tables = [verifiers]
    if found.pairs:
        pairs = Table(title="Agreement on the steps that both decide", title_justify="left")
        for column in ("verifiers", "steps", "agree", "kappa", "only first correct", "only second correct"):
            pairs.add_column(column, justify="left" if column == "verifiers" else "right")
        for pair in found.pairs:
            pairs.add_row(
                f"{pair.first}, {pair.second}",
                f"{pair.n_both:,}",
                _percent(pair.agreement),
                "-" if pair.kappa is None else f"{pair.kappa:.3f}",
                f"{pair.only_first_correct:,}",
                f"{pair.only_second_correct:,}",
            )
        tables.append(pairs)
    if found.disagreements:
        steps = Table(title="Steps to look at", title_justify="left")
        for column in ("step", "text", "correct", "incorrect"):
            steps.add_column(column, overflow="fold")
        for each in found.disagreements:
            row = shown[each.step_id]
            reasons = {v["verifier"]: v["reason"] for v in row["verdicts"]}
            wrong = "\n".join(f"{name}: {reasons[name]}".rstrip(": ") for name in each.says_incorrect)
            steps.add_row(
                f"{row['solution_id']}[{row['step_index']}]",
                _short(row["text"]),
                _short(", ".join(each.says_correct)),
                _short(wrong),
            )
        tables.append(steps)
    return tables


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _short(text: str) -> str:
    """One screenful."""
    plain = text.strip()
    return plain if len(plain) <= MAX_TEXT else plain[:MAX_TEXT] + "..."
