"""`stepconf doctor --bench`: a few minutes of figures about this machine, to send to others."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from stepconf.core.documents import read_json
from stepconf.ui.console import console, output

LIMIT_S = 100  # for each trainer, its start included
TRAINERS = ("stepconf", "trl")


def trainers(model: str) -> dict[str, dict[str, Any]]:
    """Speed and memory of stepconf's trainer and of TRL's, one after the other; where one failed, `lacks` says why.

    Args:
        model: local folder or Hub id.
    """
    found = {}
    for name in TRAINERS:
        console.print(f"training with {name}")
        found[name] = _trained(name, model)
    return found


def _trained(name: str, model: str) -> dict[str, Any]:
    if name == "trl" and not importlib.util.find_spec("trl"):
        return {"lacks": "trl is not installed"}
    command = [sys.executable, "-m", "stepconf.training.measure", name, model]
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(  # noqa: S603  this module, in a process whose memory is its own
            command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"lacks": f"not done in {LIMIT_S} s"}
    if done.returncode:  # killed: what Python raises is in the line
        return {"lacks": f"its process ended with {done.returncode}"}
    figures: dict[str, Any] = read_json(done.stdout.splitlines()[-1])
    return figures


def show(figures: dict[str, Any], file: Path) -> None:
    """Write the figures to `file`, and print them as a table."""
    file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    table = Table("", *TRAINERS, title=f"training {figures['model']} on made-up pairs", title_justify="left")
    sides = [figures["training"][name] for name in TRAINERS]
    for key in ("device", "dtype", "pairs", "pairs_per_second", "peak_gib", "lacks"):
        if any(key in side for side in sides):
            table.add_row(key.replace("_", " "), *(str(side.get(key, "")) for side in sides))
    output.print(table)
    output.print(f"wrote {file}")
