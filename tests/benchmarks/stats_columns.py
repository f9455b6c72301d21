"""What the three later columns of `token_stats` cost: the six of today against the three of before, interleaved.

usage: python -m tests.benchmarks.stats_columns [--rows 64] [--vocabulary 49152] [--dtype float32] [--rounds 30]

Overhead against generation as a whole: `python -m tests.benchmarks.entropy_overhead`.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from stepconf.engines.stats import token_stats

BLOCK = {"cpu": 1 << 17, "cuda": 1 << 26}
FLOOR = -1e4


def main() -> None:
    """Print milliseconds a call, and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    shape = (args.rows, args.vocabulary)
    logits = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(args.device)
    logits = logits.to(getattr(torch, args.dtype))
    tokens = torch.randint(args.vocabulary, (args.rows,)).to(args.device)
    torch.testing.assert_close(token_stats(logits, tokens)[:, :3], three_columns(logits, tokens))
    ratios, spent = [], {"three": [], "six": []}
    for i in range(args.rounds):
        # Which goes first alternates, so that a drift of the machine favours neither.
        order = [("three", three_columns), ("six", token_stats)]
        for name, function in order[:: 1 if i % 2 else -1]:
            spent[name].append(seconds(function, logits, tokens))
        ratios.append(spent["six"][-1] / spent["three"][-1])
    print(f"{args.rows} x {args.vocabulary} {args.dtype} on {args.device}, {args.rounds} interleaved pairs")
    print(", ".join(f"{name} columns {1000 * median(values):.2f} ms" for name, values in spent.items()))
    print(f"ratio six_over_three: {median(ratios):.2f}")


def seconds(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], logits: torch.Tensor, tokens: torch.Tensor
) -> float:
    """Wall clock of five calls, a call."""
    started = time.perf_counter()
    for _ in range(5):
        out = function(logits, tokens)
    out.sum().item()  # waits for the device
    return (time.perf_counter() - started) / 5


def three_columns(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Log-probability, entropy and largest log-probability alone."""
    rows, vocabulary = logits.shape
    out = torch.empty(rows, 3, dtype=torch.float32, device=logits.device)
    block = max(1, BLOCK[logits.device.type] // vocabulary)
    for start in range(0, rows, block):
        end = min(start + block, rows)
        part = logits[start:end].float()
        shifted = (part - part.amax(-1, keepdim=True)).clamp_(min=FLOOR)
        chosen = shifted.gather(-1, token_ids[start:end, None])[:, 0]
        weights = shifted.exp()
        total = weights.sum(-1)
        log_total = total.log()
        mean = torch.linalg.vecdot(weights, shifted) / total
        out[start:end, 0] = chosen - log_total
        out[start:end, 1] = (log_total - mean).clamp_(min=0)
        out[start:end, 2] = -log_total
    return out


if __name__ == "__main__":
    main()
