"""The model as the trainer sees it: packed trees in, log-probabilities of their edges out."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from stepconf.errors import StepconfError
from stepconf.training.attention import NAME, attend, sees, tree_masks
from stepconf.training.batches import Batch

_HEAD_CHUNK = 256


class Policy(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A causal language model of transformers whose logits are a plain head over its hidden states.

    One module holds body and head, so that FSDP gathers both for one forward.

    Args:
        model: an `AutoModelForCausalLM`.
        compute: dtype of the forward; parameters keep their own (float32 masters under bfloat16).
        flex: attend with FlexAttention, which skips what the trees hide, instead of SDPA with a dense mask a tree.

    Raises:
        StepconfError: the model changes its logits after the head.
    """

    def __init__(self, model: Any, compute: torch.dtype = torch.float32, flex: bool = False) -> None:
        from transformers import AttentionInterface

        super().__init__()
        self.model = model
        self._compute, self._flex = compute, flex
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation("flex_attention" if flex else NAME)
        config = model.config.get_text_config()
        if getattr(config, "final_logit_softcapping", None) or getattr(config, "logit_scale", 1.0) != 1.0:
            raise StepconfError(
                f"{type(model).__name__} caps or scales its logits after the head, which the trainer does not.",
                "Choose a model of another architecture.",
            )

    @property
    def layers(self) -> Any:
        """The decoder layers, in order."""
        return self._whole().base_model.layers

    def _whole(self) -> Any:
        # Under peft, `model` is a wrapper around the model whose body we call.
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, batch: Batch) -> torch.Tensor:
        """Log-probability of each side, [S], nats: the sum over its tokens (float32)."""
        autocast = (
            torch.autocast(batch.ends.device.type, self._compute)
            if self._compute != torch.float32
            else nullcontext()
        )
        with autocast:
            whole = self._whole()
            hidden = whole.base_model(
                input_ids=batch.token_ids[None],
                position_ids=batch.depths[None],
                use_cache=False,
                **self._attention(batch),
            ).last_hidden_state[0]
            head = whole.get_output_embeddings()
            read = hidden[batch.heads].to(self._compute)
            bias = None if head.bias is None else head.bias.to(self._compute)
            edges = _EdgeLogprobs.apply(
                read, head.weight.to(self._compute), bias, batch.edge_heads, batch.edge_tokens
            )
        sides = torch.zeros(batch.n_sides, device=edges.device)
        return sides.index_add(0, batch.use_sides, edges[batch.use_edges])

    def _attention(self, batch: Batch) -> dict[str, Any]:
        if not self._flex:
            return {"trees": tree_masks(batch.ends, batch.bounds, self._compute)}
        from torch.nn.attention.flex_attention import create_block_mask

        length, device = len(batch.ends), str(batch.ends.device)
        return {"attention_mask": create_block_mask(sees(batch.ends), 1, None, length, length, device=device)}


class _EdgeLogprobs(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """log p(token | head) of each edge, with the vocabulary in chunks of heads, forward and backward.

    No [heads x vocabulary] matrix beyond one chunk exists: backward computes the chunk's logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        read: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        edge_heads: torch.Tensor,
        edge_tokens: torch.Tensor,
    ) -> torch.Tensor:
        """read [H, D], weight [V, D], bias [V] or None, edge_heads (ascending) and edge_tokens [E] -> [E]."""
        normaliser = torch.empty(len(read), device=read.device)
        out = torch.empty(len(edge_heads), device=read.device)
        for rows, edges in _chunks(len(read), edge_heads):
            logits = _logits(read[rows], weight, bias)
            normaliser[rows] = logits.logsumexp(-1)
            heads = edge_heads[edges]
            out[edges] = logits[heads - rows.start, edge_tokens[edges]] - normaliser[heads]
        ctx.save_for_backward(read, weight, bias, edge_heads, edge_tokens, normaliser)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """d log p(t) / d logits = onehot(t) - softmax, weighted and summed over each head's edges."""
        read, weight, bias, edge_heads, edge_tokens, normaliser = ctx.saved_tensors
        of_head = torch.zeros_like(normaliser).index_add(0, edge_heads, grad)
        grad_read = torch.empty_like(read)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for rows, edges in _chunks(len(read), edge_heads):
            slope = _logits(read[rows], weight, bias)
            slope.sub_(normaliser[rows, None]).exp_().mul_(-of_head[rows, None])
            places = (edge_heads[edges] - rows.start, edge_tokens[edges])
            slope.index_put_(places, grad[edges], accumulate=True)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=grad_read[rows])
            if grad_weight is not None:
                grad_weight.addmm_(slope.T, read[rows])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
        return grad_read, grad_weight, grad_bias, None, None


def _logits(read: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return nn.functional.linear(read, weight, bias).float()


def _chunks(n_heads: int, edge_heads: torch.Tensor) -> list[tuple[slice, slice]]:
    """Chunks of heads, each with the range of its edges."""
    starts = torch.arange(0, n_heads, _HEAD_CHUNK)
    bounds = torch.searchsorted(edge_heads.cpu(), torch.cat([starts, torch.tensor([n_heads])])).tolist()
    return [
        (slice(start, min(start + _HEAD_CHUNK, n_heads)), slice(low, high))
        for start, low, high in zip(starts.tolist(), bounds, bounds[1:], strict=False)
    ]
