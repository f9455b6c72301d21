"""Entropies the long way: one plain float32 forward with transformers, the full log-softmax, in float64."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from stepconf.core.records import TokenScores


@lru_cache(maxsize=2)
def model(path: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@torch.inference_mode()
def token_numbers(
    path: str, prompt_ids: Sequence[int], token_ids: Sequence[int]
) -> tuple[list[float], list[float], list[float]]:
    """Log-probability, entropy (nats) and largest probability of each of `token_ids` after `prompt_ids`."""
    rows = _logprobs(path, prompt_ids, token_ids)
    probs = rows.exp()
    chosen = rows[torch.arange(len(token_ids)), torch.tensor(token_ids, dtype=torch.long)]
    return chosen.tolist(), (-(probs * rows).sum(-1)).tolist(), probs.amax(-1).tolist()


@torch.inference_mode()
def token_scores(path: str, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> TokenScores:
    """All that is recorded of each of `token_ids` after `prompt_ids`."""
    rows = _logprobs(path, prompt_ids, token_ids)
    probs = rows.exp()
    entropy = -(probs * rows).sum(-1)
    varentropy = (probs * (rows + entropy[:, None]) ** 2).sum(-1)
    second = probs.sort(-1, descending=True).values[:, 1]
    first = token_numbers(path, prompt_ids, token_ids)
    return TokenScores(*first, varentropy.tolist(), rows.mean(-1).tolist(), second.tolist())


@torch.inference_mode()
def top_probabilities(path: str, prompt_ids: Sequence[int], token_ids: Sequence[int], k: int) -> Any:
    """[tokens, k] float64: the k largest probabilities from which each of `token_ids` was drawn, in order."""
    return _logprobs(path, prompt_ids, token_ids).exp().sort(-1, descending=True).values[:, :k].numpy()


def _logprobs(path: str, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
    logits = model(path)(input_ids=torch.tensor([[*prompt_ids, *token_ids]])).logits[0]
    return logits[len(prompt_ids) - 1 : -1].double().log_softmax(-1)
