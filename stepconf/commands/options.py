"""Options and arguments of several commands that are no recipe keys, declared once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stepconf.stores.places import Use, local_place


@dataclass(frozen=True)
class Opened:
    """Beside the option of a path or URL: the command's function gets the path, opened (`stores.opening.opened`)."""

    use: Use


Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="RUN",
        parser=str,
        help="Run folder or URL (s3://...); the same command again continues it.",
    ),
    Opened("run"),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="Recipe in YAML, e.g. of recipes/.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key. Repeatable.")
]
SolutionFile = Annotated[
    str, typer.Argument(metavar="FILE", help="JSONL(.gz), Parquet or Hub set of solutions.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Make chunks with damaged or missing shards again.")]
LogJson = Annotated[
    Path | None,
    typer.Option(
        "--log-json", metavar="FILE", help="Append a JSON line per event; - is stderr, without bars."
    ),
]
Partial = Annotated[bool, typer.Option("--partial", help="The run need not be finished.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
RepoId = Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a data set on the Hub.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", parser=str, help="A run folder or URL."), Opened("run")]


def place_option(text: str, name: str = "--out", metavar: str = "DIR") -> Any:
    """The option of a folder, or of a URL, for which its local copy stands."""
    return typer.Option(name, metavar=metavar, parser=local_place, help=text)


def names_of(text: str) -> list[str]:
    """The names in a comma-separated list; none in `none`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [] if names == ["none"] else names
