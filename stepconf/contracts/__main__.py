"""`python -m stepconf.contracts NAME`."""

import sys
from typing import Annotated

import typer

from stepconf.contracts import checked, kind_of
from stepconf.core.printable import printable
from stepconf.errors import StepconfError


def main(
    name: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="What is checked.")],
    model: Annotated[str, typer.Option(help="With which an engine is opened.")] = "demo",
) -> None:
    """Check what a verifier, signal, engine, pair strategy, inference strategy or objective promises."""
    try:
        typer.echo(f"{name} ({kind_of(name).what})")
        kept = True
        for one in checked(name, model):
            kept = kept and not one.fault
            typer.echo(printable(f"  {'FAILS' if one.fault else 'ok   '}  {one.says}"))
            if one.fault:
                typer.echo(printable(f"         {one.fault}"))
    except StepconfError as error:
        typer.echo(f"stepconf: {printable(error.problem)}\n{printable(error.hint)}", err=True)
        sys.exit(1)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    typer.run(main)
