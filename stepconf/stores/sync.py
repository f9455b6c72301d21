"""A folder at a URL and its copy on this machine, kept the same. What is at the URL counts; the copy is worked on.

`.synced`, beside the copy, remembers each file as it was when both were the same. When the copy is opened again:

- The URL is as remembered: what differs in the copy was made here and not sent (the upload was cut off). It stays,
  and a writer sends it.
- Otherwise someone else has written there: the copy is made what is at the URL.

A reader sees whole things only, at any moment. Files that say that others are whole (manifests, a checkpoint's
state.json, summary.json, report.json) are sent last and deleted first; a checkpoint without its state.json is not
fetched. Shards follow their manifests: one belongs to a run if a manifest says its hash. A shard that changes in place
(relabel) goes to `.staged/HASH` first; after the manifest it is put in its place, and until then readers find it by
the hash. metrics.json is only news: it is taken as it is.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from stepconf.core.documents import manifest_checksum, read_json
from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.stores.lease import Lease, tell
from stepconf.stores.places import beside_copy
from stepconf.stores.remote import Entry, Store

Tick = Callable[[str, int], None]
_NEWS = "metrics.json"
_STAGED = ".staged/"
_MANIFEST = re.compile(r"(.*/)?manifests/[\w-]+\.json")
_SHARD = re.compile(rf"(.*/)?(?:{'|'.join(TABLES)})/[^/]+\.parquet")
_LAST = ("state.json", "summary.json", "report.json", "comparison.json", "rounds.json")
_SENDING = ["", 0, 0]  # remembered of a file while it is sent
_LOOKS = 3  # at a folder that is written while it is read
_AT_ONCE = 8  # requests
T = TypeVar("T")


class Sync:
    """The copy of a folder and its URL.

    `.synced` and `known` below: by name, what the URL has (a file's state there, a shard's hash), and the copy's size
    in bytes and time of change in ns.

    Raises (each method): StepconfError where the store refuses or fails for long, as `Store`.
    """

    def __init__(self, copy: Path, url: str) -> None:
        self.copy, self.store = copy, Store(url)
        self._beside = beside_copy(url)
        copy.mkdir(parents=True, exist_ok=True)
        self._beside.mkdir(parents=True, exist_ok=True)
        self._lock: BinaryIO | None = None
        self._lease: Lease | None = None
        self._news: dict[str, list[int]] = {}  # as it was when it was sent

    def fetch(self, tick: Tick, shards: bool = True, run: bool = False) -> None:
        """Bring the copy up to date, but not while a process of this machine writes it: then it is newer.

        Args:
            tick: told of the files, as `run.events.Tick`.
            shards: fetch the shards of runs, too.
            run: refuse a folder that holds something, but no run.
        """
        with self._alone():
            if self._lock is not None or not self._is_held():
                self._fetch(tick, shards, run)

    def open(self, tick: Tick) -> None:
        """Become the writer, bring the copy up to date, send what was not sent."""
        self._lock = (self._beside / ".writer").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StepconfError(f"another process is writing {self.store.url}.", "Wait for it.") from error
        try:
            self._lease = Lease(self.store, self.copy, self._send_news)
            self.fetch(tick)
            self._news = {name: stat for name, stat in self._here().items() if _is_news(name)}
            self.push()
            self._tidy()
        except BaseException:  # Ctrl-C too must give the lock back
            self.close()
            raise

    def close(self) -> None:
        """Stop being the writer."""
        if self._lease is not None:
            with contextlib.suppress(StepconfError, OSError):  # news only
                self._send_news()
            self._lease.release()
        if self._lock is not None:
            self._lock.close()

    def push(self) -> None:
        """Make what is at the URL what the copy is."""
        if self._lease is not None:
            self._lease.check()
        known, here = self._known(), self._here()
        promised = self._promised(here)
        files = [n for n, stat in here.items() if not (_is_shard(n, here) or _is_news(n))]
        changed = [name for name in files if known.get(name, [""])[1:] != here[name]]
        newer = [name for name, digest in promised.items() if known.get(name, [""])[0] != digest]
        shards = [name for name in newer if self._hash(name) == promised[name]]
        gone = [n for n in known if n not in here and not _is_news(n) and not _is_shard(n, known)]
        stray = [name for name in known if _is_shard(name, known) and name not in promised]
        staged = {name: _staged(name, promised[name]) for name in shards if name in known}
        if not (changed or shards or gone or stray):
            return
        # Killed in here, what has changed at the URL was changed by this copy.
        self._remember(known | dict.fromkeys(changed + gone, _SENDING))
        for name in sorted(changed + shards, key=_turn):
            self.store.send(self.copy / name, staged.get(name, name))
        for name in sorted(gone, key=_turn, reverse=True):
            self.store.delete(name)
        for name, place in staged.items():
            self._place(place, name)
        for name in stray:
            self.store.delete(name)
        there = dict(zip(changed, _at_once(self.store.entry, changed), strict=True))
        self._remember(
            {name: one for name, one in known.items() if name not in {*gone, *stray}}
            | {name: [_tag(entry), *here[name]] for name, entry in there.items() if entry is not None}
            | {name: [promised[name], *here[name]] for name in shards}
        )

    def _fetch(self, tick: Tick, shards: bool, run: bool) -> None:
        for _ in range(_LOOKS):
            listing = self.store.listing()
            there = _files(listing)
            if run and "recipe.yaml" not in there and not all(map(_is_news, there)):
                raise StepconfError(f"{self.store.url} is not empty and not a run.", "Give another URL.")
            known = self._known()
            wanted = self._differing(there, known)
            missed = self._bring(wanted, lambda name: self.store.fetch(name, self.copy / name), tick)
            here = self._here()
            known = {n: one for n, one in known.items() if n in listing and n not in wanted}
            known |= {n: [there[n], *here[n]] for n in wanted if n in here}
            if shards:
                missed |= self._fetch_shards(listing, known, tick)
            self._remember(known)
            if not missed:
                return

    def _differing(self, there: dict[str, str], known: dict[str, Any]) -> list[str]:
        """The files to fetch; those that the URL has not are removed."""
        here = self._here()
        for name in [n for n in here if _MANIFEST.fullmatch(n) and known.get(n, [""])[1:] != here[n]]:
            if not self._is_whole(name):
                (self.copy / name).unlink()
                del here[name]
        settled = {
            n
            for n in {*there, *known}
            if not (_is_news(n) or _is_shard(n, known) or known.get(n) == _SENDING)
        }
        if all(there.get(name) == known.get(name, [None])[0] for name in settled):
            return [n for n in there if n not in here or (_is_news(n) and known.get(n, [""])[0] != there[n])]
        wanted = [n for n, tag in there.items() if n not in here or known.get(n) != [tag, *here[n]]]
        gone = [n for n in here if n not in there and not _is_shard(n, here)]
        own = [
            n
            for n in wanted + gone
            if _MANIFEST.fullmatch(n) and n in here and known.get(n, [""])[1:] != here[n]
        ]
        if own:
            tell("superseded", f"{self.store.url} has been written from elsewhere; what was made here and not sent is "
                 f"left out: {', '.join(own)}.")  # fmt: skip
        for name in sorted(gone, key=_turn, reverse=True):
            (self.copy / name).unlink()
            _remove_empty((self.copy / name).parent, self.copy)
        return wanted

    def _fetch_shards(self, listing: dict[str, Entry], known: dict[str, Any], tick: Tick) -> set[str]:
        """Fetch what the URL's manifests promise and the copy lacks; those that are not what they should be."""
        here = self._here()
        pending = self._promised([name for name in here if known.get(name, [""])[1:] != here[name]])
        promised = {n: digest for n, digest in self._promised(here).items() if n not in pending}
        for name in [n for n in here if _is_shard(n, here) and n not in {*promised, *pending}]:
            (self.copy / name).unlink()  # of pairs that were removed, say

        def has(name: str) -> bool:
            return (
                known.get(name) == [promised[name], *here.get(name, [])] or self._hash(name) == promised[name]
            )

        def bring(name: str) -> bool:
            staged = _staged(name, promised[name])
            places = [staged] * (staged in listing) + [name, staged]  # replaced since it was listed, perhaps
            return any(
                self.store.fetch(place, self.copy / name) and self._hash(name) == promised[name]
                for place in places
            )

        lacking = [
            name for name, is_here in zip(promised, _at_once(has, promised), strict=True) if not is_here
        ]
        missed = self._bring(lacking, bring, tick)
        here = self._here()
        torn = [
            name
            for name in promised.keys() - {*lacking}
            if name not in listing or listing[name].size != here[name][0]
            if _staged(name, promised[name]) not in listing
        ]
        known |= {n: [digest, *here[n]] for n, digest in promised.items() if n not in missed}
        for name in torn:
            known.pop(name)  # a writer sends it again
        if torn and self._lock is None:
            tell("torn", f"{self.store.url} has lost {len(torn)} shards that its copy here has ({torn[0]}); the command "
                 "that made it sends them again.")  # fmt: skip
        return missed

    def _bring(self, names: list[str], fetch: Callable[[str], bool], tick: Tick) -> set[str]:
        """Fetch them; those that are not there any more."""
        if names:
            tick("fetch", -len(names))

        def bring(name: str) -> bool:
            found = fetch(name)
            tick("fetch", 1)
            return found

        return {name for name, found in zip(names, _at_once(bring, names), strict=True) if not found}

    def _tidy(self) -> None:
        """Finish at the URL what a killed writer began, and delete what is part of nothing."""
        known, listing = self._known(), self.store.listing()
        staged = {_staged(name, one[0]): name for name, one in known.items() if _is_shard(name, known)}
        for name in listing:
            if name in staged:
                self._place(name, staged[name])
            elif f"/{_STAGED}" in f"/{name}" or (_is_shard(name, listing) and name not in known):
                self.store.delete(name)
            elif (marker := _marker_of(name)) is not None and marker not in listing:
                self.store.delete(name)  # of a checkpoint that never was whole

    def _place(self, staged: str, name: str) -> None:
        self.store.copy(staged, name)
        self.store.delete(staged)

    def _send_news(self) -> None:
        for name, stat in self._here().items():
            if _is_news(name) and self._news.get(name) != stat:
                self.store.write(name, (self.copy / name).read_bytes())
                self._news[name] = stat

    def _here(self) -> dict[str, list[int]]:
        """The size and the time of change of each file of the copy that is part of it."""
        found = {}
        for folder, _, files in os.walk(self.copy):
            prefix = "" if folder == str(self.copy) else f"{Path(folder).relative_to(self.copy).as_posix()}/"
            for name in (prefix + file for file in files if not _is_hidden(prefix + file)):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    stat = os.stat(self.copy / name)
                    found[name] = [stat.st_size, stat.st_mtime_ns]
        return {name: one for name, one in found.items() if _is_whole_in(name, found)}

    def _promised(self, names: Iterable[str]) -> dict[str, str]:
        """The hashes of the shards that these manifests of the copy name; none of one that is damaged."""
        found: dict[str, str] = {}
        for manifest in filter(_MANIFEST.fullmatch, names):
            stat = os.stat(self.copy / manifest)
            run = manifest.rpartition("manifests/")[0]
            promised = _shards_of(self.copy / manifest, stat.st_size, stat.st_mtime_ns) or {}
            found |= {run + shard: digest for shard, digest in promised.items()}
        return found

    def _is_whole(self, manifest: str) -> bool:
        """Whether one that was made here, and perhaps cut off, is as it was written, and all its shards."""
        stat = os.stat(self.copy / manifest)
        if _shards_of(self.copy / manifest, stat.st_size, stat.st_mtime_ns) is None:
            return False
        return all(self._hash(name) == digest for name, digest in self._promised([manifest]).items())

    def _hash(self, name: str) -> str:
        """As manifests have it; empty where there is no such file."""
        with contextlib.suppress(FileNotFoundError), (self.copy / name).open("rb") as stream:
            return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()
        return ""

    def _known(self) -> dict[str, Any]:
        try:
            found = read_json((self._beside / ".synced").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, known: dict[str, Any]) -> None:
        scratch = self._beside / ".synced.tmp"
        scratch.write_text(json.dumps(known), encoding="utf-8")
        scratch.replace(self._beside / ".synced")

    def _is_held(self) -> bool:
        """Whether a process of this machine writes the copy."""
        try:
            with (self._beside / ".writer").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time brings the copy up to date; the others wait."""
        with (self._beside / ".fetching").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@lru_cache(maxsize=100_000)
def _shards_of(manifest: Path, size: int, mtime_ns: int) -> dict[str, str] | None:
    """The hashes of the shards that a manifest names; None for one that is damaged."""
    try:
        found = read_json(manifest.read_text(encoding="utf-8"))
        if found.get("checksum", (expected := manifest_checksum(found))) != expected:
            return None
        files = {name: facts for name, facts in found["files"].items() if name.count("/") == 1}
        return {name: str(facts["blake2b"]) for name, facts in files.items() if _SHARD.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _at_once(do: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """What `do` gives for each name, some at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, names))


