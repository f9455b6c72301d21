"""Killed at any moment, then run again: the rows are those of a run that nobody disturbed."""

import fcntl
import random
from pathlib import Path
from typing import Any

import pytest

from stepconf.run.tables import read_pairs
from tests.forked import Forked, forked
from tests.invariants import check_invariants, rows_of
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import VOCABULARY, stepconf, with_tiny

# (verifiers, random points): without a pool of workers a run takes a fraction of a second.
POINTS = {"": 16, "final,symbolic": 4}
# Without a gold answer `uncertain` branches every sample; with one, a problem that is too hard is branched at its
# start.
ANSWERS = [None if i % 2 else str(2 * i) for i in range(8)]
PROBLEMS = [{"problem": f"What is {i} + {i}?", "answer": answer} for i, answer in enumerate(ANSWERS)]
BRANCHES = ["--branch", "first-error,uncertain", "--set", "branch.n=3", "--set", "branch.wave=2"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("problems") / "problems.jsonl", PROBLEMS)


def command(problems: Path, out: Path, verify: str = "") -> list[Any]:
    options = ["--samples", 2, "--max-tokens", 10, "--verify", verify, "--set", "verify.workers=1"]
    return ["generate", "--problems", problems, "--out", out, *with_tiny(branches=True), *BRANCHES, *options]


