"""What is known of the files of a run and of its copy: their hashes, and which process has them."""

import fcntl
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

from stepconf.core.documents import read_json
from stepconf.core.schema import TABLES
from stepconf.run.damage import file_digest

_SYNCED = ".synced"
_AT_ONCE = 8  # requests
T = TypeVar("T")


class Known(NamedTuple):
    """A small file at the URL: the hash of its bytes, what `Entry.state` was (""), and a manifest's shards' hashes."""

    digest: str
    state: str
    shards: dict[str, str]

    @classmethod
    def of(cls, name: str, data: bytes, state: str = "") -> "Known":
        """What these bytes are."""
        return cls(hash_of(data), state, shards_in(data) if is_manifest(name) else {})


def remembered(copy: Path) -> dict[str, Known]:
    """What was at the URL when it last was the same as the copy; nothing where that cannot be read."""
    try:
        found = read_json((copy / _SYNCED).read_text(encoding="utf-8"))
        return {name: Known(*one) for name, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(copy: Path, there: dict[str, Known]) -> None:
    """Keep what is at the URL now."""
    scratch = copy / f"{_SYNCED}.tmp"
    scratch.write_text(json.dumps(there), encoding="utf-8")
    scratch.replace(copy / _SYNCED)


def held_here(run: Path) -> bool:
    """Whether a process of this machine is writing the run."""
    try:
        with (run / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def is_manifest(name: str) -> bool:
    """Whether an object is called as a manifest is."""
    return re.fullmatch(r"manifests/[\w-]+\.json", name) is not None


def is_shard(name: str) -> bool:
    """Whether an object is called as a shard of a run is."""
    table, _, shard = name.partition("/")
    return table in TABLES and shard.endswith(".parquet") and "/" not in shard


def shards_in(manifest: bytes) -> dict[str, str]:
    """The hashes of the shards that a manifest names; none for one that is damaged: whoever reads the run says so."""
    try:
        files = read_json(manifest)["files"]
        return {str(name): str(facts["blake2b"]) for name, facts in files.items() if is_shard(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def hash_of(data: bytes) -> str:
    """As `file_digest`."""
    return blake2b(data, digest_size=16).hexdigest()


def digest_of(file: Path) -> str:
    """The hash of a file, computed once while it is not written anew."""
    now = file.stat()
    return _digest_at(file, now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digest_at(file: Path, size: int, mtime_ns: int) -> str:
    return file_digest(file)


def in_threads(do: Callable[[str], T], names: list[str]) -> list[T]:
    """What `do` gives for each name, some at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, names))


@contextmanager
def alone(copy: Path) -> Iterator[None]:
    """One process of this machine at a time brings a copy up to date; the others wait."""
    with (copy / ".sync").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
