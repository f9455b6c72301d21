"""`grpo`: advantages within a problem's samples (arXiv 2402.03300); without the division it is Dr. GRPO's advantage."""

from collections.abc import Sequence
from statistics import mean, stdev

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Sample, Scores, Sides, clipped, divergence
from stepconf.training.objectives.rloo import by_outcome

_EPSILON = 1e-4  # as TRL adds it to the deviation


def credit(samples: Sequence[Sample], recipe: TrainRecipe) -> list[list[float] | str]:
    """Each reward minus the group's mean, divided by its standard deviation if `divide_by_std`."""

    def advantages(rewards: Sequence[float]) -> list[float]:
        scale = stdev(rewards) + _EPSILON if recipe.divide_by_std else 1.0
        return [(reward - mean(rewards)) / scale for reward in rewards]

    return by_outcome(samples, advantages)


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """Of each sample, [S]: the mean over its tokens, clipped at the ratio of each token, + kl_weight * divergence."""
    values = clipped(scores.logprobs - sides.sampled, sides.credits, recipe.clip)
    if recipe.kl_weight:
        values = values + recipe.kl_weight * divergence(scores.logprobs, sides.reference)
    rewards = sides.sums(scores.logprobs - sides.reference).detach() * recipe.beta
    return Loss(sides.means(values), sides.means(sides.credits) > 0, rewards)


GRPO = Objective(loss, "groups", credit)
