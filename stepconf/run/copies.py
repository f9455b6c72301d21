"""Local copies of what lies at a URL: where they are, and how people are told of them.

CACHE/runs/HASH-OF-URL/NAME        the copy of a run or of another folder; its URL stands in NAME/.remote
CACHE/inputs/HASH-OF-VERSION/NAME  an input file as it was in one version; its folder's URL in .remote beside it

Whoever reads or writes a run is given the copy's path and need not know of the URL; `run.mirror` keeps both the
same. A folder inside a copy lies at the URL that is made of the copy's and its name.
"""

import os
import re
from hashlib import blake2b
from pathlib import Path

from stepconf.errors import StepconfError

MARK = ".remote"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
_LOCAL = "file://"


def cache_dir() -> Path:
    """Where models, copies of runs and inputs lie: `$STEPCONF_CACHE`, else `stepconf` below the user's cache."""
    if explicit := os.environ.get("STEPCONF_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepconf"


def is_url(text: str) -> bool:
    """Whether this names something that fsspec opens, not a path of this machine."""
    return _URL.match(text) is not None and not text.startswith(_LOCAL)


def local_place(text: str) -> Path:
    """The path to work with: a plain one unchanged, for a URL its local copy's, made if absent (nothing is fetched).

    For Typer, as the parser of arguments that name a folder.

    Raises:
        StepconfError: the URL names no folder, only a bucket.
    """
    if not is_url(text):
        return Path(text.removeprefix(_LOCAL))
    url = text.rstrip("/")
    if "/" not in url.partition("://")[2]:
        raise StepconfError(f"{text} names no folder.", f"Give one: {url}/NAME")
    return _copy_of(url)


def local_file(text: str) -> Path:
    """As `local_place`, of a file that is to be written: it is in the copy of its folder."""
    if not is_url(text):
        return Path(text.removeprefix(_LOCAL))
    folder, _, name = text.rpartition("/")
    return _copy_of(folder) / name


def _copy_of(url: str) -> Path:
    folder = cache_dir().absolute() / "runs" / digest(url) / url.rpartition("/")[2]
    mark_as_copy(folder, url)
    return folder


def mark_as_copy(folder: Path, url: str) -> None:
    """Say in the folder that it is the copy of what lies at `url`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).exists():
        (folder / MARK).write_text(url, encoding="utf-8")


def url_of(path: Path) -> str | None:
    """The URL of which `path` is the copy, or a part of it; None for any other path.

    Only in the cache: a folder that comes from elsewhere must not say where its owner's files are sent.
    """
    if not path.absolute().is_relative_to(cache_dir().absolute()):
        return None
    for folder in (path, *path.parents):
        if (folder / MARK).is_file():
            url = (folder / MARK).read_text(encoding="utf-8")
            rest = path.relative_to(folder).as_posix()
            return url if rest == "." else f"{url}/{rest}"
    return None


def shown(path: Path) -> Path | str:
    """What to call the path when people are told of it: by its URL where it is a copy."""
    return url_of(path) or path


def with_urls(text: str) -> str:
    """A text for people in which every path of a copy is replaced by its URL."""
    copy = re.compile(
        re.escape(str(cache_dir().absolute())) + r"/(?:runs|inputs)/[0-9a-f]{16}(?:/[^\s/,;:'\"]+)?"
    )
    return copy.sub(lambda found: url_of(Path(found[0])) or found[0], text)


def digest(text: str) -> str:
    """16 hexadecimal digits that stand for a text."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
