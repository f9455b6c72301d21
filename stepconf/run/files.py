"""A run's files, before anyone reads their rows: manifests, shards as they were written, and what is missing."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepconf.core.checks.findings import Findings
from stepconf.core.documents import read_json
from stepconf.core.schema import TABLES
from stepconf.run.damage import live_manifests, shard_damage
from stepconf.run.facts import is_count
from stepconf.run.parts import PAIRS, chunks_of
from stepconf.stores.opening import is_written
from stepconf.workers.ahead import ahead


def check_files(run: Path, found: Findings) -> list[dict[str, Any]]:
    """The manifests that can be read. What is wrong with them or with a shard goes into `found`."""
    manifests = []
    for file, manifest in live_manifests(run).items():
        if isinstance(manifest, str):
            found.add("manifest", f"manifests/{file.name}: {manifest}")
        else:
            manifests.append(manifest)
            found.add("manifest", *(f"manifests/{file.name}: {what}" for what in _miscounts(manifest)))
    named = {name: facts for manifest in manifests for name, facts in manifest["files"].items()}
    damages = ahead(lambda one: shard_damage(run / one[0], one[1]), named.items())
    for name, problem in zip(named, damages, strict=True):
        if problem:
            check, what = problem
            found.add(check, f"{name}: {what}")
    for table in TABLES:
        for file in sorted((run / table).glob("*.parquet")):
            if f"{table}/{file.name}" not in named:
                found.add("shard-stray", f"{table}/{file.name}")
    return manifests


def missing_parts(run: Path) -> list[str]:
    """Why the run is not finished, a line each; empty where it is."""
    reasons = []
    if is_locked(run):
        reasons.append("another process is writing it")
    manifests = [manifest for manifest in live_manifests(run).values() if isinstance(manifest, dict)]
    chunks = [m for m in manifests if m["chunk"] != PAIRS]
    names = {name for manifest in chunks for name in chunks_of(manifest)}
    last = max((int(name) for name in names if name.isdigit()), default=-1)
    absent = [name for i in range(last + 1) if (name := f"{i:05d}") not in names]
    if absent:
        reasons.append(f"chunks {_some(absent)} are missing")
    summary = _summary(run)
    there = sum(m["solutions"] for m in chunks)
    if not chunks:
        reasons.append("it holds no chunk yet")
    elif summary is None:
        reasons.append(f"it was stopped after {len(names):,} chunks: there is no summary.json yet")
    elif there < summary["solutions"]:
        reasons.append(f"{there:,} of the {summary['solutions']:,} solutions in its summary are there")
    paired = next((m["solutions"] for m in manifests if m["chunk"] == PAIRS), there)
    if paired != there:
        reasons.append(f"its pairs are those of {paired:,} of {there:,} solutions")
    return reasons


def stale_summary(run: Path, manifests: list[dict[str, Any]]) -> str | None:
    """How summary.json differs from the manifests; None where it does not, or is not there."""
    summary = _summary(run)
    if summary is None:
        return None
    chunks = [m for m in manifests if m["chunk"] != PAIRS]
    counted: dict[str, Any] = {
        key: sum(m[key] for m in chunks if key in m) for key in ("solutions", "steps", "tokens")
    }
    counted["pairs"] = next((m["kinds"] for m in manifests if m["chunk"] == PAIRS), None)
    differing = [f"{key} {summary.get(key)}, now {n}" for key, n in counted.items() if summary.get(key) != n]
    return "; ".join(differing) or None


def _miscounts(manifest: dict[str, Any]) -> Iterator[str]:
    if manifest["chunk"] == PAIRS:
        rows = sum(facts["rows"] for facts in manifest["files"].values())
        if sum(manifest.get("kinds", {}).values()) != rows:
            yield f"says {sum(manifest.get('kinds', {}).values())} pairs, its shards have {rows}"
        return
    for table in ("solutions", "steps"):
        rows = sum(f["rows"] for name, f in manifest["files"].items() if name.startswith(table + "/"))
        if table in manifest and manifest[table] != rows:
            yield f"says {manifest[table]} {table}, its shards have {rows}"


def _summary(run: Path) -> dict[str, Any] | None:
    try:
        summary = read_json((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and is_count(summary.get("solutions")) else None


def is_locked(run: Path) -> bool:
    """Whether a process is writing the run, here or, where it lies at a URL, anywhere."""
    try:
        with (run / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return True
    return is_written(run)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