def without_seconds(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of the run, but for how long verifiers took."""
    rows = {table: rows_of(run, table) for table in ("solutions", "steps")}
    for step in rows["steps"]:
        for verdict in step["verdicts"]:
            del verdict["seconds"]
    return rows


def check_clean(run: Path) -> None:
    """Nothing but committed files is in the folder."""
    assert not list(run.rglob("*.tmp"))
    chunks = {file.stem for file in (run / "manifests").iterdir() if file.stem != "pairs"}
    for table in ("solutions", "steps"):
        assert {file.stem.removeprefix("part-") for file in (run / table).iterdir()} == chunks


class Undisturbed:
    """A run made in one go, in a child like those that will be killed."""

    def __init__(self, problems: Path, folder: Path, verify: str) -> None:
        self.out = folder / "undisturbed"
        self.ended: Forked = forked(command(problems, self.out, verify), folder)
        assert self.ended.code == 0, self.ended.err
        check_invariants(self.out, VOCABULARY)
        self.rows = without_seconds(self.out)


@pytest.fixture(scope="module")
def undisturbed(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(problems, tmp_path_factory.mktemp("plain"), "")


def check_resumes(problems: Path, out: Path, scratch: Path, whole: Undisturbed, verify: str = "") -> None:
    again = forked(command(problems, out, verify), scratch)
    assert again.code == 0, again.err
    assert without_seconds(out) == whole.rows
    check_clean(out)


@pytest.mark.slow  # ten such cases, with other faults too, are in test_chaos.py
@pytest.mark.parametrize("verify", POINTS)
def test_killed_at_random_points(verify: str, problems: Path, tmp_path: Path) -> None:
    whole = Undisturbed(problems, tmp_path, verify)
    draws = random.Random(20260507 + len(verify))
    codes = []
    for number in range(POINTS[verify]):
        out = tmp_path / f"run{number}"
        delay = draws.uniform(0, 0.8 * whole.ended.seconds)  # the machine may be faster by then
        codes.append(forked(command(problems, out, verify), tmp_path, kill_after=delay).code)
        if out.exists():
            check_invariants_of_partial(out, whole)
        check_resumes(problems, out, tmp_path, whole, verify)
    assert set(codes) <= {-9, 0} and codes.count(-9) >= len(codes) // 4, codes


def check_invariants_of_partial(out: Path, whole: Undisturbed) -> None:
    """Committed chunks are whole: every manifest's files are there, as they will be in the end."""
    from stepconf.run.tables import read_manifests, read_shards

    for manifest in read_manifests(out):
        assert all((out / name).stat().st_size == file["bytes"] for name, file in manifest["files"].items())
    ids = [row["solution_id"] for rows in read_shards(out, "solutions", ["solution_id"]) for row in rows]
    assert len(set(ids)) == len(ids) and set(ids) <= {one["solution_id"] for one in whole.rows["solutions"]}


@pytest.mark.slow
def test_killed_over_and_over(problems: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Each attempt in the same folder comes one commit further, and is killed there."""
    out = tmp_path / "run"
    for _ in range(4):
        # The third rename of an attempt that resumes is a manifest's.
        ended = forked(command(problems, out), tmp_path, at=("os.replace", 3, "after"))
        assert ended.code == -9, ended.err
    check_resumes(problems, out, tmp_path, undisturbed)


@pytest.mark.slow
def test_killed_at_every_rename(problems: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Between the shards, between a shard and its manifest, behind the manifest, before the summary."""
    renames = undisturbed.ended.calls["os.replace"]
    assert renames == 1 + 3 * 4 + 2, "the recipe, two shards and a manifest a chunk, the counts"
    for n in range(1, renames + 1):
        out = tmp_path / f"run{n}"
        ended = forked(command(problems, out), tmp_path, at=("os.replace", n, "before"))
        assert ended.code == -9, ended.err
        check_resumes(problems, out, tmp_path, undisturbed)


@pytest.mark.parametrize("n", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 7])
def test_killed_with_a_file_half_way(
    n: int, problems: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Written under its temporary name, not renamed."""
    out = tmp_path / "run"
    assert forked(command(problems, out), tmp_path, at=("os.fsync", n, "before")).code == -9
    assert len(list(out.rglob("*.tmp"))) == 1
    check_resumes(problems, out, tmp_path, undisturbed)


def test_pairs_killed_anywhere_are_all_there_or_not_at_all(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", [row | {"id": str(i)} for i in range(3) for row in GIVEN])
    for name in ("a", "b"):
        assert forked(["score", file, "--out", tmp_path / name, *with_tiny()], tmp_path).code == 0
    ended = forked(["pairs", tmp_path / "a", "--tau", 0.9], tmp_path)
    assert ended.code == 0, ended.err
    whole, n_replaced = rows_of(tmp_path / "a", "pairs"), ended.calls["os.replace"]
    assert whole and n_replaced >= 3
    for n in range(1, n_replaced + 1):
        killed = forked(["pairs", tmp_path / "b", "--tau", 0.9], tmp_path, at=("os.replace", n, "before"))
        assert killed.code == -9
        assert rows_of(tmp_path / "b", "pairs") in ([], whole), "what a glob sees"
        read = [p for split in ("train", "validation") for s in read_pairs(tmp_path / "b", split) for p in s]
        assert len(read) in (0, len(whole))
    assert forked(["pairs", tmp_path / "b", "--tau", 0.9], tmp_path).code == 0
    assert rows_of(tmp_path / "b", "pairs") == whole


def test_a_finished_run_is_not_touched(problems: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    files = {file: file.stat().st_mtime_ns for file in undisturbed.out.glob("*/*.*")}
    again = forked(command(problems, undisturbed.out), tmp_path)
    assert again.code == 0 and again.calls["os.replace"] == 2, "only the counts are written"
    assert files == {file: file.stat().st_mtime_ns for file in undisturbed.out.glob("*/*.*")}


def test_another_recipe_in_the_same_folder_is_refused(problems: Path, undisturbed: Undisturbed) -> None:
    before = undisturbed.rows
    other = [*command(problems, undisturbed.out), "--temperature", 0.9, "--set", "segment.mode=sentences"]
    ended = stepconf(*other, columns=300)
    assert ended.code == 1 and ended.out == ""
    assert "sampling.temperature (there 0.7, now 0.9)" in ended.err
    assert "segment.mode (there 'auto', now 'sentences')" in ended.err
    assert ended.err.count(" (there ") == 2, "only the keys that differ are named"
    assert "--out" in ended.err
    assert without_seconds(undisturbed.out) == before


def test_another_command_in_the_same_folder_is_refused(undisturbed: Undisturbed, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    ended = stepconf("segment", file, "--out", undisturbed.out)
    assert ended.code == 1 and "command (there 'generate', now 'segment')" in ended.err


def test_more_workers_continue_the_same_run(problems: Path, undisturbed: Undisturbed) -> None:
    ended = stepconf(*command(problems, undisturbed.out), "--set", "verify.workers=2")
    assert ended.code == 0, ended.err


def test_a_second_process_on_the_folder_is_refused(problems: Path, undisturbed: Undisturbed) -> None:
    with (undisturbed.out / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (command(problems, undisturbed.out), ["pairs", undisturbed.out, "--tau", 0.5]):
            ended = stepconf(*arguments)
            assert ended.code == 1 and "another process is writing" in ended.err
    ended = stepconf(*command(problems, undisturbed.out))
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("change", ["edited", "shorter", "reordered"])
def test_a_changed_source_is_refused(change: str, tmp_path: Path) -> None:
    rows = [dict(row) for row in PROBLEMS]
    file = write_jsonl(tmp_path / "problems.jsonl", rows)
    assert stepconf(*command(file, tmp_path / "run")).code == 0
    if change == "edited":
        rows[5]["problem"] += " Be quick."
    write_jsonl(file, {"edited": rows, "shorter": rows[:4], "reordered": rows[::-1]}[change])
    before = without_seconds(tmp_path / "run")
    ended = stepconf(*command(file, tmp_path / "run"))
    assert ended.code == 1 and "Traceback" not in ended.err
    assert ("shorter" if change == "shorter" else "has changed") in ended.err
    assert without_seconds(tmp_path / "run") == before


def test_a_source_that_grew_by_whole_chunks_is_continued(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "problems.jsonl", PROBLEMS[:4])
    assert stepconf(*command(file, tmp_path / "run")).code == 0
    before = rows_of(tmp_path / "run", "solutions")
    write_jsonl(file, PROBLEMS)
    assert stepconf(*command(file, tmp_path / "run")).code == 0
    assert rows_of(tmp_path / "run", "solutions")[: len(before)] == before
    assert len(rows_of(tmp_path / "run", "solutions")) == 2 * len(before)


def test_a_damaged_shard_is_named_with_what_to_do(
    problems: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert forked(command(problems, out), tmp_path).code == 0
    shard = out / "steps" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-8])
    ended = stepconf("pairs", out, "--tau", 0.5)
    assert ended.code == 1 and "part-00001.parquet" in ended.err and "--repair" in ended.err
    assert forked([*command(problems, out), "--repair"], tmp_path).code == 0
    check_resumes(problems, out, tmp_path, undisturbed)
