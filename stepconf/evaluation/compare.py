"""`stepconf evaluate --compare A B`: two evaluations on the same problems, paired: another model, another recipe."""

import json
from pathlib import Path
from typing import Any

from stepconf.calibration import figures
from stepconf.errors import StepconfError
from stepconf.evaluation.evaluate import Cell, compared, figures_of, read_cell, read_kept
from stepconf.run.shards import write_atomically

Place = tuple[str, str]  # benchmark, strategy


def compare(first: Path, second: Path, out: Path | None = None) -> dict[str, Any]:
    """What both folders have answered, by benchmark and strategy: first minus second, problem by problem.

    Where they have no strategy of a benchmark in common and one each, these two are compared. Writes
    OUT/comparison.json and OUT/accuracy-tokens.svg and .png, if OUT is given.

    Raises:
        StepconfError: a folder is not one of `stepconf evaluate`, or nothing in both is of the same problems.
    """
    a, b = _cells(first), _cells(second)
    places = _matched(list(a), list(b))
    both = [(a[mine], b[theirs]) for mine, theirs in places]
    found = [compared(one, other) for one, other in both if _problems(one) & _problems(other)]
    if not found:
        raise StepconfError(
            f"{first} and {second} have no problem of a benchmark and strategy in common: "
            f"{_named(a)} there, {_named(b)} here.",
            "Evaluate both with the same --benchmark, --strategy and --limit.",
        )
    models = {"first": _model(first), "second": _model(second)}
    folders = {"first": str(first), "second": str(second)}
    report = {"folders": folders, "models": models, "comparisons": found}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "comparison.json", json.dumps(report, indent=1).encode())
        shown = [
            _point(cell, side) for one, other in both for cell, side in ((one, "first"), (other, "second"))
        ]
        figures.save(figures.accuracy_against_tokens(shown), out, "accuracy-tokens")
    return report


def _point(cell: Cell, side: str) -> dict[str, Any]:
    return figures_of(cell) | {"strategy": f"{side}: {cell.strategy}"}


def _cells(folder: Path) -> dict[Place, Cell]:
    files = sorted((folder / "answers").glob("*/*.json"))
    if not files or not (folder / "recipe.json").exists():
        raise StepconfError(
            f"{folder} is not a folder of stepconf evaluate (no answers in it).",
            "Make one: stepconf evaluate --benchmark gsm8k --model MODEL --out DIR",
        )
    cells = [read_cell(file) for file in files]
    return {(cell.benchmark, cell.strategy): cell for cell in cells}


def _problems(cell: Cell) -> set[str]:
    return {row["problem_id"] for row in cell.rows}


def _model(folder: Path) -> str:
    return str(read_kept(folder / "recipe.json").get("model", ""))


def _matched(a: list[Place], b: list[Place]) -> list[tuple[Place, Place]]:
    pairs = []
    for benchmark in dict.fromkeys(name for name, _ in a):
        mine, theirs = ([place for place in places if place[0] == benchmark] for places in (a, b))
        same = [(place, place) for place in mine if place in theirs]
        alone = len(mine) == len(theirs) == 1
        pairs += same or ([(mine[0], theirs[0])] if alone else [])
    return pairs


def _named(cells: dict[Place, Cell]) -> str:
    return ", ".join(f"{benchmark} by {strategy}" for benchmark, strategy in cells)
