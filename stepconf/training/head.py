"""The two ends of the model, which are as large as the vocabulary: embeddings of tokens, scores of edges.

Never more than a chunk of logits exists. Where it can be, a gradient is added to the parameter's `grad` in place
rather than handed to autograd, which would make a whole matrix of it for each use: hence `backward()` alone, not
`autograd.grad`.
"""

from math import ceil
from typing import Any

import torch

_CHUNK_ELEMENTS = 2**25  # logits held at once: 128 MiB in float32
_ROWS = 16  # distributions whose logits are held twice at once: they stay in a CPU's cache


def adds_in_place(weight: torch.Tensor) -> bool:
    """Whether its gradient may be added to `weight.grad` at once: a parameter, whole, on this process alone."""
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    return alone and weight.is_leaf and weight.requires_grad


class Embedded(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """weight [V, D] and ids [N] -> [N, D]. The weight must be one that `adds_in_place`."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The rows of `ids`."""
        ctx.save_for_backward(weight, ids)
        return weight[ids]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """grad [N, D] goes to the rows that were read, and to no others."""
        weight, ids = ctx.saved_tensors
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, ids, grad.to(weight.dtype))
        return None, None


class Scratch:
    """Room for a chunk of logits that is kept from forward to forward: new pages cost as much as the product."""

    def __init__(self) -> None:
        self._room = torch.empty(0)
        self.writes = 0

    def logits(self, read: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """read [n, D], weight [V, D], bias [V] or None -> [n, V] in their dtype, until the next call."""
        self.writes += 1
        size = len(read) * len(weight)
        if self._room.numel() < size or (self._room.dtype, self._room.device) != (read.dtype, read.device):
            self._room = torch.empty(size, dtype=read.dtype, device=read.device)
        out = self._room[:size].view(len(read), len(weight))
        torch.mm(read, weight.T, out=out)
        return out if bias is None else out.add_(bias)


class EdgeScores(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """log p(token | head) of each edge and the entropy of each head, in chunks of heads, forward and backward.

    Backward computes a chunk's logits again, unless there is one chunk and the scratch still holds what forward
    made of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        read: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        edge_heads: torch.Tensor,
        edge_tokens: torch.Tensor,
        scratch: Scratch,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """read [H, D], weight [V, D], bias [V] or None, edge_heads (ascending), edge_tokens [E] -> [E], [H]; nats."""
        ctx.set_materialize_grads(False)
        normaliser, entropies = (torch.empty(len(read), device=read.device) for _ in range(2))
        out = torch.empty(len(edge_heads), device=read.device)
        chunks = _chunks(len(read), len(weight), edge_heads)
        for rows, edges in chunks:
            logits = scratch.logits(read[rows], weight, bias).float()
            heads = edge_heads[edges]
            picked = logits[heads - rows.start, edge_tokens[edges]]
            top = logits.amax(-1)
            total, weighted = _exponentials(logits, top)
            normaliser[rows] = total.log() + top
            entropies[rows] = total.log() - weighted / total
            out[edges] = picked - normaliser[heads]
        ctx.save_for_backward(read, weight, bias, edge_heads, edge_tokens, normaliser, entropies)
        ctx.scratch, ctx.writes = scratch, scratch.writes
        ctx.in_place = adds_in_place(weight)
        ctx.kept = (logits, total) if len(chunks) == 1 else None
        return out, entropies

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor | None, grad_entropies: torch.Tensor | None) -> Any:
        """d log p(t) / d logits = onehot(t) - p, summed over each head's edges; dH / d logits = -p (log p + H)."""
        read, weight, bias, edge_heads, edge_tokens, normaliser, entropies = ctx.saved_tensors
        grad = torch.zeros(len(edge_heads), device=read.device) if grad is None else grad
        of_head = torch.zeros_like(normaliser).index_add(0, edge_heads, grad)
        grad_read = torch.empty_like(read)
        grad_bias = None
        grad_weight = weight.grad if ctx.in_place else None
        for rows, edges in _chunks(len(read), len(weight), edge_heads):
            if grad_entropies is not None:
                logprobs = ctx.scratch.logits(read[rows], weight, bias).float().sub_(normaliser[rows, None])
                of_entropy = (logprobs + entropies[rows, None]).mul_(grad_entropies[rows, None])
                slope = of_entropy.add_(of_head[rows, None]).mul_(logprobs.exp_()).neg_()
            elif ctx.kept is not None and ctx.writes == ctx.scratch.writes:
                ctx.scratch.writes += 1  # what it holds becomes the slope
                exponentials, total = ctx.kept
                slope = exponentials.mul_((-of_head / total)[:, None])
            else:
                slope = ctx.scratch.logits(read[rows], weight, bias).float()
                slope.sub_(normaliser[rows, None]).exp_().mul_(-of_head[rows, None])
            places = (edge_heads[edges] - rows.start, edge_tokens[edges])
            slope.index_put_(places, grad[edges], accumulate=True)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=grad_read[rows])
            if ctx.needs_input_grad[1]:
                grad_weight = summed(grad_weight, slope, read[rows])
            if bias is not None and ctx.needs_input_grad[2]:
                grad_bias = slope.sum(0) if grad_bias is None else grad_bias + slope.sum(0)
        if ctx.in_place:
            weight.grad, grad_weight = grad_weight, None
        return grad_read, grad_weight, grad_bias, None, None, None


def summed(total: torch.Tensor | None, slope: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """The gradient of a weight [V, D], to which slope [n, V] and read [n, D] add; `total` is changed in place."""
    return slope.T @ read if total is None else total.addmm_(slope.T, read)


def _exponentials(logits: torch.Tensor, top: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace each x of logits [n, V] by exp(x - top); over each row the sums of these, and of these times x - top."""
    total, weighted = torch.empty_like(top), torch.empty_like(top)
    size = _ROWS if logits.device.type == "cpu" else max(1, len(logits))
    for start in range(0, len(logits), size):
        own = slice(start, start + size)
        shifted = logits[own] - top[own, None]
        torch.exp(shifted, out=logits[own])
        total[own] = logits[own].sum(-1)
        weighted[own] = shifted.mul_(logits[own]).sum(-1)
    return total, weighted


def _chunks(n_heads: int, n_vocabulary: int, edge_heads: torch.Tensor) -> list[tuple[slice, slice]]:
    """Chunks of heads, as equal as can be, each with the range of its edges."""
    n_chunks = max(1, ceil(n_heads * n_vocabulary / _CHUNK_ELEMENTS))
    starts = [n_heads * chunk // n_chunks for chunk in range(n_chunks + 1)]
    bounds = torch.searchsorted(edge_heads.cpu(), torch.tensor(starts)).tolist()
    return [
        (slice(start, stop), slice(low, high))
        for start, stop, low, high in zip(starts, starts[1:], bounds, bounds[1:], strict=False)
    ]
