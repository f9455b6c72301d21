"""What `symbolic` says of steps that people labelled, and of solutions that people wrote.

usage: python -m tests.benchmarks.claims_on_people

Each set is split in two by a hash of the problem: the rules were developed on the first half. Under the figures of
solutions that people wrote stands each alarm.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from stepconf.core.claims import check_steps
from stepconf.core.segment import segment
from tests.shared_data import large_rows


class Labelled(NamedTuple):
    """A solution and what people say of it: the first wrong step of ProcessBench, the rating of PRM800K's last."""

    problem: str
    steps: list[str]
    label: int


def main() -> None:
    """Print the figures of both halves of each set."""
    for name in ("processbench/gsm8k_dev", "processbench/math_dev"):
        for half, rows in halves(processbench(name)):
            firsts = [(row.label, first_alarm(row)) for row in rows]
            wrong = [pair for pair in firsts if pair[0] >= 0]
            found = sum(label == alarm for label, alarm in wrong)
            alarms = sum(alarm is not None for label, alarm in firsts if label < 0)
            print(
                f"{name}, half {half}: first errors found {found} of {len(wrong)} ({found / len(wrong):.3f});",
                end=" ",
            )
            print(f"all-correct solutions with an alarm {alarms} of {len(firsts) - len(wrong)}")
    for half, rows in halves(prm800k()):
        for rating in (1, -1):
            rated = [row for row in rows if row.label == rating]
            flagged = sum(check_steps(row.problem, row.steps)[-1].label == "incorrect" for row in rated)
            print(f"prm800k, half {half}: steps rated {rating:+} flagged {flagged} of {len(rated)}")
    for name in ("math", "gsm8k"):
        for half, rows in halves(written(name)):
            alarms = [reason for row in rows if (reason := first_reason(row))]
            print(f"{name}, half {half}: human solutions with an alarm {len(alarms)} of {len(rows)}")
            for reason in alarms:
                print(f"  {reason}")


def halves(rows: Iterator[Labelled]) -> list[tuple[int, list[Labelled]]]:
    """The rows by the parity of a hash of their problem."""
    found: list[list[Labelled]] = [[], []]
    for row in rows:
        found[hashlib.sha256(row.problem.encode()).digest()[0] % 2].append(row)
    return [(1, found[0]), (2, found[1])]


def first_alarm(row: Labelled) -> int | None:
    """The first step that is flagged."""
    labels = [found.label for found in check_steps(row.problem, row.steps)]
    return labels.index("incorrect") if "incorrect" in labels else None


def first_reason(row: Labelled) -> str:
    """Why the first flagged step is flagged; "" where none is."""
    return next(
        (found.reason for found in check_steps(row.problem, row.steps) if found.label == "incorrect"), ""
    )


def processbench(name: str) -> Iterator[Labelled]:
    for row in large_rows(f"{name}.jsonl.gz"):
        yield Labelled(row["problem"], row["steps"], row["label"])


def prm800k() -> Iterator[Labelled]:
    for row in large_rows("prm800k/phase1_test.jsonl.gz"):
        if row["rating"] in (1, -1):
            yield Labelled(row["instruction"], [*row["responses"], row["next_response"]], row["rating"])


def written(name: str) -> Iterator[Labelled]:
    for split in ("train", "test"):
        for row in large_rows(f"{name}/{split}.jsonl.gz"):
            text = row["solution"] if name == "math" else row["answer"]
            problem = row["problem"] if name == "math" else row["question"]
            yield Labelled(problem, [text[a:b] for a, b in segment(text)], 0)


if __name__ == "__main__":
    main()
