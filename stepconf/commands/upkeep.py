"""What shows and checks stepconf itself.

Each command parses its options into a recipe, imports late, and calls one function.
"""

from pathlib import Path
from typing import Annotated

import typer

from stepconf.commands.options import Sets


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("demo-run"),
    sets: Sets = None,
) -> None:
    """The main job, small, on the built-in model (minutes)."""
    from stepconf.demo import run_demo

    run_demo(out, sets or [])


def doctor(
    model: Annotated[str, typer.Option(help="Model to check with.")] = "demo",
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "vllm",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Check this machine: versions, exactness, overhead."""
    from stepconf.doctor import examine

    if not examine(model, engine, dtype):
        raise typer.Exit(1)


def schema(
    check: Annotated[
        bool, typer.Option("--check", help="Compare with schemas/*.json, write nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where the JSON Schemas lie.")] = Path("schemas"),
) -> None:
    """Write the tables' JSON Schemas, or check them."""
    from stepconf.schema_files import check_schemas, write_schemas
    from stepconf.ui import say

    if check:
        check_schemas(folder)
        say(f"{folder}: current")
    else:
        for file in write_schemas(folder):
            say(f"wrote {file}")
