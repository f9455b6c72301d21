"""Folders that a command fills: at once (an export, the published form of a run), or where it continues (a training).

Killed halfway, it is typed again.
"""

import fcntl
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath

from stepconf.errors import StepconfError
from stepconf.stores.places import url_of

_HINT = "Give a new folder with --out."
_MARK = ".unfinished"  # is there while the folder is being filled, and locked by the process that does it


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files, in order; a folder that holds only those is an empty one."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def check_new(folder: Path, ours: Collection[str]) -> None:
    """Raise StepconfError unless the folder is absent, empty, or holds what a killed command left of `ours`."""
    left = ours if (folder / _MARK).exists() else ()
    if any(path.name not in left for path in _held(folder)):
        raise StepconfError(f"{folder} is not empty.", _HINT)


def check_continued(
    folder: Path, what: str, is_ours: Callable[[Path], bool], inputs: Sequence[Path] = ()
) -> None:
    """Raise StepconfError unless the folder is absent, empty, or `is_ours`, and holds none of the inputs.

    Args:
        what: how the message calls what it is to hold.
        inputs: what is read, of this machine or copies; those that do not exist are names of something else.
    """
    for path in inputs:
        if path.exists() and _place(path).is_relative_to(_place(folder)):
            raise StepconfError(f"{path} is read, and would be written over in {folder}.", _HINT)
    if _held(folder) and not is_ours(folder):
        raise StepconfError(f"{folder} is not empty and not a {what}.", _HINT)


@contextmanager
def new_folder(folder: Path, ours: Collection[str]) -> Iterator[None]:
    """Fill a folder in here; `ours` are all names that may be made in it, of which nothing is left from before.

    Raises:
        StepconfError: as `check_new`, or another process fills it.
    """
    check_new(folder, ours)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / _MARK):
        check_new(folder, ours)  # the process that had the lock may have filled it meanwhile
        for path in visible(folder):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield
        (folder / _MARK).unlink()


def _held(folder: Path) -> list[Path]:
    """What a folder holds, [] where there is none yet; raises StepconfError where it is a file."""
    if folder.exists() and not folder.is_dir():
        raise StepconfError(f"{folder} is a file, not a folder.", _HINT)
    return visible(folder) if folder.exists() else []


def _place(path: Path) -> PurePath:
    """Where it lies: two copies of one URL have two paths."""
    return PurePath(url_of(path) or path.resolve())


@contextmanager
def _locked(mark: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            held = stack.enter_context(mark.open("r+b" if mark.exists() else "xb"))
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileExistsError) as error:
            raise StepconfError(
                f"another process is writing {mark.parent}.",
                "Wait for it, or give another folder with --out.",
            ) from error
        yield
