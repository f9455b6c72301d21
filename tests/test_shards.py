"""Shards: what is committed is there whole, what is not is gone, and what is read is what was written."""

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepconf.core.records import Pair, Solution, Solved, TokenScores, Verdict
from stepconf.core.steps import build_steps
from stepconf.errors import StepconfError
from stepconf.run.shards import Run, write_atomically
from stepconf.run.tables import (
    check_is_run,
    pairs_manifest,
    read_manifests,
    read_metadata,
    read_pairs,
    read_recipe,
    read_shards,
    read_solved,
    shard_files,
)

RECIPE = {"command": "generate", "sampling": {"samples": 2, "temperature": 0.7}, "model": "m"}
FACTS = {"input": "x", "solutions": 1, "steps": 2, "tokens": 4, "drops": {}, "seconds": {"sample": 1.5}}

PAIR_FACTS = {"solutions": 1, "options": {"strategy": "caspo"}, "tau": 0.5}
PAIR_FACTS |= {key: {} for key in ("kinds", "splits", "drops")}


def solved(index: int) -> Solved:
    text = "a = 1\nso b = 2"
    verdicts = [
        Verdict("final", "1", "correct", 1.0, "", 0.01),
        Verdict("symbolic", "1", "unknown", None, "why"),
    ]
    scores = TokenScores([-0.5, -0.25, 0.0, -1.0], [0.1, 0.2, 0.0, 1.5], [0.9, 0.8, 1.0, 0.25])
    steps = build_steps(f"s{index}", "p", text, [(0, 6), (6, 14)], [5, 6, 7, 8], [0, 3, 6, 9], scores)
    steps[1] = replace(steps[1], verdicts=verdicts, label="correct", label_source="final")
    solution = Solution(
        solution_id=f"s{index}",
        problem_id="p",
        external_id=None if index % 2 else "x",
        source="test",
        split="",
        problem="?",
        gold_answer=None,
        answer_type="number",
        model="m",
        model_revision="",
        engine="",
        prompt_token_ids=[1, 2],
        text=text,
        token_ids=[5, 6, 7, 8],
        temperature=0.7,
        top_p=None,
        seed=2**40,
        sample_index=index,
        finish_reason="stop",
        predicted_answer="2",
        answer_correct=[True, False, None][index % 3],
        n_steps=2,
        n_tokens=4,
        entropy_mean=0.45,
        confidence=0.6,
        extra={"größe": [1, {"a": None}]},
    )
    return Solved(solution, steps)


def commit(run: Run, name: str, *some: Solved) -> None:
    tables = {"solutions": [one.solution for one in some], "steps": [s for one in some for s in one.steps]}
    run.commit(name, tables, FACTS)


def rounded(one: Solved) -> Solved:
    """With token columns as float32 holds them."""
    import struct

    def f32(values: list[float]) -> list[float]:
        return [struct.unpack("f", struct.pack("f", value))[0] for value in values]

    steps = [
        replace(
            step,
            token_logprobs=f32(step.token_logprobs),
            token_entropies=f32(step.token_entropies),
            token_max_probs=f32(step.token_max_probs),
        )
        for step in one.steps
    ]
    return Solved(one.solution, steps)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        run.metadata = {"engine": "none", "tokenizer": "t"}
        commit(run, "00001", solved(2))
        commit(run, "00000", solved(0), solved(1))
        commit(run, "00002")
    assert list(read_solved(tmp_path / "r")) == [
        ("00000", [rounded(solved(0)), rounded(solved(1))]),
        ("00001", [rounded(solved(2))]),
        ("00002", []),
    ]
    assert read_metadata(tmp_path / "r")["engine"] == "none"
    assert read_recipe(tmp_path / "r") == RECIPE


