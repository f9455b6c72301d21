"""A verifier out of a function of the problem's text and the texts of the steps.

    def units(problem, steps):
        return [False if "kg + m" in step else None for step in steps]

For each step it gives True (correct), False (incorrect), None (it says nothing), or a pair of these and a reason.
"""

import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

from stepconf.core.records import Label, Solved, Verdict
from stepconf.verifiers.base import Setup, Verifier

Judgement = bool | None | tuple[bool | None, str]
Function = Callable[[str, list[str]], Sequence[Judgement]]
_LABELS: dict[bool | None, Label] = {True: "correct", False: "incorrect", None: "unknown"}


def verifier_of(name: str, function: Function) -> Verifier:
    """The function as a verifier of that name. Its attribute `version`, or else its source, is the version."""

    def opened(setup: Setup) -> FunctionVerifier:
        return FunctionVerifier(name, function)

    return Verifier(opened)


class FunctionVerifier:
    """Calls the function once for each solution; where it raises, all steps are `unknown` with the error."""

    def __init__(self, name: str, function: Function) -> None:
        self.name, self._function = name, function
        self.version = str(getattr(function, "version", "") or _digest(function))

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one entry per step; None where the function says nothing."""
        return [self._verdicts(one) for one in solved]

    def _verdicts(self, one: Solved) -> list[Verdict | None]:
        steps = [step.text for step in one.steps]
        started = time.perf_counter()
        try:
            found = list(self._function(one.solution.problem, steps))
            if len(found) != len(steps):
                raise ValueError(f"{len(found)} judgements of {len(steps)} steps")
            pairs = [judgement if isinstance(judgement, tuple) else (judgement, "") for judgement in found]
            judged = [(_LABELS[label], str(reason)) for label, reason in pairs]
        except Exception as error:  # noqa: BLE001  it costs its own verdicts alone
            failure = f"{self.name} raised {type(error).__name__}: {error}"
            judged = [("unknown", failure[:500])] * len(steps)
        seconds = (time.perf_counter() - started) / max(1, len(steps))
        return [self._verdict(label, reason, seconds) for label, reason in judged]

    def _verdict(self, label: Label, reason: str, seconds: float) -> Verdict | None:
        if label == "unknown" and not reason:
            return None
        score = None if label == "unknown" else float(label == "correct")
        return Verdict(self.name, self.version, label, score, reason, seconds)


def _digest(function: Any) -> str:
    """Another source is another version; where it cannot be read, the version is 0."""
    try:
        return "source-" + hashlib.blake2b(inspect.getsource(function).encode(), digest_size=4).hexdigest()
    except (OSError, TypeError):
        return "0"
