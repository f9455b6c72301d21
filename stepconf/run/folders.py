"""Other folders at URLs than runs (trainings, evaluations, figures), runs to be read, and input files.

A folder has no manifests, so it is taken file by file; those that say that others are whole (a checkpoint's
state.json, summary.json, report.json) are sent last and deleted first, and a checkpoint without its state.json is
not fetched. If the URL is as it was when the copy last was the same, what differs in the copy was made here and is
sent; otherwise someone else has written there, and the copy is made what is at the URL.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stepconf.core.documents import read_json
from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.run.copies import MARK, cache_dir, digest, is_url, local_place, mark_as_copy, url_of
from stepconf.run.events import Tick
from stepconf.run.known import alone, in_threads
from stepconf.run.lease import Lease
from stepconf.run.reader import Reader, no_tick
from stepconf.run.remote import Store

_SYNCED = ".synced"
_LAST = ("state.json", "summary.json", "report.json", "comparison.json", "rounds.json")
_CHECKPOINT = "checkpoint-"
_SENDING = ["sending", 0, 0]  # remembered of a file while it is sent, not its state there, size and time here


class Folder:
    """The copy of a folder, and the URL it belongs to.

    Raises (each method): StepconfError where the store refuses or fails for long, as `run.remote.Store`.
    """

    def __init__(self, copy: Path, url: str) -> None:
        self.copy, self.store = copy, Store(url)
        self._lock: BinaryIO | None = None
        self._lease: Lease | None = None

    @classmethod
    def of(cls, folder: Path) -> "Folder | None":
        """The folder's, where it is a copy or lies in one; None for any other."""
        url = url_of(folder)
        if url is None:
            return None
        mark_as_copy(folder, url)
        return cls(folder, url)

    def open(self, tick: Tick = no_tick) -> None:
        """Become the writer, bring the copy up to date, send what was not sent."""
        self._lock = (self.copy / ".lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StepconfError(
                f"another process is writing {self.store.url}.", "Wait for it to end."
            ) from error
        try:
            self._lease = Lease(self.store, self.copy)
            self.fetch(tick)
            self.push()
        except BaseException:  # Ctrl-C too must give the lock back
            self.close()
            raise

    def close(self) -> None:
        """Stop being the writer."""
        if self._lease is not None:
            self._lease.release()
        if self._lock is not None:
            self._lock.close()

    def fetch(self, tick: Tick = no_tick) -> None:
        """Bring the copy up to date."""
        with alone(self.copy):
            there, known, here = self._there(), self._known(), self._here()
            if all(
                there.get(n) == known.get(n, [None])[0] for n in {*there, *known} if known.get(n) != _SENDING
            ):
                wanted = [name for name in there if name not in here]
            else:
                same = {n for n in here if n in known and known[n][1:] == here[n]}
                wanted = [n for n, state in there.items() if not (n in same and known[n][0] == state)]
                for name in here.keys() - there.keys():
                    (self.copy / name).unlink()
                    _remove_empty((self.copy / name).parent, self.copy)
            if wanted:
                tick("fetch", -len(wanted))

            def bring(name: str) -> None:
                self.store.fetch(name, self.copy / name)
                tick("fetch", 1)

            in_threads(bring, wanted)
            here_now = self._here()
            kept = {n: known[n] for n in there if n in known and n not in wanted}
            self._remember(kept | {n: [there[n], *here_now[n]] for n in wanted if n in here_now})

    def push(self) -> None:
        """Make what is at the URL what the copy is."""
        if self._lease is not None:
            self._lease.check()
        known, here = self._known(), self._here()
        changed = [name for name, stat in here.items() if known.get(name, [""])[1:] != stat]
        gone = [name for name in known if name not in here]
        if changed or gone:  # killed in here, what has changed at the URL was changed by this copy
            self._remember(known | dict.fromkeys(changed + gone, _SENDING))
            for name in sorted(changed, key=_turn):
                self.store.send(self.copy / name, name)
            for name in sorted(gone, key=_turn, reverse=True):
                self.store.delete(name)
            there = self._there(whole_only=False)
            for name in [name for name in there if _marker_of(name) is not None and name not in here]:
                self.store.delete(name)  # of a checkpoint that never was whole
            self._remember({name: [there[name], *stat] for name, stat in here.items() if name in there})

    def _there(self, whole_only: bool = True) -> dict[str, str]:
        listing = {
            name: f"{entry.size}:{entry.state}"
            for name, entry in self.store.listing().items()
            if not _hidden(name) and not self._nested(name)
        }
        if not whole_only:
            return listing
        return {n: s for n, s in listing.items() if (marker := _marker_of(n)) is None or marker in listing}

    def _here(self) -> dict[str, list[int]]:
        found = {}
        for file in self.copy.rglob("*"):
            name = file.relative_to(self.copy).as_posix()
            if file.is_file() and not _hidden(name) and not self._nested(name):
                found[name] = [file.stat().st_size, file.stat().st_mtime_ns]
        return found

    def _nested(self, name: str) -> bool:
        """Whether it lies in a copy below this one (a round's run or training), which sees to itself."""
        folders = (self.copy / name).relative_to(self.copy).parents
        return any((self.copy / folder / MARK).is_file() for folder in folders if folder != Path())

    def _known(self) -> dict[str, Any]:
        try:
            found = read_json((self.copy / _SYNCED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, known: dict[str, Any]) -> None:
        scratch = self.copy / f"{_SYNCED}.tmp"
        scratch.write_text(json.dumps(known), encoding="utf-8")
        scratch.replace(self.copy / _SYNCED)


@contextmanager
def mirrored(
    folder: Path | None, first: bool = True, wait: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], None]]:
    """Write a folder as its only writer: yields what sends its state of that moment, which the end does too.

    Does nothing for a folder that is no copy. Of several processes the `first` is the writer, and `wait` waits for all.
    """
    mirror = None if folder is None else Folder.of(folder)
    if mirror is None:
        yield lambda: None
        return
    with _progress() as tick:
        if first:
            mirror.open(tick)
        wait()
        if not first:
            mirror.fetch(tick)
    push = mirror.push if first else lambda: None
    try:
        yield push
    except BaseException:  # Ctrl-C too: what was made until then goes up, and the error counts
        with contextlib.suppress(StepconfError):
            push()
        raise
    else:
        push()
    finally:
        mirror.close()


