"""The demo through two local Ray nodes, one of which is killed: `python -m tests.benchmarks.ray_nodes [16] [8]`.

Of the demo's recipe the first so many problems, compared with the run without Ray: row for row in the
deterministic engine, and in vLLM, which does not promise rows, by problems, counts and invariants. Engines have
one thread each, there and here: sums of floats depend on the number of threads.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepconf.demo import RECIPE
from stepconf.pipeline import generate
from stepconf.recipe import load_recipe
from tests.invariants import Row, check_invariants
from tests.test_cluster import AS_LOCAL, descendants
from tests.test_resume import check_clean, without_seconds

# On two nodes of two CPUs there is an engine on each, or both on the second; one fits on what is left behind a kill.
TWO = {"ray.address": "auto", "ray.min_engines": 2, "ray.max_engines": 2}
TWO |= {"ray.max_verifiers": 1, "ray.verifier_cpus": 0.5}
Rows = dict[str, list[Row]]


def quiet(stage: str, n: int) -> None:
    pass


@contextmanager
def two_nodes() -> Iterator[int]:
    """This process's node and a second one, whose raylet's process id is given."""
    import ray
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="sc-", ignore_cleanup_errors=True) as scratch:
        os.environ["RAY_TMPDIR"] = scratch
        common = {"include_dashboard": False, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **common})
        second = cluster.add_node(num_cpus=2, **common)
        ray.init(cluster.address, log_to_driver=False)
        try:
            yield second.all_processes["raylet"][0].process.pid
        finally:
            ray.shutdown()
            cluster.shutdown()


def parent_of(pid: int) -> int:
    """Of a process; 0 for one that has ended, reaped or not."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def below(ancestor: int) -> dict[int, str]:
    """The processes that an ancestor started, and those that they started, by what they are called."""
    found: dict[int, str] = {}
    for pid, name in descendants().items():
        above = parent_of(pid)
        while above not in (0, 1, ancestor):
            above = parent_of(above)
        found |= {pid: name} if above == ancestor else {}
    return found


def made(out: Path, sets: dict[str, Any], tick: Callable[[str, int], None] = quiet) -> tuple[float, Rows]:
    """Seconds, and rows after checking them."""
    started = time.perf_counter()
    generate(load_recipe(RECIPE, sets), out, tick)
    seconds = time.perf_counter() - started
    check_invariants(out)
    check_clean(out)
    return seconds, without_seconds(out)


def killing(raylet: int, inside: str, killed: dict[int, str]) -> Callable[[str, int], None]:
    """Progress that kills a node behind the first commit that finds a process so called on it."""

    def tick(stage: str, n: int) -> None:
        if stage == "verify" and n > 0 and not killed:
            there = below(raylet)
            if any(inside in name for name in there.values()):
                os.kill(raylet, signal.SIGKILL)
                killed.update(there)

    return tick


def identities(rows: Rows) -> list[tuple[str, str, int]]:
    """Which solutions of which problems there are, whatever they say."""
    return [(row["problem_id"], row["problem"], row["sample_index"]) for row in rows["solutions"]]


def same(found: Rows, plain: Rows, engine: str) -> bool:
    """Say how far two runs agree, and whether they agree in all that the engine promises."""
    by_id = {row["solution_id"]: row for row in plain["solutions"]}
    equal = sum(by_id.get(row["solution_id"]) == row for row in found["solutions"])
    alike = identities(found) == identities(plain)
    print(
        f"    solutions {len(found['solutions'])}, equal to the plain run's {equal}; steps {len(found['steps'])} "
        f"and {len(plain['steps'])}; the same problems and samples: {alike}",
        flush=True,
    )
    return found == plain if engine == "transformers" else alike


def compare(engine: str, inside: str, n_problems: int) -> tuple[list[bool], float]:
    """Make the run without Ray, on two nodes, and on two nodes of which one is killed; the last two compared."""
    sets = {"problems.limit": n_problems, "engine.name": engine, "chunk": 1}
    with tempfile.TemporaryDirectory() as scratch:
        folder, found = Path(scratch), []
        plain_s, plain = made(folder / "plain", sets)
        counts = ", ".join(f"{len(rows)} {table}" for table, rows in plain.items())
        print(f"{engine}, {n_problems} problems, without Ray: {plain_s:.1f} s, {counts}", flush=True)
        with two_nodes() as raylet:
            ray_s, rows = made(folder / "ray", sets | TWO)
            print(f"  two nodes: {ray_s:.1f} s", flush=True)
            found.append(same(rows, plain, engine))
            killed: dict[int, str] = {}
            killed_s, rows = made(folder / "killed", sets | TWO, killing(raylet, inside, killed))
            left = [name for pid, name in killed.items() if parent_of(pid)]
            names = sorted({name.split("(")[0].strip() for name in killed.values() if "::" in name})
            print(f"  two nodes, one killed in mid-run with {', '.join(names)}: {killed_s:.1f} s", flush=True)
            print(f"    processes left of the killed node: {left or 'none'}", flush=True)
            found += [same(rows, plain, engine), bool(killed) and not left]
    return found, plain_s / ray_s


def main(n_problems: int = 16, n_vllm: int = 8) -> None:
    """Both engines; 0 problems leave one out."""
    os.environ |= AS_LOCAL | {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    import torch

    torch.set_num_threads(1)
    halves = [("transformers", "ray::MapWorker(MapBatches(_Making))", n_problems)]
    halves.append(("vllm", "VLLM::EngineCore", n_vllm))
    for engine, inside, n in halves:
        if n:
            found, speed = compare(engine, inside, n)
            print(f"ratio ray_nodes_{engine}: {speed:.2f}")
            print(f"ratio ray_nodes_{engine}_as_promised: {sum(found) / len(found):.2f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
