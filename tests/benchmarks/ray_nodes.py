"""The demo's problems through two local Ray nodes, one of which is killed: `python -m tests.benchmarks.ray_nodes`.

Compared with the run without Ray, row for row, in the deterministic engine. Engines have one thread each, there
and here: sums of floats depend on the number of threads.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stepconf.demo import RECIPE
from stepconf.pipeline import generate
from stepconf.recipe import load_recipe
from tests.invariants import check_invariants
from tests.test_cluster import AS_LOCAL
from tests.test_resume import without_seconds


def made(out: Path, n_problems: int, tick: Any, **sets: Any) -> float:
    """Seconds of a run of `n_problems` of the demo's problems."""
    options = {"problems.limit": n_problems, "engine.name": "transformers", "chunk": 2, **sets}
    started = time.perf_counter()
    generate(load_recipe(RECIPE, options), out, tick)
    return time.perf_counter() - started


def main(n_problems: int = 16) -> None:
    """Make the run three times: without Ray, on two nodes, and on two nodes of which one is killed."""
    os.environ |= AS_LOCAL | {"OMP_NUM_THREADS": "1"}
    import ray
    import torch
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sc-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        plain_s = made(folder / "plain", n_problems, lambda stage, n: None)
        rows = without_seconds(folder / "plain")
        counts = ", ".join(f"{len(found)} {table}" for table, found in rows.items())
        print(f"without Ray: {plain_s:.1f} s, {counts}", flush=True)

        os.environ["RAY_TMPDIR"] = scratch
        common = {"include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, **common})
        second = cluster.add_node(num_cpus=2, **common)
        ray.init(cluster.address, log_to_driver=False)
        engines = {"ray.address": "auto", "ray.min_engines": 2, "ray.max_engines": 2, "ray.max_verifiers": 1}
        ray_s = made(folder / "ray", n_problems, lambda stage, n: None, **engines)
        equal = [without_seconds(folder / "ray") == rows]
        print(f"two nodes: {ray_s:.1f} s, the same rows: {equal[0]}", flush=True)

        killed: list[float] = []

        def kill(stage: str, n: int) -> None:
            if not killed and stage == "verify" and n > 0:
                os.kill(second.all_processes["raylet"][0].process.pid, signal.SIGKILL)
                killed.append(time.perf_counter())

        killed_s = made(folder / "killed", n_problems, kill, **engines)
        equal.append(without_seconds(folder / "killed") == rows)
        check_invariants(folder / "killed")
        print(f"two nodes, one killed behind the first commit: {killed_s:.1f} s, the same rows: {equal[1]}")
        ray.shutdown()
        cluster.shutdown()
    print(f"ratio ray_nodes: {plain_s / ray_s:.2f}")
    print(f"ratio ray_nodes_same_rows: {sum(equal) / len(equal):.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
