"""A run over two nodes of a Ray cluster, one of which is killed on the way."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepconf.pipeline import generate
from tests.test_cluster import AS_LOCAL, check_same, descendants, plain, problems, ray, recipe_of, scratch

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
