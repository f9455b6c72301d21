"""Attention over packed trees: every token sees its ancestors in its own tree.

Key k is query q or an ancestor of it iff k <= q < ends[k] (`core/trees.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "stepconf-trees"
# What scaled_dot_product_attention runs on a CPU, with its backward, which has no public name.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_QUERIES = 256  # a block: small enough to leave out most of what is hidden, large enough for the kernel


@dataclass(frozen=True, slots=True)
class Block:
    """Queries `start` to `stop` of a batch with the keys that any of them sees.

    keys: their places in the batch, ascending, [k]. bias: added to the scores, [stop - start, k]: 0 or -inf.
    """

    start: int
    stop: int
    keys: torch.Tensor
    bias: torch.Tensor


def blocks(ends: torch.Tensor, bounds: Sequence[tuple[int, int]], dtype: torch.dtype) -> list[Block]:
    """What SDPA computes for a batch. `ends`: [N]; `bounds`: its trees; `dtype`: of queries and keys.

    A long tree is cut into blocks of queries, so that most of what its branches hide of each other is not computed.
    """
    found = []
    for start, stop in bounds:
        seen = visible(ends[start:stop] - start)
        size = stop - start if stop - start <= 2 * _QUERIES else _QUERIES
        for first in range(0, stop - start, size):
            own = seen[first : first + size]
            keys = torch.nonzero(own.any(0)).flatten()
            hidden = torch.full((len(own), len(keys)), -torch.inf, dtype=dtype, device=ends.device)
            bias = hidden.masked_fill_(own[:, keys], 0)
            found.append(Block(start + first, start + first + len(own), start + keys, bias))
    return found


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
    trees: Sequence[Block],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: SDPA block by block, so nothing is padded or crosses trees.

    query [1, Hq, N, D], key and value [1, Hk, N, D] -> [1, N, Hq, D].
    """
    dtype = trees[0].bias.dtype  # under autocast, rotated queries and keys are float32
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if dropout == 0 and query.device.type == "cpu":
        return _OnCpu.apply(query, key, value, trees, scaling), None
    parts = []
    for block in trees:
        own = query[:, :, block.start : block.stop]
        k, v = (_for_queries(states, block.keys, query.shape[1]) for states in (key, value))
        parts.append(
            scaled_dot_product_attention(own, k, v, attn_mask=block.bias, dropout_p=dropout, scale=scaling)
        )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _for_queries(states: torch.Tensor, keys: torch.Tensor, heads: int) -> torch.Tensor:
    """The states of some keys, [1, Hk, N, D] -> [1, Hq, k, D]: each head once for every query head of its group."""
    return states.index_select(2, keys).repeat_interleave(heads // states.shape[1], 1)


class _OnCpu(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """SDPA's kernel on each block. Its gradients go into one tensor, and keys are gathered again for it.

    By autograd each block would keep its keys, and give a gradient as long as the batch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        blocks: Sequence[Block],
        scale: float,
    ) -> torch.Tensor:
        out, sums = attend_blocks(query, key, value, blocks, scale)
        ctx.save_for_backward(query, key, value, out, *sums)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, *sums = ctx.saved_tensors
        out, grad = out.transpose(1, 2), grad.transpose(1, 2)
        return *attend_back(grad, query, key, value, out, sums, ctx.blocks, ctx.scale), None, None


def attend_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[Block], scale: float
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """On a CPU: query [1, Hq, N, D], key and value [1, Hk, N, D] -> [1, N, Hq, D], and what `attend_back` needs."""
    heads = query.shape[1]
    out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    sums = []
    for block in blocks:
        own = slice(block.start, block.stop)
        k, v = _for_queries(key, block.keys, heads), _for_queries(value, block.keys, heads)
        part, logsumexp = _FLASH(query[:, :, own], k, v, attn_mask=block.bias, scale=scale)
        out[:, own] = part.transpose(1, 2)
        sums.append(logsumexp)
    return out, sums


def attend_back(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: Sequence[torch.Tensor],
    blocks: Sequence[Block],
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value; `grad` and `out` are [1, Hq, N, D]."""
    heads = query.shape[1]
    of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for block, logsumexp in zip(blocks, sums, strict=True):
        own = slice(block.start, block.stop)
        k, v = _for_queries(key, block.keys, heads), _for_queries(value, block.keys, heads)
        inputs = query[:, :, own], k, v, out[:, :, own], logsumexp
        of_query[:, :, own], *of_states = _FLASH_BACKWARD(
            grad[:, :, own], *inputs, 0.0, False, attn_mask=block.bias, scale=scale
        )
        for whole, part in zip((of_key, of_value), of_states, strict=True):
            whole.index_add_(2, block.keys, part.unflatten(1, (key.shape[1], -1)).sum(2))
    return of_query, of_key, of_value
