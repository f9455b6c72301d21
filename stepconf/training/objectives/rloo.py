"""`rloo`: REINFORCE with the other samples of a problem as baseline (arXiv 2402.14740), from final answers alone."""

from collections.abc import Callable, Sequence

from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Loss, Objective, Sample, Scores, Sides, clipped, divergence

ONE_OUTCOME = "of a group with one outcome, which has no advantage"
NO_ANSWER = "of unknown answer"


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of the others; two rewards or more."""
    total, others = sum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def by_outcome(
    samples: Sequence[Sample], advantages: Callable[[Sequence[float]], list[float]]
) -> list[list[float] | str]:
    """The same credit for all steps of a sample: `advantages` of the rewards that are known and not all the same."""
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    own = iter(advantages(rewards) if len(set(rewards)) > 1 else ())
    return [
        NO_ANSWER if sample.reward is None
        else ONE_OUTCOME if len(set(rewards)) < 2
        else [next(own)] * len(sample.step_rewards)
        for sample in samples
    ]  # fmt: skip


def credit(samples: Sequence[Sample], recipe: TrainRecipe) -> list[list[float] | str]:
    """Each sample's advantage over the others."""
    return by_outcome(samples, leave_one_out)


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
