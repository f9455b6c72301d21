"""What users name by a path or a URL, opened: brought here to be read, sent back where it is written.

All other code works on the paths that come out. For plain paths nothing here does anything.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepconf.errors import StepconfError
from stepconf.stores.lease import Lease, is_held
from stepconf.stores.places import Use, cache_dir, called, digest, is_url, local_place, name_at, url_of
from stepconf.stores.remote import Store
from stepconf.stores.sync import Sync, Tick

_written: list[Sync] = []  # by this process


@contextmanager
def opened(place: str | Path, use: Use) -> Iterator[Path]:
    """The path to work with in here for what a user named.

    Args:
        place: a path, a URL, or what `local_place` made of one.
        use: `run`: is read; who writes it sends it (`writer`). `status`: as a run, but without its shards. `folder`:
            is written in here. `file`: is made in here, and sent at the end. `input`: as `located`.

    Raises:
        StepconfError: a URL names something else, another process writes it, or its store fails.
    """
    text = str(place)
    if use == "file":
        file = local_place(text)
        yield file
        if is_url(text) and file.exists():
            Store(text).send(file)
    elif use == "folder":
        with writer(local_place(text)):
            yield local_place(text)
    elif use == "input":
        yield Path(located(text))
    else:
        yield fetched(local_place(text), shards=use == "run", run=True)


def fetched(folder: Path, shards: bool = True, run: bool = False) -> Path:
    """Bring a copy up to date, and return it. The arguments are those of `Sync.fetch`."""
    if url := url_of(folder):
        with _progress() as tick:
            Sync(folder, url).fetch(tick, shards, run)
    return folder


@contextmanager
def writer(
    folder: Path, first: bool = True, wait: Callable[[], None] = lambda: None, at_end: bool = True
) -> Iterator[Callable[[], None]]:
    """Write a folder as its only writer: yields what sends its state of that moment.

    Args:
        folder: a copy, a folder in one that is written already, or any other.
        first: of several processes this is the writer; the others read.
        wait: waits until all of them are here.
        at_end: send what is there at the end, too, and after an error.

    Raises:
        StepconfError: another process writes it, or the store fails.
    """
    url = url_of(folder)
    outer = next((sync for sync in _written if folder.is_relative_to(sync.copy)), None)
    if url is None:
        yield lambda: None
    elif outer is not None:
        with contextlib.closing(Lease(Store(url), folder)) as lease:

            def push_all() -> None:
                lease.check()
                outer.push()

            yield push_all
    else:
        sync = Sync(folder, url)
        with _progress() as tick:
            if first:
                sync.open(tick)
            wait()
            if not first:
                sync.fetch(tick)
        push = sync.push if first else lambda: None
        _written.append(sync)
        try:
            yield push
        except BaseException:  # Ctrl-C too: what was made until then goes up, and the error counts
            with contextlib.suppress(StepconfError):
                if at_end:
                    push()
            raise
        else:
            if at_end:
                push()
        finally:
            _written.remove(sync)
            sync.close()


def is_written(folder: Path) -> bool:
    """Whether a process writes to the URL of a copy; where, it does not matter."""
    url = url_of(folder)
    return url is not None and is_held(Store(url))


def located(source: str) -> str:
    """The path of an input that is named by a URL (`s3://...`, `gsm8k@s3://...`): a file, or a folder; else as it is.

    Raises:
        StepconfError: there is no such file or folder, the store fails, or as `name_at`.
    """
    name, at, file = source.partition("@")
    if at and is_url(file):
        return f"{name}@{located(file)}"
    if not is_url(source):
        return source
    own_name, store = name_at(source), Store(source)
    if entry := store.entry(""):
        version = cache_dir().absolute() / "inputs" / digest(f"{source}\n{entry}")
        found = called(version / own_name, source)
        if not found.exists():
            store.fetch("", found)
    else:
        found = fetched(local_place(source))
    if not found.exists() or (found.is_dir() and not any(found.iterdir())):
        raise StepconfError(f"{source}: no such file.", "Check the URL.")
    return str(found)


@contextmanager
def _progress() -> Iterator[Tick]:
    """A bar, from the moment when there is something to show."""
    from stepconf.ui.progress import StageProgress

    with contextlib.ExitStack() as stack:
        shown: list[Tick] = []

        def tick(stage: str, n: int) -> None:
            if not shown:
                shown.append(stack.enter_context(StageProgress()))
            shown[0](stage, n)

        yield tick
