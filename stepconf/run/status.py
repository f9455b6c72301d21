"""`stepconf status RUN`: how far a run is, from its manifests, its lock and RUN/metrics.json."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_json
from stepconf.run.facts import Kinds, each, is_count, is_number
from stepconf.run.files import is_locked
from stepconf.run.parts import PAIRS, chunks_of
from stepconf.run.tables import METRICS, read_manifests, read_recipe
from stepconf.stores.opening import fetched
from stepconf.stores.places import url_of

_EVERY_S = 1.0
_EVERY_S_REMOTE = 10.0
_STUCK_S = 60.0  # without news for so long, a person should know
_LONGEST_S = 1e12  # a time span of Python ends below 1e14


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return is_number(value) and 0 <= value < _LONGEST_S


def _is_stage(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name in value and fits(value[name]) for name, fits in _OF_STAGE.items()
    )


_OF_STAGE: Kinds = {
    "done": is_count,
    "total": lambda value: value is None or is_count(value),
    "per_second": lambda value: value is None or is_number(value),
}
_OF_METRICS: Kinds = {
    "state": _is_text,
    "error": _is_text,
    "pid": is_count,
    "updated": _is_time,
    "elapsed_s": _is_time,
    "eta_s": _is_time,
    "chunks": each(is_count),
    "stages": each(_is_stage),
    "engine_idle_share": is_number,
}


def read_status(run: Path) -> dict[str, Any]:
    """State, counts, drops and the last metrics of a run. Needs no lock: a run that is written is readable.

    `state` is "running" while a process holds the run; else "finished", "interrupted", "failed" as it ended,
    "killed" where it did not say how, or "unknown" where there are no metrics.

    Raises:
        StepconfError: the folder is not a run, or a manifest cannot be read.
    """
    recipe = read_recipe(run)
    chunks = [manifest for manifest in read_manifests(run) if manifest["chunk"] != PAIRS]
    drops: Counter[str] = Counter()
    for manifest in chunks:
        drops.update(manifest.get("drops", {}))
    metrics = _metrics(run)
    said = metrics.get("state", "unknown")
    state = "running" if is_locked(run) else "killed" if said == "running" else said
    counts = {name: sum(m.get(name, 0) for m in chunks) for name in ("solutions", "steps", "tokens")}
    # A clock that was set back must not give a negative age.
    age = max(0.0, time.time() - metrics["updated"]) if "updated" in metrics else None
    return {
        "command": recipe["command"],
        "model": recipe.get("model", ""),
        "state": state,
        "error": metrics.get("error"),
        "pid": metrics.get("pid") if state == "running" else None,
        "updated_s_ago": None if age is None else round(age, 1),
        "stuck": state == "running" and age is not None and age > _STUCK_S,
        "elapsed_s": metrics.get("elapsed_s"),
        "eta_s": metrics.get("eta_s") if state == "running" else None,
        "chunks": {
            "done": sum(map(len, map(chunks_of, chunks))),
            "total": metrics.get("chunks", {}).get("total"),
        },
        **counts,
        "stages": metrics.get("stages", {}),
        "drops": dict(drops.most_common()),
        "engine_idle_share": metrics.get("engine_idle_share"),
    }


def watch_status(run: Path, once: bool) -> None:
    """Show the status; again until the run ends, unless `once`: every second, at a URL less often."""
    from rich.live import Live

    from stepconf.ui.console import output

    if once:
        output.print(_table(read_status(run), run))
        return
    with Live(console=output, auto_refresh=False) as live:
        for found in _until_it_ends(run):
            live.update(_table(found, run), refresh=True)


def _until_it_ends(run: Path) -> Iterator[dict[str, Any]]:
    pause = _EVERY_S if url_of(run) is None else _EVERY_S_REMOTE
    while (found := read_status(run))["state"] == "running":
        yield found
        time.sleep(pause)
        fetched(run, shards=False)
    yield found


def _metrics(run: Path) -> dict[str, Any]:
    """What was last written, of what can be read: it is only news, and others may have written it."""
    try:
        found = read_json((run / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = found if isinstance(found, dict) else {}
    return {name: known[name] for name, fits in _OF_METRICS.items() if name in known and fits(known[name])}


def _table(found: dict[str, Any], run: Path) -> Any:
    from rich.table import Table

    table = Table(title=f"Run {run}", show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, value)
    return table


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    state = found["state"] + (f", process {found['pid']}" if found["pid"] else "")
    if found["stuck"]:
        state += f"; nothing has happened for {_clock(found['updated_s_ago'])}"
    yield f"{found['command']} {found['model']}".strip(), state
    if found["error"] and found["state"] == "failed":
        yield "error", found["error"]
    total = found["chunks"]["total"]
    yield "chunks", f"{found['chunks']['done']:,}" + (f" of {total:,}" if total else "")
    yield "solutions, steps", f"{found['solutions']:,}, {found['steps']:,}"
    for name, stage in found["stages"].items():
        of = "" if stage["total"] is None else f" of {stage['total']:,}"
        rate = "" if stage["per_second"] is None else f", {stage['per_second']:,.1f}/s"
        yield f"  {name}", f"{stage['done']:,}{of}{rate}"
    if found["elapsed_s"] is not None:
        left = "" if found["eta_s"] is None else f", about {_clock(found['eta_s'])} left"
        yield "time", f"{_clock(found['elapsed_s'])}{left}"
    if found["engine_idle_share"] is not None:
        yield "engine idle", f"{found['engine_idle_share']:.1%}"
    if found["drops"]:
        yield "left out", ", ".join(f"{n:,} {reason}" for reason, n in found["drops"].items())


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
