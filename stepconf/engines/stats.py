"""The one place where a token's numbers are computed from logits, for every engine.

For a row of raw logits x (temperature 1, before any sampling processor), m = max x and Z = sum exp(x - m):
entropy H = log Z - sum exp(x - m) (x - m) / Z, log-probability of token t = x_t - m - log Z, largest
log-probability = -log Z. One pass over the row, no [tokens x vocabulary] matrix of probabilities.
"""

import torch

# Elements of one block. On CPU a block should stay in a core's L2 cache; on a GPU it only bounds memory,
# which vLLM's profiling of its own does not see: 64 MB of float32 for each of four temporaries.
_BLOCK_CPU = 1 << 17
_BLOCK_GPU = 1 << 24
# exp() of it is 0 in float32; finite, so that masked tokens (logit -inf) add 0 and not NaN to the entropy.
_FLOOR = -1e4


def topk_entropy(logits: torch.Tensor, k: int) -> torch.Tensor:
    """-sum p ln p over the k likeliest tokens of each row, as it is computed from an endpoint's `top_logprobs`.

    Their probabilities are those under the whole vocabulary, so the sum lacks the tail: it is never more than the
    exact entropy, and is that where k is the vocabulary.

    Args:
        logits: [rows, vocabulary], any float dtype; not modified.
        k: at least 1.

    Returns:
        [rows] float32, nats, 0 to ln(k) + 1.
    """
    logprobs = logits.float().log_softmax(-1).topk(min(k, logits.shape[-1])).values
    return torch.special.entr(logprobs.exp()).sum(-1)


def token_stats(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Log-probability of the given token, entropy, and largest log-probability, per row.

    Args:
        logits: [rows, vocabulary], any float dtype; not modified.
        token_ids: [rows], int64.

    Returns:
        [rows, 3] float32: log p(token) (<= 0), entropy (0 to ln vocabulary), log max p (<= 0), in nats.
    """
    rows, vocabulary = logits.shape
    out = torch.empty(rows, 3, dtype=torch.float32, device=logits.device)
    block = max(1, (_BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_GPU) // vocabulary)
    for start in range(0, rows, block):
        end = min(start + block, rows)
        part = logits[start:end].float()
        shifted = (part - part.amax(-1, keepdim=True)).clamp_(min=_FLOOR)
        chosen = shifted.gather(-1, token_ids[start:end, None])[:, 0]
        weights = shifted.exp()
        total = weights.sum(-1)
        log_total = total.log()
        mean = torch.linalg.vecdot(weights, shifted) / total
        out[start:end, 0] = chosen - log_total
        out[start:end, 1] = (log_total - mean).clamp_(min=0)
        out[start:end, 2] = -log_total
    return out
