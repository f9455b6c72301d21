"""`stats.token_stats` as one Triton kernel: the logits of a row are read once, where PyTorch reads them ten times.

The maximum m is that of the tokens read so far. With y = x - m, the sums Z = sum exp(y), T = sum exp(y) y and
Q = sum exp(y) y^2 are carried over to a larger maximum m + d by y -> y - d:

    Z' = Z / e^d,    T' = (T - d Z) / e^d,    Q' = (Q - 2 d T + d^2 Z) / e^d

As y <= 0 <= d, no two terms of a sum have different signs, so nothing cancels.
"""

import torch
import triton
import triton.language as tl

from stepconf.engines.stats import COLUMNS, FLOOR

_BLOCK = 4096  # tokens that are read at a time
_WARPS = 8


@triton.jit  # type: ignore[untyped-decorator]  # Triton need not be installed
def stats_of_row(  # type: ignore[no-untyped-def]  # Triton reads the annotations
    out,
    logits,
    row_stride,
    token_ids,
    vocabulary,
    block: tl.constexpr,
    columns: tl.constexpr,
    floor: tl.constexpr,
):
    """One program a row: `out` [rows, columns] float32 as `token_stats`; floor: see `stats`."""
    row = tl.program_id(0).to(tl.int64)
    start_of_row = logits + row * row_stride
    largest = tl.full((), float("-inf"), tl.float32)
    second = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    moment = tl.zeros((), tl.float32)
    square = tl.zeros((), tl.float32)
    logit_sum = tl.zeros((), tl.float32)
    n_unmasked = tl.zeros((), tl.float32)
    for start in range(0, vocabulary, block):
        at = start + tl.arange(0, block)
        x = tl.load(start_of_row + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        unmasked = x > float("-inf")
        logit_sum += tl.sum(tl.where(unmasked, x, 0.0), 0)
        n_unmasked += tl.sum(unmasked.to(tl.float32), 0)

        first_here = tl.max(x, 0)
        is_first = x == first_here
        others = tl.max(tl.where(is_first, float("-inf"), x), 0)
        second_here = tl.where(tl.sum(is_first.to(tl.int32), 0) > 1, first_here, others)
        second = tl.maximum(tl.minimum(largest, first_here), tl.maximum(second, second_here))

        new = tl.maximum(largest, first_here)
        d = tl.where(largest > float("-inf"), new - largest, 0.0)
        shrink = tl.exp(-d)
        square = shrink * (square - 2 * d * moment + d * d * total)
        moment = shrink * (moment - d * total)
        total = shrink * total
        y = tl.where(unmasked, tl.maximum(x - new, floor), floor)
        weight = tl.where(unmasked, tl.exp(y), 0.0)
        total += tl.sum(weight, 0)
        moment += tl.sum(weight * y, 0)
        square += tl.sum(weight * y * y, 0)
        largest = new
    log_total = tl.log(total)
    mean = moment / total
    drawn = tl.load(start_of_row + tl.load(token_ids + row)).to(tl.float32)
    own = out + row * columns
    tl.store(own, tl.maximum(drawn - largest, floor) - log_total)
    tl.store(own + 1, tl.maximum(log_total - mean, 0.0))
    tl.store(own + 2, -log_total)
    tl.store(own + 3, tl.maximum(square / total - mean * mean, 0.0))
    tl.store(own + 4, tl.minimum(logit_sum / n_unmasked - largest - log_total, 0.0))
    tl.store(own + 5, second - largest - log_total)


def fused_token_stats(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """As `stats.token_stats`; the logits of a row must lie side by side."""
    out = torch.empty(len(logits), COLUMNS, dtype=torch.float32, device=logits.device)
    if len(logits):
        stats_of_row[(len(logits),)](
            out,
            logits,
            logits.stride(0),
            token_ids,
            logits.shape[1],
            block=_BLOCK,
            columns=COLUMNS,
            floor=FLOOR,
            num_warps=_WARPS,
        )
    return out
