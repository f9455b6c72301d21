"""`step-kto`: single judged steps, no pairs (Kahneman-Tversky optimisation, arXiv 2402.01306; steps: 2501.10799)."""

import torch

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Scores, Sides


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """Of each step, [S]: 1 - sigmoid(reward) where it is right, 1 - sigmoid(-reward) where it is wrong.

    The reference point is 0, as in TRL's `apo_zero_unpaired`: KTO's own is an estimate over a batch of other prompts'
    completions, which would make a pair's loss depend on how the batch is packed.
    """
    rewards = recipe.beta * sides.sums(scores.logprobs - sides.reference)
    right = sides.means(sides.credits) > 0
    values = 1 - torch.sigmoid(torch.where(right, rewards, -rewards))
    return Loss(values, right, rewards.detach())


STEP_KTO = Objective(loss, "steps")
