"""One fault at a time, through the command line: what is said, what is kept, and what the same command makes."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from stepconf.engines.transformers import TransformersEngine
from tests.chaos import DAMAGES
from tests.forked import forked
from tests.invariants import check_invariants, rows_of, samples_of
from tests.test_pipeline import write_jsonl
from tests.test_resume import PROBLEMS, check_resumes, command, without_seconds
from tests.test_resume import Undisturbed as Whole
from tests.tiny import VOCABULARY, stepconf, tiny_model

POISON = "What is 3 + 3?"


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("problems") / "problems.jsonl", PROBLEMS)


@pytest.fixture(scope="module")
def whole(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(problems, tmp_path_factory.mktemp("whole"), "")


@pytest.fixture
def run(whole: Whole, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.out, tmp_path / "run"))


# Signals


def test_sigterm_ends_as_ctrl_c_does(problems: Path, tmp_path: Path, whole: Whole) -> None:
    draw = "stepconf.engines.transformers._draw"
    at = (draw, whole.ended.calls[draw] * 2 // 3, "before")
    ended = forked(command(problems, tmp_path / "run"), tmp_path, at=at, sent=signal.SIGTERM)
    assert ended.code == 143 and ended.out == "" and "Traceback" not in ended.err, ended
    assert "terminated; what was committed is kept" in ended.err and "again to continue" in ended.err
    made = rows_of(tmp_path / "run", "solutions")
    assert 0 < len(made) < 16 and len(made) % 4 == 0, "chunks that were sampled are written first"
    assert json.loads((tmp_path / "run/metrics.json").read_text())["state"] == "interrupted"
    check_resumes(problems, tmp_path / "run", tmp_path, whole)


# Damage


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["solutions/part-00002.parquet", "steps/part-00001.parquet"])
def test_a_damaged_shard_is_named_and_made_anew(
    how: str, name: str, run: Path, problems: Path, tmp_path: Path, whole: Whole
) -> None:
    DAMAGES[how](run / name, random.Random(5))
    before = {file: file.stat().st_mtime_ns for file in run.glob("*/*.*")}
    checked = stepconf("check", run, columns=200)
    assert checked.code == 1 and name in checked.out
    if how != "a bit flipped":  # without reading it all, only its size is known
        refused = forked(command(problems, run), tmp_path)
        assert refused.code == 1 and name in refused.err and "--repair" in refused.err, refused
    mended = forked([*command(problems, run), "--repair"], tmp_path)
    assert mended.code == 0 and name in mended.err, mended
    assert without_seconds(run) == whole.rows
    assert "shard-" not in stepconf("check", run).out
    chunk = name[-13:-8]
    touched = {file.stem[-5:] for file, then in before.items() if file.stat().st_mtime_ns != then}
    assert touched == {chunk}, "the other chunks stay as they are"


@pytest.mark.parametrize("how", ["truncated", "a bit flipped"])
def test_a_damaged_manifest_is_named_and_made_anew(
    how: str, run: Path, problems: Path, tmp_path: Path, whole: Whole
) -> None:
    manifest = run / "manifests/00001.json"
    for seed in range(2):
        data, draws = bytearray(manifest.read_bytes()), random.Random(seed)
        cut = draws.randrange(data.index(b'"checksum"'))  # not in this name: it would be one key less
        data[cut] ^= 1 << draws.randrange(8)
        manifest.write_bytes(data[:cut] if how == "truncated" else data)
        checked = stepconf("check", run, columns=200)
        assert checked.code == 1 and "manifests/00001.json" in checked.out, checked
        refused = stepconf("pairs", run, "--tau", 0.5)
        assert refused.code == 1 and "00001.json" in refused.err and "--repair" in refused.err
        mended = forked([*command(problems, run), "--repair"], tmp_path)
        assert mended.code == 0 and "00001.json" in mended.err, mended
        assert without_seconds(run) == whole.rows


def test_repair_of_a_sound_run_touches_nothing(run: Path, problems: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.glob("*/*.*")}
    assert forked([*command(problems, run), "--repair"], tmp_path).code == 0
    assert before == {file: file.stat().st_mtime_ns for file in run.glob("*/*.*")}


def test_pairs_go_with_what_they_were_made_of(run: Path, problems: Path) -> None:
    assert stepconf("pairs", run, "--tau", 0.5).code == 0
    (run / "steps/part-00000.parquet").unlink()
    mended = stepconf(*command(problems, run), "--repair")
    assert mended.code == 0 and "stepconf pairs again" in mended.err
    assert not (run / "manifests/pairs.json").exists() and not list((run / "pairs").glob("*"))


def test_repair_of_another_recipes_run_changes_nothing(run: Path, problems: Path) -> None:
    (run / "steps/part-00000.parquet").unlink()
    refused = stepconf(*command(problems, run), "--repair", "--temperature", 0.1)
    assert refused.code == 1 and "another recipe" in refused.err
    assert (run / "manifests/00000.json").exists()


# A folder that cannot be written


def test_a_read_only_run_is_refused_and_can_be_looked_at(run: Path, problems: Path, tmp_path: Path) -> None:
    paths = [run, *run.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & 0o7555)
    ended = forked(command(problems, run), tmp_path, obey_modes=True)
    looked = forked(["status", run], tmp_path, obey_modes=True)
    beside = forked(command(problems, run / "below"), tmp_path, obey_modes=True)
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)
    for refused in (ended, beside):
        assert refused.code == 1 and "Permission denied" in refused.err and "write to" in refused.err, refused
        assert "Traceback" not in refused.err and refused.err.count("stepconf: ") == 1
    assert looked.code == 0 and "finished" in looked.out, looked


# The engine


def _poisoned(monkeypatch: pytest.MonkeyPatch, poison: set[str], error: Exception) -> None:
    """The model fails over some problems, as with a kernel that does not like their shape."""
    sample = TransformersEngine._sample

    def crashing(self: TransformersEngine, request: Any, dropped: Any) -> Any:
        text = self.tokenizer.decode(request.prompt_ids)
        if any(problem in text for problem in poison):
            raise error
        return sample(self, request, dropped)

    monkeypatch.setattr(TransformersEngine, "_sample", crashing)


def test_a_problem_that_crashes_the_engine_is_left_out(
    monkeypatch: pytest.MonkeyPatch, problems: Path, tmp_path: Path, whole: Whole
) -> None:
    _poisoned(monkeypatch, {POISON}, RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))
    made = stepconf(*command(problems, tmp_path / "run"), "--log-json", tmp_path / "log")
    assert made.code == 0 and "2 crashed the engine" in made.out, made
    ours = without_seconds(tmp_path / "run")["solutions"]
    assert ours == [row for row in whole.rows["solutions"] if row["problem"] != POISON]
    check_invariants(tmp_path / "run", VOCABULARY)
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert ["CUBLAS" in one["message"] for one in events if one["event"] == "engine crashed"] == [True] * 2
    again = stepconf(*command(problems, tmp_path / "run"))
    assert again.code == 0, "what is left out is decided"


def test_an_engine_that_crashes_on_everything_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, problems: Path, tmp_path: Path, whole: Whole
) -> None:
    with monkeypatch.context() as patched:
        _poisoned(patched, {f"{i} + {i}" for i in range(2, 8)}, RuntimeError("no kernel image"))
        ended = stepconf(*command(problems, tmp_path / "run"))
    assert ended.code == 1 and "no kernel image" in ended.err and "Traceback" not in ended.err
    assert len(samples_of(tmp_path / "run", "solutions")) == 4, "the first chunk stays"
    check_resumes(problems, tmp_path / "run", tmp_path, whole)


def test_memory_that_is_too_short_ends_in_what_to_do(
    monkeypatch: pytest.MonkeyPatch, problems: Path, tmp_path: Path, whole: Whole
) -> None:
    with monkeypatch.context() as patched:
        _poisoned(patched, {POISON}, MemoryError())
        ended = stepconf(*command(problems, tmp_path / "run"))
    assert ended.code == 1 and "out of memory for a single sample" in ended.err, ended
    assert "sampling.max_tokens" in ended.err and "Traceback" not in ended.err
    assert len(samples_of(tmp_path / "run", "solutions")) == 4, "nothing is left out for want of memory"
    check_resumes(problems, tmp_path / "run", tmp_path, whole)


@pytest.mark.parametrize("name", ["generate", "score"])
def test_a_token_that_the_model_does_not_have_is_counted(name: str, tmp_path: Path) -> None:
    """A tokenizer may know more tokens than its model: the embedding of such a one does not exist."""
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny_model(), tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # `len` counts the tokens that were learnt, which may be fewer than the model has.
    tokenizer.add_tokens([f"<extra {i}>" for i in range(VOCABULARY - len(tokenizer))] + ["<beyond>"])
    tokenizer.save_pretrained(folder)
    rows = [{"problem": f"1 + 1 {extra}", "answer": "2", "solution": "2"} for extra in ("", "<beyond>", "?")]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    where = ["--problems", file, "--samples", 1, "--max-tokens", 4] if name == "generate" else [file]
    options = ["--engine", "transformers", "--model", folder, "--out", tmp_path / "run", "--verify", ""]
    made = stepconf(name, *where, *options)
    assert made.code == 0, made.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["drops"] == {
        "token outside the model's vocabulary": 1
    }
    assert len(rows_of(tmp_path / "run", "solutions")) == 2
