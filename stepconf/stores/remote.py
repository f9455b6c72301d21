"""A folder on an object store, through fsspec. Nothing else imports fsspec.

Every request is repeated while what went wrong may pass (5xx, timeouts, cut connections), which is safe because
each of them has the same effect twice. What does not pass is said in a sentence with what to do.
"""

import errno
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stepconf.errors import StepconfError

ATTEMPTS = 6  # of a request; with the pauses below about 20 s
FIRST_PAUSE_S = 0.3  # doubled each time, shortened at random so that many writers do not come back together
_PACKAGES = {"s3": "s3fs (or stepconf[s3])", "s3a": "s3fs (or stepconf[s3])"} | dict.fromkeys(
    ("gs", "gcs"), "gcsfs (or stepconf[gs])"
)
_LASTING = (
    FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError,
    ImportError, ValueError, TypeError, AttributeError,
)  # fmt: skip
_OWN_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_STATE = (
    "ETag etag md5Hash crc32c oid blob_id LastModified last_modified modified mtime updated created".split()
)
_CREDENTIALS = (
    "Check the credentials and their rights there (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "Google: gcloud auth application-default login; the Hub: hf auth login)."
)
_ON = "Nothing is lost: what was made lies in the local copy. The same command again continues it."
T = TypeVar("T")


class Entry(NamedTuple):
    """An object's size in bytes, and a text that changes when it is written again."""

    size: int
    state: str

    @property
    def tag(self) -> str:
        """Both as one text."""
        return f"{self.size}:{self.state}"


class Store:
    """The objects below a URL, by their names relative to it; the one at the URL itself has the name "".

    Raises:
        StepconfError: the protocol is unknown or its package is missing; from each method: the store refuses, or
            fails `ATTEMPTS` times.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _opened(self.url)

    def listing(self) -> dict[str, Entry]:
        """All objects, as they are now; empty where there are none, or no such bucket."""

        def ask() -> dict[str, Any]:
            self._files.invalidate_cache()
            return dict(self._files.find(self._root, detail=True))

        prefix = self._files._strip_protocol(self._root).rstrip("/") + "/"
        return {
            name.removeprefix(prefix): _entry(facts)
            for name, facts in (self._persist(ask, "list", absent=True) or {}).items()
            if name.startswith(prefix) and facts.get("type") != "directory"
        }

    def entry(self, name: str) -> Entry | None:
        """One object; None where there is none."""

        def ask() -> Entry | None:
            self._files.invalidate_cache()
            facts = self._files.info(self._path(name))
            return None if facts.get("type") == "directory" else _entry(facts)

        return self._persist(ask, "read", name, absent=True)

    def read(self, name: str) -> bytes | None:
        """The bytes of a small object; None where there is none."""
        return self._persist(lambda: bytes(self._files.cat_file(self._path(name))), "read", name, absent=True)

    def fetch(self, name: str, file: Path) -> bool:
        """Write an object to a file, which is there whole or not at all; False where there is no such object."""
        scratch = file.with_name(f".{file.name}.fetched.tmp")

        def ask() -> bool:
            self._files.get_file(self._path(name), str(scratch))
            return True

        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = self._persist(ask, "read", name, absent=True) or False
            if found:
                scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
        return found

    def write(self, name: str, data: bytes) -> None:
        """Make the object of these bytes, in the place of an older one."""
        self._persist(lambda: self._files.pipe_file(self._path(name), data), "write", name)

    def create(self, name: str, data: bytes) -> None:
        """As `write`, once, and where the store can do it only if there is no such object.

        Raises:
            Exception: what the store says, where there is one already, or anything went wrong: read it to know.
        """
        try:
            self._files.pipe_file(self._path(name), data, mode="create")
        except (NotImplementedError, TypeError):  # this file system knows no such mode
            if self.read(name) is not None:
                raise FileExistsError(name) from None
            self.write(name, data)

    def send(self, file: Path, name: str = "") -> None:
        """Make the object of a file's bytes, in the place of an older one."""
        self._persist(lambda: self._files.put_file(str(file), self._path(name)), "write", name)

    def copy(self, name: str, other: str) -> None:
        """Make `other` of the bytes of `name`, inside of the store."""
        self._persist(lambda: self._files.cp_file(self._path(name), self._path(other)), "write", other)

    def delete(self, name: str) -> None:
        """Take the object away, if it is there."""
        self._persist(lambda: self._files.rm_file(self._path(name)), "delete", name, absent=True)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _persist(self, ask: Callable[[], T], what: str, name: str = "", absent: bool = False) -> T | None:
        """What `ask` gives, asked until it does; None for what may be `absent` and is."""
        where = f"{self.url}/{name}" if name else self.url
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except Exception as error:  # fsspec's file systems and their clients share no class of errors
                if absent and isinstance(error, FileNotFoundError):
                    return None
                if isinstance(error, OSError) and error.errno in _OWN_DISK:
                    raise
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise _explained(error, where, what) from error
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret
        raise AssertionError("unreachable")


def _opened(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    import fsspec

    if "::" in url:
        raise StepconfError(f"{url}: by :: fsspec joins two URLs.", "Give a folder without it in its name.")
    protocol = url.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        problem = f"{protocol}:// needs a package that cannot be imported: {_short(error)}"
        known = protocol in _PACKAGES
        raise StepconfError(
            problem, f"Type: pip install {_PACKAGES[protocol]}" if known else "Install it, and type it again."
        ) from error
    except ValueError as error:
        hint = "Give s3://, gs://, hf:// or another one that fsspec has."
        raise StepconfError(f"{url}: {_short(error)}.", hint) from error
    except Exception as error:  # a file system may look for credentials when it is made; as in `_persist`
        raise _explained(error, url, "open") from error
    return files, root


def _entry(facts: dict[str, Any]) -> Entry:
    """What cannot be shown to be the same counts as another each time."""
    state = next((str(facts[key]) for key in _STATE if facts.get(key)), None)
    return Entry(int(facts.get("size") or 0), uuid.uuid4().hex if state is None else state)


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, _LASTING) and not _is_credentials(error)


def _is_credentials(error: Exception) -> bool:
    """botocore's, Google's and the Hub's clients have such classes; none is imported here."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return any(
        "Credential" in name or name in ("ProfileNotFound", "LocalTokenNotFoundError") for name in names
    )


def _explained(error: Exception, where: str, what: str) -> StepconfError:
    if isinstance(error, PermissionError) or _is_credentials(error):
        return StepconfError(f"you may not {what} {where}: {_short(error)}", _CREDENTIALS)
    problem, said = f"cannot {what} {where}", f"{type(error).__name__}: {_short(error)}"
    if isinstance(error, FileNotFoundError):
        return StepconfError(
            f"{problem}: there is no such bucket or folder.", "Make it, or give another URL."
        )
    if isinstance(error, ImportError):
        return StepconfError(f"{problem}: {_short(error)}", "Install what is missing, and type it again.")
    if not _may_pass(error):
        return StepconfError(f"{problem}: {said}", "Give another URL.")
    return StepconfError(f"{problem}, {ATTEMPTS} times: {said}", _ON)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"
