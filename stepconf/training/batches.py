"""Packed trees as tensors: what one forward pass reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stepconf.core.trees import Tree


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of trees. R rows of L places, H heads, E edges, S sides over all rows.

    token_ids, depths, ends: [R, L]; padding has depth 0 and sees itself alone.
    heads: [H], places in the flattened rows. edge_heads, edge_tokens: [E], ascending in `edge_heads`.
    use_edges, use_sides: every use of an edge by a side.
    examples: the example of each group of sides, in order. n_tokens: input tokens that are no padding.
    """

    token_ids: torch.Tensor
    depths: torch.Tensor
    ends: torch.Tensor
    heads: torch.Tensor
    edge_heads: torch.Tensor
    edge_tokens: torch.Tensor
    use_edges: torch.Tensor
    use_sides: torch.Tensor
    n_sides: int
    examples: list[int]
    n_tokens: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same on a device."""
        moved = (
            value.to(device) if isinstance(value, torch.Tensor) else value
            for value in (getattr(self, name) for name in self.__slots__)
        )
        return Batch(*moved)


def collate(rows: Sequence[Sequence[Tree]]) -> Batch:
    """Put rows of trees into one batch of the longest row's length."""
    length = max(sum(map(len, row)) for row in rows)
    token_ids = torch.zeros(len(rows), length, dtype=torch.long)
    depths = torch.zeros_like(token_ids)
    ends = torch.arange(1, length + 1).repeat(len(rows), 1)
    heads: list[int] = []
    edge_heads: list[int] = []
    edge_tokens: list[int] = []
    use_edges: list[int] = []
    use_sides: list[int] = []
    examples: list[int] = []
    n_sides = 0
    for r, row in enumerate(rows):
        start = 0
        for tree in row:
            stop = start + len(tree)
            token_ids[r, start:stop] = torch.tensor(tree.token_ids)
            depths[r, start:stop] = torch.tensor(tree.depths)
            ends[r, start:stop] = torch.tensor(tree.ends) + start
            for edges in tree.side_edges:
                use_edges += [edge + len(edge_heads) for edge in edges]
                use_sides += [n_sides] * len(edges)
                n_sides += 1
            edge_heads += [head + len(heads) for head in tree.edge_heads]
            edge_tokens += tree.edge_tokens
            heads += [r * length + start + place for place in tree.heads]
            examples += tree.examples
            start = stop
    n_tokens = sum(len(tree) for row in rows for tree in row)
    return Batch(
        token_ids,
        depths,
        ends,
        torch.tensor(heads),
        torch.tensor(edge_heads),
        torch.tensor(edge_tokens),
        torch.tensor(use_edges),
        torch.tensor(use_sides),
        n_sides,
        examples,
        n_tokens,
    )


def visible(ends: torch.Tensor) -> torch.Tensor:
    """Which key each query sees, [R, 1, L, L]: itself and its ancestors.

    `ends`: [R, L]. Key k is query q or an ancestor of it iff k <= q < ends[k].
    """
    places = torch.arange(ends.shape[1], device=ends.device)
    query, key = places[:, None], places[None, :]
    return ((key <= query) & (query < ends[:, None, :]))[:, None]
