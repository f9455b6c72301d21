"""What every verifier looks like: a record that says how it is opened, and what it is then."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stepconf.core.records import Solved, Verdict
from stepconf.engines.base import Engine
from stepconf.recipe import Recipe
from stepconf.workers.pool import Pool


class OpenVerifier(Protocol):
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


@dataclass(frozen=True, slots=True)
class Setup:
    """What a verifier is opened with.

    Args:
        recipe: the whole recipe.
        pool: workers that can be killed.
        engine: the recipe's model where it is loaded already, else None.
        stack: closes, after the run, what is entered into it.
        open_engine: loads the model of a recipe.
    """

    recipe: Recipe
    pool: Pool
    engine: Engine | None
    stack: ExitStack
    open_engine: Callable[[Recipe], Engine]


def shown_model(model: str) -> str:
    """A model's name in a version: a path of this machine means nothing elsewhere."""
    return Path(model).name if Path(model).is_dir() else model


def _never(recipe: Recipe) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Verifier:
    """A kind of verifier, by name in `kinds.VERIFIERS`.

    Args:
        open: makes it ready; raises StepconfError where it cannot be. None: its verdicts come with the branches.
        runs_model: it runs a model: one thread calls it at a time, and it judges samples alone, since branches
            are many.
        shares_engine: whether, as the recipe has it, it runs the recipe's own model: sampling pauses meanwhile.
        waits: whether it loads a model of its own, and only once the recipe's is closed.
    """

    open: Callable[[Setup], OpenVerifier] | None
    runs_model: bool = False
    shares_engine: Callable[[Recipe], bool] = _never
    waits: Callable[[Recipe], bool] = _never


ROLLOUT = Verifier(None)