def _files(listing: dict[str, Entry]) -> dict[str, str]:
    """The state of all that is part of the folder, apart from shards."""
    return {
        name: _tag(entry)
        for name, entry in listing.items()
        if not _is_hidden(name) and not _is_shard(name, listing) and _is_whole_in(name, listing)
    }


def _tag(entry: Entry) -> str:
    return f"{entry.size}:{entry.state}"


def _turn(name: str) -> tuple[int, str]:
    """In which order files are sent: a recipe makes a run, so it is first; then shards before their manifests."""
    base = name.rpartition("/")[2]
    if base in _LAST:
        return 4 + _LAST.index(base), name
    return 0 if base == "recipe.yaml" else 3 if _MANIFEST.fullmatch(name) else 2 if _SHARD.fullmatch(
        name
    ) else 1, name


def _staged(shard: str, digest: str) -> str:
    """Where a shard waits until its manifest is there."""
    return f"{_run_of(shard)}{_STAGED}{digest}"


def _run_of(shard: str) -> str:
    return "/".join((*shard.split("/")[:-2], ""))


def _is_shard(name: str, names: Container[str]) -> bool:
    """Whether it is one of the run that is among these names."""
    return _SHARD.fullmatch(name) is not None and f"{_run_of(name)}recipe.yaml" in names


def _is_news(name: str) -> bool:
    return name.rpartition("/")[2] == _NEWS


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name or name.endswith(".tmp")


def _marker_of(name: str) -> str | None:
    """The file that says that the checkpoint which this one is part of is whole."""
    folder = name.rpartition("/")[0]
    return f"{folder}/state.json" if folder.rpartition("/")[2].startswith("checkpoint-") else None


def _is_whole_in(name: str, names: Container[str]) -> bool:
    return (marker := _marker_of(name)) is None or marker in names


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
