"""The one place where a token's numbers are computed from logits, for every engine.

For a row of raw logits x (temperature 1, before any sampling processor), m = max x and Z = sum exp(x - m):
entropy H = log Z - sum exp(x - m) (x - m) / Z, log-probability of token t = x_t - m - log Z, largest
log-probability = -log Z. One exp over the row, no [tokens x vocabulary] matrix of probabilities.

With s = x - m and E the mean under p: varentropy = E[s^2] - E[s]^2, since ln p differs from s by the constant log Z.
"""

from collections.abc import Iterator

import torch

# Elements of one block. On CPU a block should stay in a core's L2 cache; on a GPU it only bounds memory,
# which vLLM's profiling of its own does not see: 64 MB of float32 for each of four temporaries.
_BLOCK_CPU = 1 << 17
_BLOCK_GPU = 1 << 24
COLUMNS = 6  # of `token_stats`
# Tokens whose largest logit is found at a time: only the chunk of the very largest is searched for the second one.
_CHUNK = 512
# exp() of it is 0 in float32; finite, so that masked tokens (logit -inf) add 0 and not NaN to the entropy.
FLOOR = -1e4


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
    maxima, sums = _reduced(logits)
    first, second = _two_largest(logits, maxima)
    total, moment, square, logit_sum = sums.unbind()
    log_total, mean = total.log(), moment / total
    drawn = (logits.gather(-1, token_ids[:, None])[:, 0].float() - first).clamp(min=FLOOR)
    columns = (
        drawn - log_total,
        (log_total - mean).clamp(min=0),
        -log_total,
        (square / total - mean * mean).clamp(min=0),
        (_mean_logit(logits, logit_sum) - first - log_total).clamp(max=0),
        second - first - log_total,
    )
    return torch.stack(columns, -1)


def _blocks(logits: torch.Tensor) -> Iterator[slice]:
    rows, vocabulary = logits.shape
    block = max(1, (_BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_GPU) // vocabulary)
    return (slice(start, start + block) for start in range(0, rows, block))


def _reduced(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All that takes a pass over the vocabulary, a block of rows at a time; the rest is arithmetic on rows.

    Args:
        logits: [rows, vocabulary].

    Returns:
        The largest logit of each chunk of `_CHUNK` tokens, [rows, chunks]; and [4, rows]: with s = x - m the sums of
        exp(s), exp(s) s, exp(s) s^2 and x.
    """
    rows, vocabulary = logits.shape
    whole = vocabulary // _CHUNK * _CHUNK
    n_chunks = -(-vocabulary // _CHUNK)
    maxima = torch.empty(rows, n_chunks, dtype=torch.float32, device=logits.device)
    sums = torch.empty(4, rows, dtype=torch.float32, device=logits.device)
    for block in _blocks(logits):
        part, own = logits[block].float(), maxima[block]
        if whole:
            torch.amax(part[:, :whole].unflatten(-1, (-1, _CHUNK)), -1, out=own[:, : whole // _CHUNK])
        if whole < vocabulary:
            torch.amax(part[:, whole:], -1, out=own[:, -1])
        shifted = (part - own.amax(-1, keepdim=True)).clamp_(min=FLOOR)
        weights = shifted.exp()
        torch.sum(weights, -1, out=sums[0, block])
        weights *= shifted
        torch.sum(weights, -1, out=sums[1, block])
        torch.linalg.vecdot(weights, shifted, out=sums[2, block])
        torch.sum(part, -1, out=sums[3, block])
    return maxima, sums


def _two_largest(logits: torch.Tensor, maxima: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit of each row and the second largest, which is the same where two tie; -inf where there is one.

    Args:
        logits: [rows, vocabulary].
        maxima: of its chunks, [rows, chunks].

    Returns:
        Two [rows] float32.
    """
    vocabulary = logits.shape[-1]
    best = maxima.topk(min(2, maxima.shape[-1]))
    inside = best.indices[:, :1] * _CHUNK + torch.arange(_CHUNK, device=logits.device)
    held = logits.gather(-1, inside.clamp(max=vocabulary - 1)).float()
    in_best = held.masked_fill_(inside >= vocabulary, float("-inf")).topk(2).values
    others = best.values[:, 1] if best.values.shape[-1] > 1 else in_best[:, 1]
    return in_best[:, 0], torch.maximum(in_best[:, 1], others)


def _mean_logit(logits: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """[rows]: the mean logit of each row [rows, vocabulary] over the tokens that are not masked; `sums`: of all."""
    # On a GPU the question itself would wait for the device.
    if logits.device.type == "cpu" and bool(sums.isfinite().all()):
        return sums / logits.shape[-1]
    means = torch.empty_like(sums)
    for block in _blocks(logits):
        part = logits[block].float()
        masked = part.isneginf()
        means[block] = part.masked_fill(masked, 0).sum(-1) / (part.shape[-1] - masked.sum(-1))
    return means
