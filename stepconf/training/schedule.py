"""Which examples make which step, and at which learning rate: pure functions of the recipe."""

import random
from collections.abc import Sequence
from math import ceil, cos, pi
from typing import Literal

from stepconf.core.trees import Example


def steps_of(
    examples: Sequence[Example], batch_size: int, epochs: int, seed: int, max_steps: int | None = None
) -> list[list[int]]:
    """The examples of every optimiser step, as indices; each epoch has every example once.

    With `max_steps` there are so many steps, over as many epochs as they take.

    Problems are shuffled, the examples of one problem stay together, so that they share their prefixes. The
    last step of an epoch may be smaller.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.group, []).append(index)
    ordered = [sorted(group, key=lambda i: (examples[i].prompt_ids, i)) for group in groups.values()]
    steps: list[list[int]] = []
    if max_steps is not None:
        epochs = ceil(max_steps / ceil(len(examples) / batch_size))
    for epoch in range(epochs):
        shuffled = ordered.copy()
        random.Random(f"{seed}/{epoch}").shuffle(shuffled)  # noqa: S311  not for secrets
        flat = [index for group in shuffled for index in group]
        steps += [flat[i : i + batch_size] for i in range(0, len(flat), batch_size)]
    return steps[:max_steps]


def learning_rate(
    step: int, n_steps: int, peak: float, warmup_ratio: float, kind: Literal["constant", "linear", "cosine"]
) -> float:
    """The rate of step 0 <= `step` < `n_steps`: a linear warm-up to `peak`, then constant or down towards 0."""
    warmup = ceil(n_steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    left = 1 - (step - warmup) / max(n_steps - warmup, 1)
    return peak * {"constant": 1.0, "linear": left, "cosine": (1 - cos(pi * left)) / 2}[kind]
