"""How a run is getting on: metrics.json, `stepconf status`, `--log-json`, and the engine's idle share."""

import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepconf.run import meter
from stepconf.run.meter import EngineClock, idle_share
from stepconf.run.status import read_status
from stepconf.run.tables import read_ids
from tests.forked import forked
from tests.test_pipeline import GIVEN, PROBLEMS, write_jsonl
from tests.tiny import Ended, stepconf, with_tiny


def generate(folder: Path, *options: object) -> Ended:
    problems = write_jsonl(folder / "problems.jsonl", PROBLEMS)
    fixed = ["--samples", 2, "--max-tokens", 6, "--verify", "", *with_tiny()]
    return stepconf("generate", "--problems", problems, "--out", folder / "run", *fixed, *options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status")
    made = generate(folder, "--log-json", folder / "log.jsonl")
    assert made.code == 0, made.err
    return folder / "run"


def test_metrics_of_a_finished_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["state"] == "finished" and metrics["error"] is None
    assert metrics["chunks"] == {"done": 3, "total": 3} and metrics["solutions"] == 10
    for stage in ("sample", "verify"):
        assert (metrics["stages"][stage]["done"], metrics["stages"][stage]["total"]) == (10, 10)
        assert metrics["stages"][stage]["per_second"] > 0 and metrics["stages"][stage]["eta_s"] == 0
    assert 0 <= metrics["engine_idle_share"] <= 1
    assert not list(run.rglob("*.tmp"))


def test_the_summary_has_the_idle_share(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["engine_idle_share"] <= 1
    again = stepconf("status", run)
    assert again.code == 0 and "finished" in again.out and "engine idle" in again.out


def test_a_run_without_an_engine_has_no_idle_share(tmp_path: Path) -> None:
    made = stepconf("segment", write_jsonl(tmp_path / "s.jsonl", GIVEN), "--out", tmp_path / "r")
    assert made.code == 0, made.err
    assert json.loads((tmp_path / "r/summary.json").read_text())["engine_idle_share"] is None
    assert read_status(tmp_path / "r")["state"] == "finished"


def test_events_are_json_lines(run: Path) -> None:
    events = [json.loads(line) for line in (run.parent / "log.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["begin", "commit", "commit", "commit", "finished"]
    assert sorted(one["chunk"] for one in events[1:4]) == ["00000", "00001", "00002"]
    assert sum(one["solutions"] for one in events[1:4]) == 10
    assert all(one["time"].endswith("Z") and one["level"] == "info" for one in events)


def test_events_on_stderr_have_it_for_themselves(tmp_path: Path) -> None:
    made = generate(tmp_path, "--log-json", "-")
    assert made.code == 0, made.err
    assert [json.loads(line)["event"] for line in made.err.splitlines()][-1] == "finished"


def test_a_place_for_events_that_is_none_is_told_first(tmp_path: Path) -> None:
    made = generate(tmp_path, "--log-json", tmp_path / "no" / "log.jsonl")
    assert made.code == 1 and "there is no folder" in made.err and "mkdir -p" in made.err
    assert not (tmp_path / "run").exists()


def test_status_as_json_tells_a_running_run_from_a_killed_one(tmp_path: Path) -> None:
    problems = write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    arguments = ["generate", "--problems", problems, "--out", tmp_path / "run", "--samples", 2]
    arguments += ["--max-tokens", 6, "--verify", "", *with_tiny()]
    # The recipe, then three files a chunk: in the middle of the second.
    assert forked(arguments, tmp_path, at=("os.replace", 6, "before")).code == -9
    found = json.loads(stepconf("status", tmp_path / "run", "--json").out)
    assert found["state"] == "killed" and found["chunks"] == {"done": 1, "total": 3}
    assert found["solutions"] == len(read_ids(tmp_path / "run")) > 0
    assert found["pid"] is None and found["eta_s"] is None
    with (tmp_path / "run/.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = read_status(tmp_path / "run")
        assert held["state"] == "running" and held["pid"] > 0 and not held["stuck"]
        assert "running" in stepconf("status", tmp_path / "run").out
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        for shift, stuck in ((-3600, True), (3600, False)):
            shifted = json.dumps(metrics | {"updated": time.time() + shift})
            (tmp_path / "run/metrics.json").write_text(shifted)
            held = read_status(tmp_path / "run")
            assert held["stuck"] is stuck and held["updated_s_ago"] >= 0, "a clock may be set back"
    assert stepconf("status", tmp_path / "run", "--watch").code == 0, "it ends with the run"


def test_a_failure_is_shown(tmp_path: Path) -> None:
    assert generate(tmp_path, "--set", "prompt.style=chat").code == 1
    found = read_status(tmp_path / "run")
    assert found["state"] == "failed" and "chat template" in found["error"]
    assert "chat template" in stepconf("status", tmp_path / "run", columns=200).out


@pytest.mark.parametrize("spoil", ["", "{", "[]", None])
def test_status_needs_no_metrics(run: Path, spoil: str | None) -> None:
    file = run / "metrics.json"
    kept = file.read_text()
    file.unlink() if spoil is None else file.write_text(spoil)
    found = read_status(run)
    file.write_text(kept)
    assert found["state"] == "unknown" and found["solutions"] == 10


KEYS = ["state", "error", "pid", "updated", "elapsed_s", "eta_s", "chunks", "stages", "engine_idle_share"]
SCALARS = (
    st.none() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, 1e300, -1e18, "running"])
)
NAMES = st.sampled_from(["done", "total", "per_second", "sample", "\ud800"])
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=2) | st.dictionaries(NAMES, one, max_size=3)
)


def test_status_passes_over_metrics_that_are_none(run: Path) -> None:
    """Written by whoever has the run: shown while it is held, too, when most of them are."""
    file = run / "metrics.json"
    kept = file.read_text()

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUES)))
    @example({"updated": "x"})
    @example({"updated": -1e18})
    @example({"chunks": None})
    @example({"stages": [1]})
    @example({"stages": {"sample": None}})
    @example({"stages": {"\ud800": {"done": 1, "total": None, "per_second": None}}})
    @example({"state": 5})
    @example({"elapsed_s": "x"})
    @example({"elapsed_s": 1e300})
    @example({"engine_idle_share": "x"})
    @settings(max_examples=30, deadline=None)
    def check(metrics: dict[str, Any]) -> None:
        file.write_text(json.dumps(metrics))
        for words in ([], ["--json"]):
            ended = stepconf("status", run, *words)
            assert ended.code == 0 and "10" in ended.out, ended.err

    try:
        check()
        with (run / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            check()
    finally:
        file.write_text(kept)
    assert read_status(run)["state"] == "finished"


def test_status_of_what_is_no_run(tmp_path: Path) -> None:
    ended = stepconf("status", tmp_path)
    assert ended.code == 1 and "is not a run" in ended.err


def test_drops_are_counted_by_reason(tmp_path: Path) -> None:
    assert generate(tmp_path, "--set", 'prompt.stop=[""]').code == 0
    assert read_status(tmp_path / "run")["drops"] == {"empty solution": 10}
    assert "10 empty solution" in stepconf("status", tmp_path / "run").out


def test_the_engine_is_idle_while_it_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only work moves: 3 s a request to tokenise, 5 s of engine, 2 s of writing."""
    now = 0.0
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now)

    def requests() -> Iterator[int]:
        nonlocal now
        for number in range(4):
            now += 3
            yield number

    def engine(asked: Iterator[int]) -> Iterator[Any]:
        nonlocal now
        for one in asked:
            now += 5
            yield one

    clock, laps = EngineClock(), []
    for _ in clock.taking(engine(clock.feeding(requests()))):
        laps.append(clock.lap())
        now += 2
    assert laps == [3, 5, 5, 5] and clock.lap() == 2
    assert now == 4 * (3 + 5 + 2)


def test_the_idle_share_is_of_all_streams_of_the_engine() -> None:
    assert idle_share(Counter(branch=10.0, idle=1.0)) == 0.1
    assert idle_share(Counter(score=6.0, branch=4.0, idle=1.0)) == 0.1
    assert idle_share(Counter(verify=6.0)) is None
