"""Verdicts of `final` and `symbolic` on the samples and on hostile text, kept with the version that gave them.

A version promises that the same text gets the same verdicts. So these files may change only together with the
`version` of the verifier: `python -m tests.golden_verdicts` rewrites them, and refuses where it did not change.

One line is one solution. A verdict is `+`, `-` or `?` (correct, incorrect, unknown) and what decided or why nothing
did; a bare `?` stands for "nothing that can be checked", and null for a step that the verifier does not judge.
Nothing here takes a second of a CPU, so no verdict depends on the machine: where a worker hits its deadline all
the same, nothing is compared and nothing is written.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from stepconf.core.records import Solved, Verdict
from stepconf.problems.load import load_solutions
from stepconf.recipe import ProblemsRecipe, Recipe
from stepconf.stages.rows import imported
from stepconf.verifiers.base import OpenVerifier
from stepconf.verifiers.final import FinalVerifier
from stepconf.verifiers.symbolic import SymbolicVerifier
from stepconf.workers.pool import Pool
from tests.shared_data import Row, sample_rows
from tests.verifiers.hostile import hostile_strings

FOLDER = Path(__file__).parent
VERIFIERS: dict[str, Callable[[Pool], OpenVerifier]] = {"final": FinalVerifier, "symbolic": SymbolicVerifier}
DEADLINE_S = 120.0  # for a machine that has other things to do
HOSTILE_CHARS, EVERY_HOSTILE = 5_000, 3
UNFINISHED = {"? timeout", "? memory"}
_SIGN = {"correct": "+", "incorrect": "-", "unknown": "?"}

Digest = list[str | None]  # one verdict per step


@dataclass(frozen=True)
class Golden:
    """The verdicts of one verifier: `version` is its own part, without the version of a package that it names."""

    version: str
    verdicts: dict[str, Digest]


def moved(old: Golden, new: Golden) -> list[str]:
    """One line for each solution in both whose verdicts differ."""
    return [
        f"{name}\n    was {json.dumps(digest)}\n    is  {json.dumps(new.verdicts[name])}"
        for name, digest in old.verdicts.items()
        if digest != new.verdicts.get(name, digest)
    ]


def refusal(name: str, old: Golden, new: Golden) -> str:
    """Why the new verdicts of verifier `name` must not replace the old ones; "" where they may."""
    changes = moved(old, new)
    if unfinished := [one for one, digest in new.verdicts.items() if not UNFINISHED.isdisjoint(digest)]:
        return f"{name}: workers did not finish {unfinished}. Try again when this machine has less to do."
    if int(new.version) < int(old.version):
        return f"{name}: version {new.version} is older than the file's {old.version}."
    if changes and new.version == old.version:
        return (
            f"{name}: the verdicts on {len(changes)} solutions changed, but its version is still {new.version}. "
            f"Raise `version` in stepconf/verifiers/{name}.py and run `python -m tests.golden_verdicts`.\n"
            + "\n".join(changes)
        )
    return ""


def read(name: str, folder: Path = FOLDER) -> Golden:
    """The kept verdicts of the verifier."""
    head, *lines = map(json.loads, (folder / f"{name}.jsonl").read_text("utf-8").splitlines())
    return Golden(head["version"], {line["id"]: line["verdicts"] for line in lines})


def write(name: str, golden: Golden, folder: Path = FOLDER) -> None:
    """Keep the verdicts of the verifier, one line a solution."""
    lines = [{"verifier": name, "version": golden.version}]
    lines += [{"id": one, "verdicts": digest} for one, digest in golden.verdicts.items()]
    text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text, "utf-8")


def current(name: str) -> Golden:
    """The verdicts that the verifier gives today."""
    found = solutions([row for row in [*sampled(), *hostile()] if name in row["judges"]])
    with Pool(deadline_s=DEADLINE_S) as pool:
        verifier = VERIFIERS[name](pool)
        judged = verifier.verify(list(found.values()))
    digests = [[_digest(verdict) for verdict in steps] for steps in judged]
    return Golden(verifier.version.split("+")[0], dict(zip(found, digests, strict=True)))


def _digest(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return None
    reason = verdict.reason.removeprefix("decided by ")
    if verdict.label == "incorrect" and (by := re.search(r"\(([\w -]+)\)$", reason)):
        reason = by[1]  # the claim that failed stands before it
    if reason == "nothing that can be checked":
        reason = ""
    return f"{_SIGN[verdict.label]} {reason}".rstrip()


def solutions(given: list[Row]) -> dict[str, Solved]:
    """The rows by id, read as `stepconf verify` reads a file of them; without those that it leaves out."""
    found: dict[str, Solved] = {}
    with TemporaryDirectory() as folder:
        for column in ("solution", "steps"):
            path = Path(folder) / f"{column}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in given if column in row))
            if path.stat().st_size:
                for item in load_solutions(str(path), ProblemsRecipe(id_column="id")).rows:
                    solved = imported(item, Recipe())
                    if isinstance(solved, Solved):
                        found[item.external_id or ""] = solved
    return found


def sampled() -> Iterator[Row]:
    """What is judged of the samples: id, problem, answer, solution or steps, and the names of its `judges`."""
    both = list(VERIFIERS)
    for part in ("gsm8k/train", "gsm8k/test"):
        for row in sample_rows(f"{part}.jsonl.gz"):
            yield _row(part, row["question"], row["answer"], row["answer"], both)
    for part in ("math/train", "math/test", "benchmarks/math500"):
        for row in sample_rows(f"{part}.jsonl.gz"):
            yield _row(part, row["problem"], row.get("answer", row["solution"]), row["solution"], both)
    for part in ("processbench/gsm8k_dev", "processbench/math_dev"):
        for row in sample_rows(f"{part}.jsonl.gz"):
            yield {**row, "id": f"{part} {row['id']}", "judges": ["symbolic"]}
    part = "solutions/gsm8k_openai_models"
    for row in sample_rows(f"{part}.jsonl.gz"):
        for model in sorted(key for key, value in row.items() if isinstance(value, dict)):
            solution = row[model]["solution"]
            yield _row(f"{part} {model}", row["question"], row["ground_truth"], solution, both)
    for row in sample_rows("answer_equivalence_dev.jsonl.gz"):
        gold, said = row["gold"], row["pred"]
        yield _row("answer_equivalence_dev", f"{said} = {gold}", gold, said, ["final"])
    for row in sample_rows("cases.jsonl.gz"):
        judges = ["symbolic" if row["id"].startswith("sym") else "final"]
        yield {**row, "id": f"cases {row['id']}", "judges": judges}


def hostile() -> Iterator[Row]:
    """Hostile texts that take no time, as solutions; as `sampled`."""
    for text in hostile_strings(large=HOSTILE_CHARS, expensive=False)[::EVERY_HOSTILE]:
        if len(text) <= HOSTILE_CHARS:
            yield _row("hostile", text, "4", text, list(VERIFIERS))


def _row(part: str, problem: str, gold: str, solution: str, judges: list[str]) -> Row:
    """A row of a set whose rows have no short id: named by a hash and the start of its problem."""
    name = hashlib.sha256(problem.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    one = f"{part} {name} {' '.join(problem.split())[:24]}"
    return {"id": one, "problem": problem, "answer": gold, "solution": solution, "judges": judges}
