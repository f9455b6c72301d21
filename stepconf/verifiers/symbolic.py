"""The `symbolic` verifier: the claims inside each step, checked without a model, in workers that can be killed."""

from collections.abc import Sequence

from stepconf.core.claims import check_steps
from stepconf.core.records import Label, Solved, Verdict
from stepconf.core.statements import STATES_NOTHING, states_something
from stepconf.verifiers.base import Verifier
from stepconf.workers.pool import Outcome, Pool

Item = tuple[str, list[str]]  # the problem and the texts of the steps
Found = list[tuple[Label, str]]  # label and reason, one per step


class SymbolicVerifier:
    """Judges every step: `incorrect` where something it states is false, `correct` where all that can be
    checked holds, `unknown` with the reason otherwise: `states nothing`, or nothing that can be checked. It has
    no score: it does not guess.
    """

    name = "symbolic"
    version = "6"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step; `seconds` is the solution's time shared out evenly."""
        items = [(one.solution.problem, [step.text for step in one.steps]) for one in solved]
        outcomes = self.pool.map(_check, items)
        return [
            self._verdicts(outcome, len(texts)) for outcome, (_, texts) in zip(outcomes, items, strict=True)
        ]

    def _verdicts(self, outcome: Outcome[Found], n_steps: int) -> list[Verdict | None]:
        seconds = outcome.seconds / max(1, n_steps)
        found: Found = [("unknown", outcome.failure)] * n_steps if outcome.value is None else outcome.value
        return [Verdict(self.name, self.version, label, None, reason, seconds) for label, reason in found]


SYMBOLIC = Verifier(lambda setup: SymbolicVerifier(setup.pool))


def _check(item: Item) -> Found:
    """Runs in a worker."""
    problem, texts = item
    return [
        (step.label, step.reason if step.label != "unknown" or states_something(text) else STATES_NOTHING)
        for step, text in zip(check_steps(problem, texts), texts, strict=True)
    ]
