"""`stepconf view` over a run of a million steps: the first page, every kind of filter, and the memory it takes.

The run is that of `synthetic_run`, with its pairs. The command runs in a process of its own, as from a shell; the
clock of the first page starts before that process does. What a filter finds is compared with a Polars query.

    python -m tests.benchmarks.view_at_size [steps] [folder to keep the run in, and to find it next time]
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl

from tests.benchmarks.synthetic_run import SAMPLES, STEPS, make_run

FIRST_S, FILTER_S, LIMIT_GB = 2, 3, 1
_SPOKEN = pl.col("verdicts").list.eval(pl.element().struct.field("label"))
FILTERS: list[tuple[dict[str, str], pl.Expr]] = [
    ({"label": "incorrect"}, pl.col("label") == "incorrect"),
    ({"conflict": "1"}, _SPOKEN.list.contains("correct") & _SPOKEN.list.contains("incorrect")),
    ({"low": "1.5", "high": "1.6"}, pl.col("entropy_mean").is_between(1.5, 1.6)),
    ({"kind": "incorrect"}, pl.col("kind") == "incorrect"),
    ({"q": "SO 17 + 3"}, pl.col("text").str.to_lowercase().str.contains("so 17 + 3", literal=True)),
    (
        {"q": "way 77", "label": "correct", "high": "1"},
        pl.col("text").str.contains("way 77", literal=True)
        & (pl.col("label") == "correct")
        & (pl.col("entropy_mean") <= 1),
    ),
]


def serve(run: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the command; its process and its address."""
    command = [sys.executable, "-c", "from stepconf.cli import main; main()", "view", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "it says where it is"
    return process, found[0]


def ask(address: str, path: str, **query: Any) -> Any:
    with urllib.request.urlopen(f"{address}api/{path}?{urlencode(query)}") as answer:
        return json.load(answer)


def timed(address: str, path: str, **query: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = ask(address, path, **query)
    return time.perf_counter() - started, answer


def peak_gib(process: subprocess.Popen[str]) -> float:
    """Peak resident memory, from /proc."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**20


def expected(run: Path) -> list[int]:
    """How many problems each filter finds, by Polars."""
    kinds = pl.scan_parquet(run / "pairs/*.parquet").select("solution_id", "step_index", "kind").unique()
    columns = ["problem_id", "solution_id", "step_index", "label", "entropy_mean", "text", "verdicts"]
    steps = pl.scan_parquet(run / "steps/*.parquet").select(columns)
    joined = steps.join(kinds, on=["solution_id", "step_index"], how="left")
    return [
        joined.filter(condition).select(pl.col("problem_id").n_unique()).collect().item()
        for _, condition in FILTERS
    ]


def _lines(n_steps: int, kept: str | None) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(kept or folder) / "run"
        if not run.exists():
            make_run(run, n_steps // (SAMPLES * STEPS), 512)
        if not (run / "manifests/pairs.json").exists():
            command = [sys.executable, "-c", "from stepconf.cli import main; main()", "pairs", str(run)]
            subprocess.run(command, check=True)
        yield f"a run of {n_steps:,} steps"
        counts = expected(run)
        started = time.perf_counter()
        process, address = serve(run)
        try:
            page = ask(address, "problems")
            first = time.perf_counter() - started
            yield f"first page: {first:.2f} s from the start of the command, {page['total']:,} problems"
            slowest = 0.0
            for (query, _), count in zip(FILTERS, counts, strict=True):
                seconds, found = timed(address, "problems", **query)
                slowest = max(slowest, seconds)
                yield f"filter {query}: {found['matching']:,} problems in {seconds:.2f} s (Polars: {count:,})"
                if found["matching"] != count:
                    raise SystemExit("the counts differ")
            seconds, _ = timed(address, "problems", page=page["total"] // page["page_size"] - 1)
            yield f"the last page: {seconds:.2f} s"
            seconds, problem = timed(address, "problem", id=page["problems"][-1]["id"])
            chosen = problem["solutions"][0]["solution_id"]
            yield f"a problem: {seconds:.2f} s"
            yield f"its first solution, with the tokenizer: {timed(address, 'solution', id=chosen)[0]:.2f} s"
            yield f"its second one: {timed(address, 'solution', id=problem['solutions'][1]['solution_id'])[0]:.2f} s"
            yield f"memory up to here: {peak_gib(process):.2f} GiB"
            yield f"the overview's figures: {timed(address, 'overview')[0]:.2f} s"
            memory = peak_gib(process)
            yield f"peak memory: {memory:.2f} GiB"
        finally:
            process.kill()
            process.wait()
        yield f"ratio view_first_page_of_limit: {first / FIRST_S:.2f}"
        yield f"ratio view_slowest_filter_of_limit: {slowest / FILTER_S:.2f}"
        yield f"ratio view_memory_of_limit: {memory / LIMIT_GB:.2f}"


if __name__ == "__main__":
    arguments = sys.argv[1:]
    for line in _lines(int(arguments[0]) if arguments else 1_000_000, (arguments[1:] or [None])[0]):
        print(line, flush=True)
