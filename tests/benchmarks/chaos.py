"""A hundred small runs, each hit by a fault and continued: `python -m tests.benchmarks.chaos [FIRST [COUNT]]`.

Each is told in a line. A failure names its number; `... chaos NUMBER 1` makes it again.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos import Case
from tests.test_pipeline import write_jsonl
from tests.test_resume import PROBLEMS, Undisturbed


def main(first: int = 0, count: int = 100) -> None:
    """Run the cases `first` to `first + count - 1`."""
    started, equal, kinds = time.perf_counter(), 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="stepconf-chaos-") as scratch:
        folder = Path(scratch)
        problems = write_jsonl(folder / "problems.jsonl", PROBLEMS)
        whole = Undisturbed(problems, folder, "")
        for number in range(first, first + count):
            place = folder / f"case-{number}"
            place.mkdir()
            case = Case(number, problems, place, whole)
            try:
                case.check()
                equal, verdict = equal + 1, "equal"
            except AssertionError as error:
                verdict = f"NOT EQUAL: {error}"[:2000]
            kinds[case.kind] += 1
            print(f"{case.story}: {verdict}", flush=True)
    rows = ", ".join(f"{len(found)} {table}" for table, found in whole.rows.items())
    print(f"{equal} of {count} runs hold the rows of the undisturbed one ({rows}), row for row;")
    print(f"{time.perf_counter() - started:.0f} s; by fault: {dict(kinds)}")
    print(f"ratio chaos: {equal / count:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
