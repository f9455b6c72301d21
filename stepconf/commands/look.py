"""Look at a run: as a file, or in the browser over a small server."""

from pathlib import Path
from typing import Annotated

import typer

Partial = Annotated[bool, typer.Option("--partial", help="The run need not be finished.")]


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder (or what view takes).")],
    out: Annotated[Path | None, typer.Option(help="The HTML file (default: RUN/report.html).")] = None,
    partial: Partial = False,
) -> None:
    """Write one HTML file: figures, plots, an explorer.

    It opens from disk without a network. A run that does not fit into 10 MB is sampled, and the file says so.
    """
    from stepconf.report.source import HUB
    from stepconf.report.write import write_report
    from stepconf.ui import StageProgress, output

    name = run.rpartition("/")[2].partition("@")[0]
    target = out or (Path(f"{name}.html") if run.startswith(HUB) else Path(run) / "report.html")
    with StageProgress() as tick:
        written = write_report(run, target, partial, tick)
    output.print(f"Report {written.file} ({written.n_bytes / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    for note in written.notes:
        output.print(note, highlight=False, markup=False, soft_wrap=True)


def view(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run folder, a published folder, or hf://OWNER/NAME[@REVISION]."
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8642,
    partial: Partial = False,
) -> None:
    """Look at a whole run in the browser, however large.

    A small server that only this machine reaches; Ctrl-C ends it.
    """
    from stepconf.report.server import ViewServer
    from stepconf.report.source import open_source

    with ViewServer(open_source(run, partial), port) as server:
        from stepconf.ui import output  # while the index is being read

        output.print(
            f"{run}: open {server.address} (Ctrl-C ends)", highlight=False, markup=False, soft_wrap=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            output.print("Ended.")
