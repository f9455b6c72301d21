"""What an objective promises. It is asked on sides of random lengths, without a model."""

from collections.abc import Iterator
from typing import get_args

import torch

from stepconf.contracts import Promise, expect
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe
from stepconf.training.objectives.base import Data, Loss, Objective, Sample, Scores, Sides

_RECIPE = TrainRecipe()
_EXAMPLES = 6


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the objective of that name."""
    objective: Objective = OBJECTIVES.load(name)
    groups = objective.data == "groups"
    yield Promise(
        f"it learns from one of {', '.join(get_args(Data))}",
        lambda: expect(objective.data in get_args(Data), f"it learns from {objective.data!r}"),
    )
    yield Promise(
        "it gives credit to the steps of groups, and of nothing else",
        lambda: expect(
            (objective.credit is not None) == groups, f"data {objective.data}, {objective.credit}"
        ),
    )
    yield Promise("it loses one number an example, or a token", lambda: _has_shape(objective))
    yield Promise("its loss has a finite gradient", lambda: _has_gradient(objective))
    yield Promise("an example loses the same in any batch", lambda: _is_independent(objective))
    if groups and objective.credit is not None:
        yield Promise("a step's credit is a finite number", lambda: _gives_credit(objective))


def _lengths(objective: Objective) -> list[int]:
    sides = 2 if objective.data == "pairs" else 1
    return [1 + (3 * i) % 7 for i in range(_EXAMPLES * sides)]


def _drawn(objective: Objective, lengths: list[int]) -> tuple[Scores, Sides]:
    """Scores that may be, near those of the reference; the same at every call."""
    generator = torch.Generator().manual_seed(1)

    def noise() -> torch.Tensor:
        return torch.rand(sum(lengths), generator=generator)

    logprobs, entropies = -2 * noise(), 3 * noise()
    sides = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    signs = torch.tensor([1.0, -1.0]).repeat(len(lengths))[: len(lengths)]
    credits = signs[sides] if objective.data in ("groups", "steps") else torch.zeros(sum(lengths))
    known = Sides(sides, torch.tensor(lengths), credits, logprobs - noise() / 5, logprobs - noise() / 5)
    return Scores(logprobs.requires_grad_(), entropies.requires_grad_()), known


def _lost(objective: Objective) -> tuple[Loss, Scores, int]:
    lengths = _lengths(objective)
    scores, sides = _drawn(objective, lengths)
    units = sum(lengths) if objective.per_token else _EXAMPLES
    return objective.loss(scores, sides, _RECIPE), scores, units


def _has_shape(objective: Objective) -> None:
    loss, _, units = _lost(objective)
    n = len(_lengths(objective))
    expect(tuple(loss.values.shape) == (units,), f"{tuple(loss.values.shape)} instead of ({units},)")
    expect(
        tuple(loss.preferred.shape) == (n,) and loss.preferred.dtype == torch.bool,
        f"preferred is {loss.preferred}",
    )
    if loss.rewards is not None:
        expect(tuple(loss.rewards.shape) == (n,), f"rewards are {tuple(loss.rewards.shape)}, sides {n}")
        expect(not loss.rewards.requires_grad, "rewards have a gradient")


def _has_gradient(objective: Objective) -> None:
    loss, scores, _ = _lost(objective)
    loss.values.sum().backward()
    gradient = scores.logprobs.grad
    expect(bool(loss.values.isfinite().all()), f"{loss.values}")
    expect(gradient is not None and bool(gradient.isfinite().all() and gradient.any()), f"{gradient}")


def _is_independent(objective: Objective) -> None:
    together, _, _ = _lost(objective)
    lengths = _lengths(objective)
    half = len(lengths) // 2
    scores, sides = _drawn(objective, lengths)
    cut = sum(lengths[:half])
    apart = [
        objective.loss(Scores(*(s[tokens] for s in scores)), _part(sides, tokens, own), _RECIPE).values
        for tokens, own in ((slice(cut), slice(half)), (slice(cut, None), slice(half, None)))
    ]
    expect(torch.allclose(torch.cat(apart), together.values, atol=1e-5), "it does not")


def _part(sides: Sides, tokens: slice, own: slice) -> Sides:
    known = (values[tokens] for values in (sides.credits, sides.sampled, sides.reference))
    return Sides(sides.sides[tokens] - (own.start or 0), sides.lengths[own], *known)


def _gives_credit(objective: Objective) -> None:
    samples = [Sample(float(i % 2), (1.0, None, -1.0)[: 1 + i % 3]) for i in range(4)]
    for group in (samples, samples[:1], []):
        if objective.credit is None:
            return
        credits = objective.credit(group, _RECIPE)
        expect(len(credits) == len(group), f"{len(credits)} credits for {len(group)} samples")
        for own, sample in zip(credits, group, strict=True):
            if isinstance(own, str):
                expect(bool(own), "it does not say why a sample has none")
            else:
                expect(len(own) == len(sample.step_rewards), f"{own} for {len(sample.step_rewards)} steps")
                expect(bool(torch.tensor(own).isfinite().all()), f"{own}")
