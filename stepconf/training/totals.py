"""What is reported of an optimiser step: sums over its micro-batches and processes."""

from dataclasses import dataclass

import torch

from stepconf.training.objectives.base import Loss, Scores, Sides
from stepconf.training.ranks import Ranks


@dataclass(slots=True)
class Totals:
    """Sums over one optimiser step. `chosen` are the sides that are to become likelier, `rejected` the others.

    of_rewards: sides that have an implicit reward. pairs, wins: pairs, and those whose chosen side has more reward.
    entropy_*: mean token entropy of each side, nats. tokens: that were computed.
    """

    loss: float = 0.0
    chosen: float = 0.0
    rejected: float = 0.0
    of_rewards: float = 0.0
    reward_chosen: float = 0.0
    reward_rejected: float = 0.0
    pairs: float = 0.0
    wins: float = 0.0
    entropy_chosen: float = 0.0
    entropy_rejected: float = 0.0
    tokens: float = 0.0

    def add(self, loss: Loss, sides: Sides, scores: Scores, tokens: int) -> None:
        """A micro-batch of `tokens` input tokens."""
        entropies = sides.means(scores.entropies.detach()).double()
        self.loss += float(loss.values.detach().double().sum())
        self.tokens += tokens
        for name, own in (("chosen", loss.preferred), ("rejected", ~loss.preferred)):
            self._grow(name, float(own.sum()))
            self._grow(f"entropy_{name}", float(entropies[own].sum()))
            if loss.rewards is not None:
                self._grow(f"reward_{name}", float(loss.rewards[own].double().sum()))
        if loss.rewards is None:
            return
        self.of_rewards += len(loss.rewards)
        if len(loss.rewards) == 2 * len(loss.values):
            self.pairs += len(loss.values)
            self.wins += float((loss.rewards[::2] > loss.rewards[1::2]).sum())

    def share(self, ranks: Ranks) -> None:
        """The sums over all processes, in each of them."""
        own = [getattr(self, name) for name in self.__slots__]
        sums = ranks.sum(torch.tensor(own, dtype=torch.float64, device=ranks.device))
        for name, value in zip(self.__slots__, sums.tolist(), strict=True):
            setattr(self, name, value)

    def of_sides(self) -> dict[str, float]:
        """Means over the sides of either kind; what there is none of is left out."""
        found = {}
        for name in ("chosen", "rejected"):
            n = getattr(self, name)
            if n and self.of_rewards:
                found[f"reward_{name}"] = getattr(self, f"reward_{name}") / n
            if n:
                found[f"entropy_{name}"] = getattr(self, f"entropy_{name}") / n
        if "reward_chosen" in found and "reward_rejected" in found:
            found["margin"] = found["reward_chosen"] - found["reward_rejected"]
        if self.pairs:
            found["accuracy"] = self.wins / self.pairs
        return found

    def _grow(self, name: str, by: float) -> None:
        setattr(self, name, getattr(self, name) + by)
