"""`dpo`: prefer the chosen side of a pair, with a likelihood term (RPO) and a margin of entropy where asked for."""

from typing import Literal

import torch
from torch.nn import functional

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Scores, Sides


def dpo_loss(
    policy: torch.Tensor,
    reference: torch.Tensor,
    beta: float,
    kind: Literal["sigmoid", "ipo"] = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss per pair and rewards per side of direct preference optimisation.

    `policy`, `reference`: [P, 2], the summed log-probability of chosen and rejected. `beta` > 0.
    Returns losses [P] and rewards [P, 2] = beta * (policy - reference).
    `sigmoid`: -log sigmoid(reward margin) (arXiv 2305.18290, eq. 7); `label_smoothing` in [0, 0.5) is the
    probability that a label is flipped (conservative DPO). `ipo`: (margin of the log-ratios - 1 / (2 beta))^2
    (arXiv 2310.12036, eq. 17) over sums, not means, of token log-probabilities.
    """
    ratios = policy - reference
    margin = ratios[:, 0] - ratios[:, 1]
    rewards = beta * ratios.detach()
    if kind == "ipo":
        return (margin - 1 / (2 * beta)) ** 2, rewards
    right, flipped = -functional.logsigmoid(beta * margin), -functional.logsigmoid(-beta * margin)
    return (1 - label_smoothing) * right + label_smoothing * flipped, rewards


def margin_loss(entropies: torch.Tensor, margin: float) -> torch.Tensor:
    """Hinge on the margin that CASPO claims: max(0, margin - (H(rejected) - H(chosen))), [P].

    `entropies`: [P, 2], mean entropy over the tokens of chosen and rejected, which follow one prefix; nats.
    """
    return functional.relu(margin - (entropies[:, 1] - entropies[:, 0]))


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """Of each pair, [P]: DPO + nll_weight * mean -log p of chosen (arXiv 2404.19733) + margin_weight * hinge."""
    policy, reference = (sides.sums(values).view(-1, 2) for values in (scores.logprobs, sides.reference))
    values, rewards = dpo_loss(policy, reference, recipe.beta, recipe.loss, recipe.label_smoothing)
    if recipe.nll_weight:
        values = values - recipe.nll_weight * sides.means(scores.logprobs).view(-1, 2)[:, 0]
    if recipe.margin_weight:
        entropies = sides.means(scores.entropies).view(-1, 2)
        values = values + recipe.margin_weight * margin_loss(entropies, recipe.entropy_margin)
    preferred = torch.tensor([True, False], device=values.device).repeat(len(values))
    return Loss(values, preferred, rewards.flatten())


DPO = Objective(loss, "pairs")
