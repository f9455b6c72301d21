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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from stepconf.core.documents import manifest_checksum, read_json
from stepconf.errors import StepconfError
from stepconf.stores.lease import Lease, tell
from stepconf.stores.names import (
    MANIFEST,
    SHARD,
    is_cut,
    is_news,
    is_part,
    is_shard,
    is_staged,
    run_of,
    staged,
    turn,
)
from stepconf.stores.places import beside_copy
from stepconf.stores.remote import Entry, Store

Tick = Callable[[str, int], None]
Known = dict[str, list[Any]]
_SENDING = ["", 0, 0]  # known of a file while it is sent
_LOOKS = 3  # at a folder that is written while it is read
_AT_ONCE = 8  # requests
T = TypeVar("T")


class Sync:
    """The copy of a folder and its URL.

    `known` below, and `.synced`: by name, what the URL has (a file's state there, a shard's hash), then what the copy
    has (bytes, time of change in ns).

    Raises (each method): StepconfError where the store refuses or fails for long, as `Store`.
    """

    def __init__(self, copy: Path, url: str) -> None:
        self.copy, self.store = copy, Store(url)
        self._beside = beside_copy(url)
        self._lock: BinaryIO | None = None
        self._lease: Lease | None = None
        self._news: dict[str, list[int]] = {}  # as it was when it was sent
        for folder in (copy, self._beside):
            folder.mkdir(parents=True, exist_ok=True)

    def open(self, tick: Tick) -> None:
        """Become the writer, bring the copy up to date, send what was not sent."""
        with self._alone():  # readers, who try the lock, are in there too
            self._lock = self._locked(fcntl.LOCK_EX)
        if self._lock is None:
            raise StepconfError(f"another process is writing {self.store.url}.", "Wait for it to end.")
        try:
            self._lease = Lease(self.store, self.copy, self._send_news)
            self.fetch(tick)
            self._news = {name: stat for name, stat in self._here().items() if is_news(name)}
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
            self._lease.close()
        if self._lock is not None:
            self._lock.close()

    def fetch(self, tick: Tick, shards: bool = True, run: bool = False) -> None:
        """Bring the copy up to date, but not while a process of this machine writes it: then it is newer.

        Args:
            tick: gets the count of files, as `run.events.Tick`.
            shards: fetch the shards of runs, too.
            run: refuse a folder that holds something, but no run.
        """
        with self._alone():
            lock = self._lock or self._locked(fcntl.LOCK_SH)
            if lock is None:
                return
            if lock is not self._lock:
                lock.close()
            for _ in range(_LOOKS):
                if self._is_fetched(tick, shards, run):
                    return

    def push(self) -> None:
        """Make what is at the URL what the copy is."""
        if self._lease is not None:
            self._lease.check()
        known, here = self._known(), self._here()
        promised = self._promised(here)
        changed = [n for n in here if not (is_shard(n, here) or is_news(n)) and _is_changed(n, known, here)]
        gone = [n for n in known if not (is_shard(n, known) or is_news(n)) and n not in here]
        newer = [name for name, digest in promised.items() if known.get(name, [""])[0] != digest]
        shards = [name for name in newer if self._hash(name) == promised[name]]
        stray = [name for name in known if is_shard(name, known) and name not in promised]
        waiting = {name: staged(name, promised[name]) for name in shards if name in known}
        if not (changed or shards or gone or stray):
            return
        # Killed in here, what has changed at the URL was changed by this copy.
        self._remember(known | dict.fromkeys(changed + gone, _SENDING))
        for name in sorted(changed + shards, key=turn):
            self.store.send(self.copy / name, waiting.get(name, name))
        for name in sorted(gone, key=turn, reverse=True):
            self.store.delete(name)
        for name, place in waiting.items():
            self._place(place, name)
        for name in stray:
            self.store.delete(name)
        sent = {name: entry.tag for name, entry in _at_once(self.store.entry, changed) if entry is not None}
        sent |= {name: promised[name] for name in shards}
        kept = {name: one for name, one in known.items() if name not in {*changed, *gone, *stray}}
        self._remember(kept | {name: [tag, *here[name]] for name, tag in sent.items()})

    def _is_fetched(self, tick: Tick, shards: bool, run: bool) -> bool:
        """Fetch what differs; False where the folder was changed meanwhile."""
        listing = self.store.listing()
        there = {n: e.tag for n, e in listing.items() if is_part(n, listing) and not is_shard(n, listing)}
        if run and "recipe.yaml" not in there and not all(map(is_news, there)):
            raise StepconfError(f"{self.store.url} is not empty and not a run.", "Give another URL.")
        known = self._known()
        wanted = self._differing(there, known)
        missed = _bring(wanted, lambda name: self.store.fetch(name, self._file_of(name)), tick)
        here = self._here()
        known = {name: one for name, one in known.items() if name in listing and name not in wanted}
        known |= {name: [there[name], *here[name]] for name in wanted if name in here}
        if shards:
            missed |= self._fetch_shards(listing, known, tick)
        self._remember(known)
        return not missed

    def _differing(self, there: dict[str, str], known: Known) -> list[str]:
        """The files to fetch; what the URL has no more is removed."""
        here = self._here()
        mine = {n for n in here if MANIFEST.fullmatch(n) and _is_changed(n, known, here)}
        for name in [name for name in mine if not self._is_whole(name)]:
            (self.copy / name).unlink()
            del here[name]
        settled = [
            n for n in {*there, *known} if not (is_news(n) or is_shard(n, known) or known.get(n) == _SENDING)
        ]
        if all(there.get(name) == known.get(name, [None])[0] for name in settled):
            return [n for n in there if n not in here or (is_news(n) and known.get(n, [""])[0] != there[n])]
        wanted = [n for n, tag in there.items() if n not in here or known.get(n) != [tag, *here[n]]]
        gone = [n for n in here if n not in there and not is_shard(n, here)]
        if lost := sorted(mine.intersection(here, wanted + gone)):
            what = f"what was made here and not sent is left out: {', '.join(lost)}"
            tell("superseded", f"{self.store.url} has been written from elsewhere; {what}.")
        for name in sorted(gone, key=turn, reverse=True):
            (self.copy / name).unlink()
            with contextlib.suppress(OSError):  # it holds more
                (self.copy / name).parent.rmdir()
        return wanted

    def _fetch_shards(self, listing: dict[str, Entry], known: Known, tick: Tick) -> set[str]:
        """Fetch what the URL's manifests promise and the copy lacks; the names of those that are not to be had."""
        here = self._here()
        pending = self._promised(name for name in here if _is_changed(name, known, here))
        promised = {n: digest for n, digest in self._promised(here).items() if n not in pending}
        for name in [n for n in here if is_shard(n, here) and n not in promised.keys() | pending]:
            (self.copy / name).unlink()  # of pairs that were removed, say

        def bring(name: str) -> bool:
            waiting = staged(name, promised[name])
            places = [waiting] * (waiting in listing) + [
                name,
                waiting,
            ]  # replaced since it was listed, perhaps
            file = self._file_of(name)
            return any(self.store.fetch(one, file) and self._hash(name) == promised[name] for one in places)

        lacking = [
            name
            for name, digest in promised.items()
            if known.get(name) != [digest, *here.get(name, [])] and self._hash(name) != digest
        ]
        missed = _bring(lacking, bring, tick)
        here = self._here()
        known |= {name: [digest, *here[name]] for name, digest in promised.items() if name not in missed}
        sizes = {name: entry.size for name, entry in listing.items()}
        torn = [
            name
            for name in promised.keys() - {*lacking}
            if sizes.get(name) != here[name][0] and staged(name, promised[name]) not in sizes
        ]
        for name in torn:
            known.pop(name)  # a writer sends it again
        if torn and not self._lock:
            what = f"has lost {len(torn)} shards that its copy here has ({torn[0]})"
            tell("torn", f"{self.store.url} {what}; the command that made it sends them again.")
        return missed

    def _file_of(self, name: str) -> Path:
        """Where an object is fetched to: in the copy, whatever name others gave it."""
        file = self.copy / name
        if not file.resolve().is_relative_to(self.copy.resolve()):
            raise AssertionError(f"{name!r} lies outside of the copy")
        return file

    def _tidy(self) -> None:
        """Finish at the URL what a killed writer began, and delete what is part of nothing."""
        known, listing = self._known(), self.store.listing()
        waiting = {staged(name, one[0]): name for name, one in known.items() if is_shard(name, known)}
        for name in listing:
            if name in waiting:
                self._place(name, waiting[name])
            elif is_staged(name) or is_cut(name, listing) or (is_shard(name, listing) and name not in known):
                self.store.delete(name)

    def _place(self, place: str, name: str) -> None:
        self.store.copy(place, name)
        self.store.delete(place)

    def _send_news(self) -> None:
        for name, stat in self._here().items():
            if is_news(name) and self._news.get(name) != stat:
                self.store.write(name, (self.copy / name).read_bytes())
                self._news[name] = stat

    def _here(self) -> dict[str, list[int]]:
        """Bytes and time of change of each file of the copy that is part of it."""
        found = {}
        for folder, _, files in os.walk(self.copy):
            for file in (Path(folder, name) for name in files):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    stat = file.stat()
                    found[file.relative_to(self.copy).as_posix()] = [stat.st_size, stat.st_mtime_ns]
        return {name: one for name, one in found.items() if is_part(name, found)}

    def _promised(self, names: Iterable[str]) -> dict[str, str]:
        """The hashes of the shards that the copy's manifests among these promise; of damaged ones none."""
        return {
            run_of(manifest) + shard: digest
            for manifest in filter(MANIFEST.fullmatch, names)
            for shard, digest in (self._shards_of(manifest) or {}).items()
        }

    def _is_whole(self, manifest: str) -> bool:
        """Whether one that was made here, and perhaps cut off, is as it was written, and all its shards."""
        shards = self._shards_of(manifest)
        return shards is not None and all(self._hash(run_of(manifest) + one) == shards[one] for one in shards)

    def _shards_of(self, manifest: str) -> dict[str, str] | None:
        file = self.copy / manifest
        return _read_shards(file, file.stat().st_mtime_ns)

    def _hash(self, name: str) -> str:
        """As manifests have it; empty where there is no such file."""
        with contextlib.suppress(FileNotFoundError), (self.copy / name).open("rb") as stream:
            return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()
        return ""

    def _known(self) -> Known:
        try:
            return dict(read_json((self._beside / ".synced").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _remember(self, known: Known) -> None:
        scratch = self._beside / ".synced.tmp"
        scratch.write_text(json.dumps(known), encoding="utf-8")
        scratch.replace(self._beside / ".synced")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time."""
        with (self._beside / ".fetching").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _locked(self, kind: int) -> BinaryIO | None:
        """The file that the writer of the copy locks; None where one of another process has it."""
        lock = (self._beside / ".writer").open("ab")
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock


def _is_changed(name: str, known: Known, here: dict[str, list[int]]) -> bool:
    return known.get(name, [""])[1:] != here[name]


@lru_cache(maxsize=100_000)
def _read_shards(manifest: Path, mtime_ns: int) -> dict[str, str] | None:
    """The hashes of the shards that a manifest names; None for one that is damaged."""
    try:
        found = read_json(manifest.read_text(encoding="utf-8"))
        if found.get("checksum", (expected := manifest_checksum(found))) != expected:
            return None
        files = {name: facts for name, facts in found["files"].items() if name.count("/") == 1}
        return {name: str(facts["blake2b"]) for name, facts in files.items() if SHARD.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _bring(names: list[str], fetch: Callable[[str], bool], tick: Tick) -> set[str]:
    """Fetch them; those that are not there any more."""
    if names:
        tick("fetch", -len(names))

    def bring(name: str) -> bool:
        found = fetch(name)
        tick("fetch", 1)
        return found

    return {name for name, found in _at_once(bring, names) if not found}


def _at_once(do: Callable[[str], T], names: list[str]) -> list[tuple[str, T]]:
    """Each name with what `do` gives for it, some at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(zip(names, threads.map(do, names), strict=True))
