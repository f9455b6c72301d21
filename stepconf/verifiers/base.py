"""What every verifier looks like."""

from collections.abc import Sequence
from typing import Protocol

from stepconf.core.records import Solved, Verdict


class Verifier(Protocol):
    """Judges steps. Stateless between calls; may be called from any thread.

    `name` and `version` go into every verdict. `verify` returns, for `solved[i]`, one entry per step: a
    verdict, or None where this verifier has nothing to say about that step. It never raises because of what
    a solution contains: what it cannot decide is a verdict `unknown` with the reason.
    """

    name: str
    version: str

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one entry per step."""
        ...
