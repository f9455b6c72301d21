"""Models of the Llama family with their layers written out, forward and backward: for CPUs.

x -> y = x + attention(norm(x)) -> y + mlp(norm(y)), as transformers' Llama, Qwen2 and Qwen3 have it. There autograd
keeps every step between the products, and memory costs time. Here elementwise work is done in place, what is cheap
(norms, the gated product) is made again in the backward rather than kept, and a parameter's gradient is added to its
`grad` by the product that makes it: hence `backward()` alone, not `autograd.grad`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu

from stepconf.training.attention import Block, attend_back, attend_blocks
from stepconf.training.head import Embedded, adds_in_place, summed

_BODIES = ("LlamaModel", "Qwen2Model", "Qwen3Model")


def is_written_out(body: Any) -> bool:
    """Whether `hidden_states` computes what `body`, a base model of transformers, does, in training too."""
    parameters = list(body.parameters())
    return (
        type(body).__name__ in _BODIES
        and all(type(module) is nn.Linear for layer in body.layers for module in _projections(layer))
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)
        and all(map(adds_in_place, parameters))
        and body.config.hidden_act == "silu"
        and not (body.training and body.config.attention_dropout)
        and not body.is_gradient_checkpointing
    )


def _projections(layer: Any) -> list[Any]:
    parts = layer.self_attn, layer.mlp
    return [module for part in parts for name, module in part.named_children() if name.endswith("_proj")]


def hidden_states(body: Any, ids: torch.Tensor, depths: torch.Tensor, trees: Sequence[Block]) -> torch.Tensor:
    """What the body makes of a batch, [N, D]. ids, depths: [N]; trees: as for `attention.attend`."""
    x = Embedded.apply(body.embed_tokens.weight, ids)
    cos, sin = (own[0] for own in body.rotary_emb(x, position_ids=depths[None]))
    for layer in body.layers:
        x = _Layer.apply(x, layer, cos, sin, trees)
    normed: torch.Tensor = body.norm(x)
    return normed


class _Layer(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Hidden states [N, D] through one layer. `cos`, `sin`: of the rotary embedding, [N, head size]."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layer: Any, cos: torch.Tensor, sin: torch.Tensor, blocks: Sequence[Block]
    ) -> torch.Tensor:
        y, of_attention = _attention(x, layer, cos, sin, blocks)
        out, gate, up = _mlp(y, layer)
        ctx.save_for_backward(x, y, gate, up, cos, sin, *of_attention)
        ctx.layer, ctx.blocks = layer, blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y, gate, up, cos, sin, *of_attention = ctx.saved_tensors
        of_y = _mlp_back(grad, y, gate, up, ctx.layer)
        return _attention_back(of_y, x, ctx.layer, cos, sin, ctx.blocks, of_attention), None, None, None, None


def _attention(
    x: torch.Tensor, layer: Any, cos: torch.Tensor, sin: torch.Tensor, blocks: Sequence[Block]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """x + attention(norm(x)), and what its backward needs."""
    own = layer.self_attn
    normed = _norm(x, layer.input_layernorm)
    projections = own.q_proj, own.k_proj, own.v_proj
    raw_q, raw_k, v = (_linear(normed, one).unflatten(-1, (-1, own.head_dim)) for one in projections)
    q, k = (_norm(raw_q, own.q_norm), _norm(raw_k, own.k_norm)) if hasattr(own, "q_norm") else (raw_q, raw_k)
    _turn(q, cos, sin)
    _turn(k, cos, sin)
    attended, sums = attend_blocks(_by_head(q), _by_head(k), _by_head(v), blocks, own.scaling)
    y = _linear(attended[0].flatten(1), own.o_proj).add_(x)
    return y, [raw_q, raw_k, q, k, v, attended[0], *sums]


def _attention_back(
    grad: torch.Tensor,
    x: torch.Tensor,
    layer: Any,
    cos: torch.Tensor,
    sin: torch.Tensor,
    blocks: Sequence[Block],
    kept: Sequence[torch.Tensor],
) -> torch.Tensor:
    own = layer.self_attn
    raw_q, raw_k, q, k, v, attended, *sums = kept
    of_attended = _linear_back(grad, attended.flatten(1), own.o_proj).view_as(attended)
    states = (_by_head(q), _by_head(k), _by_head(v), _by_head(attended))
    found = attend_back(_by_head(of_attended), *states, sums, blocks, own.scaling)
    of_q, of_k, of_v = (one[0].transpose(0, 1) for one in found)
    _turn(of_q, cos, -sin)
    _turn(of_k, cos, -sin)
    if hasattr(own, "q_norm"):
        of_q, of_k = _norm_back(of_q, raw_q, own.q_norm), _norm_back(of_k, raw_k, own.k_norm)
    normed = _norm(x, layer.input_layernorm)
    of_normed = _linear_back(of_q.flatten(1), normed, own.q_proj)
    _linear_back(of_k.flatten(1), normed, own.k_proj, of_normed)
    _linear_back(of_v.flatten(1), normed, own.v_proj, of_normed)
    return _norm_back(of_normed, x, layer.input_layernorm).add_(grad)


def _mlp(y: torch.Tensor, layer: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y + mlp(norm(y)), and what its backward needs."""
    own = layer.mlp
    normed = _norm(y, layer.post_attention_layernorm)
    gate, up = _linear(normed, own.gate_proj), _linear(normed, own.up_proj)
    return _linear(silu(gate).mul_(up), own.down_proj).add_(y), gate, up


