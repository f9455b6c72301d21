"""The one place where a token's numbers are computed from logits, for every engine.

For a row of raw logits x (temperature 1, before any sampling processor), m = max x and Z = sum exp(x - m):
entropy H = log Z - sum exp(x - m) (x - m) / Z, log-probability of token t = x_t - m - log Z, largest
log-probability = -log Z. One exp over the row, no [tokens x vocabulary] matrix of probabilities.

With s = x - m and E the mean under p: varentropy = E[s^2] - E[s]^2, since ln p differs from s by the constant log Z.
"""

import torch

# Elements of one block. On CPU a block should stay in a core's L2 cache; on a GPU it only bounds memory.
_BLOCK_CPU = 1 << 17
_BLOCK_GPU = 1 << 26
COLUMNS = 6  # of `token_stats`
# Tokens whose largest logit is found at a time: only the chunk of the very largest is searched for the second one.
_CHUNK = 512
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
    """Of each row: log-probability of the given token, entropy, and what tells more of the distribution's form.

    A masked token (logit -inf) has probability 0. It adds nothing to entropy and varentropy, and is left out of the
    mean over the vocabulary, which would be -inf otherwise.

    Args:
        logits: [rows, vocabulary], any float dtype; not modified.
        token_ids: [rows], int64.

    Returns:
        [rows, 6] float32: log p(token) (<= 0), entropy (0 to ln vocabulary), log max p (<= 0), in nats; varentropy
        (>= 0, nats^2), mean of ln p over the vocabulary (<= 0, nats), log of the second largest p (-inf to -ln 2).
    """
    rows, vocabulary = logits.shape
    out = torch.empty(rows, COLUMNS, dtype=torch.float32, device=logits.device)
    block = max(1, (_BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_GPU) // vocabulary)
    for start in range(0, rows, block):
        end = min(start + block, rows)
        part = logits[start:end].float()
        first, second = _two_largest(part)
        shifted = (part - first[:, None]).clamp_(min=_FLOOR)
        chosen = shifted.gather(-1, token_ids[start:end, None])[:, 0]
        weights = shifted.exp()
        total = weights.sum(-1)
        log_total = total.log()
        weighted = weights.mul_(shifted)
        mean = weighted.sum(-1) / total
        mean_square = torch.linalg.vecdot(weighted, shifted) / total
        out[start:end, 0] = chosen - log_total
        out[start:end, 1] = (log_total - mean).clamp_(min=0)
        out[start:end, 2] = -log_total
        out[start:end, 3] = (mean_square - mean * mean).clamp_(min=0)
        out[start:end, 4] = (_mean_logit(part) - first - log_total).clamp_(max=0)
        out[start:end, 5] = second - first - log_total
    return out


def _two_largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit of each row and the second largest, which is the same where two tie; -inf where there is one.

    Args:
        logits: [rows, vocabulary] float32.

    Returns:
        Two [rows].
    """
    vocabulary = logits.shape[-1]
    whole = vocabulary // _CHUNK * _CHUNK
    chunks = [logits[:, :whole].unflatten(-1, (-1, _CHUNK)).amax(-1)] if whole else []
    if whole < vocabulary:
        chunks.append(logits[:, whole:].amax(-1, keepdim=True))
    largest = torch.cat(chunks, -1)
    best = largest.topk(min(2, largest.shape[-1]))
    inside = best.indices[:, :1] * _CHUNK + torch.arange(_CHUNK, device=logits.device)
    held = logits.gather(-1, inside.clamp(max=vocabulary - 1))
    in_best = held.masked_fill_(inside >= vocabulary, float("-inf")).topk(2).values
    others = best.values[:, 1] if best.values.shape[-1] > 1 else in_best[:, 1]
    return in_best[:, 0], torch.maximum(in_best[:, 1], others)


def _mean_logit(logits: torch.Tensor) -> torch.Tensor:
    """[rows]: the mean logit of each row [rows, vocabulary] over the tokens that are not masked."""
    sums = logits.sum(-1)
    # On a GPU the question itself would wait for the device.
    if logits.device.type == "cpu" and bool(sums.isfinite().all()):
        return sums / logits.shape[-1]
    masked = logits.isneginf()
    return logits.masked_fill(masked, 0).sum(-1) / (logits.shape[-1] - masked.sum(-1))
