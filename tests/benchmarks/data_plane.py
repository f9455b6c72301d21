"""What goes over a whole run, at ten million steps: rows a second, and peak memory.

The run is that of `synthetic_run`. Each command runs in a process of its own, as from a shell: its seconds are wall
time with start and imports, its memory is that of the process and all below it, looked at twenty times a second.
Beside each stands a plain Polars scan of the same columns of the same files, in the same run: the streaming engine
decodes them and lets them go; here only the scan itself is timed.

    python -m tests.benchmarks.data_plane [steps] [folder to keep the run in, and to find it next time [commands]]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stepconf.core.schema import TABLES
from stepconf.pairs.read import SOLUTION_COLUMNS, STEP_COLUMNS
from stepconf.run.tables import read_manifests
from tests.benchmarks.measured import measured
from tests.benchmarks.synthetic_run import SAMPLES, STEPS

LIMIT_GB, LEAST_SHARE = 4, 1 / 3
PAIRS_STEPS, PAIRS_S = 10_000_000, 60  # what `pairs` is to pass, and in how long
_WHOLE = {table: [field.name for field in fields] for table, fields in TABLES.items()}
COMMANDS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    # It also reads one field of the verdicts, which Polars cannot: left out of the scan.
    "pairs": ([], {"solutions": SOLUTION_COLUMNS, "steps": STEP_COLUMNS}),
    "check": ([], _WHOLE),
    "report": (
        ["--out", "{scratch}/report.html"],
        {
            "solutions": ["solution_id", "problem_id", "problem", "answer_correct"],
            "steps": ["solution_id", "label", "entropy_mean"],
            "pairs": ["solution_id", "step_index", "kind"],
        },
    ),
    "push": (["me/set", "--dry-run", "--out", "{scratch}/set"], _WHOLE),
    "compact": ([], _WHOLE),
    # Every label changes: of what `symbolic` found correct it says nothing.
    "relabel": (["--policy", "symbolic-veto"], {table: _WHOLE[table] for table in ("solutions", "steps")}),
}
OF_SCAN = ("check", "relabel")  # the others write all rows anew, or draw figures
# In a process of its own: what it needs would count as the memory of those started later.
_MAKE = "import sys; from pathlib import Path; from tests.benchmarks.synthetic_run import make_run; "
_MAKE += "make_run(Path(sys.argv[1]), int(sys.argv[2]), 512)"
_SCAN = """
import json, sys, time
import polars as pl
started = time.perf_counter()
for files, columns in json.loads(sys.stdin.read()):
    for batch in pl.scan_parquet(files).select(columns).collect_batches(maintain_order=False):
        pass
print(time.perf_counter() - started)
"""


def scan_seconds(run: Path, columns: dict[str, list[str]]) -> float:
    """Seconds of the plain scan, in a process of its own."""
    committed = [name for manifest in read_manifests(run) for name in manifest["files"]]
    of_table = {table: [str(run / n) for n in committed if n.startswith(f"{table}/")] for table in columns}
    asked = [(files, columns[table]) for table, files in of_table.items() if files]
    ended = subprocess.run(
        [sys.executable, "-c", _SCAN], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return float(ended.stdout)


def _lines(steps: int, made: Path, scratch: Path, names: tuple[str, ...]) -> Iterator[str]:
    started = time.perf_counter()
    if not made.exists():
        subprocess.run([sys.executable, "-c", _MAKE, str(made), str(steps // (SAMPLES * STEPS))], check=True)
    size = sum(file.stat().st_size for file in made.rglob("*.parquet")) / 2**30
    yield f"a run of {steps:,} steps ({size:.1f} GB), made or found in {time.perf_counter() - started:.0f} s"
    # No command writes into a file that is there, so that links do for a copy.
    run = shutil.copytree(made, scratch / "run", copy_function=os.link)
    ratios, missed = [], []
    for name in names:
        options, columns = COMMANDS[name]
        scanned = min(scan_seconds(run, columns) for _ in range(2))  # the first may wait for the disk
        told = [option.format(scratch=scratch) for option in options]
        seconds, memory, code = measured([name, str(run), *told])
        if code:
            raise SystemExit(f"stepconf {name} ended with {code}")
        share = scanned / seconds
        yield (
            f"{name}: {steps / seconds:,.0f} steps/s ({seconds:.1f} s), peak {memory:.2f} GB; "
            f"plain scan of its columns: {steps / scanned:,.0f} steps/s ({scanned:.1f} s)"
        )
        ratios += [
            f"ratio {name}_of_scan: {share:.2f}",
            f"ratio {name}_memory_of_limit: {memory / LIMIT_GB:.2f}",
        ]
        if name in OF_SCAN and share < LEAST_SHARE:
            missed.append(f"{name} is slower than a third of the scan")
        if name == "pairs" and steps <= PAIRS_STEPS and seconds > PAIRS_S:
            missed.append(f"pairs takes more than {PAIRS_S} s")
        missed += [f"{name} takes more than {LIMIT_GB} GB"] if memory > LIMIT_GB else []
    yield from (f"MISSED: {what}" for what in missed)
    yield from ratios


def main(steps: str = "10000000", folder: str = "", *names: str) -> None:
    """Make the run, or find it in `folder`, measure, print; without a folder nothing is left."""
    kept = Path(folder) if folder else None
    with tempfile.TemporaryDirectory(dir=kept, prefix="data-plane-") as scratch:
        made = (kept or Path(scratch)) / f"run-{steps}"
        for line in _lines(int(steps), made, Path(scratch), names or tuple(COMMANDS)):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
