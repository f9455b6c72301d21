"""`pure`: min-form credit (arXiv 2504.15275): what a solution is worth is its worst step, and the credit ends there."""

from collections.abc import Sequence
from math import exp

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Objective, Sample
from stepconf.training.objectives.grpo import loss

NO_LABEL, ALONE = "without a labelled step", "whose group has no other sample with a labelled step"
_TEMPERATURE = 0.1  # of the soft minimum; the paper's


def min_form(rewards: Sequence[float | None]) -> list[float]:
    """What is to be had from each step on: the sum of the later rewards, each weighted by a soft minimum over all.

    At a low temperature that is the least reward up to the worst step, and 0 after it. A step without a reward has no
    weight. At least one reward is known.
    """
    known = [reward for reward in rewards if reward is not None]
    lowest = min(known)
    total = sum(exp((lowest - reward) / _TEMPERATURE) for reward in known)
    found, later = [], 0.0
    for reward in reversed(rewards):
        if reward is not None:
            later += exp((lowest - reward) / _TEMPERATURE) / total * reward
        found.append(later)
    return found[::-1]


def credit(samples: Sequence[Sample], recipe: TrainRecipe) -> list[list[float] | str]:
    """Min-form returns minus the others' mean return, of which each step takes an equal share."""
    returns = [
        min_form(sample.step_rewards) if any(r is not None for r in sample.step_rewards) else None
        for sample in samples
    ]
    wholes = [one[0] for one in returns if one is not None]
    found: list[list[float] | str] = []
    for own in returns:
        if own is None:
            found.append(NO_LABEL)
        elif len(wholes) < 2:
            found.append(ALONE)
        else:
            baseline = (sum(wholes) - own[0]) / (len(wholes) - 1)
            found.append([value - baseline * (len(own) - i) / len(own) for i, value in enumerate(own)])
    return found


PURE = Objective(loss, "groups", credit)