@contextmanager
def sent(file: Path | None) -> Iterator[None]:
    """Send a file that is written in here, where it is in a copy."""
    yield
    url = None if file is None or not file.exists() else url_of(file)
    if file is not None and url is not None:
        Store(url.rpartition("/")[0]).send(file, file.name)


def fetch_run(run: Path, tables: tuple[str, ...] = tuple(TABLES), absent: bool = False) -> Path:
    """Bring the copy of a run up to date, and return it. Does nothing for a run that is no copy.

    `absent`: there need not be a run yet; the writer sees to it.

    Raises:
        StepconfError: there is no run at its URL, or the store fails.
    """
    mirror = Reader.of(run)
    if mirror is not None:
        if absent and mirror.store.entry("recipe.yaml") is None:
            return run
        with _progress() as tick:
            mirror.pull(tables, tick)
    return run


def fetch_folder(folder: Path) -> Path:
    """As `fetch_run`, of any folder."""
    mirror = Folder.of(folder)
    if mirror is not None:
        with _progress() as tick:
            mirror.fetch(tick)
    return folder


def located(source: str) -> str:
    """The path of an input that is named by a URL (`s3://...`, `gsm8k@s3://...`): a file, or a run; else as it is.

    Raises:
        StepconfError: there is no such file, or the store fails.
    """
    if is_url(source):
        parent = Store(source)
        is_run = parent.entry("recipe.yaml") is not None
        return str(fetch_run(local_place(source)) if is_run else _fetched(source))
    name, at, file = source.partition("@")
    return f"{name}@{_fetched(file)}" if at and is_url(file) else source


def _fetched(url: str) -> Path:
    """A file at a URL, in the cache; it is fetched again when it has changed."""
    folder, _, name = url.rpartition("/")
    store = Store(folder)
    entry = store.entry(name)
    if entry is None:
        raise StepconfError(f"{url}: no such file.", "Check the URL.")
    cached = cache_dir().absolute() / "inputs" / digest(f"{url}\n{entry.size}\n{entry.state}")
    file = cached / name
    if not entry.state or not file.exists() or file.stat().st_size != entry.size:
        mark_as_copy(cached, folder)
        if not store.fetch(name, file):
            raise StepconfError(f"{url}: no such file any more.", "Check the URL.")
    return file


@contextmanager
def _progress() -> Iterator[Tick]:
    """A bar, from the moment when there is something to show."""
    from stepconf.ui import StageProgress

    with contextlib.ExitStack() as stack:
        shown: list[Callable[[str, int], None]] = []

        def tick(stage: str, n: int) -> None:
            if not shown:
                shown.append(stack.enter_context(StageProgress()))
            shown[0](stage, n)

        yield tick


def _turn(name: str) -> tuple[int, str]:
    base = name.rpartition("/")[2]
    return (_LAST.index(base) + 1 if base in _LAST else 0), name


def _marker_of(name: str) -> str | None:
    """The file that says that the checkpoint which this one is part of is whole."""
    folder = name.rpartition("/")[0]
    return f"{folder}/state.json" if folder.rpartition("/")[2].startswith(_CHECKPOINT) else None


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/")) or name.endswith(".tmp")


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent
