"""The commands by what they are for, as `--help` shows them, and the one place where errors are printed."""

import errno
import os
import signal
import sys
import threading
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stepconf.commands.dataset import audit, generate, pairs, relabel, score, segment, verify
from stepconf.commands.look import report, view
from stepconf.commands.policy import calibrate, evaluate, infer, serve, train
from stepconf.commands.publish import check, compact, pull, push, status
from stepconf.commands.upkeep import demo, doctor, schema
from stepconf.core.printable import printable
from stepconf.errors import StepconfError
from stepconf.stores.places import with_urls
from stepconf.version import __version__

# In the order of the pipeline, and so within a group.
GROUPS = {
    "Create": (demo, generate, score, segment),
    "Label": (verify, relabel, audit),
    "Train": (pairs, train),
    "Use": (infer, evaluate, serve),
    "Inspect": (status, check, calibrate, report, view),
    "Publish": (push, pull),
    "Maintain": (compact, doctor, schema),
}


class _Commands(UserDict[str, Any]):
    """The commands by name; one is built when it is asked for, as its options import the recipe."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).built()


class _Grouped(TyperGroup):
    """Lists the commands by what they are for."""

    def __init__(self, **attributes: Any) -> None:
        commands = {command.name: command for group in GROUPS.values() for command in group}
        super().__init__(**attributes | {"commands": _Commands(commands)})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name.ljust(width), command.summary) for command in commands])


app = typer.Typer(
    cls=_Grouped,
    help="Step-wise confidence datasets for math reasoning: exact entropies, verified steps, pairs.",
    epilog="`stepconf COMMAND --help` shows its options, their defaults, and examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help takes as long to import as all else together
    context_settings={"max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


# A thread that takes an engine's results must not wait 5 ms, Python's default, for one that segments or writes.
SWITCH_S = 0.0005


def main() -> None:
    """Run a command; the one place where errors are printed and exit codes chosen."""
    sys.setswitchinterval(SWITCH_S)
    debug = os.environ.get("STEPCONF_DEBUG") == "1"
    terminated: list[int] = []
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal in ASCII shows `\xe9`; a name need not be in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_arguments()
        with _sigterm_as_ctrl_c(terminated):
            app()
    except StepconfError as error:
        if debug:
            raise
        _fail(error.problem, error.hint)
    except OSError as error:
        if debug or error.errno is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{os.strerror(error.errno)}{where}.", _OS_HINTS.get(error.errno, ""))
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        # Typer has turned KeyboardInterrupt into this code, silently.
        hint = "Type the same command again to continue."
        if terminated:
            _fail("terminated; what was committed is kept.", hint, _TERMINATED)
        _fail("interrupted; what was committed is kept.", hint, _INTERRUPTED)


def _check_arguments() -> None:
    for argument in sys.argv:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise StepconfError(
                f"{os.fsencode(argument)!r} is no text in {sys.getfilesystemencoding().upper()}.",
                "Give the file or folder another name, or type: export PYTHONUTF8=1",
            )


@contextmanager
def _sigterm_as_ctrl_c(received: list[int]) -> Iterator[None]:
    """A scheduler's SIGTERM ends a command as a person's Ctrl-C does: what is made is written first."""

    def end(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_INTERRUPTED, _TERMINATED = 130, 143
_OS_HINTS = {
    errno.ENOSPC: "What was committed is kept. Make room, then type the same command again.",
    errno.EDQUOT: "What was committed is kept. Make room, then type the same command again.",
    errno.EFBIG: "What was committed is kept. Raise the file-size limit, then type the same command again.",
    errno.EACCES: "Give a folder that you may write to.",
    errno.EPERM: "Give a folder that you may write to.",
    errno.ENOENT: "Check this path: the file, or a folder on the way to it, is not there.",
    errno.EISDIR: "This is a folder: give a file.",
    errno.ENOTDIR: "Part of this path is a file: give another folder.",
    errno.EROFS: "Give a folder on a file system that can be written.",
}


def _fail(problem: str, hint: str, code: int = 1) -> None:
    problem, hint = (printable(with_urls(text)) for text in (problem, hint))
    typer.secho(f"stepconf: {problem}", fg="red", err=True)
    if hint:
        typer.echo(hint, err=True)
    sys.exit(code)
