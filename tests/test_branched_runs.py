"""What reads or rewrites a run, on one with branches and on one that an older version wrote."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepconf.core.branches import TOO_HARD
from stepconf.core.paths import first_steps, whole_paths
from stepconf.core.schema import ADDED, TABLES, VERSION, older_verdicts
from stepconf.core.statements import STATES_NOTHING
from stepconf.examples import Reading, examples_of
from stepconf.hub.restore import read_folder
from stepconf.recipe import TrainRecipe
from stepconf.run.tables import read_shards, read_solved
from tests.edited_run import Row, edit, rewrite
from tests.invariants import check_invariants, rows_of, samples_of
from tests.report.test_view import ask, serving
from tests.scripted_engine import SUMS, branched_run, generate
from tests.scripted_engine import TOO_HARD as HARD_NUMBER
from tests.tiny import VOCABULARY, stepconf


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(branched_run(), tmp_path / "run"))


def summary_of(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())


def rows(run: Path) -> dict[str, list[Row]]:
    return {table: [row for part in read_shards(run, table) for row in part] for table in TABLES}


def ok(*arguments: object) -> str:
    ended = stepconf(*arguments)
    assert ended.code == 0, ended.err
    return ended.out


def coverage_of(steps: list[Row], hard: set[str]) -> tuple[float, Counter[str]]:
    """The share that is labelled or needs no label, and the others by reason, row by row."""
    judged, settled, reasons = 0, 0, Counter[str]()
    for step in steps:
        said = [verdict["reason"] for verdict in step["verdicts"]]
        spoken = [v for v in step["verdicts"] if v["label"] == "unknown"]
        rollout = [v["reason"] for v in spoken if v["verifier"] == "rollout"]
        otherwise = "no verifier decides" if len(spoken) == len(said) else "verifiers disagree"
        if STATES_NOTHING in said:
            reason = STATES_NOTHING
        elif step["problem_id"] in hard:
            reason = TOO_HARD
        else:
            judged += 1
            settled += step["label"] != "unknown" or step["after_error"]
            reason = "after the first error" if step["after_error"] else "".join(rollout) or otherwise
        if reason.startswith("the first error is among"):
            reason = "the first error is among several steps"
        reasons[reason] += step["label"] == "unknown"
    return settled / judged, +reasons


def test_the_summary_is_that_of_the_samples_with_branches_apart(run: Path) -> None:
    # A step that states nothing, and one that completions leave open, in two problems that are solved.
    def say(rows: list[Row]) -> None:
        spoken = [row for row in rows if any(v["verifier"] == "rollout" for v in row["verdicts"])]
        for row, reason in zip(
            spoken[::7], [STATES_NOTHING, "the first error is among steps 0 to 2"] * 9, strict=False
        ):
            row["verdicts"] = [v | {"label": "unknown", "reason": reason} for v in row["verdicts"]]

    edit(run, "steps", say)
    ok("relabel", run, "--policy", "consensus")
    found = summary_of(run)
    solutions, steps = rows_of(run, "solutions"), rows_of(run, "steps")
    samples, sampled = samples_of(run, "solutions"), samples_of(run, "steps")
    branches = [one for one in solutions if one["parent_solution_id"]]
    branched = [step for step in steps if step not in sampled]
    assert (found["solutions"], found["steps"]) == (len(solutions), len(steps))
    graded = Counter(one["answer_correct"] for one in samples)
    assert found["answers"] == {"correct": graded[True], "incorrect": graded[False], "unknown": graded[None]}
    assert found["labels"] == Counter(step["label"] for step in sampled)
    hard = {one["problem_id"] for one in solutions if str(HARD_NUMBER) in one["problem"]}
    share, reasons = coverage_of(sampled, hard)
    assert found["coverage"] == pytest.approx(share) and found["unlabelled"] == reasons
    assert {STATES_NOTHING, TOO_HARD, "the first error is among several steps"} <= set(reasons)

    apart = found["branches"]
    tokens = [sum(one["n_tokens"] for one in some) for some in (samples, branches)]
    assert (apart["solutions"], apart["steps"], apart["tokens"]) == (len(branches), len(branched), tokens[1])
    assert apart["tokens_per_sample_token"] == pytest.approx(tokens[1] / tokens[0])
    theirs = Counter(one["answer_correct"] for one in branches)
    assert apart["outcomes"] == {
        "right": theirs[True],
        "wrong": theirs[False],
        "cut": 0,
        "ungraded": theirs[None],
    }
    assert apart["labels"] == Counter(step["label"] for step in branched)
    share, reasons = coverage_of(branched, hard)
    assert apart["coverage"] == pytest.approx(share) and apart["unlabelled"] == reasons
    n_labels = sum(step["label"] != "unknown" for step in steps)
    assert found["tokens_per_label"] == pytest.approx(sum(tokens) / n_labels)


def test_the_table_at_the_end_says_so(tmp_path: Path) -> None:
    shown = generate(tmp_path / "run", errors=0.45).out
    for word in ("branches", "their answers", "answers (samples)", "AUROC of entropy (samples)", "coverage"):
        assert word in shown
    assert f"{len(SUMS)}, {4 * len(SUMS)}, " in shown
    plain = generate(tmp_path / "plain", branch="none").out
    assert "branch" not in plain and "(samples)" not in plain and "coverage" in plain
    assert summary_of(tmp_path / "plain")["branches"] == {}
    told = json.loads(ok("status", tmp_path / "run", "--json"))["stages"]["branch"]
    assert told["done"] == told["total"] == summary_of(tmp_path / "run")["branches"]["solutions"]


def test_a_cut_branch_is_no_wrong_one(run: Path) -> None:
    def cut(rows: list[Row]) -> None:
        for row in rows:
            if row["parent_solution_id"]:
                row["answer_correct"], row["finish_reason"] = None, "length"

    edit(run, "solutions", cut, "00000")
    n = sum(one["finish_reason"] == "length" for one in rows_of(run, "solutions"))
    ok("pairs", run, "--tau", 0.9)  # writes the summary anew, from other shards than it knows
    assert summary_of(run)["branches"]["outcomes"]["cut"] == n > 0


def test_relabelling_and_putting_together_keep_the_laws(run: Path) -> None:
    before = rows(run)
    ok("compact", run)
    assert len(list((run / "steps").glob("*.parquet"))) == 1 and rows(run) == before
    ok("relabel", run, "--policy", "first-decided")
    check_invariants(run, VOCABULARY)
    assert rows(run)["steps"] != before["steps"]
    ok("relabel", run, "--policy", "error-first")
    assert rows(run) == before
    ok("check", run)


def test_publishing_and_bringing_back(run: Path, tmp_path: Path) -> None:
    ok("push", run, "me/set", "--dry-run", "--out", tmp_path / "set")
    read_folder(tmp_path / "set", tmp_path / "back", "me/set", lambda stage, n: None)
    assert rows(tmp_path / "back") == rows(run)
    ok("check", tmp_path / "back")
    n = summary_of(run)["branches"]["solutions"]
    assert f"{n} of the solutions" in (tmp_path / "set" / "README.md").read_text()


def test_verifying_again_keeps_the_branches(run: Path, tmp_path: Path) -> None:
    ok("verify", run, "--verify", "final,symbolic", "--out", tmp_path / "again", "--set", "chunk=5")
    check_invariants(tmp_path / "again", VOCABULARY)
    for table, key in (("solutions", "solution_id"), ("steps", "step_id")):
        assert [row[key] for row in rows(tmp_path / "again")[table]] == [row[key] for row in rows(run)[table]]
    answers = [
        [one["answer_correct"] for one in rows(folder)["solutions"]] for folder in (run, tmp_path / "again")
    ]
    assert answers[0] == answers[1]
    ok("check", tmp_path / "again")


def test_sft_learns_from_samples(run: Path) -> None:
    right = {one["solution_id"] for one in samples_of(run, "solutions") if one["answer_correct"]}
    assert any(one["answer_correct"] for one in rows_of(run, "solutions") if one["parent_solution_id"])
    examples = examples_of(Reading(run, TrainRecipe(objective="sft"), 0))
    assert {one.key for one in examples} == right


# Runs of older schemas


def as_of_old(run: Path, version: str) -> None:
    """The run as this version of the schema wrote it."""
    for table in ("solutions", "steps"):
        added = ADDED[version].get(table, ())
        for file in sorted((run / table).glob("*.parquet")):
            held = pq.read_table(file)
            if table == "solutions":
                held = with_types_in_extra(held) if "answer_type" in added else held
            else:
                held = without_raw_replies(held)
            held = held.drop_columns(list(added))
            told = held.schema.metadata | {b"stepconf_schema": version.encode()}
            rewrite(run, file, held.replace_schema_metadata(told))


def without_raw_replies(steps: pa.Table) -> pa.Table:
    verdicts = [
        [{name: value for name, value in said.items() if name != "raw"} for said in row]
        for row in steps["verdicts"].to_pylist()
    ]
    return steps.set_column(
        steps.column_names.index("verdicts"), "verdicts", pa.array(verdicts, older_verdicts())
    )


def with_types_in_extra(solutions: pa.Table) -> pa.Table:
    rows = solutions.select(["answer_type", "extra"]).to_pylist()
    extra = [json.dumps(json.loads(row["extra"]) | {"answer_type": row["answer_type"]}) for row in rows]
    return solutions.set_column(solutions.column_names.index("extra"), "extra", pa.array(extra))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    out = tmp_path / "old"
    assert generate(out, branch="none").code == 0
    return out


COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "check": lambda run, out: ("check", run, "--json"),
    "report": lambda run, out: ("report", run, "--out", out / "page.html"),
    "push": lambda run, out: ("push", run, "me/set", "--dry-run", "--out", out / "set"),
    "calibrate": lambda run, out: ("calibrate", run, "--resamples", 10, "--out", out / "figures"),
    "status": lambda run, out: ("status", run, "--json"),
    "compact": lambda run, out: ("compact", run),
    "relabel": lambda run, out: ("relabel", run, "--policy", "consensus"),
}


def _without_ages(said: str) -> str:
    """Without how long ago something was written, which differs between two readings."""
    return re.sub(r'_ago": [0-9.]+', '_ago": 0', said)


@pytest.mark.parametrize("version", ADDED)
def test_runs_of_an_older_schema_are_read_as_before(version: str, old: Path, tmp_path: Path) -> None:
    new = Path(shutil.copytree(old, tmp_path / "new"))
    as_of_old(old, version)
    assert not set(ADDED[version]["solutions"]) & set(rows_of(old, "solutions")[0])
    assert all("raw" not in said for row in rows_of(old, "steps") for said in row["verdicts"])
    assert ("prefix_id" in rows_of(old, "steps")[0]) == (version != "1.0")
    for name, command in COMMANDS.items():
        said = {}
        for run in (old, new):
            out = tmp_path / f"{name}-{run.name}"
            out.mkdir()
            said[run] = ok(*command(run, out))
        if name in ("check", "status"):
            assert _without_ages(said[old]) == _without_ages(said[new]), name
    with serving(old) as server:
        listed = ask(server, "api/problems")
        assert [row["branches"] for row in listed["problems"]] == [0] * len(SUMS)
        assert ask(server, "api/problem", id=listed["problems"][0]["id"])["solutions"]
    ok("check", old)
    mine, theirs = summary_of(old), summary_of(new)
    assert {k: v for k, v in mine.items() if k != "shards"} == {
        k: v for k, v in theirs.items() if k != "shards"
    }
    known = rows(new)
    for table, held in rows(old).items():
        unknown = {"prefix_id": None} if table == "steps" and version == "1.0" else {}
        assert held == [row | unknown for row in known[table]]


@pytest.mark.parametrize("version", ADDED)
def test_verifying_a_run_of_an_older_schema_makes_one_of_this(
    version: str, old: Path, tmp_path: Path
) -> None:
    before = rows(old)
    as_of_old(old, version)
    ok("verify", old, "--verify", "final,symbolic", "--out", tmp_path / "again")
    check_invariants(tmp_path / "again", VOCABULARY)
    assert [row["prefix_id"] for row in rows(tmp_path / "again")["steps"]] == [
        row["prefix_id"] for row in before["steps"]
    ]
    ok("check", tmp_path / "again")
    metadata = pq.read_schema(tmp_path / "again" / "steps" / "part-00000.parquet").metadata
    assert metadata[b"stepconf_schema"] == VERSION.encode() and b"stepconf_upgraded_from" not in metadata


def test_the_first_own_step_of_a_branch_has_its_place_on_the_whole_path(run: Path) -> None:
    for _, solved in read_solved(run):
        whole = [one.solution for one in solved]
        firsts = first_steps((one.solution_id, one.parent_solution_id, one.branch_step) for one in whole)
        paths = whole_paths(solved)
        expected = {
            one.solution.solution_id: len(path.steps) - len(one.steps)
            for one, path in zip(solved, paths, strict=True)
        }
        assert firsts == expected
