"""Shards cut by bytes and put together: the rows stay, wherever it is cut off, and every command goes on."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.records import Solved
from stepconf.hub.folder import write_folder
from stepconf.hub.restore import read_folder
from stepconf.report.explorer import Explorer
from stepconf.report.source import open_source
from stepconf.run import compact as compacting
from stepconf.run import shard as sharding
from stepconf.run.compact import compact
from stepconf.run.parts import chunks_of, cut, parts_of
from stepconf.run.shards import Run
from stepconf.run.tables import (
    read_aligned,
    read_manifests,
    read_metadata,
    read_recipe,
    read_shards,
    read_solved,
)
from tests.edited_run import good_run, rewrite, with_lists_of_others
from tests.test_pipeline import write_jsonl
from tests.test_shards import FACTS, RECIPE, solved
from tests.tiny import stepconf

TABLES = ("solutions", "steps", "pairs")
GIVEN = [
    {
        "problem": f"What is {i} + 1?",
        "answer": str(i + 1),
        "solution": f"First, {i} + 1 = {i + 1}.\n\nIt is {i + 1}.",
    }
    for i in range(7)
]


def silent(stage: str, n: int) -> None:
    """Nobody watches."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three chunks, with pairs of both splits."""
    return Path(shutil.copytree(good_run(), tmp_path / "run"))


@contextmanager
def shard_bytes(limit: int) -> Iterator[None]:
    with patch.object(sharding, "SHARD_BYTES", limit), patch.object(compacting, "SHARD_BYTES", limit):
        yield


def rows(run: Path) -> dict[str, list[dict[str, Any]]]:
    return {table: [row for part in read_shards(run, table) for row in part] for table in TABLES}


def check_aligned(run: Path) -> None:
    """The steps of each part are those of its solutions; nothing lies about; the run has no fault."""
    for _, solutions, steps in read_aligned(run):
        assert set(steps["solution_id"].to_pylist()) == set(solutions["solution_id"].to_pylist())
    checked = json.loads(stepconf("check", run, "--partial", "--json").out)
    assert checked["ok"] and not any(one["check"].startswith("shard-") for one in checked["findings"]), (
        checked
    )


def chunk_names(run: Path) -> list[str]:
    return [
        name
        for manifest in read_manifests(run)
        if manifest["chunk"] != "pairs"
        for name in chunks_of(manifest)
    ]


def in_pieces(source: Path, out: Path, limit: int) -> Path:
    """The run as it were if a shard had room for so little."""
    with shard_bytes(limit), Run(out, read_recipe(source)) as run:
        run.metadata = read_metadata(source)
        for manifest, (name, some) in zip(read_manifests(source), read_solved(source), strict=False):
            facts = {key: value for key, value in manifest.items() if key not in ("chunk", "files")}
            run.commit(
                name,
                {"solutions": [s.solution for s in some], "steps": [t for s in some for t in s.steps]},
                facts,
            )
    shutil.copy(source / "source.json", out)
    return out


# Cutting

# Of each solution: 0 where a problem begins, 3 for a branch of what is before it; and its steps.
SOLUTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12)
BRANCH = 3


@given(SOLUTIONS, st.integers(1, 4000))
def test_pieces_are_whole_aligned_and_small(shape: list[tuple[int, int]], limit: int) -> None:
    ids = [f"s{i}" for i in range(len(shape))]
    problems = [f"p{sum(new == 0 for new, _ in shape[: i + 1])}" for i in range(len(shape))]
    owners = [key for key, (_, n) in zip(ids, shape, strict=True) for _ in range(n)]
    parents = [ids[i - 1] if i and new == BRANCH else None for i, (new, _) in enumerate(shape)]
    columns = {"solution_id": ids, "problem_id": problems, "parent_solution_id": parents}
    solutions = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    steps = pa.table({"solution_id": pa.array(owners, pa.string()), "n": list(range(len(owners)))})
    pieces = list(cut(solutions, steps, limit))
    assert pa.concat_tables(own for own, _ in pieces).equals(solutions)
    assert pa.concat_tables(theirs for _, theirs in pieces).equals(steps)
    for own, theirs in pieces:
        assert set(theirs["solution_id"].to_pylist()) <= set(own["solution_id"].to_pylist())
        branches = own["parent_solution_id"].to_pylist()
        assert branches[:1] in ([], [None]), "a branch lies with its parent"
        assert own.nbytes + theirs.nbytes <= limit or None not in branches[1:] or not owners
    of_piece = [own["problem_id"].to_pylist() for own, _ in pieces]
    for before, after in pairwise(of_piece):
        if before[-1] == after[0]:
            assert len({*before, *after}) == 1 or len({*before}) == 1 or len({*after}) == 1, (
                "cut within one problem only"
            )


