"""`grpo`: advantages within a problem's samples (arXiv 2402.03300); without the division it is Dr. GRPO's advantage."""

from collections.abc import Sequence
from statistics import mean, stdev

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Sample, Scores, Sides, clipped, divergence
from stepconf.training.objectives.rloo import ONE_OUTCOME

_EPSILON = 1e-4  # as TRL adds it to the deviation


def credit(samples: Sequence[Sample], recipe: TrainRecipe) -> tuple[list[list[float] | None], str]:
    """The same for all steps of a sample: reward minus the group's mean, divided by its standard deviation if asked."""
    rewards = [sample.reward for sample in samples]
    if len(set(rewards)) < 2:
        return [None] * len(samples), ONE_OUTCOME
    scale = stdev(rewards) + _EPSILON if recipe.divide_by_std else 1.0
    return [[(sample.reward - mean(rewards)) / scale] * len(sample.step_rewards) for sample in samples], ""


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """Of each sample, [S]: the mean over its tokens, clipped at the ratio of each token, + kl_weight * divergence."""
    values = clipped(scores.logprobs - sides.sampled, sides.credits, recipe.clip)
    if recipe.kl_weight:
        values = values + recipe.kl_weight * divergence(scores.logprobs, sides.reference)
    rewards = sides.sums(scores.logprobs - sides.reference).detach() * recipe.beta
    return Loss(sides.means(values), sides.means(sides.credits) > 0, rewards)


GRPO = Objective(loss, "groups", credit)
