"""A run over two nodes of a Ray cluster, one of which is killed on the way."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepconf.core.records import Problem
from stepconf.pipeline import generate
from stepconf.stages import cluster
from stepconf.stages.chunks import Chunk
from tests.test_cluster import (
    AS_LOCAL,
    check_same,
    descendants,
    plain,
    problems,
    ray,
    recipe_of,
    scratch,
    toys,
)

__all__ = ["plain", "problems", "scratch"]  # fixtures
pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """The head with this process, and a second node: raylets of their own, on this machine."""
    from ray.cluster_utils import Cluster

    for name, value in {**AS_LOCAL, "RAY_TMPDIR": str(scratch)}.items():
        monkeypatch.setenv(name, value)
    settings = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    common = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 3, "_system_config": settings, **common}
    )
    second = cluster.add_node(num_cpus=2, **common)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def deadly(chunks: Iterator[Chunk[Problem]]) -> Iterator[tuple[Chunk[Problem], dict[str, str]]]:
    """Kills its node, unless the pipe that the problems name is called after its raylet, which waits for that."""
    for chunk in chunks:
        pipe = Path(str(chunk.items[0].external_id))
        on_head = str(os.getppid()) == pipe.name
        if pipe.exists():
            with pipe.open("r" if on_head else "w"):  # waits for the other one
                pipe.unlink(missing_ok=True)
        if not on_head:
            os.kill(os.getppid(), signal.SIGKILL)
        yield chunk, {"engine": "toy"}


def test_no_room_for_the_actors_of_a_lost_node(
    nodes: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they were making is made by those that are left."""
    stage = cluster._Stage(cluster._Making, deadly, 2, 0, 2, 2)  # two CPUs each: one on a node
    monkeypatch.setattr(cluster, "_stages", lambda *_: [stage])
    head = nodes[0].head_node.all_processes["raylet"][0].process
    os.mkfifo(tmp_path / str(head.pid))
    chunks = toys([""] * 12, tmp_path / str(head.pid))
    recipe = recipe_of(tmp_path, "auto", **{"ray.retries": 2})
    parcels = list(cluster.on_cluster([chunks], "generate", recipe))
    assert sorted(parcel.chunk.name for parcel in parcels) == sorted(chunk.name for chunk in chunks)
    assert not any(parcel.chunk.drops for parcel in parcels)
    assert nodes[1].all_processes["raylet"][0].process.poll() is not None, "the second node was at work"


def workers_of(raylet: int) -> list[str]:
    """What the actors of a run that live on the raylet's node are called."""
    found = []
    for pid, name in descendants().items():
        if "ray::MapWorker" in name:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found += [name] if parent == raylet else []
    return found


def test_one_of_two_nodes_is_killed(
    problems: Path, plain: Path, nodes: tuple[Any, Any], tmp_path: Path
) -> None:
    """The rows are those of a run without Ray."""
    raylet = nodes[1].all_processes["raylet"][0].process.pid
    lost: list[str] = []

    def tick(stage: str, n: int) -> None:
        if not lost and stage == "verify" and n > 0:
            lost.extend(workers_of(raylet))
            assert lost, "there is an actor on the second node"
            os.kill(raylet, signal.SIGKILL)

    engines = {"ray.min_engines": 2, "ray.max_engines": 2, "ray.max_verifiers": 1}
    generate(recipe_of(problems, "auto", **engines), tmp_path / "run", tick)
    assert lost
    check_same(tmp_path / "run", plain)