def _mlp_back(
    grad: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, layer: Any
) -> torch.Tensor:
    own = layer.mlp
    activated = silu(gate)
    of_product = _linear_back(grad, activated * up, own.down_proj)
    of_up = activated.mul_(of_product)
    of_gate = torch.ops.aten.silu_backward(of_product.mul_(up), gate)
    normed = _norm(y, layer.post_attention_layernorm)
    of_normed = _linear_back(of_gate, normed, own.gate_proj)
    _linear_back(of_up, normed, own.up_proj, of_normed)
    return _norm_back(of_normed, y, layer.post_attention_layernorm).add_(grad)


def _by_head(states: torch.Tensor) -> torch.Tensor:
    """[N, H, D] -> [1, H, N, D]."""
    return states.transpose(0, 1)[None]


def _scale(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """1 / root mean square over the last dimension, which stays, of size 1."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return square.div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()


def _norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return (x * _scale(x, norm)).mul_(norm.weight)


def _norm_back(grad: torch.Tensor, x: torch.Tensor, norm: Any) -> torch.Tensor:
    """The gradient of x, in the place of `grad`."""
    scale = _scale(x, norm)
    unit = x * scale
    product = grad * unit
    _add(norm.weight, product.flatten(0, -2).sum(0))
    along = (product @ norm.weight).div_(x.shape[-1])
    return grad.mul_(norm.weight).addcmul_(unit, along[..., None], value=-1).mul_(scale)


def _linear(x: torch.Tensor, linear: Any) -> torch.Tensor:
    if linear.bias is None:
        return x @ linear.weight.T
    return torch.addmm(linear.bias, x, linear.weight.T)


def _linear_back(
    grad: torch.Tensor, x: torch.Tensor, linear: Any, into: torch.Tensor | None = None
) -> torch.Tensor:
    """The gradient of x, added to `into`."""
    weight = linear.weight
    weight.grad = summed(weight.grad, grad, x)
    if linear.bias is not None:
        _add(linear.bias, grad.sum(0))
    return grad @ weight if into is None else into.addmm_(grad, weight)


def _add(parameter: Any, grad: torch.Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad.add_(grad)


def _turn(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary embedding of [N, H, D] in place: (a, b) -> (a cos - b sin, b cos + a sin), a and b the halves of D."""
    half = states.shape[-1] // 2
    cos, sin = cos[:, None, :half], sin[:, None, :half]
    first, second = states[..., :half], states[..., half:]
    kept = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(kept)
