"""`stepconf report DIR` of what `stepconf train` made: its curves over optimiser steps, by round and stage."""

import re
from math import isfinite
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_object
from stepconf.errors import StepconfError
from stepconf.report.html import OF_TRAINING, page
from stepconf.report.write import Written
from stepconf.run.shards import write_atomically

_POINTS = 1000  # of a curve: more than a screen shows
_SHOWN = (
    *("step", "loss", "reward_chosen", "reward_rejected", "margin", "accuracy"),
    *("entropy_chosen", "entropy_rejected", "temperature"),
)


def is_training(folder: Path) -> bool:
    """Whether `stepconf train` made the folder, with rounds or without."""
    return bool(_trainings(folder))


def write_training(folder: Path, out: Path) -> Written:
    """Write the page.

    Raises:
        StepconfError: a metrics file holds something else, or no step was taken yet.
    """
    parts = [part for name, own in _trainings(folder) for part in _parts(name, own)]
    if not parts:
        raise StepconfError(f"{folder} has no optimiser step yet.", "Type the command that made it again.")
    data = {"name": folder.resolve().name, "notes": [], "training": parts}
    text = page(data, OF_TRAINING).encode()
    write_atomically(out, text)
    return Written(out, len(text), [])


def _trainings(folder: Path) -> list[tuple[str, Path]]:
    """The trainings in a folder by name: its rounds', or its own."""
    if (folder / "state").is_dir():
        return [("", folder)]
    rounds = [(one.name.replace("-", " "), one / "training") for one in _numbered(folder, "round")]
    return [(name, own) for name, own in rounds if (own / "state").exists()]


def _numbered(folder: Path, name: str) -> list[Path]:
    """The folders `name`-1, `name`-2, ... in order; what somebody else calls so (`round-1.bak`) is none."""
    found = {
        one: int(match[1])
        for one in folder.glob(f"{name}-*")
        if (match := re.fullmatch(rf"{name}-(\d+)", one.name, re.ASCII))
    }
    return sorted(found, key=found.__getitem__)


def _parts(name: str, training: Path) -> list[dict[str, Any]]:
    """The curves of each stage of a training."""
    state = training / "state"
    stages = [one / "metrics.jsonl" for one in _numbered(state, "stage")]
    files = [file for file in stages if file.exists()] or [state / "metrics.jsonl"]
    objectives = _objectives(training)
    found = []
    for number, file in enumerate(files):
        steps = _steps(file)
        objective = objectives[number] if number < len(objectives) else ""
        stage = f"stage {number + 1}" if len(files) > 1 else ""
        warm = f"temperature {steps[-1]['temperature']:g}" if steps and "temperature" in steps[-1] else ""
        title = ", ".join(filter(None, (name, stage, objective, warm))) or "training"
        if steps:
            found.append({"title": title, "steps": steps})
    return found


def _objectives(training: Path) -> list[str]:
    """What each stage was optimised for; [] before the training has ended."""
    file = training / "summary.json"
    if not file.exists():
        return []
    try:
        return [str(stage["objective"]) for stage in read_object(file.read_text(encoding="utf-8"))["stages"]]
    except (ValueError, KeyError, TypeError):
        return []  # of an earlier version


def _steps(file: Path) -> list[dict[str, float]]:
    """The metrics of at most `_POINTS` steps, evenly spaced, the last one among them."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    every = -(-len(lines) // _POINTS) or 1
    found = []
    for number in range(len(lines) - 1, -1, -every):
        try:
            line = read_object(lines[number])
        except ValueError as error:
            raise StepconfError(
                f"{file}, line {number + 1} is not JSON of stepconf train: {error}"
            ) from error
        own = {name: line[name] for name in _SHOWN if isinstance(line.get(name), int | float)}
        found.append({name: value for name, value in own.items() if isfinite(value)})
    return found[::-1]
