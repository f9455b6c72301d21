"""Verification with one worker process and with two: solutions per second of `final,symbolic`, start-up included.

Labelled GSM8K and MATH-500 solutions, 2 % hostile answers (the mix of `verify_throughput`), through `stepconf segment`:
they are also cut into steps and written. `gain` is what the second worker brings; the parent needs a core, too.

    python -m tests.benchmarks.verify_scaling [solutions]
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from stepconf.pipeline import segment
from stepconf.recipe import load_recipe
from tests.benchmarks.verify_throughput import mix


def seconds(file: Path, workers: int, out: Path) -> float:
    """How long a run over the file takes."""
    values = {
        "problems.source": str(file),
        "verify.verifiers": ["final", "symbolic"],
        "verify.workers": workers,
    }
    start = time.perf_counter()
    segment(load_recipe(None, values), out, lambda stage, n: None)
    return time.perf_counter() - start


def main(size: int) -> None:
    """Print both rates and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "solutions.jsonl"
        items = mix(size, random.Random(0))
        rows = [
            {"problem": f"Problem {i}", "answer": gold, "solution": text}
            for i, (gold, text, _) in enumerate(items)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        taken = {workers: seconds(file, workers, Path(scratch) / str(workers)) for workers in (1, 2)}
    for workers, duration in taken.items():
        print(f"{workers} worker{'s' if workers > 1 else ''}: {size / duration:.1f} solutions/s")
    print(f"ratio verify_scaling: {taken[1] / taken[2]:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