def test_steps_out_of_order_are_not_cut() -> None:
    parents = pa.nulls(2, pa.string())
    solutions = pa.table({"solution_id": ["a", "b"], "problem_id": ["p", "q"], "parent_solution_id": parents})
    for owners in (["b", "a"], ["a", "x"]):
        assert len(list(cut(solutions, pa.table({"solution_id": owners}), 1))) == 1


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.slow), 3000, 20_000])
def test_a_large_chunk_is_several_shards_of_one_manifest(limit: int, run: Path, tmp_path: Path) -> None:
    out = in_pieces(run, tmp_path / "out", limit)
    assert len(read_manifests(out)) == 3 and any(len(parts_of(m)) > 1 for m in read_manifests(out))
    assert stepconf("pairs", out, "--tau", 0.99, "--set", "pairs.validation=0.5").code == 0
    assert rows(out) == rows(run)
    check_aligned(out)
    assert stepconf("relabel", out, "--policy", "consensus").code == 0
    assert stepconf("relabel", run, "--policy", "consensus").code == 0
    assert rows(out) == rows(run)
    check_aligned(out)


def test_a_large_shard_is_read_by_row_groups(run: Path, tmp_path: Path) -> None:
    with patch.object(sharding, "GROUP_BYTES", 3000):
        out = in_pieces(run, tmp_path / "out", 1 << 30)
        stepconf("pairs", out, "--tau", 0.99, "--set", "pairs.validation=0.5")
    group = [pq.ParquetFile(file).metadata.num_row_groups for file in (out / "steps").iterdir()]
    assert min(group) > 1 and len(list(read_shards(out, "steps"))) == sum(group)
    assert rows(out)["steps"] == rows(run)["steps"]
    check_aligned(out)
    one, several = (Explorer(open_source(str(where), True)) for where in (run, out))
    for name in ("solution", "label", "conflict", "entropy", "right"):
        np.testing.assert_array_equal(getattr(several.index, name), getattr(one.index, name))
    texts = one.token_texts()
    assert several.steps(range(24), texts) == one.steps(range(24), texts)


