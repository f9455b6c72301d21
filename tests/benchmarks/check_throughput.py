"""How fast `stepconf check` goes over a run, and what it holds: `python -m tests.benchmarks.check_throughput [CHUNKS]`.

The run is made up: chunks of 64 problems with 8 samples of 5 steps of 40 tokens, all laws kept. Compared are
the seconds and the peak memory of the whole run and of a quarter of it: memory that grows with the run shows.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from stepconf.core.ids import problem_id
from stepconf.core.records import Solution, TokenScores, Verdict
from stepconf.core.schema import arrow_schema, to_columns
from stepconf.core.signals import CONFIDENCE, ENTROPY_MEAN
from stepconf.core.steps import build_steps
from stepconf.run.shards import Run

PROBLEMS, SAMPLES, STEPS, TOKENS = 64, 8, 5, 40
CHECK = """
import json, resource, sys, time
from pathlib import Path
from stepconf.checks.check import check
started = time.perf_counter()
report = check(Path(sys.argv[1]), {}, True, lambda stage, n: None)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "found": [f.check for f in report.findings]}))
"""


def base_chunk() -> tuple[pa.Table, pa.Table]:
    """One chunk's tables, with ids that every chunk replaces."""
    rng = random.Random(7)
    solutions, steps = [], []
    for j in range(PROBLEMS * SAMPLES):
        lines = [
            f"Step {i}: {rng.randrange(10**6)} + {rng.randrange(10**6)} is what we need here.\n"
            for i in range(STEPS)
        ]
        text, n = "".join(lines), STEPS * TOKENS
        most = [rng.uniform(0.3, 0.9) for _ in range(n)]
        scores = TokenScores([-3.0] * n, [rng.uniform(1.5, 3.0) for _ in range(n)], most)
        ends = [sum(map(len, lines[: i + 1])) for i in range(STEPS)]
        spans = list(zip([0, *ends], ends, strict=False))
        starts = [spans[i // TOKENS][0] for i in range(n)]
        tokens = [rng.randrange(1000) for _ in range(n)]
        verdict = Verdict("symbolic", "1", "correct" if j % 3 else "incorrect", None, "arithmetic", 0.001)
        for i, step in enumerate(build_steps(str(j), "", text, spans, tokens, starts, scores)):
            row = {name: getattr(step, name) for name in step.__slots__}
            row |= {
                "verdicts": [verdict],
                "label": verdict.label,
                "is_first_error": verdict.label == "incorrect" and i == 0,
            }
            steps.append(type(step)(**row))
        solutions.append(
            Solution(str(j), "", None, "made up", "", "", "1", "math", "m", "", "vllm", [1, 2], text, tokens,
                     0.7, 1.0, j, j % SAMPLES, "stop", None, None, STEPS, n,
                     ENTROPY_MEAN.over(scores), CONFIDENCE.over(scores), {})
        )  # fmt: skip
    schemas = (arrow_schema(table, {"vocabulary": "1000"}) for table in ("solutions", "steps"))
    return (
        pa.Table.from_pydict(to_columns("solutions", solutions), schema=next(schemas)),
        pa.Table.from_pydict(to_columns("steps", steps), schema=next(schemas)),
    )


def make(out: Path, chunks: int) -> None:
    """A run of so many chunks."""
    solutions, steps = base_chunk()
    rng = random.Random(8)
    with Run(out, {"command": "generate", "model": ""}) as run:
        for k in range(chunks):
            words = " ".join(f"{rng.randrange(10**5)}" for _ in range(4))
            texts = [
                f"Anna has {rng.randrange(10**8)} apples and buys {words}; how many has problem {k}/{p}?"
                for p in range(PROBLEMS)
            ]
            ids = [problem_id(text, "1") for text in texts]
            of = [j // SAMPLES for j in range(len(solutions))]
            names = [f"{k:08x}{j:012x}" for j in range(len(solutions))]
            new: dict[str, dict[str, list[Any]]] = {
                "solutions": {
                    "solution_id": names,
                    "problem_id": [ids[p] for p in of],
                    "problem": [texts[p] for p in of],
                },
                "steps": {
                    "step_id": [f"{k:08x}{i:012x}" for i in range(len(steps))],
                    "solution_id": [names[i // STEPS] for i in range(len(steps))],
                    "problem_id": [ids[of[i // STEPS]] for i in range(len(steps))],
                },
            }
            tables = {}
            for table, rows in (("solutions", solutions), ("steps", steps)):
                for name, values in new[table].items():
                    rows = rows.set_column(
                        rows.column_names.index(name), rows.schema.field(name), pa.array(values)
                    )
                tables[table] = rows
            facts = {
                "input": "",
                "solutions": len(names),
                "steps": len(steps),
                "tokens": 0,
                "drops": {},
                "seconds": {},
            }
            shards = {f"{table}/part-{k:05d}.parquet": rows for table, rows in tables.items()}
            run.commit_tables(f"{k:05d}", shards, facts)


def main() -> None:
    """Print seconds and memory."""
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    found = []
    for n in (max(chunks // 4, 1), chunks):
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / "run", n)
            started = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-c", CHECK, f"{scratch}/run"], capture_output=True, text=True, check=True
            )
            found.append(json.loads(ended.stdout) | {"wall": time.perf_counter() - started})
        steps = n * PROBLEMS * SAMPLES * STEPS
        one = found[-1]
        print(
            f"{steps:,} steps ({steps * TOKENS:,} tokens): {one['seconds']:.1f} s, "
            f"{steps / one['seconds']:,.0f} steps/s, peak {one['peak_mb']:,.0f} MB, found {one['found']}"
        )
    print(f"ratio peak_memory_4x_rows: {found[1]['peak_mb'] / found[0]['peak_mb']:.2f}")


if __name__ == "__main__":
    main()
