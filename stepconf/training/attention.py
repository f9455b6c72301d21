"""Attention over packed trees: every token sees its ancestors in its own tree.

Key k is query q or an ancestor of it iff k <= q < ends[k] (`core/trees.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "stepconf-trees"


@dataclass(frozen=True, slots=True)
class TreeMask:
    """One tree's part of a batch: tokens `start` to `stop`, and what is added to their scores, [n, n]: 0 or -inf."""

    start: int
    stop: int
    bias: torch.Tensor


def tree_masks(ends: torch.Tensor, bounds: Sequence[tuple[int, int]], dtype: torch.dtype) -> list[TreeMask]:
    """The masks of a batch. `ends`: [N]; `bounds`: its trees; `dtype`: of queries and keys."""
    return [TreeMask(start, stop, _bias(ends[start:stop] - start, dtype)) for start, stop in bounds]


def _bias(ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    hidden = torch.full((len(ends), len(ends)), -torch.inf, dtype=dtype, device=ends.device)
    return hidden.masked_fill_(visible(ends), 0)


def visible(ends: torch.Tensor) -> torch.Tensor:
    """Which key (column) each query (row) sees, [n, n]."""
    places = torch.arange(len(ends), device=ends.device)
    return (places <= places[:, None]) & (places[:, None] < ends)


def sees(ends: torch.Tensor) -> Callable[[Any, Any, Any, Any], Any]:
    """FlexAttention's form of `visible`, over a whole batch: a tree's tokens end with it, so no other sees them."""

    def mask(_row: Any, _head: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < ends[key])

    return mask


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    trees: Sequence[TreeMask],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: SDPA on each tree alone, so nothing is padded or crosses trees.

    query [1, Hq, N, D], key and value [1, Hk, N, D] -> [1, N, Hq, D].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = []
    for tree in trees:
        q, k, v = (states[:, :, tree.start : tree.stop] for states in (query, key, value))
        parts.append(
            scaled_dot_product_attention(q, k, v, attn_mask=tree.bias, dropout_p=dropout, scale=scaling)
        )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None
