"""The objectives, as pure functions of log-probabilities in nats."""

from typing import Literal

import torch
from torch.nn import functional


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
