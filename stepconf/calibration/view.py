"""The tables of `stepconf calibrate`."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from stepconf.core.signals import ENTROPY_MEAN
from stepconf.ui.numbers import interval

_ROWS = (
    ("accuracy", "accuracy"),
    ("mean confidence", "mean_confidence"),
    ("ECE, 10 bins", "ece_10"),
    ("ECE, 15 bins", "ece_15"),
    ("ECE, 10 bins of equal mass", "ece_10_equal_mass"),
    ("MCE, 10 bins", "mce_10"),
    ("Brier score", "brier"),
    ("log loss, nats", "log_loss"),
    ("AUROC", "auroc"),
    ("AUPRC of errors", "auprc_errors"),
    ("AURC (lower is better)", "aurc"),
)
_PARTS = (
    ("  reliability (lower is better)", "reliability"),
    ("  resolution (higher is better)", "resolution"),
    ("  uncertainty (of the data)", "uncertainty"),
)
_POSTHOC = {"as_is": "exp(-entropy) as it is", "isotonic": "isotonic", "platt": "Platt"}


def render(report: dict[str, Any]) -> list[Table | str]:
    """How honest the confidence is, every signal as a ranking, and what post-hoc calibration changes."""
    kinds = [kind for kind in ("steps", "answers") if report[kind]["n"]]
    shown: list[Table | str] = [_honesty(report, kinds)]
    if "change" in report:
        shown += [_change(report, kind) for kind in kinds if report["change"][kind]]
    if report["by_part"]:
        shown.append(_by_part(report["by_part"]))
    for kind in kinds:
        shown += [_signals(report[kind], kind), _protocols(report[kind], kind)]
        if report[kind]["signals_without_value"]:
            shown.append(f"No value on any of the {kind}: {', '.join(report[kind]['signals_without_value'])}")
        shown += [
            f"{name} has no value on {one['without_value']:,} {kind}: {one['why'] or 'null in the run'}"
            for name, one in report[kind]["signals"].items()
            if one["without_value"]
        ]
    if report["settings"]["top_k"] is None:
        shown.append("The entropy of the likeliest tokens alone, as others compute it: --top-k 20.")
    shown += [_posthoc(report[kind]["posthoc"], kind) for kind in kinds if report[kind]["posthoc"]]
    if "fit" in report:
        shown += _fit(report["fit"])
    return shown


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _honesty(report: dict[str, Any], kinds: list[str]) -> Table:
    heads = [
        f"{kind}\n{report[kind]['n']:,} of {report[kind]['problems']:,} problems; "
        f"{report[kind]['left_out']:,} undecided"
        for kind in kinds
    ]
    title = f"{report['run']}: confidence exp(-mean entropy), 95 % intervals over problems"
    table = _table(title, "", heads)
    for name, key in _ROWS:
        table.add_row(name, *(interval(report[kind][key]) for kind in kinds))
        if key == "brier":
            for name, part in _PARTS:
                table.add_row(name, *(_number(report[kind]["brier_decomposition"][part]) for kind in kinds))
    entropies = [report[kind]["entropy"] for kind in kinds]
    for name, key in (("correct", "mean_correct"), ("incorrect", "mean_incorrect")):
        table.add_row(f"mean entropy of {name}, nats", *(_number(one[key]) for one in entropies))
    table.add_row("gap, nats", *(interval(one["gap"]) for one in entropies))
    table.add_row("gap, Hedges' g", *(interval(one["hedges_g"]) for one in entropies))
    return table


def _by_part(found: dict[str, Any]) -> Table:
    heads = [f"{part}\n{one['n']:,} of {one['problems']:,} problems" for part, one in found.items()]
    table = _table("steps of the thinking and of the answer", "", heads)
    for name, key in _ROWS:
        if all(key in one for one in found.values()):
            table.add_row(name, *(interval(one[key]) for one in found.values()))
    return table


def _change(report: dict[str, Any], kind: str) -> Table:
    table = _table(
        f"{kind}: before is {report['before']['run']}", "", ("before", "after", "after - before, paired")
    )
    before, after, changed = report["before"][kind], report[kind], report["change"][kind]
    for name, key in _ROWS:
        if key in changed:
            table.add_row(name, _number(before[key]["estimate"]), _number(after[key]["estimate"]),
                          interval(changed[key]))  # fmt: skip
    gaps = [_number(one["entropy"]["gap"]["estimate"]) for one in (before, after)]
    table.add_row("entropy gap, nats", *gaps, interval(changed["entropy_gap"]))
    return table


def _signals(found: dict[str, Any], kind: str) -> Table:
    heads = ("AUROC", "minus entropy's", "AUROC, equal lengths", "AUPRC of errors", "AURC")
    table = _table(f"{kind}: signals as rankings", "signal", heads)
    for name, one in found["signals"].items():
        table.add_row(
            name,
            interval(one["auroc"]),
            "" if name == ENTROPY_MEAN.name else interval(one["auroc_minus_entropy"]),
            interval(one["length_controlled_auroc"]),
            _number(one["auprc_errors"]),
            _number(one["aurc"]),
        )
    return table


def _protocols(found: dict[str, Any], kind: str) -> Table:
    """AUROC of each signal by protocol; a head has the problems with a pair that counts."""
    columns = [
        ("pooled", "pooled"),
        ("within", "within problems"),
        ("equal", "equal length\nand position" if kind == "steps" else "equal length"),
    ]
    if kind == "steps":
        columns.append(("up_to_error", "within, up to\nthe first error"))
        columns.append(("first_error_rank", "rank of the\nfirst error"))
    by_name = found["protocols"]
    heads = []
    for key, head in columns:
        most = max((one[key]["informative"] for one in by_name.values() if key in one), default=0)
        heads.append(f"{head}\n{most:,} problems")
    table = _table(
        f"{kind}: AUROC by protocol, direction fixed", "signal", [*heads, "within, labels\nshuffled"]
    )
    for name, one in by_name.items():
        null = one["null"]
        shuffled = f"{_number(null['mean'])} [{_number(null['low'])}, {_number(null['high'])}]"
        table.add_row(name, *(interval(one[key]) if key in one else "-" for key, _ in columns), shuffled)
    return table


def _fit(document: dict[str, Any]) -> list[Table | str]:
    shown: list[Table | str] = []
    for kind in ("steps", "answers"):
        if document[kind] is None:
            shown.append(f"No confidence is fitted for {kind}: {document['not_fitted'].get(kind, '')}")
            continue
        held = document[kind]["held_out"]
        title = (
            f"{kind}: fitted confidence, measured on problems not fitted on "
            f"({held['folds']} folds of {document[kind]['problems']:,} problems)"
        )
        heads = ("ECE, 10 bins", "Brier score", "AUROC", "AUROC within problems")
        table = _table(title, "", heads)
        for key, name in (("as_is", "exp(-entropy) as it is"), ("fitted", "fitted")):
            table.add_row(
                name, *(interval(held[key][one]) for one in ("ece_10", "brier", "auroc", "auroc_within"))
            )
        shown.append(table)
        weights = zip(document[kind]["signals"], document[kind]["coefficients"], strict=True)
        ordered = sorted(weights, key=lambda pair: -abs(pair[1]))
        shown.append("Weights: " + ", ".join(f"{name} {weight:+.2f}" for name, weight in ordered))
    return shown


def _posthoc(found: dict[str, Any], kind: str) -> Table:
    title = (
        f"{kind}: fitted on {found['problems_fitted']:,} problems, measured on "
        f"{found['problems_measured']:,} others"
    )
    table = _table(title, "", ("ECE, 10 bins", "Brier score", "log loss"))
    for key, name in _POSTHOC.items():
        table.add_row(name, *(interval(value) for value in found[key].values()))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
