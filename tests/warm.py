"""A command in a process whose environment the Hub's client has not read yet, without the seconds of imports.

The standard library's fork server imports the other heavy packages once; each child sets its environment, and imports
the rest.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.tiny import Ended

_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(
    [
        "matplotlib.backends.backend_agg",
        "numpy",
        "pandas",
        "pyarrow.dataset",
        "pyarrow.parquet",
        "rich.console",
        "typer",
    ]
)


def warm(arguments: list[str], environment: Mapping[str, str], attempts: int | None = None) -> Ended:
    """Run a command; `attempts` is how often it asks the Hub again."""
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch) / "out", Path(scratch) / "err"
        process = _FORK_SERVER.Process(target=_run, args=(arguments, dict(environment), attempts, out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, out.read_text(), err.read_text())


def _run(
    arguments: list[str], environment: dict[str, str], attempts: int | None, out: Path, err: Path
) -> None:
    for file, descriptor in ((out, 1), (err, 2)):
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), descriptor)
    assert "huggingface_hub" not in sys.modules, "it has read the environment already"
    os.environ.clear()
    os.environ.update(environment)
    if attempts is not None:
        from stepconf.hub import client as hub

        hub.ATTEMPTS = attempts
    from stepconf.cli import main

    sys.argv = ["stepconf", *arguments]
    main()
