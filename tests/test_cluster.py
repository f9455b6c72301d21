"""The same run through Ray: begun here and continued there, with actors and nodes that are killed on the way."""

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.pipeline import generate, verify
from stepconf.recipe import Recipe, identity, load_recipe
from stepconf.stages import cluster, cluster_connection
from stepconf.stages.chunks import Chunk, in_waves
from stepconf.stages.cluster_work import Parcel, Worker
from tests.invariants import check_invariants, rows_of
from tests.test_pipeline import GIVEN, write_jsonl
from tests.test_resume import check_clean, without_seconds
from tests.tiny import VOCABULARY, stepconf, tiny_model, with_tiny

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'stepconf[ray]'")

PROBLEMS = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
# As `--ray local` has it: no reports, and workers of ordinary priority.
AS_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
POISON, ONCE = "kills whoever works on it", "kills the first who works on it"


def recipe_of(problems: Path, address: str | None, **sets: object) -> Recipe:
    options = {
        "problems.source": str(problems),
        "model": str(tiny_model()),
        "engine.name": "transformers",
        "sampling.samples": 2,
        "sampling.max_tokens": 10,
        "chunk": 2,
        "verify.workers": 1,
        "verify.verifiers": ["final"],
        "ray.address": address,
        # Killed as often as it is tried again, a chunk would be lost.
        "ray.retries": 10,
    }
    return load_recipe(None, options | sets)


def quiet(stage: str, n: int) -> None:
    pass


def interrupted_after(n_chunks: int) -> Callable[[str, int], None]:
    """Progress that ends the run as Ctrl-C does, behind so many commits."""
    verified = Counter[str]()

    def tick(stage: str, n: int) -> None:
        verified[stage] += n > 0
        if verified["verify"] > n_chunks:
            raise KeyboardInterrupt

    return tick


def descendants() -> dict[int, str]:
    """The command lines of all processes that this one started, and of those that they started."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() != pid and pid in names:
            found[pid] = names[pid]
    return found


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("problems") / "problems.jsonl", PROBLEMS)


@pytest.fixture(scope="module")
def plain(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    generate(recipe_of(problems, None), out, quiet)
    return out


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """For Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="sc-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def local(scratch: Path) -> Iterator[None]:
    """One local Ray for all runs of this module: `--ray` takes the one that is there."""
    os.environ |= AS_LOCAL
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        _temp_dir=str(scratch),
    )
    yield
    ray.shutdown()


def check_same(run: Path, plain: Path) -> None:
    check_invariants(run, VOCABULARY)
    check_clean(run)
    assert without_seconds(run) == without_seconds(plain)


# Before the fixture `local` is first used: a connection that is there would be taken.
def test_no_cluster_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where it looks for one
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StepconfError, match="no Ray cluster at 'auto'") as told:
        cluster_connection.connect(ray, "auto")
    assert "ray start --head" in told.value.hint
    assert signal.getsignal(signal.SIGTERM) is before


def test_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    ended = stepconf("verify", file, "--out", tmp_path / "run", "--ray", "local")
    assert ended.code == 1 and "pip install 'stepconf[ray]'" in ended.err


@pytest.mark.parametrize("key", ["ray.gpus=1.5", "ray.verifier_gpus=2.5", "ray.address=127.0.0.1:6379"])
def test_values_that_ray_would_refuse(key: str) -> None:
    with pytest.raises(StepconfError):
        load_recipe(None, {}, [key])


def test_where_it_ran_is_not_what_it_holds(problems: Path) -> None:
    assert identity(recipe_of(problems, "auto")) == identity(recipe_of(problems, None))


def test_chunks_of_many_callers_share_one_generator() -> None:
    """The second chunk comes while the first is under way, and whatever fails reaches whoever waits."""
    from concurrent.futures import ThreadPoolExecutor

    def work(chunks: Iterator[Chunk[Any] | None]) -> Iterator[tuple[Chunk[Any], dict[str, str]]]:
        held: list[Chunk[Any]] = []
        for chunk in chunks:
            held += [] if chunk is None else [chunk]
            if len(held) == 2:
                yield held.pop(), {"engine": "toy"}
                yield held.pop(), {"engine": "toy"}
                raise StepconfError("the third one fails.", "Type less.")

    worker = Worker(work)
    with ThreadPoolExecutor(2) as threads:
        parcels = list(threads.map(worker, [Parcel(Chunk(name, "", [None])) for name in "ab"]))
    assert [(p.chunk.name, p.failure, p.metadata) for p in parcels] == [
        (name, None, {"engine": "toy"}) for name in "ab"
    ]
    failure = worker(Parcel(Chunk("c", "", [None]))).failure
    assert isinstance(failure, StepconfError) and (failure.problem, failure.hint) == (
        "the third one fails.",
        "Type less.",
    )


