"""`rloo`: REINFORCE with the other samples of a problem as baseline (arXiv 2402.14740), from final answers alone."""

from collections.abc import Sequence

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Sample, Scores, Sides, clipped, divergence

ONE_OUTCOME = "of a group with one outcome, which has no advantage"


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of the others; two rewards or more."""
    total, others = sum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def credit(samples: Sequence[Sample], recipe: TrainRecipe) -> tuple[list[list[float] | None], str]:
    """The same for all steps of a sample: its advantage over the others."""
    rewards = [sample.reward for sample in samples]
    if len(set(rewards)) < 2:
        return [None] * len(samples), ONE_OUTCOME
    return [
        [one] * len(sample.step_rewards) for one, sample in zip(leave_one_out(rewards), samples, strict=True)
    ], ""


def loss(scores: Scores, sides: Sides, recipe: TrainRecipe) -> Loss:
    """Of each sample, [S]: clipped at the ratio of whole sequences, + kl_weight * summed divergence."""
    advantages = sides.means(sides.credits)
    log_ratios = sides.sums(scores.logprobs - sides.sampled)
    values = clipped(log_ratios, advantages, recipe.clip)
    if recipe.kl_weight:
        values = values + recipe.kl_weight * sides.sums(divergence(scores.logprobs, sides.reference))
    rewards = sides.sums(scores.logprobs - sides.reference).detach() * recipe.beta
    return Loss(values, advantages > 0, rewards)


RLOO = Objective(loss, "groups", credit)
