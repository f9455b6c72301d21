"""`push` and `pull` through the real client, in a process of its own, against a stand-in Hub that fails as told."""

import os
import shutil
from pathlib import Path

import pytest

from stepconf.run.damage import file_digest
from tests.edited_run import command, good_run
from tests.hub_server import (
    READER,
    TOKEN,
    HubServer,
    Repo,
    cut,
    cut_after_answering,
    cut_in_answer,
    hub_server,
    status,
)
from tests.invariants import rows_of
from tests.tiny import Ended, stepconf
from tests.warm import warm

DATA = [
    "data/pairs/train-00000-of-00001.parquet",
    "data/pairs/validation-00000-of-00001.parquet",
    "data/solutions/train-00000-of-00001.parquet",
    "data/steps/train-00000-of-00001.parquet",
]
FILES = [
    ".gitattributes",
    "README.md",
    *DATA,
    "figures/entropy-steps.png",
    "figures/reliability-steps.png",
    "stepconf/checksums.json",
    "stepconf/manifests.jsonl",
    "stepconf/recipe.yaml",
    "stepconf/source.json",
    "stepconf/summary.json",
]


@pytest.fixture(scope="module")
def good() -> Path:
    return good_run()


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def hub(
    server: HubServer,
    *arguments: object,
    home: Path,
    token: str | None = TOKEN,
    offline: bool = False,
    attempts: int | None = None,
) -> Ended:
    """A command whose Hub is the stand-in, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": str(int(offline))}
    environment |= {"HF_TOKEN": token} if token else {}
    ended = warm(list(map(str, arguments)), environment, attempts)
    assert TOKEN not in ended.out + ended.err and "Traceback" not in ended.err, ended.err
    return ended


def said(ended: Ended) -> str:
    """What a failed command said, from its own first word on."""
    assert ended.code == 1, ended.out + ended.err
    return ended.err[ended.err.index("stepconf: ") :]


def contents(run: Path) -> dict[str, str]:
    """All but what is news of a process: the lock and the metrics stay at home."""
    files = (file for file in run.rglob("*") if file.is_file() and file.name not in (".lock", "metrics.json"))
    return {file.relative_to(run).as_posix(): file_digest(file) for file in files}


def test_what_is_pushed_arrives_whole_and_once_and_comes_back(run: Path, tmp_path: Path) -> None:
    """A server error, a rate limit, a cut upload, a commit whose answer is lost; then a cut download."""
    before = contents(run)
    with hub_server() as server:
        server.faults = {
            "create": [status(500, Retry_After="0")],
            "preupload": [status(429, Retry_After="0")],
            "put": [cut],
            "commit": [status(503, Retry_After="0"), cut_after_answering],
        }
        pushed = hub(server, "push", run, "me/set", home=tmp_path)
        assert pushed.code == 0, pushed.err
        assert not any(server.faults.values()), "every fault was met"
        assert sorted(server.files("me/set")) == FILES
        assert len(server.repos["me/set"].branches["main"]) == 2, "one commit beside the first"
        assert len(server.stored) == len(DATA) and set(server.stored.values()) == {1}
        assert server.tokens <= {TOKEN, None} and not server.repos["me/set"].private
        assert contents(run) == before and f"{server.url}/datasets/me/set/commit/" in pushed.out

        server.faults = {"info": [status(500, Retry_After="0")], "resolve": [cut_in_answer]}
        pulled = hub(server, "pull", "me/set", "--out", tmp_path / "pulled", home=tmp_path, token=None)
        assert pulled.code == 0, pulled.err
        assert not any(server.faults.values())
        assert contents(tmp_path / "pulled") == before, "the same run, to the byte"
        assert stepconf("check", tmp_path / "pulled").code == 0

        # The same run again is no new commit; with a table less, its files go.
        assert hub(server, "push", tmp_path / "pulled", "me/set", home=tmp_path).code == 0
        assert len(server.repos["me/set"].branches["main"]) == 2 and set(server.stored.values()) == {1}
        assert stepconf("relabel", run, "--policy", "majority").code == 0
        assert hub(server, "push", run, "me/set", home=tmp_path).code == 0
        assert set(DATA) & set(server.files("me/set")) == set(DATA[2:])
        assert len(server.repos["me/set"].branches["main"]) == 3


def test_what_a_pull_of_another_set_has_left_is_not_taken(run: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        assert hub(server, "push", run, "me/set", home=tmp_path).code == 0
        assert stepconf("relabel", run, "--policy", "majority").code == 0
        assert hub(server, "push", run, "me/other", home=tmp_path).code == 0
        tree = server.files("me/set")
        tree[DATA[3]] = tree[DATA[3]][:-100]
        pull = ("pull", "--out", tmp_path / "p")
        assert "not what was published" in said(hub(server, *pull, "me/set", home=tmp_path))
        offline = hub(server, *pull, "me/other", home=tmp_path, offline=True)
        assert "HF_HUB_OFFLINE" in said(offline), "the client would take what is there"
        assert hub(server, *pull, "me/other", home=tmp_path).code == 0
        assert contents(tmp_path / "p") == contents(run)


def test_a_set_that_push_has_not_published_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        server.repos["me/mine"] = Repo(private=False)
        tree = {"README.md": b"Mine.", "data/train.parquet": b"rows"}
        server.repos["me/mine"].commit("main", dict(tree))
        text = said(hub(server, "push", run, "me/mine", home=tmp_path))
        assert "was not published by stepconf push" in text and "data/train.parquet" in text
        assert "Give another name" in text
        assert server.files("me/mine") == tree and not server.stored
        del server.files("me/mine")["data/train.parquet"]
        assert hub(server, "push", run, "me/mine", home=tmp_path).code == 0, "a card alone is replaced"


@pytest.mark.slow
def test_a_push_that_broke_goes_on_where_it_was(run: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        server.faults = {"commit": [status(500, Retry_After="0")] * 5}
        broken = hub(server, "push", run, "me/set", "--revision", "v1", "--private", home=tmp_path)
        assert "answered 500 for me/set" in said(broken) and "Type the same command again" in broken.err
        assert server.repos["me/set"].private and list(server.files("me/set", "v1")) == [".gitattributes"]
        assert not list(run.glob(".push-*")), "nothing is left in the run"
        on = hub(server, "push", run, "me/set", "--revision", "v1", "--private", home=tmp_path)
        assert on.code == 0, on.err
        assert sorted(server.files("me/set", "v1")) == FILES and list(server.files("me/set")) == FILES[:1]
        assert set(server.stored.values()) == {1}, "what had arrived was not sent again"
        unseen = hub(server, "pull", "me/set", "--out", tmp_path / "p", home=tmp_path, token=None)
        assert "no data set me/set on the Hub that you may read" in said(unseen)


def test_one_clear_message_and_exit_code_one(run: Path, tmp_path: Path) -> None:
    for name in ("my set", "set"):
        assert "OWNER/NAME" in said(stepconf("push", run, name))
    with hub_server() as server:

        def refused(*arguments: object, token: str | None = TOKEN, offline: bool = False) -> str:
            text = said(hub(server, *arguments, home=tmp_path, token=token, offline=offline))
            assert len(text.strip().splitlines()) == 2, text
            return text

        assert "does not know you" in refused("push", run, "me/set", token=None)
        assert "does not know you" in refused("push", run, "me/set", token="hf_" + "mistyped" * 4)
        assert "no right to write to me/set" in refused("push", run, "me/set", token=READER)
        assert "no right to write to you/set" in refused("push", run, "you/set")
        assert "there is no data set me/none" in refused("pull", "me/none", "--out", tmp_path / "p")
        assert "HF_HUB_OFFLINE" in refused("push", run, "me/set", offline=True)
        assert not server.repos, "nothing was made"
        url = server.url
    assert server.url == url
    assert "cannot be reached" in said(hub(server, "push", run, "me/set", home=tmp_path, attempts=1))


@pytest.mark.slow
def test_a_public_set_is_not_taken_for_a_private_one(run: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        assert hub(server, "push", run, "me/set", home=tmp_path).code == 0
        assert "me/set is public" in said(hub(server, "push", run, "me/set", "--private", home=tmp_path))
        wrong = hub(server, "pull", "me/set", "--revision", "v9", "--out", tmp_path / "p", home=tmp_path)
        assert "no such revision" in said(wrong)
        tree = server.files("me/set")
        tree[DATA[3]] = tree[DATA[3]][:-100]
        cut_off = hub(server, "pull", "me/set", "--out", tmp_path / "p", home=tmp_path)
        assert f"{DATA[3]} is missing or not what was published" in said(cut_off)
        del tree["stepconf/recipe.yaml"]
        foreign = hub(server, "pull", "me/set", "--out", tmp_path / "q", home=tmp_path)
        assert "holds no run" in said(foreign)


@pytest.mark.slow
def test_an_unfinished_run_goes_out_on_request_and_goes_on_where_it_is_pulled(
    good: Path, run: Path, tmp_path: Path
) -> None:
    for file in (
        *run.glob("pairs/*"),
        *run.rglob("*00002*"),
        run / "manifests/pairs.json",
        run / "summary.json",
    ):
        file.unlink(missing_ok=True)
    with hub_server() as server:
        refused = said(hub(server, "push", run, "me/set", home=tmp_path))
        assert "not finished" in refused and "summary.json" in refused and "--partial" in refused
        assert not server.repos
        assert hub(server, "push", run, "me/set", "--partial", home=tmp_path).code == 0
        assert b"**The run is not finished:**" in server.files("me/set")["README.md"]
        out = tmp_path / "pulled"
        assert hub(server, "pull", "me/set", "--out", out, home=tmp_path).code == 0
    done = rows_of(out, "steps")
    on = stepconf(
        *command(good.parent, out), "--set", "verify.policy=first-decided"
    )  # as the run was relabelled
    assert on.code == 0, on.err
    columns = ("step_id", "text", "token_ids", "token_entropies")
    first, whole = (
        [{name: row[name] for name in columns} for row in rows_of(p, "steps")] for p in (out, good)
    )
    assert first == whole and rows_of(out, "steps")[: len(done)] == done
