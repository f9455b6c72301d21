"""What exact entropies cost: generation with them over plain vLLM (no logprobs), same engine, interleaved.

python -m tests.benchmarks.entropy_overhead [--dtype bfloat16] [--batch 64] [--tokens 64] [--rounds 5]
"""

import argparse
from contextlib import closing
from statistics import median

from stepconf.demo_model import resolve_model
from stepconf.engines.vllm import VllmEngine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with closing(VllmEngine(resolve_model(args.model), dtype=args.dtype, max_model_len=1024)) as engine:
        print(engine.info)
        prompts = [
            engine.tokenizer.encode(f"Question {i}: what is {i} + {7 * i}? Think step by step.")
            for i in range(args.batch)
        ]
        engine.throughput(prompts, args.tokens, entropies=True)
        engine.throughput(prompts, args.tokens, entropies=False)
        ratios = []
        for i in range(args.rounds):
            # Which goes first alternates, so that a drift of the machine favours neither.
            first, second = (True, False) if i % 2 else (False, True)
            speed = {kind: engine.throughput(prompts, args.tokens, kind) for kind in (first, second)}
            ratios.append(speed[True] / speed[False])
            print(f"entropy {speed[True]:.1f} tokens/s, plain {speed[False]:.1f} tokens/s, {ratios[-1]:.3f}")
    print(f"batch {args.batch}, {args.tokens} tokens, {args.dtype}, {args.rounds} interleaved pairs")
    print(f"ratio entropy_over_plain: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