def test_two_actors_write_the_rows_of_this_process(local: None, tmp_path: Path) -> None:
    """The one test that starts Ray in the default suite: verifiers only, since an engine takes longer to import."""
    file = write_jsonl(tmp_path / "given.jsonl", [row | {"id": str(i)} for i in range(3) for row in GIVEN])
    given = ["verify", file, "--verify", "final", "--set", "chunk=2", "--set", "verify.workers=1"]
    for name, options in (("plain", []), ("ray", ["--ray", "local", "--set", "ray.min_verifiers=2"])):
        ended = stepconf(*given, "--out", tmp_path / name, *options)
        assert ended.code == 0, ended.err
    check_same(tmp_path / "ray", tmp_path / "plain")


@pytest.mark.slow
def test_begun_here_and_continued_on_ray(problems: Path, plain: Path, local: None, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        generate(recipe_of(problems, None), tmp_path / "run", interrupted_after(1))
    begun = len(list((tmp_path / "run/manifests").iterdir()))
    assert 0 < begun < 6
    generate(recipe_of(problems, "local"), tmp_path / "run", quiet)
    check_same(tmp_path / "run", plain)


def toy_work(chunks: Iterator[Chunk[Problem]]) -> Iterator[tuple[Chunk[Problem], dict[str, str]]]:
    for chunk in chunks:
        for problem in chunk.items:
            first_time = problem.text == ONCE and not Path(str(problem.external_id)).exists()
            if first_time:
                Path(str(problem.external_id)).touch()
            if first_time or problem.text == POISON:
                os.kill(os.getpid(), signal.SIGKILL)
        chunk.drops["seen"] += len(chunk.items)
        yield chunk, {"engine": "toy"}


def toys(texts: list[str], marker: Path) -> list[Chunk[Problem]]:
    """Chunks of two problems each."""
    items = [Problem(str(i), text, None, "math", "", "", str(marker)) for i, text in enumerate(texts)]
    return [Chunk(f"{i:05d}", "", items[i : i + 2]) for i in range(0, len(items), 2)]


@pytest.mark.slow
def test_workers_that_are_killed(
    problems: Path, local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is made again; one that is lost even so is cut up, and what is lost alone is counted."""
    stage = cluster._Stage(cluster._Making, toy_work, 1, 0, 1, 1)
    monkeypatch.setattr(cluster, "_stages", lambda *_: [stage])
    recipe = recipe_of(problems, "local", **{"ray.retries": 1})
    chunks = toys(["", ONCE, "", POISON, "", ""], tmp_path / "marker")
    parcels = list(cluster.on_cluster([chunks], "generate", recipe))
    assert all(parcel.metadata == {"engine": "toy"} for parcel in parcels)
    assert {parcel.chunk.name: parcel.chunk.drops for parcel in parcels} == {
        "00000": {"seen": 2},
        "00002": {"seen": 1, cluster.LOST: recipe.sampling.samples},
        "00004": {"seen": 2},
    }


def test_a_wave_asks_for_no_more_than_the_one_before_had_left(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def streamed(chunks: list[Chunk[Problem]], stages: list[cluster._Stage], *_: object) -> Iterator[Parcel]:
        asked.append((len(chunks), stages[0].smallest))
        return (Parcel(chunk) for chunk in (chunks if len(asked) > 1 else chunks[:1]))

    stage = cluster._Stage(cluster._Making, toy_work, 1, 0, 3, 3)
    monkeypatch.setattr(cluster, "_stages", lambda *_: [stage])
    monkeypatch.setattr(cluster, "connected", nullcontext)
    monkeypatch.setattr(cluster, "_streamed", streamed)
    chunks = toys([""] * 10, tmp_path / "marker")
    parcels = cluster.on_cluster([chunks[:3], chunks[3:]], "generate", recipe_of(problems, "local"))
    assert sorted(parcel.chunk.name for parcel in parcels) == [chunk.name for chunk in chunks]
    assert asked == [(3, 3), (2, 1), (2, 1)]


def test_of_a_run_no_more_is_read_than_a_wave_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepconf.stages.chunks.WAVE_CHARS", 100)
    read = []

    def chunks() -> Iterator[Chunk[str]]:
        for size in (60, 30, 10, 250, 1, 0):
            solved: Any = SimpleNamespace(solution=SimpleNamespace(text="x" * size))
            read.append(size)
            yield Chunk(str(size), "", [""], solved=[solved])

    found = [([chunk.name for chunk in wave], len(read)) for wave in in_waves(chunks())]
    assert found == [(["60", "30", "10"], 3), (["250"], 4), (["1", "0"], 6)]


def test_more_is_lost_than_comes_through(tmp_path: Path) -> None:
    def alone(ones: list[Chunk[Problem]]) -> Iterator[Parcel]:
        return (Parcel(one) for one in ones if one.items[0].text != POISON)

    chunks = toys([POISON, POISON, POISON, ""], tmp_path)
    (first, second) = cluster._item_by_item(chunks, alone, 2, 4)
    assert (first.chunk.drops, second.chunk.drops) == ({cluster.LOST: 8}, {cluster.LOST: 4})
    with pytest.raises(StepconfError, match="3 items were lost with their workers"):
        list(cluster._item_by_item(toys([POISON, POISON, POISON, ""], tmp_path), alone, 0, 4))


def test_an_item_that_was_on_its_way_to_a_dying_actor_is_tried_again(tmp_path: Path) -> None:
    tried: list[list[str]] = []

    def alone(ones: list[Chunk[Problem]]) -> Iterator[Parcel]:
        tried.append([one.name for one in ones])
        lost = {"00000/0"} if len(tried) == 1 else set()
        return (Parcel(one) for one in ones if one.items[0].text != POISON and one.name not in lost)

    found = list(cluster._item_by_item(toys(["", POISON, "", ""], tmp_path), alone, 0, 1))
    assert [parcel.chunk.drops for parcel in found] == [{cluster.LOST: 1}, {}]
    assert tried == [["00000/0", "00000/1", "00002/0", "00002/1"], ["00000/0", "00000/1"]]


@pytest.mark.slow
def test_an_actor_asks_for_what_no_node_has(problems: Path, local: None, tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=r"0 GPUs.*asks for 1") as told:
        generate(recipe_of(problems, "local", **{"ray.gpus": 1}), tmp_path / "run", quiet)
    assert "ray.gpus" in told.value.hint


@pytest.mark.slow
def test_an_actor_is_killed_and_the_run_goes_on_here(problems: Path, local: None, tmp_path: Path) -> None:
    """Its chunks are made again by its successor; then Ctrl-C, and the rest is made without Ray."""
    killed: list[str] = []
    interrupt = interrupted_after(9)

    def tick(stage: str, n: int) -> None:
        if not killed and n > 0:
            for pid, name in descendants().items():
                if "ray::MapWorker(MapBatches(_Making))" in name:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(name)
        interrupt(stage, n)

    # Long enough that the first chunk is here before the last one is made.
    sets = {"chunk": 1, "sampling.max_tokens": 96, "verify.verifiers": []}
    generate(recipe_of(problems, None, **sets), tmp_path / "plain", quiet)
    with pytest.raises(KeyboardInterrupt):
        generate(recipe_of(problems, "local", **sets), tmp_path / "run", tick)
    assert len(killed) == 1
    assert len(list((tmp_path / "run/manifests").iterdir())) == 9
    generate(recipe_of(problems, None, **sets), tmp_path / "run", quiet)
    check_same(tmp_path / "run", tmp_path / "plain")


@pytest.mark.slow
def test_an_error_in_an_actor_reads_as_it_does_here(problems: Path, local: None, tmp_path: Path) -> None:
    with pytest.raises(StepconfError) as here:
        generate(recipe_of(problems, None, model="no/such"), tmp_path / "a", quiet)
    with pytest.raises(StepconfError) as there:
        generate(recipe_of(problems, "local", model="no/such"), tmp_path / "b", quiet)
    assert str(there.value) == str(here.value)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "verify"])
def test_given_solutions_on_ray(
    command: str, local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", [row | {"id": str(i)} for i in range(3) for row in GIVEN])
    model = with_tiny() if command == "score" else ["--set", "chunk=2"]
    for name, options in (("plain", []), ("ray", ["--ray", "local"])):
        ended = stepconf(command, file, "--out", tmp_path / name, *model, *options)
        assert ended.code == 0, ended.err
    check_same(tmp_path / "ray", tmp_path / "plain")
    monkeypatch.setattr("stepconf.stages.chunks.WAVE_CHARS", 1)
    ended = stepconf("verify", tmp_path / "plain", "--out", tmp_path / "again", "--ray", "local")
    assert ended.code == 0, ended.err
    assert rows_of(tmp_path / "again", "solutions") == rows_of(tmp_path / "plain", "solutions")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["uncertain", "all"])
def test_branches_on_ray_are_those_of_one_machine(
    where: str, problems: Path, local: None, tmp_path: Path
) -> None:
    """Without gold answers at the least confident steps; with them, at the starts of problems that are too hard."""
    if where == "uncertain":
        problems = write_jsonl(tmp_path / "p.jsonl", [{"problem": row["problem"]} for row in PROBLEMS])
    sets = {"branch.where": [where], "branch.n": 4, "problems.limit": 4, "sampling.max_tokens": 60}
    for name, address in (("plain", None), ("ray", "local")):
        generate(recipe_of(problems, address, **sets), tmp_path / name, quiet)
    check_same(tmp_path / "ray", tmp_path / "plain")
    solutions = rows_of(tmp_path / "ray", "solutions")
    assert any(one["parent_solution_id"] for one in solutions)
    again = recipe_of(tmp_path / "plain", "local", **sets | {"problems.limit": None})
    verify(again, tmp_path / "again", quiet)
    assert rows_of(tmp_path / "again", "solutions") == rows_of(tmp_path / "plain", "solutions")
