"""The tables at the end of a training."""

from pathlib import Path
from typing import Any

from rich.table import Table

from stepconf.ui.console import output, say
from stepconf.ui.numbers import number, reasons


def show_rounds(measured: list[dict[str, Any]], out: Path | str) -> None:
    """The figures of every round on the held-out problems, with intervals."""
    table = Table(
        title=f"Rounds {out}: held-out problems, 95 % intervals over problems", title_justify="left"
    )
    table.add_column("", style="bold")
    for one in measured:
        table.add_column(f"round {one['round']}", justify="right")
    for name in [key for key in measured[0] if key not in ("round", "policy")]:
        cells = [
            "-" if one[name] is None or one[name]["estimate"] is None
            else f"{one[name]['estimate']:.3f}\n[{number(one[name]['low'])}, {number(one[name]['high'])}]"
            for one in measured
        ]  # fmt: skip
        table.add_row(name.replace("_", " "), *cells)
    output.print(table)
    say(f"Files: {out}/rounds.json, {measured[-1]['policy']}")
    last = f"{out}/round-{measured[-1]['round']}/eval"
    say(f"Next:  stepconf calibrate {last} --before {out}/round-0/eval")


def show_training(summary: dict[str, Any], out: Path | str) -> None:
    """The table at the end of a training: on what, how it ended, and what to type next."""
    table = Table(title=f"Training {out}", show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    last = summary["last_step"]
    for stage in summary["stages"]:
        table.add_row(stage["objective"], f"{stage['examples']:,} examples")
        if stage["dropped"]:
            table.add_row("  left out", reasons(stage["dropped"]))
        _add_last_step(table, stage["last_step"])
    table.add_row(
        "speed", f"{last['examples_per_second']:,} examples/s, {last['tokens_per_second']:,} tokens/s"
    )
    output.print(table)
    say(f"Files: {summary['model']}, {out}/summary.json")
    say(f"Next:  stepconf report {out}, stepconf generate --model {summary['model']} ...")


def _add_last_step(table: Table, last: dict[str, Any]) -> None:
    table.add_row("  last step", f"{last['step']:,} of {last['of']:,}: loss {last['loss']:.4f}")
    if "margin" in last:
        rewards = f"chosen {last['reward_chosen']:.3f}, rejected {last['reward_rejected']:.3f}"
        accuracy = f"; accuracy {last['accuracy']:.2f}" if "accuracy" in last else ""
        table.add_row("  rewards", rewards + accuracy)
    sides = [side for side in ("chosen", "rejected") if f"entropy_{side}" in last]
    entropies = ", ".join(f"{side} {last[f'entropy_{side}']:.3f}" for side in sides)
    if "temperature" in last:
        entropies += f", at temperature {last['temperature']:g}"
    table.add_row("  mean entropy, nats", entropies)
