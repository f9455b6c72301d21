"""What shows and checks stepconf itself.

Each command takes a checked recipe, imports late, and calls one function.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepconf.commands.command import command
from stepconf.commands.options import Sets

if TYPE_CHECKING:
    from stepconf.recipe import Recipe


@command(example="stepconf demo --out runs/demo --set problems.limit=8")
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run folder.")] = Path("demo-run"),
    sets: Sets = None,
) -> None:
    """The main job, small, on the built-in model (minutes)."""
    from stepconf.demo import run_demo

    run_demo(out, sets or [])


@command(
    *("model", "engine.name", "engine.dtype"),
    defaults={"model": "demo", "engine.max_model_len": 1024},
    example="stepconf doctor --bench figures.json --model Qwen/Qwen2.5-0.5B-Instruct",
)
def doctor(
    recipe: "Recipe",
    bench: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure a trainer too, and write all figures there (minutes)."),
    ] = None,
) -> None:
    """Check this machine: versions, exactness, overhead."""
    from stepconf.doctor import examine

    if not examine(recipe, bench):
        raise typer.Exit(1)


@command(example="stepconf schema --check")
def schema(
    check: Annotated[
        bool, typer.Option("--check", help="Compare with schemas/*.json, write nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the JSON Schemas are.")] = Path(
        "schemas"
    ),
) -> None:
    """Write the tables' JSON Schemas, or check them."""
    from stepconf.schema_files import check_schemas, write_schemas
    from stepconf.ui.console import say

    if check:
        check_schemas(folder)
        say(f"{folder}: current")
    else:
        for file in write_schemas(folder):
            say(f"wrote {file}")
