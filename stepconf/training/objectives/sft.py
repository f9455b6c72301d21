"""`sft`: imitate right solutions; on a policy's own samples, self-distillation."""

import torch

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Scores, Sides


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """-log p of each token, [U]."""
    return Loss(-scores.logprobs, torch.ones_like(sides.lengths, dtype=torch.bool))


SFT = Objective(loss, "solutions", per_token=True, reference=False)
