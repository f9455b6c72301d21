"""What users call by a URL has a place on this machine, and messages call it by the URL again.

CACHE/stores/HASH-OF-URL/NAME       the copy of a folder; beside it what `sync` keeps of it
CACHE/inputs/HASH-OF-VERSION/NAME   an input file as it was in one version

All other code sees ordinary paths. Which of them are copies is known to this process alone: a folder that comes from
elsewhere cannot say where files of this machine are sent.
"""

import os
import re
from hashlib import blake2b
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from stepconf.errors import StepconfError

Use = Literal["run", "status", "folder", "file", "input"]  # of what a user names: see `opening.opened`
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
_LOCAL = "file://"
_urls: dict[Path, str] = {}  # of the copies that this process works on


def cache_dir() -> Path:
    """Where models, copies and inputs lie: `$STEPCONF_CACHE`, else `stepconf` below the user's cache."""
    if explicit := os.environ.get("STEPCONF_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepconf"


def is_url(text: str) -> bool:
    """Whether this names something that fsspec opens, not a path of this machine."""
    return _URL.match(text) is not None and not text.startswith(_LOCAL)


def names_url(text: str) -> bool:
    """Whether this is a URL or has one after its @, as `opening.located` reads it."""
    return is_url(text) or is_url(text.partition("@")[2])


def name_at(url: str) -> str:
    """The last part of a URL, to call its copy by.

    Raises:
        StepconfError: a part is empty, `.` or `..`, also where it is percent-encoded: it would lead out of the place of
            the copy.
    """
    host, *parts = url.partition("://")[2].rstrip("/").split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(map(unquote, (host, *parts))):
        raise StepconfError(
            f"{url} has a part that is empty, '.' or '..'.", "Give the URL without such parts."
        )
    return parts[-1] if parts else host


def local_place(text: str) -> Path:
    """The path to work with: a plain one unchanged, for a URL that of its copy (nothing is fetched).

    Raises:
        StepconfError: the URL names no folder, only a bucket, or as `name_at`.
    """
    if not is_url(text):
        return Path(text.removeprefix(_LOCAL))
    url = text.rstrip("/")
    if "/" not in url.partition("://")[2]:
        raise StepconfError(f"{text} names no folder.", f"Give one: {url}/NAME")
    copy = beside_copy(url) / name_at(url)
    copy.parent.mkdir(parents=True, exist_ok=True)
    return called(copy, url)


def check_file_place(file: Path) -> None:
    """Raise StepconfError where no file can be written: to be asked before the work whose end it is."""
    if not file.parent.is_dir():
        raise StepconfError(f"there is no folder {file.parent}.", f"Type: mkdir -p {file.parent}")
    if file.is_dir():
        raise StepconfError(f"{file} is a folder.", f"Give a file in it: {file}/NAME")


def beside_copy(url: str) -> Path:
    """The folder of what is kept of a URL on this machine."""
    return cache_dir().absolute() / "stores" / digest(url)


def called(copy: Path, url: str) -> Path:
    """The copy's path, which from now on is known by its URL."""
    _urls[copy] = url
    return copy


def url_of(path: Path) -> str | None:
    """The URL of a copy or of a path in one; None for any other path."""
    for folder in (path, *path.parents):
        if folder in _urls:
            return "/".join((_urls[folder], *path.relative_to(folder).parts))
    return None


def with_urls(text: str) -> str:
    """A text for people, which calls copies by their URLs."""
    for copy, url in _urls.items():
        text = text.replace(str(copy), url)
    return text


def digest(text: str) -> str:
    """16 hexadecimal digits that stand for a text."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
