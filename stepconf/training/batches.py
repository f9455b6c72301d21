"""Packed trees as tensors: what one forward pass reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stepconf.core.trees import Example, Tree, pack, plant
from stepconf.recipe import TrainRecipe
from stepconf.training.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Batch:
    """Trees one after the other. N tokens, H heads, E edges, S sides.

    token_ids, depths, ends: [N], as in `Tree`, the ends counted from the start of the batch.
    bounds: where each tree starts and stops. heads: [H]. edge_heads, edge_tokens: [E], ascending in `edge_heads`.
    use_edges, use_sides: every use of an edge by a side.
    examples: the example of each group of sides, in order.
    """

    token_ids: torch.Tensor
    depths: torch.Tensor
    ends: torch.Tensor
    bounds: list[tuple[int, int]]
    heads: torch.Tensor
    edge_heads: torch.Tensor
    edge_tokens: torch.Tensor
    use_edges: torch.Tensor
    use_sides: torch.Tensor
    n_sides: int
    examples: list[int]

    def to(self, device: torch.device | str) -> "Batch":
        """The same on a device."""
        moved = (
            value.to(device) if isinstance(value, torch.Tensor) else value
            for value in (getattr(self, name) for name in self.__slots__)
        )
        return Batch(*moved)


def collate(trees: Sequence[Tree]) -> Batch:
    """Put trees into one batch."""
    token_ids: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    bounds: list[tuple[int, int]] = []
    heads: list[int] = []
    edge_heads: list[int] = []
    edge_tokens: list[int] = []
    use_edges: list[int] = []
    use_sides: list[int] = []
    examples: list[int] = []
    n_sides = 0
    for tree in trees:
        start = len(token_ids)
        for edges in tree.side_edges:
            use_edges += [edge + len(edge_heads) for edge in edges]
            use_sides += [n_sides] * len(edges)
            n_sides += 1
        edge_heads += [head + len(heads) for head in tree.edge_heads]
        edge_tokens += tree.edge_tokens
        heads += [start + place for place in tree.heads]
        token_ids += tree.token_ids
        depths += tree.depths
        ends += [start + end for end in tree.ends]
        examples += tree.examples
        bounds.append((start, len(token_ids)))
    return Batch(
        torch.tensor(token_ids),
        torch.tensor(depths),
        torch.tensor(ends),
        bounds,
        torch.tensor(heads),
        torch.tensor(edge_heads),
        torch.tensor(edge_tokens),
        torch.tensor(use_edges),
        torch.tensor(use_sides),
        n_sides,
        examples,
    )


def packed(
    examples: Sequence[Example], indices: list[int], recipe: TrainRecipe, ranks: Ranks
) -> list[list[Tree]]:
    """The micro-batches of one optimiser step."""
    if recipe.tokens_per_batch is not None:
        budget = largest = recipe.tokens_per_batch
    else:
        # Small batches stay in a CPU's cache; but the halves of a tree would both have its trunk.
        budget, largest = (8192, 16384) if ranks.device.startswith("cuda") else (512, 2048)
    return pack(plant(examples, indices, largest), budget)
