"""Runs, inputs and trainings at URLs, against a stand-in for S3 that fails, forgets answers and is watched."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("s3fs")

import stepconf as api
from stepconf.core.checks.findings import Findings
from stepconf.errors import StepconfError
from stepconf.run.files import check_files
from stepconf.run.shards import Run
from stepconf.run.tables import read_manifests, read_shards
from stepconf.stores import lease, remote
from stepconf.stores.lease import Lease
from stepconf.stores.names import is_part
from stepconf.stores.opening import fetched, located, writer
from stepconf.stores.places import local_place
from tests.edited_run import command, edit, good_run, rewrite
from tests.loopback import running
from tests.s3_server import BUCKET, KEY, S3Server, environment, s3_server
from tests.test_pipeline import write_jsonl
from tests.test_shards import commit
from tests.tiny import stepconf, tiny_model

URL = f"s3://{BUCKET}/runs/one"
HERE = f"{BUCKET}/runs/one"
SOLUTIONS = [
    {
        "problem": f"What is {i} + 1?",
        "answer": str(i + 1),
        "solution": f"First, {i} + 1 = {i + 1}.\n\nIt is {i + 1}.",
    }
    for i in range(6)
]
ROWS = ["--set", "chunk=2"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An empty store, this process its client, with a cache of its own and hardly a pause between attempts."""
    import fsspec

    with s3_server() as running:
        for name, value in environment(running).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield running
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go on as another machine would: with an empty cache."""
    return lambda name="elsewhere": monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / name))


def rows(run: Path, table: str = "steps") -> list[dict[str, Any]]:
    return [without_seconds(row) for part in read_shards(run, table) for row in part]


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"verdicts": [verdict | {"seconds": 0} for verdict in row.get("verdicts", [])]}


def published(server: S3Server, folder: Path, source: Path) -> str:
    """Put a run of this machine into the store as it is."""
    for file in source.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            server.objects[f"{HERE}/{file.relative_to(source).as_posix()}"] = file.read_bytes()
    return URL


def lock_of(owner: str, seconds_ago: float) -> bytes:
    return json.dumps({"host": owner, "pid": 7, "id": "x", "time": time.time() - seconds_ago}).encode()


def test_generate_to_a_store_that_fails_one_request_in_ten(
    server: S3Server, tmp_path: Path, elsewhere: Any
) -> None:
    local = tmp_path / "local"
    assert stepconf(*command(tmp_path, local)).code == 0
    server.failing = 0.1
    made = stepconf(*command(tmp_path, URL))
    assert made.code == 0, made.err
    assert f"Next:  stepconf pairs {URL}" in made.out
    elsewhere()
    copy = fetched(local_place(URL))
    assert server.failed.total() > 3
    for table in ("solutions", "steps"):
        assert rows(copy, table) == rows(local, table)
    server.failing = 0.0
    assert server.names(HERE) == {
        f.relative_to(local).as_posix() for f in local.rglob("*") if f.is_file()
    } - {".lock"}
    assert f"{HERE}/.lock" not in server.objects


def segment_command(folder: Path, out: object) -> list[object]:
    return ["segment", write_jsonl(folder / "solutions.jsonl", SOLUTIONS), "--out", out, *ROWS]


def test_killed_while_sending_and_continued_from_elsewhere(
    server: S3Server, tmp_path: Path, elsewhere: Any
) -> None:
    """Between the shards of the second chunk that is sent and its manifest."""
    assert stepconf(*segment_command(tmp_path, tmp_path / "local")).code == 0
    child = subprocess.Popen([sys.executable, "-m", "stepconf", *map(str, segment_command(tmp_path, URL))])
    manifests: list[str] = []

    def kill(change: str) -> bool:
        manifests.extend(re.findall(f"PUT {HERE}/manifests/(.+)[.]json", change))
        if len(manifests) == 2:
            os.kill(child.pid, signal.SIGKILL)
        return len(manifests) > 1

    server.refuse = kill
    assert child.wait(120) == -signal.SIGKILL
    server.refuse = lambda change: False
    elsewhere()
    copy = fetched(local_place(URL))
    sent, cut = manifests[:2]
    assert [m["chunk"] for m in read_manifests(copy)] == [sent]
    assert stray(server) == {f"solutions/part-{cut}.parquet", f"steps/part-{cut}.parquet"}
    # The dead writer was on another machine as far as anyone can know: its lock must run out first.
    refused = stepconf(*segment_command(tmp_path, URL))
    assert refused.code == 1 and "is being written by process" in refused.err
    found = json.loads(server.objects[f"{HERE}/.lock"])
    server.objects[f"{HERE}/.lock"] = json.dumps(found | {"time": found["time"] - 600}).encode()
    done = stepconf(*segment_command(tmp_path, URL))
    assert done.code == 0 and "taken over" in done.err
    assert rows(copy) == rows(tmp_path / "local")
    assert not stray(server)


def stray(server: S3Server) -> set[str]:
    """Shards and staged files in the store that no manifest there names."""
    manifests = [
        json.loads(data) for name, data in server.objects.items() if name.startswith(f"{HERE}/manifests/")
    ]
    named = {file for manifest in manifests for file in manifest["files"]}
    return {
        n.removeprefix(f"{HERE}/") for n in server.objects if n.endswith(".parquet") or "/.staged/" in n
    } - named


def test_a_cut_upload_is_sent_by_the_next_writer(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    server.refuse = lambda change: change.endswith("manifests/00001.json")
    failed = stepconf(*segment_command(tmp_path, URL))
    assert failed.code == 1
    assert f"cannot write {URL}/manifests/00001.json, 2 times" in failed.err
    assert "The same command again continues it." in failed.err and "Traceback" not in failed.err
    server.refuse = lambda change: False
    before = len(server.log)
    again = stepconf(*segment_command(tmp_path, URL))
    assert again.code == 0, again.err
    # The chunk was there: its shards go up again, and then what makes them part of the run.
    sent = server.log[before:]
    manifest = sent.index(f"PUT {HERE}/manifests/00001.json")
    for table in ("solutions", "steps"):
        assert sent.index(f"PUT {HERE}/{table}/part-00001.parquet") < manifest
    assert not stray(server)


def test_what_others_put_beside_the_shards_stays_at_the_url(server: S3Server, tmp_path: Path) -> None:
    assert stepconf(*segment_command(tmp_path, URL)).code == 0
    server.objects[f"{HERE}/steps/mine.parquet"] = b"mine"
    for _ in range(2):
        again = stepconf(*segment_command(tmp_path, URL))
        assert again.code == 0, again.err
        assert server.objects[f"{HERE}/steps/mine.parquet"] == b"mine"


@pytest.mark.slow
def test_whatever_arrived_a_reader_sees_whole_chunks_only(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every single change of relabelling (shards replaced in place), pairing and writing chunks."""
    source = tmp_path / "run"
    shutil.copytree(good_run(), source)
    edit(source, "steps", lambda rows: [row.update(label="unknown", label_source="") for row in rows])
    published(server, tmp_path, source)
    states: list[dict[str, bytes]] = []

    def watch(change: str) -> bool:
        states.append(dict(server.objects))
        return False

    server.refuse = watch
    for arguments in (["relabel", URL, "--policy", "consensus"], ["pairs", URL, "--tau", 0.99]):
        done = stepconf(*arguments)
        assert done.code == 0, done.err
    server.refuse = lambda change: False
    final = dict(server.objects)
    assert any("/.staged/" in name for state in states for name in state)
    seen = [state for before, state in pairwise([{}, *states, final]) if tables(before) != tables(state)]
    assert len(seen) > 10
    for number, state in enumerate(seen):
        server.objects = state
        monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / f"reader-{number}"))
        found = Findings()
        manifests = check_files(fetched(local_place(URL)), found)
        assert not found.all(), (number, found.all())
        assert [m["chunk"] for m in manifests if m["chunk"] != "pairs"] == ["00000", "00001", "00002"]
    # And from any of them the same command leads to the same run.
    for number in (len(seen) // 4, len(seen) // 2):
        server.objects = {name: data for name, data in seen[number].items() if not name.endswith(".lock")}
        monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / f"writer-{number}"))
        assert stepconf("relabel", URL, "--policy", "consensus").code == 0
        assert stepconf("pairs", URL, "--tau", 0.99).code == 0
        assert not stray(server)
        for name, data in final.items():
            assert not name.endswith(".parquet") or server.objects[name] == data, name


