"""A small run, hit by a fault at a random moment and then continued: its rows are those of an undisturbed one.

A number names a case: the fault in turn, everything else by a generator seeded with it.
"""

import fcntl
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forked import Forked, forked
from tests.test_resume import Undisturbed, check_clean, command, without_seconds

_DRAW = "stepconf.engines.transformers._draw"
_POINTS = ("os.replace", "os.fsync", _DRAW)


class Case:
    """One run and what happens to it; `story` says so."""

    def __init__(self, number: int, problems: Path, folder: Path, whole: Undisturbed) -> None:
        self.draws = random.Random(number)
        self.kind = list(FAULTS)[number % len(FAULTS)]
        self.out, self.scratch, self.whole = folder / "run", folder, whole
        self.arguments = command(problems, self.out)
        self.story = f"case {number}: {self.kind}"
        self.resume_with: list[str] = []

    def check(self) -> None:
        """Let the fault happen, continue, and compare."""
        FAULTS[self.kind](self)
        again = self.run(self.resume_with)
        assert again.code == 0, f"{self.story}: {again.err}"
        assert without_seconds(self.out) == self.whole.rows, self.story
        check_clean(self.out)
        assert json.loads((self.out / "metrics.json").read_text())["state"] == "finished", self.story

    def run(self, more: list[str] | None = None, **how: Any) -> Forked:
        return forked([*self.arguments, *(more or [])], self.scratch, **how)

    def moment(self, points: tuple[str, ...] = _POINTS) -> tuple[str, int, str]:
        """A call at which something happens."""
        point = self.draws.choice(points)
        at = (
            point,
            self.draws.randint(1, self.whole.ended.calls[point]),
            self.draws.choice(("before", "after")),
        )
        self.story += f", {at[2]} call {at[1]} of {at[0]}"
        return at

    def expect(self, ended: Forked, code: int, said: str = "") -> None:
        assert ended.code == code and said in ended.err, f"{self.story}: {ended}"
        assert "Traceback" not in ended.err, f"{self.story}: {ended}"


def _killed(case: Case) -> None:
    case.expect(case.run(at=case.moment()), -signal.SIGKILL)


def _terminated(case: Case) -> None:
    case.expect(case.run(at=case.moment(), sent=signal.SIGTERM), 143, "terminated")


def _interrupted(case: Case) -> None:
    case.expect(case.run(at=case.moment(), sent=signal.SIGINT), 130, "interrupted")


def _disk_full(case: Case) -> None:
    if case.draws.random() < 0.5:
        case.expect(case.run(at=case.moment(("os.fsync",)), raising="no space"), 1, "No space left")
        return
    largest = max(file.stat().st_size for file in case.whole.out.rglob("*.parquet"))
    limit = case.draws.randint(3000, largest - 1)  # what it says must fit, too
    case.story += f", files of at most {limit} bytes"
    case.expect(case.run(file_bytes=limit), 1, "committed is kept")


def _read_only(case: Case) -> None:
    _killed(case)
    if not case.out.exists():
        return
    modes = {path: path.stat().st_mode for path in (case.out, *case.out.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o7555)
    case.expect(case.run(obey_modes=True), 1, "Permission denied")
    for path, mode in modes.items():
        path.chmod(mode)


def _damaged(case: Case) -> None:
    if case.draws.random() < 0.5:
        _killed(case)
    else:
        case.expect(case.run(), 0)
    files = sorted([*case.out.glob("*/*.parquet"), *case.out.glob("manifests/*.json")])
    committed = {file.stem for file in case.out.glob("manifests/*.json")}
    files = [file for file in files if file.stem.removeprefix("part-") in committed]
    if not files:
        return
    file, how = case.draws.choice(files), case.draws.choice(list(DAMAGES))
    case.story += f", {how}: {file.relative_to(case.out)}"
    DAMAGES[how](file, case.draws)
    case.resume_with = ["--repair"]


def _second_process(case: Case) -> None:
    _killed(case)
    if not (case.out / ".lock").exists():
        return
    with (case.out / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        case.expect(case.run(), 1, "another process is writing")


def _goes_on(raising: str) -> Callable[[Case], None]:
    """A fault that a run outlives by itself: checked before it is run again."""

    def happen(case: Case) -> None:
        points = _POINTS if raising == "clock" else (_DRAW,)
        case.expect(case.run(at=case.moment(points), raising=raising), 0)
        assert without_seconds(case.out) == case.whole.rows, case.story

    return happen


FAULTS: dict[str, Callable[[Case], None]] = {
    "SIGKILL": _killed,
    "SIGTERM": _terminated,
    "Ctrl-C": _interrupted,
    "disk full": _disk_full,
    "read-only folder": _read_only,
    "damaged file": _damaged,
    "second process": _second_process,
    "engine crash": _goes_on("crash"),
    "out of memory": _goes_on("out of memory"),
    "clock set back": _goes_on("clock"),
}


def truncate(file: Path, draws: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: draws.randrange(len(data))])


def flip(file: Path, draws: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
    file.write_bytes(data)


def remove(file: Path, draws: random.Random) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "a bit flipped": flip,
    "removed": remove,
}
