"""Look at a run: as a file, or in the browser over a small server."""

from pathlib import Path
from typing import Annotated

import typer

from stepconf.commands.command import command
from stepconf.commands.options import Opened, Partial


@command(example="stepconf report runs/gsm8k --out gsm8k.html")
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, what train made, or what view takes.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=str,
            help="The HTML file (default: RUN/report.html; for a URL NAME.html).",
        ),
        Opened("file"),
    ] = None,
    partial: Partial = False,
) -> None:
    """Write one HTML file: figures, plots, an explorer.

    It opens from disk without a network. A run that does not fit into 10 MB is sampled, and the file says so.
    Of what train made: loss, rewards and entropies of both sides over its steps, by round and stage.
    """
    from stepconf.report.training import is_training, write_training
    from stepconf.report.write import write_report
    from stepconf.stores.places import check_file_place
    from stepconf.ui.console import say
    from stepconf.ui.progress import StageProgress

    name = run.rstrip("/").rpartition("/")[2].partition("@")[0]
    target = out or (Path(run) / "report.html" if Path(run).is_dir() else Path(f"{name}.html"))
    check_file_place(target)
    place = _located(run)
    with StageProgress() as tick:
        written = (
            write_training(Path(place), target)
            if is_training(Path(place))
            else write_report(place, target, partial, tick)
        )
    say(f"Report {written.file} ({written.n_bytes / 1e6:.1f} MB)")
    for note in written.notes:
        say(note)


@command(example=("stepconf view runs/gsm8k", "stepconf view hf://OWNER/NAME --port 0"))
def view(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run folder or URL, a published folder, or hf://OWNER/NAME[@REVISION]."
        ),
    ],
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 for any free one.")] = 8642,
    partial: Partial = False,
) -> None:
    """Look at a whole run in the browser, however large.

    A small server that only this machine reaches; Ctrl-C ends it.
    """
    from stepconf.report.server import ViewServer
    from stepconf.report.source import open_source

    with ViewServer(open_source(_located(run), partial), port) as server:
        from stepconf.ui.console import say  # while the index is being read

        say(f"{run}: open {server.address} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Ended.")


def _located(run: str) -> str:
    """The path of a run; what is published on the Hub is read there."""
    from stepconf.report.source import HUB
    from stepconf.stores.opening import located

    return run if run.startswith(HUB) else located(run)