def test_a_manifest_says_what_its_shards_are(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        commit(run, "00000", solved(0), solved(1))
        (manifest,) = run.manifests()
    assert manifest["chunk"] == "00000" and manifest["drops"] == {} and manifest["seconds"]["sample"] == 1.5
    assert {name: file["rows"] for name, file in manifest["files"].items()} == {
        "solutions/part-00000.parquet": 2,
        "steps/part-00000.parquet": 4,
    }
    for name, file in manifest["files"].items():
        data = (tmp_path / "r" / name).read_bytes()
        assert file["bytes"] == len(data)
        assert file["blake2b"] == blake2b(data, digest_size=16).hexdigest()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_commit_that_fails_is_no_commit(tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th file of a commit finds no room: nothing of the chunk counts, all before it stays."""
    with Run(tmp_path / "r", RECIPE) as run:
        commit(run, "00000", solved(0))
        calls = iter(range(1, 9))

        def full(fd: int) -> None:
            if next(calls) == nth:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            commit(run, "00001", solved(1))
        monkeypatch.undo()
        assert [name for name, _ in read_solved(tmp_path / "r")] == ["00000"]
        assert not list((tmp_path / "r").rglob("*.tmp"))
    with Run(tmp_path / "r", RECIPE) as run:
        assert len(list((tmp_path / "r/solutions").iterdir())) == 1, "the orphan is swept"
        commit(run, "00001", solved(1))
    assert [name for name, _ in read_solved(tmp_path / "r")] == ["00000", "00001"]


def test_opening_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with Run(out, RECIPE) as run:
        commit(run, "00000", solved(0))
    kept = {file: file.read_bytes() for file in out.rglob("*.parquet")}
    (out / "solutions/part-00001.parquet").write_bytes(b"orphan")
    (out / "steps/.part-00001.parquet.tmp").write_bytes(b"half")
    (out / "manifests/.00001.json.tmp").write_bytes(b"half")
    Run(out, RECIPE).__exit__(None, None, None)
    assert {file: file.read_bytes() for file in out.rglob("*.parquet")} == kept
    assert not list(out.rglob("*.tmp"))


def test_what_others_put_into_a_run_stays(tmp_path: Path) -> None:
    """When it is continued, and when its pairs are made again or removed."""
    out = tmp_path / "r"
    with Run(out, RECIPE) as run:
        commit(run, "00000", solved(0))
        run.stage_pairs("train-00000", [pair(0)])
        run.commit_pairs(PAIR_FACTS)
    names = ["steps/notes.md", "steps/.ipynb_checkpoints/part-00009.parquet", "pairs/filtered.parquet"]
    names += ["pairs/train-mine.parquet", "solutions/part-00009.parquet/x", "notes/draft.tmp", "mine.tmp"]
    for name in names:
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text("mine")
    with Run(out, RECIPE) as run:
        run.stage_pairs("train-00001", [pair(1)])
        run.commit_pairs(PAIR_FACTS)
        assert list(read_pairs(out)) == [[pair(1)]]
        run.clear_pairs()
    assert not list(read_pairs(out)) and not (out / "pairs/train-00001.parquet").exists()
    assert [(out / name).read_text() for name in names] == ["mine"] * len(names)


def pair(i: int) -> Pair:
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(Pair)), "")
    values |= {"pair_id": f"pair{i}", "step_index": i, "kind": "incorrect", "round": 0}
    values |= {f"{side}_ids": [1, i] for side in ("prompt", "chosen", "rejected")}
    values |= {f"{side}_is_terminal": False for side in ("chosen", "rejected")}
    values |= {f"{side}_confidence": None for side in ("chosen", "rejected")}
    return Pair(**(values | {"messages": [{"role": "user", "content": "?"}]}))


def test_pairs_come_and_go_without_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with Run(out, RECIPE) as run:
        commit(run, "00000", solved(0))
        for pairs in ([pair(0), pair(1)], [pair(2)]):
            run.stage_pairs("train-00000", pairs)
            run.stage_pairs("validation-00000", [pair(9)])
            run.commit_pairs(PAIR_FACTS)
            assert list(read_pairs(out)) == [pairs] and list(read_pairs(out, "validation")) == [[pair(9)]]
            assert len(shard_files(out, "pairs")) == 2 and len(run.manifests()) == 1
        for name, file in pairs_manifest(out)["files"].items():  # type: ignore[index]  # it is there
            assert (out / name).stat().st_size == file["bytes"] and file["rows"] == 1
        run.clear_pairs()
        assert shard_files(out, "pairs") == [] and not list((out / "pairs").iterdir())
        assert list(read_pairs(out)) == [] and pairs_manifest(out) is None
    assert len(read_manifests(out)) == 1 and len(list(read_solved(out))) == 1


def test_staged_pairs_are_not_there_until_they_are_committed(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with Run(out, RECIPE) as run:
        commit(run, "00000", solved(0))
        run.stage_pairs("train-00000", [pair(0)])
        run.stage_pairs("train-00001", [pair(1), pair(2)])
        assert list(read_pairs(out)) == [] and not (out / "pairs").exists()
        run.drop_staged({"pair0", "pair2"})
        run.commit_pairs(PAIR_FACTS)
        assert list(read_pairs(out)) == [[pair(1)]]
        run.stage_pairs("train-00000", [pair(3)])
    Run(out, RECIPE).__exit__(None, None, None)
    assert list(read_pairs(out)) == [[pair(1)]], "older pairs stand until new ones are whole"
    assert not (out / ".pairs").exists()


@pytest.mark.parametrize("kind", ["differs", "extra", "missing"])
def test_another_recipe_is_refused_by_its_keys(tmp_path: Path, kind: str) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        commit(run, "00000", solved(0))
    other: dict[str, Any] = {
        "differs": {**RECIPE, "sampling": {"samples": 3, "temperature": 0.7}},
        "extra": {**RECIPE, "sampling": {"samples": 2, "temperature": 0.7, "top_p": 1.0}},
        "missing": {"command": "generate", "sampling": {"samples": 2, "temperature": 0.7}},
    }[kind]
    said = {"differs": "sampling.samples", "extra": "sampling.top_p", "missing": "model"}[kind]
    with pytest.raises(StepconfError, match=rf"differs in: {said} \(there [^;]*\)\n") as caught:
        Run(tmp_path / "r", other)
    assert "--out" in caught.value.hint
    Run(tmp_path / "r", RECIPE).__exit__(None, None, None)  # the lock was given back


def test_before_the_first_commit_the_recipe_may_change(tmp_path: Path) -> None:
    Run(tmp_path / "r", RECIPE).__exit__(None, None, None)
    Run(tmp_path / "r", RECIPE | {"model": "n"}).__exit__(None, None, None)
    assert read_recipe(tmp_path / "r")["model"] == "n"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE):
        with pytest.raises(StepconfError, match="another process is writing"):
            Run(tmp_path / "r", RECIPE)
        assert list(read_solved(tmp_path / "r")) == [], "readers need no lock"
    Run(tmp_path / "r", RECIPE).__exit__(None, None, None)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [Path.unlink, _truncate], ids=["missing", "truncated"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    out = tmp_path / "r"
    with Run(out, RECIPE) as run:
        commit(run, "00000", solved(0))
    damage(out / "solutions/part-00000.parquet")
    with pytest.raises(StepconfError, match=r"solutions/part-00000\.parquet") as caught:
        list(read_shards(out, "solutions"))
    assert "--repair" in caught.value.hint


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match="is not a run"):
        check_is_run(tmp_path)
    for text in ("- 1\n", "a: [", "model: x\n"):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(StepconfError, match=r"recipe\.yaml"):
            read_recipe(tmp_path)
        with pytest.raises(StepconfError, match=r"recipe\.yaml"):
            Run(tmp_path, RECIPE)


def test_the_recipe_beside_the_data_is_plain_yaml(tmp_path: Path) -> None:
    Run(tmp_path / "r", RECIPE | {"model": "Größe: 1"}).__exit__(None, None, None)
    assert yaml.safe_load((tmp_path / "r/recipe.yaml").read_text()) == RECIPE | {"model": "Größe: 1"}


def test_an_atomic_write_leaves_the_old_file_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, json.dumps(1).encode())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"2")
    assert file.read_text() == "1" and [f.name for f in tmp_path.iterdir()] == ["a.json"]
