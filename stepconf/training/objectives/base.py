"""What an objective is: a loss, the data that it learns from, and the credit that it gives to sampled steps.

A batch has S sides with U tokens together, side by side; `sides[u]` is the side that token u belongs to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from stepconf.recipe import TrainRecipe

Data = Literal["pairs", "solutions", "groups", "steps"]


class Scores(NamedTuple):
    """What the policy says of each token: its log-probability, and the entropy of its distribution; both [U], nats."""

    logprobs: torch.Tensor
    entropies: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sides:
    """What is known of the sides of a batch beside the policy's scores.

    sides: [U], ascending. lengths: [S], tokens of each side. credits: [U], as in `core.trees.Example`; zero for pairs.
    sampled, reference: [U], log-probabilities under the policy that sampled, and under that which the training began
    with; nats.
    """

    sides: torch.Tensor
    lengths: torch.Tensor
    credits: torch.Tensor
    sampled: torch.Tensor
    reference: torch.Tensor

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Over the tokens of each side: [U] -> [S]."""
        return torch.zeros(len(self.lengths), device=values.device).index_add(0, self.sides, values)

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """Over the tokens of each side: [U] -> [S]."""
        return self.sums(values) / self.lengths


class Loss(NamedTuple):
    """A loss before it is averaged, and what is reported with it.

    values: of each pair, side or token; their sum is optimised. preferred: [S], the sides that are to become likelier.
    rewards: [S], the implicit reward beta * log(policy / reference), without gradient; None where there is none.
    """

    values: torch.Tensor
    preferred: torch.Tensor
    rewards: torch.Tensor | None = None


class Sample(NamedTuple):
    """A sampled solution of a group.

    reward: 1 for a right final answer, 0 for a wrong one, None for an unknown one.
    step_rewards: from -1 (wrong) to 1 (right), None where nothing is known of the step; one step or more.
    """

    reward: float | None
    step_rewards: Sequence[float | None]


# Of each of a problem's samples the credit of each step, or the reason why it cannot be used.
Credit = Callable[[Sequence[Sample], TrainRecipe], list[list[float] | str]]


@dataclass(frozen=True, slots=True)
class Objective:
    """How a policy is optimised.

    Args:
        loss: of a batch; differentiable in the scores, and independent of what else is in the batch.
        data: what it learns from: `pairs`, the right `solutions` of a run, `groups` of a problem's samples, or single
            judged `steps`.
        credit: for `groups`, what each step of a sample deserves.
        per_token: the loss is averaged over the tokens of an optimiser step; otherwise over its examples.
        reference: whether the loss reads log-probabilities under the policy to begin with.
    """

    loss: Callable[[Scores, Sides, TrainRecipe], Loss]
    data: Data
    credit: Credit | None = None
    per_token: bool = False
    reference: bool = True


def clipped(log_ratios: torch.Tensor, credits: torch.Tensor, clip: float) -> torch.Tensor:
    """The surrogate loss of PPO (arXiv 1707.06347, eq. 7), any shape: -min(r A, clamp(r, 1 - clip, 1 + clip) A)."""
    ratios = log_ratios.exp()
    return -torch.min(ratios * credits, ratios.clamp(1 - clip, 1 + clip) * credits)


def divergence(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Schulman's estimate of KL(policy | reference) at each token, >= 0: exp(d) - d - 1, d = reference - policy."""
    difference = reference - policy
    return difference.exp() - difference - 1
