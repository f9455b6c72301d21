"""Results kept as they come, in a file beside the one that they are for: a command that was ended goes on from there.

ANSWERS.part.jsonl   the first line says what decides the results; then a line a result, with the clock after it

A file of other settings is written anew. A line that was torn is left out, with those after it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from stepconf.calibration.fitted import confidence_digest
from stepconf.core.documents import read_object
from stepconf.core.records import Problem
from stepconf.engines.guard import CRASHED
from stepconf.inference.base import Result, Sample, Spent, StepScore
from stepconf.inference.run import Clock
from stepconf.recipe import Recipe, identity


def decisive(recipe: Recipe) -> dict[str, Any]:
    """What decides the answers but for the strategy, as plain values."""
    infer = recipe.infer.model_dump(mode="json", exclude={"strategy"})
    mine = {key: value for key, value in identity(recipe).items() if key != "verify"}
    return mine | {"infer": infer} | confidence_digest(recipe)


class Part:
    """The results of a command so far, those of an earlier one with the same settings among them.

    Args:
        target: the file that they are for; None keeps them in memory alone.
        settings: what decides them, as plain values of JSON.

    Attributes:
        found: the results by the id of the problem.
        clock: where the time of all these commands went.
    """

    def __init__(self, target: Path | None = None, settings: dict[str, Any] | None = None) -> None:
        self.found: dict[str, Result] = {}
        self.clock = Clock()
        self._file = None if target is None else target.with_name(f"{target.stem}.part.jsonl")
        self._settings = settings or {}
        self._whole = 0  # bytes of the file that are of these settings
        self._out: BinaryIO | None = None
        if self._file is not None and self._file.exists():
            self._read(self._file)

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._out is not None:
            self._out.close()

    def divide(self, problems: Sequence[Problem]) -> tuple[list[Result], list[Problem]]:
        """The results that are there, and the problems that have none."""
        missing = [problem for problem in problems if problem.problem_id not in self.found]
        return [self.found[one.problem_id] for one in problems if one.problem_id in self.found], missing

    def keep(self, result: Result) -> None:
        """Keep a result; of a question that crashed the engine not in the file: it is asked again."""
        self.found[result.key] = result
        if self._file is None or result.failure.startswith(CRASHED):
            return
        if self._out is None:
            self._out = self._begun(self._file)
        self._out.write(_line({"result": asdict(result), "clock": asdict(self.clock)}))
        self._out.flush()

    def remove(self) -> None:
        """Remove the file: all is where it belongs."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _begun(self, file: Path) -> BinaryIO:
        out = file.open("r+b" if self._whole else "wb")
        out.truncate(self._whole)
        out.seek(self._whole)
        if not self._whole:
            out.write(_line(self._settings))
        return out

    def _read(self, file: Path) -> None:
        with file.open("rb") as lines:
            try:
                if read_object(_unbroken(first := next(lines, b""))) != self._settings:
                    return
                self._whole = len(first)
                for line in lines:
                    kept = read_object(_unbroken(line))
                    result, clock = _result(kept["result"]), Clock(**kept["clock"])
                    self.found[result.key], self.clock = result, clock
                    self._whole += len(line)
            except (ValueError, TypeError, KeyError):
                return


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _unbroken(line: bytes) -> bytes:
    """The line; raises ValueError where its end was not written."""
    if not line.endswith(b"\n"):
        raise ValueError("torn")
    return line


def _result(fields: dict[str, Any]) -> Result:
    parts = {
        "steps": [StepScore(**one) for one in fields["steps"]],
        "samples": [Sample(**one) for one in fields["samples"]],
        "spent": Spent(**fields["spent"]),
    }
    return Result(**(fields | parts))
