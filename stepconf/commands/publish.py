"""A run from outside: how far it is, is it whole, to the Hub and back.

Each command imports late, and calls one function.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from stepconf.commands.command import command
from stepconf.commands.options import Json, Opened, Out, Partial, RepoId, Run
from stepconf.errors import StepconfError
from stepconf.stores.places import url_of


@command(example=("stepconf status runs/gsm8k --watch", "stepconf status runs/gsm8k --json"))
def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", parser=str, help="A run folder or URL."), Opened("status")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Until it ends, or Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """How far a run is: stages, rates, time left, drops, engine idle."""
    from stepconf.run.status import read_status, watch_status

    if json_:
        typer.echo(json.dumps(read_status(run), indent=1))
    else:
        watch_status(run, not watch)


@command(example="stepconf check runs/gsm8k --against gsm8k --against math500")
def check(
    run: Run,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET|FILE|HUB_ID",
            help="Evaluation set (name, file, Hub id) that must not be in it. Repeatable.",
        ),
    ] = None,
    partial: Partial = False,
    json_: Json = False,
) -> None:
    """Is a run whole, consistent and fit to publish?

    Exit code 1 on errors, not on warnings.
    """
    from stepconf.run.tables import check_is_run

    check_is_run(run)
    from stepconf.checks.check import check as run_check
    from stepconf.checks.check import load_against, render
    from stepconf.ui.console import output
    from stepconf.ui.progress import StageProgress

    sets = load_against(against or [])
    with StageProgress() as tick:
        report = run_check(run, sets, partial, tick)
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        for line in render(report, run):
            output.print(line)
    if not report.ok:
        raise typer.Exit(1)


@command(example="stepconf compact runs/gsm8k")
def compact(run: Run) -> None:
    """Put a run's small shards together; no row changes.

    A shard is at most some 64 MB in memory, a row group 16 MB.
    """
    from stepconf.run.tables import check_is_run

    check_is_run(run)
    from stepconf.run.compact import compact as run_compact
    from stepconf.ui.console import say
    from stepconf.ui.progress import StageProgress

    with StageProgress() as tick:
        before, after = run_compact(run, tick)
    say(f"{run}: {before:,} shards before, {after:,} now.")


@command(
    example=(
        "stepconf push runs/gsm8k OWNER/NAME --dry-run",
        "stepconf push runs/gsm8k OWNER/NAME --private --license mit",
    )
)
def push(
    run: Run,
    repo_id: RepoId,
    private: Annotated[bool, typer.Option("--private", help="Make the data set private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what would be pushed to --out, show it, send nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of --dry-run (default: RUN-hub).")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch; made if absent.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="Hub licence id, e.g. mit.")
    ] = None,
    partial: Partial = False,
) -> None:
    """Publish a run on the Hub, with a card, in one commit."""
    from stepconf.run.tables import check_is_run

    check_is_run(run)
    if out is not None and not dry_run:
        raise StepconfError("--out is the folder of --dry-run.", "Add --dry-run, or leave --out.")
    from stepconf.hub import publish
    from stepconf.ui.console import output, say
    from stepconf.ui.progress import StageProgress

    if dry_run:
        folder = out or (run if url_of(run) is None else Path(run.name)).with_name(
            run.resolve().name + "-hub"
        )
        with StageProgress() as tick:
            files = publish.prepare(run, repo_id, folder, licence, partial, tick)
        for line in publish.render(folder, files):
            output.print(line)
    else:
        with StageProgress() as tick:
            files, address = publish.push(run, repo_id, licence, partial, private, revision, tick)
        say(f"Pushed {len(files)} files: {address}")


@command(example="stepconf pull OWNER/NAME --out runs/pulled")
def pull(
    repo_id: RepoId,
    out: Out,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit.")] = None,
) -> None:
    """Bring a published run back as a run folder."""
    from stepconf.hub import publish
    from stepconf.ui.console import say
    from stepconf.ui.progress import StageProgress

    with StageProgress() as tick:
        publish.pull(repo_id, out, revision, tick)
    say(f"Run {out}. Next: stepconf check {out}")
