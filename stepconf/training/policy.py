"""The model as the trainer sees it: packed trees in, log-probabilities and entropies of their sides' tokens out."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from stepconf.training.attention import NAME, attend, blocks, sees
from stepconf.training.batches import Batch
from stepconf.training.head import EdgeScores, Embedded, Scratch, adds_in_place
from stepconf.training.layers import hidden_states, is_written_out
from stepconf.training.objectives.base import Scores


class Policy(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A causal language model of transformers whose logits are a plain head over its hidden states.

    One module holds body and head, so that FSDP gathers both for one forward.

    Args:
        model: an `AutoModelForCausalLM`.
        compute: dtype of the forward; parameters keep their own (float32 masters under bfloat16).
        flex: attend with FlexAttention, which skips what the trees hide, instead of SDPA with a dense mask a tree.
    """

    def __init__(self, model: Any, compute: torch.dtype = torch.float32, flex: bool = False) -> None:
        from transformers import AttentionInterface

        super().__init__()
        self.model = model
        self._compute, self._flex, self._scratch = compute, flex, Scratch()
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation("flex_attention" if flex else NAME)

    @property
    def layers(self) -> Any:
        """The decoder layers, in order."""
        return self._whole().base_model.layers

    def _whole(self) -> Any:
        # Under peft, `model` is a wrapper around the model whose body we call.
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, batch: Batch, temperature: float = 1.0) -> Scores:
        """Log-probability of each token of each side, and entropy of the distribution before it (float32).

        Both are of softmax(logits / temperature).
        """
        autocast = (
            torch.autocast(batch.ends.device.type, self._compute)
            if self._compute != torch.float32
            else nullcontext()
        )
        with autocast:
            whole = self._whole()
            hidden = self._hidden(batch)
            head = whole.get_output_embeddings()
            read = hidden[batch.heads].to(self._compute) / temperature
            bias = None if head.bias is None else head.bias.to(self._compute) / temperature
            weight = head.weight.to(self._compute)
            edges, entropies = EdgeScores.apply(
                read, weight, bias, batch.edge_heads, batch.edge_tokens, self._scratch
            )
        return Scores(edges[batch.use_edges], entropies[batch.edge_heads[batch.use_edges]])

    def _hidden(self, batch: Batch) -> torch.Tensor:
        """The hidden states of a batch, [N, D]."""
        body = self._whole().base_model
        if self._compute == torch.float32 and not self._flex and is_written_out(body):
            return hidden_states(body, batch.token_ids, batch.depths, **self._attention(batch))
        read: torch.Tensor = body(
            **self._tokens(batch.token_ids[None]),
            position_ids=batch.depths[None],
            use_cache=False,
            **self._attention(batch),
        ).last_hidden_state[0]
        return read

    def _tokens(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        table = self._whole().get_input_embeddings()
        if type(table) is nn.Embedding and adds_in_place(table.weight):
            return {"inputs_embeds": Embedded.apply(table.weight, ids[0])[None]}
        return {"input_ids": ids}

    def _attention(self, batch: Batch) -> dict[str, Any]:
        if not self._flex:
            return {"trees": blocks(batch.ends, batch.bounds, self._compute)}
        from torch.nn.attention.flex_attention import create_block_mask

        length, device = len(batch.ends), str(batch.ends.device)
        return {"attention_mask": create_block_mask(sees(batch.ends), 1, None, length, length, device=device)}
