"""The tables of `stepconf evaluate`."""

from typing import Any

from rich.table import Table

from stepconf.ui.numbers import interval


def render(report: dict[str, Any]) -> list[Table]:
    """A row per benchmark and strategy, a row per pair of strategies, and what was left out, if anything was."""
    table = Table(title=report["model"], title_justify="left")
    for name in ("benchmark", "strategy"):
        table.add_column(name, overflow="fold")
    for name in ("n", "pass@1", "pass@k", "maj@k", "tokens/question", "s/question", "no answer"):
        table.add_column(name, justify="right")
    for one in report["results"]:
        table.add_row(
            one["benchmark"],
            one["strategy"],
            str(one["questions"]),
            interval(one["pass@1"]),
            _last_pass(one.get("pass@k")),
            _majority(one),
            interval(one["tokens_per_question"], 1),
            f"{one['seconds_per_question']:.2f}",
            str(sum(one["failures"].values())),
        )
    tables = [table]
    if report["comparisons"]:
        tables.append(_paired("paired by problem", report["comparisons"]))
    if report["refused"]:
        tables.append(_refused(report["refused"]))
    return tables


def render_comparison(found: dict[str, Any]) -> Table:
    """A row per benchmark and strategy that two evaluations have in common."""
    of = [f"{found['models'][side]} ({found['folders'][side]})" for side in ("first", "second")]
    return _paired(f"paired by problem\nfirst:  {of[0]}\nsecond: {of[1]}", found["comparisons"])


def _refused(refused: dict[str, dict[str, int]]) -> Table:
    table = Table(title="problems left out", title_justify="left")
    for name in ("benchmark", "reason"):
        table.add_column(name, overflow="fold")
    table.add_column("n", justify="right")
    for benchmark, reasons in refused.items():
        for reason, count in reasons.items():
            table.add_row(benchmark, reason, str(count))
    return table


def _paired(title: str, comparisons: list[dict[str, Any]]) -> Table:
    paired = Table(title=title, title_justify="left")
    for name in ("benchmark", "first - second"):
        paired.add_column(name, overflow="fold")
    for name in ("accuracy difference", "only one right", "McNemar p", "tokens, first/second"):
        paired.add_column(name, justify="right")
    for one in comparisons:
        paired.add_row(
            one["benchmark"],
            f"{one['first']} - {one['second']}",
            interval(one["accuracy_difference"]),
            f"{one['only_first_right']} / {one['only_second_right']} of {one['questions']}",
            f"{one['mcnemar_p']:.3g}",
            interval(one["tokens_ratio"], 2),
        )
    return paired


def _last_pass(passed: dict[str, Any] | None) -> str:
    if not passed:
        return ""
    k, value = max(passed.items(), key=lambda item: int(item[0]))
    return f"@{k} {value['estimate']:.3f}"


def _majority(one: dict[str, Any]) -> str:
    name = next((key for key in one if key.startswith("maj@")), None)
    return f"{name.removeprefix('maj')} {one[name]['estimate']:.3f}" if name else ""