# Putting together


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 40_000),
    st.integers(1, 9000),
    st.sets(st.integers(0, 5), max_size=2),
)
def test_rows_stay_whatever_the_chunks_are(
    chunks: list[tuple[int, bool]], limit: int, before: int, missing: set[int]
) -> None:
    """Chunks of some solutions, some cut, some by another engine, some missing; a second time changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        out, index = Path(folder) / "run", 0
        with shard_bytes(before), Run(out, RECIPE) as run:
            for number, (size, other) in enumerate(chunks):
                some: list[Solved] = [solved(index + i) for i in range(size)]
                index += size
                run.metadata = {"engine": "b" if other else "a"}
                if number not in missing:
                    tables = {
                        "solutions": [s.solution for s in some],
                        "steps": [t for s in some for t in s.steps],
                    }
                    run.commit(f"{number:05d}", tables, FACTS | {"solutions": size, "steps": 2 * size})
        held, names = rows(out), chunk_names(out)
        engines = [(t.schema.metadata[b"engine"], len(t)) for _, t, _ in read_aligned(out) if len(t)]
        with shard_bytes(limit):
            n_before, n_after = compact(out, silent)
            assert rows(out) == held and chunk_names(out) == names
            after = [(t.schema.metadata[b"engine"], len(t)) for _, t, _ in read_aligned(out) if len(t)]
            for engine in (b"a", b"b"):
                assert sum(n for one, n in engines if one == engine) == sum(
                    n for one, n in after if one == engine
                )
            assert n_after <= n_before
            for manifest in read_manifests(out):
                numbers = [int(name) for name in chunks_of(manifest)]
                assert numbers == list(range(numbers[0], numbers[-1] + 1)), "what is missing has room between"
        with Run(out, RECIPE):
            on_disk = {f"{file.parent.name}/{file.name}" for file in out.glob("s*/*.parquet")}
            assert on_disk == {name for manifest in read_manifests(out) for name in manifest["files"]}


def test_a_compacted_run_is_the_same_run(run: Path) -> None:
    held, summary = rows(run), json.loads((run / "summary.json").read_text())
    said = stepconf("compact", run)
    assert said.code == 0 and "shards before, 4 now" in said.out, said
    names = {f"{file.parent.name}/{file.name}" for file in run.glob("*/*.parquet")}
    assert names == {"solutions/part-00000-00002.parquet", "steps/part-00000-00002.parquet"} | {
        f"pairs/{file.name}" for file in (run / "pairs").iterdir()
    }
    assert rows(run) == held
    check_aligned(run)
    stat = {file: file.stat().st_mtime_ns for file in run.glob("*/*.*")}
    assert "4 shards before, 4 now" in stepconf("compact", run).out
    assert stat == {file: file.stat().st_mtime_ns for file in run.glob("*/*.*")}
    status = json.loads(stepconf("status", run, "--json").out)
    assert status["chunks"]["done"] == 3 and status["steps"] == len(held["steps"])
    assert stepconf("check", run).code == 0, "summary and pairs are still those of the run"
    # Relabelled there and back, and with new pairs, it is as it was.
    for policy in ("consensus", "first-decided"):
        assert stepconf("relabel", run, "--policy", policy).code == 0
    assert stepconf("pairs", run, "--tau", 0.99, "--set", "pairs.validation=0.5").code == 0
    assert rows(run) == held
    again = json.loads((run / "summary.json").read_text())
    anew = {"seconds", "shards"}
    assert {k: v for k, v in again.items() if k not in anew} == {
        k: v for k, v in summary.items() if k not in anew
    }


def test_shards_with_lists_of_other_writers_are_joined(run: Path) -> None:
    held = rows(run)
    for table in ("solutions", "steps"):
        file = run / f"{table}/part-00001.parquet"
        rewrite(run, file, with_lists_of_others(pq.read_table(file)))
    assert stepconf("compact", run).code == 0
    assert rows(run) == held
    assert stepconf("check", run).code == 0


def test_view_shows_a_compacted_run(run: Path) -> None:
    before = Explorer(open_source(str(run), False))
    shown = [before.problem(i) for i in range(6)]
    steps = [before.steps(before.index.samples_of[i], before.token_texts()) for i in range(6)]
    assert stepconf("compact", run).code == 0
    after = Explorer(open_source(str(run), False))
    assert [after.problem(i) for i in range(6)] == shown
    assert [after.steps(after.index.samples_of[i], after.token_texts()) for i in range(6)] == steps


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3000, 1 << 26])
def test_a_compacted_run_goes_to_the_hub_and_back(limit: int, run: Path, tmp_path: Path) -> None:
    held = rows(run)
    cut_up = in_pieces(run, tmp_path / "cut", limit)
    stepconf("compact", run)
    for source in (run, cut_up):
        folder, out = tmp_path / f"{source.name}-hub", tmp_path / f"{source.name}-back"
        write_folder(source, folder, "me/set", None, True, silent)
        read_folder(folder, out, "me/set", silent)
        assert {t: r for t, r in rows(out).items() if r} == {t: r for t, r in held.items() if rows(source)[t]}
        assert [m["files"].keys() for m in read_manifests(out)] == [
            m["files"].keys() for m in read_manifests(source)
        ]
        check_aligned(out)
        read_folder(folder, out, "me/set", silent)
    apart = Path(shutil.copytree(good_run(), tmp_path / "apart"))
    with pytest.raises(Exception, match="not been compacted alike"):
        read_folder(tmp_path / "run-hub", apart, "me/set", silent)
    assert rows(apart) == held


def segment(folder: Path, out: Path, *more: str) -> Any:
    source = write_jsonl(folder / "given.jsonl", GIVEN)
    return stepconf("segment", source, "--out", out, "--set", "chunk=2", *more)


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert segment(tmp_path, out).code == 0
    whole = rows(out)
    for name in ("00003", "00001"):
        (out / f"manifests/{name}.json").unlink()
    assert stepconf("compact", out).code == 0
    assert [m["chunk"] for m in read_manifests(out)] == ["00000", "00002"], (
        "nothing is put together over a gap"
    )
    assert segment(tmp_path, out).code == 0
    assert rows(out) == whole
    assert stepconf("compact", out).code == 0 and len(read_manifests(out)) == 1
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/*.*")}
    assert segment(tmp_path, out).code == 0, "there is nothing left to do"
    assert before == {file: file.stat().st_mtime_ns for file in out.glob("*/*.*")}
    assert rows(out) == whole
    # What is added later is put together with what was before.
    (out / "manifests/00000-00003.json").unlink()
    assert segment(tmp_path, out).code == 0
    with shard_bytes(1 << 14):
        stepconf("compact", out)
    assert stepconf("compact", out).code == 0 and len(read_manifests(out)) == 1 and rows(out) == whole


def test_another_source_is_refused_as_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    segment(tmp_path, out)
    stepconf("compact", out)
    with patch.dict(GIVEN[2], {"solution": "Otherwise."}):
        refused = segment(tmp_path, out)
    assert refused.code == 1 and "the input of chunk 00001" in refused.err
    with patch.object(sharding, "GROUP_BYTES", 1):
        source = write_jsonl(tmp_path / "given.jsonl", GIVEN[:4])
        shorter = stepconf("segment", source, "--out", out, "--set", "chunk=2")
    assert shorter.code == 1 and "chunk 00002 has no input any more" in shorter.err


def test_repair_makes_only_what_is_damaged_anew(tmp_path: Path) -> None:
    """Chunks that were put together are made anew together; parts of one chunk, too."""
    out = tmp_path / "run"
    with shard_bytes(1):
        segment(tmp_path, out)
        whole = rows(out)
        (out / "steps/part-00001.001.parquet").write_bytes(b"PAR1")
        before = {file: file.stat().st_mtime_ns for file in out.glob("*/*.*")}
        assert segment(tmp_path, out).code == 1
        assert segment(tmp_path, out, "--repair").code == 0
    changed = {f.name for f, then in before.items() if f.stat().st_mtime_ns != then}
    assert (
        changed == {"00001.json", "part-00001.000.parquet", "part-00001.001.parquet"} and rows(out) == whole
    )
    sizes = {m["chunk"]: m for m in read_manifests(out)}
    with shard_bytes(1 << 14), patch.object(compacting, "_chunk_pieces", _two_by_two):
        compact(out, silent)
    assert chunk_names(out) == sorted(sizes)
    (out / "steps/part-00000-00001.parquet").write_bytes(b"PAR1")
    assert stepconf("check", out).code == 1
    assert segment(tmp_path, out, "--repair").code == 0
    assert [m["chunk"] for m in read_manifests(out)] == ["00000", "00001", "00002-00003"] and rows(
        out
    ) == whole


def _two_by_two(path: Path, manifests: list[dict[str, Any]]) -> Iterator[Any]:
    for number, manifest in enumerate(manifests):
        yield compacting.Piece(manifest, 1, (number // 2,), True)


# Cut off at any moment


class Killed(BaseException):
    """Nothing is done any more."""


_POINTS = ("fsync", "replace", "unlink", "rename")


@contextmanager
def stopped(nth: int) -> Iterator[list[str]]:
    """End at the n-th change of a file, half of the time before and half after it."""
    calls: list[str] = []

    def stopping(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) > nth:
                raise Killed
            found = real(*given, **named)
            if len(calls) == nth and nth % 2:
                calls.append("after")
                raise Killed
            return found

        return call

    patches = [patch.object(os, name, stopping(name, getattr(os, name))) for name in _POINTS]
    for one in patches:
        one.start()
    try:
        yield calls
    finally:
        for one in patches:
            one.stop()


def test_cut_off_at_every_moment_no_row_is_lost_or_twice(tmp_path: Path) -> None:
    held = rows(good_run())
    whole = Path(shutil.copytree(good_run(), tmp_path / "whole"))
    with stopped(10**6) as calls:
        compact(whole, silent)
    assert len(calls) > 12 and rows(whole) == held
    files = {f.relative_to(whole): f.read_bytes() for f in whole.rglob("*.parquet")}
    seen = set()
    for nth in range(len(calls)):
        out = Path(shutil.copytree(good_run(), tmp_path / f"run-{nth}"))
        with pytest.raises(Killed), stopped(nth):
            compact(out, silent)
        assert rows(out) == held, f"a reader, after {nth} of {calls}"
        seen.add(tuple(m["chunk"] for m in read_manifests(out)))
        if nth % 3:
            with Run(out, read_recipe(out)):
                assert rows(out) == held, f"the next writer, after {nth} of {calls}"
                named = {name for manifest in read_manifests(out) for name in manifest["files"]}
                assert {f"{f.parent.name}/{f.name}" for f in out.glob("*/*.parquet")} == named
        compact(out, silent)
        assert {f.relative_to(out): f.read_bytes() for f in out.rglob("*.parquet")} == files
        check_aligned(out)
        shutil.rmtree(out)
    assert seen == {("00000", "00001", "00002", "pairs"), ("00000-00002", "pairs")}


def test_a_reader_meets_the_run_being_compacted(run: Path) -> None:
    """The manifests vanish after they were listed: they are listed again."""
    real = Path.glob
    held = chunk_names(run)

    def listed(self: Path, pattern: str) -> Iterator[Path]:
        found = list(real(self, pattern))
        if self.name == "manifests" and not met:
            met.append(self)
            compact(run, silent)
        return iter(found)

    met: list[Path] = []
    with patch.object(Path, "glob", listed):
        manifests = read_manifests(run)
    assert met and [name for m in manifests if m["chunk"] != "pairs" for name in chunks_of(m)] == held


# What is refused


def test_what_cannot_be_compacted_is_said(run: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        refused = stepconf("compact", path)
        assert refused.code == 1 and "is not a run folder" in refused.err
    assert not (tmp_path / "absent").exists()
    with Run(run, read_recipe(run)):
        locked = stepconf("compact", run)
    assert locked.code == 1 and "another process is writing" in locked.err
    assert "Usage" in stepconf("compact").err


@pytest.mark.parametrize("name", ["steps/part-00001", "pairs/train", "manifests/00001"])
@pytest.mark.parametrize("how", ["a bit flipped", "truncated", "missing"])
def test_a_damaged_run_is_left_as_it_is(name: str, how: str, run: Path) -> None:
    file = sorted(run.glob(f"{name}*"))[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data if how == "a bit flipped" else data[:-7])
    if how == "missing":
        if name.startswith("manifests"):
            return  # a run that lacks a chunk
        file.unlink()
    before = {f: f.stat().st_mtime_ns for f in run.glob("*/*.*")}
    refused = stepconf("compact", run)
    assert refused.code == 1 and file.name in refused.err and "--repair" in refused.err, refused
    assert before == {f: f.stat().st_mtime_ns for f in run.glob("*/*.*")}