@pytest.mark.slow
def test_a_run_is_compacted_at_its_url_and_a_reader_sees_each_row_once(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every single change at the store; from some of them another machine finishes it."""
    published(server, tmp_path, good_run())
    held = {table: rows(good_run(), table) for table in ("solutions", "steps", "pairs")}
    states: list[dict[str, bytes]] = []

    def watch(change: str) -> bool:
        states.append(dict(server.objects))
        return False

    server.refuse = watch
    done = stepconf("compact", URL)
    assert done.code == 0 and f"{URL}: 8 shards before, 4 now." in done.out, done
    server.refuse = lambda change: False
    final = dict(server.objects)
    assert {n for n in server.names(HERE) if n.startswith("manifests/")} == {
        "manifests/00000-00002.json",
        "manifests/pairs.json",
    }
    assert not stray(server)
    seen = [state for before, state in pairwise([{}, *states, final]) if tables(before) != tables(state)]
    assert len(seen) > 10
    for number, state in enumerate(seen):
        server.objects = {name: data for name, data in state.items() if not name.endswith(".lock")}
        monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / f"reader-{number}"))
        copy = fetched(local_place(URL))
        assert {table: rows(copy, table) for table in held} == held, number
        if number % 4 == 1:
            assert stepconf("compact", URL).code == 0
            assert tables(server.objects) == tables(final), number


def tables(state: dict[str, bytes]) -> dict[str, bytes]:
    """What decides which chunks there are."""
    return {
        name: data
        for name, data in state.items()
        if name.endswith(".parquet") or "/manifests/" in name or "/.st" in name
    }


def test_commands_on_a_run_at_a_url(server: S3Server, tmp_path: Path, elsewhere: Any) -> None:
    published(server, tmp_path, good_run())
    status = stepconf("status", URL)
    assert status.code == 0 and f"Run {URL}" in status.out
    assert not list((local_place(URL)).glob("steps/*")), "status needs no shard"
    checked = stepconf("check", URL)
    assert checked.code == 0, checked.out
    verified = stepconf("verify", URL, "--verify", "final", "--out", f"s3://{BUCKET}/runs/verified")
    assert verified.code == 0, verified.err
    assert {n for n in server.names(f"{BUCKET}/runs/verified") if n.startswith("steps/")}
    out = f"s3://{BUCKET}/export"
    exported = stepconf("pairs", URL, "--export", "trl", "--out", out)
    assert exported.code == 0, exported.err
    assert f"rows in {out}" in exported.out and "README.md" in server.names(f"{BUCKET}/export")
    reported = stepconf("report", URL, "--out", f"s3://{BUCKET}/report.html")
    assert reported.code == 0, reported.err
    assert server.objects[f"{BUCKET}/report.html"].startswith(b"<!doctype html>")
    elsewhere()
    stepconf("relabel", URL, "--policy", "majority")
    assert f"{HERE}/manifests/pairs.json" not in server.objects
    server.objects[f"{HERE}/.lock"] = lock_of("other", 5)
    assert "running" in stepconf("status", URL).out


def test_a_copy_follows_what_others_wrote(
    server: S3Server, tmp_path: Path, elsewhere: Any, caplog: pytest.LogCaptureFixture
) -> None:
    published(server, tmp_path, good_run())
    copy = fetched(local_place(URL))
    elsewhere()
    assert stepconf("relabel", URL, "--policy", "consensus").code == 0
    other = fetched(local_place(URL))
    elsewhere("cache")
    fetched(copy)
    assert rows(copy) == rows(other)
    assert not list((copy / "pairs").glob("*")) and stepconf("check", URL).code == 0
    # A shard that is damaged here is fetched anew; one that the store has lost is sent again by the next writer.
    shard = copy / "steps" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-5])
    del server.objects[f"{HERE}/steps/part-00001.parquet"]
    assert stepconf("check", URL).code == 0 and "has lost 1 shards" in caplog.text
    assert stepconf("relabel", URL, "--policy", "consensus").code == 0
    assert rows(copy) == rows(other) and f"{HERE}/steps/part-00001.parquet" in server.objects
    # A run that was deleted there is no longer here.
    server.objects.clear()
    gone = stepconf("status", URL)
    assert gone.code == 1 and f"{URL} is not a run" in gone.err


def test_one_writer_at_a_time(server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.objects[f"{HERE}/.lock"] = lock_of("far-away", 60)
    refused = stepconf(*segment_command(tmp_path, URL))
    assert refused.code == 1 and "is being written by process 7 on far-away, last heard of 6" in refused.err
    server.objects[f"{HERE}/.lock"] = lock_of("far-away", lease.LOST_S + 1)
    taken = stepconf(*segment_command(tmp_path, URL))
    assert taken.code == 0 and "the lock of process 7 on far-away was not renewed for 12" in taken.err


def test_an_overtaken_writer_stops_before_its_next_commit(server: S3Server, tmp_path: Path) -> None:
    with Run(local_place(URL), {"command": "segment"}) as run:
        run.commit("00000", {"solutions": [], "steps": []}, {})
        server.objects[f"{HERE}/.lock"] = lock_of("far-away", 0)
        with pytest.raises(StepconfError, match="has been taken over by process 7 on far-away"):
            run.commit("00001", {"solutions": [], "steps": []}, {})
    assert f"{HERE}/manifests/00001.json" not in server.objects
    assert json.loads(server.objects[f"{HERE}/.lock"])["host"] == "far-away", "the other's lock stays"


def test_a_lock_is_renewed(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.001)
    renewed, puts = Event(), []

    def watch(change: str) -> bool:
        puts.append(change)
        if len(puts) > 2:
            renewed.set()
        return False

    server.refuse = watch
    held = Lease(remote.Store(URL), tmp_path)
    assert renewed.wait(30)
    held.check()
    held.close()
    assert f"{HERE}/.lock" not in server.objects


def test_a_store_that_heeds_no_condition_still_has_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's memory, with the condition taken away."""
    from fsspec.implementations.memory import MemoryFileSystem

    def overwrite(self: Any, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create":
            raise NotImplementedError
        self.open(path, "wb", data=value).close()

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", overwrite)
    first = Lease(remote.Store("memory://leases/one"), tmp_path / "a")
    with pytest.raises(StepconfError, match="is being written"):
        Lease(remote.Store("memory://leases/one"), tmp_path / "b")
    first.close()
    Lease(remote.Store("memory://leases/one"), tmp_path / "b").close()


def test_inputs_at_a_url(server: S3Server, tmp_path: Path) -> None:
    source = f"s3://{BUCKET}/in/solutions.jsonl.gz"
    lines = [json.dumps(row) for row in SOLUTIONS]
    server.objects[f"{BUCKET}/in/solutions.jsonl.gz"] = gzip.compress("\n".join(lines[:4]).encode())
    made = stepconf("segment", source, "--out", tmp_path / "run", *ROWS)
    assert made.code == 0, made.err
    assert len(rows(tmp_path / "run", "solutions")) == 4
    assert (tmp_path / "run" / "recipe.yaml").read_text().count(source) == 1, "a recipe names what was given"
    server.objects[f"{BUCKET}/in/solutions.jsonl.gz"] = gzip.compress("\n".join(lines).encode())
    assert stepconf("segment", source, "--out", tmp_path / "more", *ROWS).code == 0
    assert len(rows(tmp_path / "more", "solutions")) == 6
    missing = stepconf("segment", f"s3://{BUCKET}/in/none.jsonl", "--out", tmp_path / "none", *ROWS)
    assert missing.code == 1 and f"s3://{BUCKET}/in/none.jsonl: no such file." in missing.err
    server.objects[f"{BUCKET}/in/bad.jsonl"] = b"{]"
    broken = stepconf("segment", f"s3://{BUCKET}/in/bad.jsonl", "--out", tmp_path / "bad", *ROWS)
    assert broken.code == 1 and f"s3://{BUCKET}/in/bad.jsonl, line 1: broken JSON" in broken.err


@pytest.mark.parametrize("end", ["..", ".", "a/../b", "a//b", "%2e%2e", "%2E", "a/../", "a?b=/.."])
def test_a_url_whose_copy_would_lie_elsewhere_is_refused(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is brought into a copy is made what is at the URL: all else in there goes."""
    monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path / "cache"))
    for place in (local_place, located):
        with pytest.raises(StepconfError, match="has a part that is empty"):
            place(f"memory://store/{end}")
    assert not (tmp_path / "cache").exists()


def naming_model(folder: Path, model: str) -> Path:
    """A copy of the good run whose recipe and tables name another model."""
    shutil.copytree(good_run(), folder)
    for file in folder.glob("s*/*.parquet"):
        table = pq.read_table(file)
        rewrite(
            folder, file, table.replace_schema_metadata(table.schema.metadata | {b"model": model.encode()})
        )
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": model}))
    return folder


class Watched(BaseHTTPRequestHandler):
    """Has nothing, and tells its server what was asked."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("prefix", ["", "model@"])
def test_a_model_that_only_a_run_names_is_no_address_to_ask(prefix: str, tmp_path: Path) -> None:
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Watched)) as server:
        server.asked = []  # type: ignore[attr-defined]
        url = f"{prefix}http://127.0.0.1:{server.server_address[1]}/model"
        run = naming_model(tmp_path / "run", url)
        export = ["--export", "step-kto", "--out", tmp_path / "export"]
        for hint, command in {
            f"--set model={url}": ["pairs", run],
            f"Where you trust it: --set model={url}": ["pairs", run, *export],
            f"--model {url}": ["verify", run, "--verify", "rollout", "--out", tmp_path / "v"],
            f"name its folder as `model` in {run}/recipe.yaml": ["calibrate", run, "--top-k", 3],
        }.items():
            ended = stepconf(*command, columns=1000)
            assert ended.code == 1 and "no URL of a run is opened" in ended.err, ended.err
            assert hint in ended.err
        reported = stepconf("report", run, "--out", tmp_path / "report.html", columns=1000)
        assert reported.code == 0 and "no URL of a run is opened" in reported.out, reported.err
        assert not server.asked  # type: ignore[attr-defined]


def test_a_model_at_a_url_makes_pairs_where_the_user_names_it_too(server: S3Server, tmp_path: Path) -> None:
    for file in tiny_model().iterdir():
        server.objects[f"{BUCKET}/model/{file.name}"] = file.read_bytes()
    model = f"s3://{BUCKET}/model"
    run = naming_model(tmp_path / "run", model)
    assert stepconf("pairs", run).code == 1
    paired = stepconf("pairs", run, "--tau", 0.99, "--set", f"model={model}")
    assert paired.code == 0, paired.err
    exported = stepconf(
        "pairs", run, "--export", "step-kto", "--out", tmp_path / "kto", "--set", f"model={model}"
    )
    assert exported.code == 0, exported.err
    api.make_pairs(run, {"pairs.tau": 0.99, "model": model})


def test_what_cannot_work_is_said_in_a_sentence(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(out: str) -> str:
        ended = stepconf(*segment_command(tmp_path, out))
        assert ended.code == 1 and "Traceback" not in ended.err
        return ended.err

    assert "there is no such bucket" in told("s3://no-such-bucket/run")
    assert "names no folder" in told(f"s3://{BUCKET}")
    assert "Protocol not known: warehouse" in told("warehouse://a/run")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "pip install gcsfs" in told("gs://bucket/run")
    server.objects[f"{BUCKET}/full/notes.txt"] = b"mine"
    assert "is not empty and not a run" in told(f"s3://{BUCKET}/full")
    import fsspec

    for unset in (
        {"AWS_ACCESS_KEY_ID": "someone-else"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ):
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        for name, value in unset.items():
            monkeypatch.setenv(name, value)
        assert "Check the credentials" in told(URL)
    assert KEY not in told(URL)


def training(run: Path, out: Path, stop_at: int | None = None, model: str | None = None) -> dict[str, Any]:
    from stepconf.recipe import load_recipe
    from stepconf.trainer import train

    def report(metrics: dict[str, Any]) -> None:
        if stop_at is not None and metrics.get("step") == stop_at:
            raise InterruptedError

    sets = ["train.batch_size=1", "train.checkpoint_every=1", "train.dtype=float32", "train.max_length=256"]
    return train(run, load_recipe(None, {"model": model or str(tiny_model())}, sets), out, report)


def test_a_training_goes_on_elsewhere(server: S3Server, tmp_path: Path, elsewhere: Any) -> None:
    whole = training(good_run(), tmp_path / "local")
    url = f"s3://{BUCKET}/training"
    with pytest.raises(InterruptedError):
        training(good_run(), local_place(url), stop_at=2)
    there = {name.partition("/")[2].partition("/")[0] for name in server.names(f"{BUCKET}/training")}
    assert {name for name in there if name.startswith("checkpoint-")} == {"checkpoint-000001"}
    # The upload is cut off while the next checkpoint is sent: what arrived of it does not count.
    server.objects[f"{BUCKET}/training/state/checkpoint-000002/model.safetensors"] = b"half"
    elsewhere()
    again = training(good_run(), local_place(url))
    assert again["last_step"]["step"] == whole["last_step"]["step"] > 2
    model = f"{BUCKET}/training/model/model.safetensors"
    assert server.objects[model] == (tmp_path / "local" / "model" / "model.safetensors").read_bytes()
    assert again["model"] == f"{url}/model"
    kept = {n for n in server.names(f"{BUCKET}/training") if "checkpoint-" in n}
    assert {Path(name).parent.name for name in kept} == {f"checkpoint-{whole['last_step']['step']:06d}"}
    with pytest.raises(StepconfError, match="would be written over"):
        training(good_run(), local_place(url), model=f"{url}/model")
    elsewhere("third")
    assert (fetched(local_place(f"{url}/model")) / "model.safetensors").exists()


def test_a_training_writes_over_nothing_at_a_url(server: S3Server) -> None:
    """Where nothing of it is on this machine yet."""
    server.objects[f"{BUCKET}/project/model/config.json"] = b"mine"
    before = dict(server.objects)
    with pytest.raises(StepconfError, match="not empty and not a training"):
        training(good_run(), local_place(f"s3://{BUCKET}/project"))
    assert server.objects == before


def test_what_was_made_here_and_not_sent_gives_way_to_what_others_wrote(
    server: S3Server,
    tmp_path: Path,
    elsewhere: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    server.refuse = lambda change: change.endswith("manifests/00001.json")
    assert stepconf(*segment_command(tmp_path, URL)).code == 1
    server.refuse = lambda change: False
    elsewhere()
    assert stepconf(*segment_command(tmp_path, URL)).code == 0
    there = tables(server.objects)
    elsewhere("cache")
    again = stepconf(*segment_command(tmp_path, URL))
    assert again.code == 0 and f"{URL} has been written from elsewhere" in caplog.text
    assert "left out: manifests/00001.json" in caplog.text
    assert tables(server.objects) == there and stepconf("check", URL).code == 0


def test_a_run_within_a_folder_that_is_written_is_sent_and_locked(server: S3Server, elsewhere: Any) -> None:
    """As rounds make them: each chunk is there when it is committed, and others see that the run is written."""
    url = f"s3://{BUCKET}/rounds"
    inner = f"{url}/round-1/run"
    with writer(local_place(url)), Run(local_place(url) / "round-1" / "run", {"command": "segment"}) as run:
        commit(run, "00000")
        assert "round-1/run/manifests/00000.json" in server.names(f"{BUCKET}/rounds")
        elsewhere()
        assert "running" in stepconf("status", inner).out
        refused = stepconf("relabel", inner, "--policy", "majority")
        assert refused.code == 1 and f"{inner} is being written by process" in refused.err
        commit(run, "00001")
    assert not [name for name in server.objects if name.endswith(".lock")]
    assert [m["chunk"] for m in read_manifests(fetched(local_place(inner)))] == ["00000", "00001"]
    elsewhere("third")
    found = {f.name for f in fetched(local_place(url)).rglob("*") if f.is_file()}
    assert {"00000.json", "00001.json", "recipe.yaml", "part-00000.parquet"} <= found


def test_a_foreign_folder_is_not_fetched(server: S3Server) -> None:
    server.objects[f"{BUCKET}/full/huge.bin"] = b"much"
    ended = stepconf("status", f"s3://{BUCKET}/full")
    assert ended.code == 1 and f"s3://{BUCKET}/full is not empty and not a run" in ended.err
    assert not list(local_place(f"s3://{BUCKET}/full").glob("*"))


def test_a_manifest_names_no_file_outside_of_its_run(server: S3Server, tmp_path: Path) -> None:
    names = ("../../steps/mine.parquet", "steps/../../mine.parquet", "/etc/x.parquet")
    files = {name: {"blake2b": "0"} for name in names}
    server.objects[f"{HERE}/recipe.yaml"] = b"command: segment\n"
    server.objects[f"{HERE}/manifests/00000.json"] = json.dumps({"chunk": "00000", "files": files}).encode()
    copy = fetched(local_place(URL))
    assert {f.name for f in copy.parent.rglob("*.parquet")} == set()
    assert [f.name for f in (copy / "manifests").iterdir()] == ["00000.json"]


def test_an_object_is_fetched_to_no_place_outside_of_the_copy(server: S3Server, tmp_path: Path) -> None:
    victim = tmp_path / "victim/owned.py"
    server.objects[f"{HERE}/recipe.yaml"] = b"command: segment\n"
    for name in (
        str(victim),
        "/",
        "../../../owned.py",
        "a/../../../../owned.py",
        "sub//owned.py",
        "./owned.py",
    ):
        server.objects[f"{HERE}/{name}"] = b"owned"
    copy = fetched(local_place(URL))
    assert [f.name for f in copy.rglob("*")] == ["recipe.yaml"]
    assert not list(tmp_path.rglob("owned.py"))


@given(st.text(st.sampled_from("./\\\0ab~")))
def test_the_name_of_a_part_is_a_path_in_the_folder(name: str) -> None:
    folder = Path("/copy")
    if is_part(name, ()):
        assert folder in Path(os.path.normpath(folder / name)).parents and "\0" not in name
    for odd in (f"/{name}", f"../{name}", f"a/../{name}", f"a//{name}", f"{name}/", f"{name}\0"):
        assert not is_part(odd, ())
