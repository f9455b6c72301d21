"""The copy of a run, for whoever reads it: brought up to date with what is at its URL (see `run.mirror`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.run.copies import mark_as_copy, url_of
from stepconf.run.damage import file_digest, read_manifest
from stepconf.run.events import Tick, warn
from stepconf.run.known import (
    Known,
    alone,
    digest_of,
    hash_of,
    held_here,
    in_threads,
    is_manifest,
    remember,
    remembered,
    shards_in,
)
from stepconf.run.remote import Entry, Store

METRICS = "metrics.json"
_SMALL = ("recipe.yaml", "source.json", "summary.json")
STAGED = ".staged/"
_LOOKS = 3  # at a run that is rewritten while it is read


def no_tick(stage: str, n: int) -> None:
    """Nobody watches."""


R = TypeVar("R", bound="Reader")


class Reader:
    """The copy of a run, and the URL it belongs to.

    Raises (each method): StepconfError where the store refuses or fails for long, as `run.remote.Store`.
    """

    def __init__(self, copy: Path, url: str) -> None:
        self.copy, self.store = copy, Store(url)
        self._listing: dict[str, Entry] = {}
        self._there: dict[str, Known] = {}  # the small files at the URL

    @classmethod
    def of(cls: type[R], run: Path) -> R | None:
        """That of a folder that is a copy or lies in one; None for any other."""
        url = url_of(run)
        if url is None:
            return None
        mark_as_copy(run, url)
        return cls(run, url)

    def pull(self, tables: tuple[str, ...] = tuple(TABLES), tick: Tick = no_tick) -> None:
        """Bring the copy up to date, for a reader of these tables.

        Not while a writer of this machine has the copy: it is newer than what is at the URL.
        """
        with alone(self.copy):
            if not held_here(self.copy):
                self._pull(tables, tick, writer=False)

    def _shards(self) -> dict[str, str]:
        """The hashes of the shards that are part of the run, by name."""
        return {name: digest for known in self._there.values() for name, digest in known.shards.items()}

    def _pull(self, tables: tuple[str, ...], tick: Tick, writer: bool) -> None:
        for _ in range(_LOOKS):
            self._listing = self.store.listing()
            before, self._there = remembered(self.copy), {}
            self._there = self._look(before)
            self._refuse_other(before, writer)
            self._pull_small(before)
            if self._fetch_shards(tables, tick) or writer:
                break
        self._sweep()
        if METRICS in self._listing:
            self.store.fetch(METRICS, self.copy / METRICS)
        if not writer and (torn := self._torn()):
            warn("torn", f"{self.store.url} has lost {len(torn)} shards that its copy here has ({torn[0]}); the "
                 "command that made it sends them again.", files=torn)  # fmt: skip

    def _look(self, before: dict[str, Known]) -> dict[str, Known]:
        """The small files at the URL; those whose state is as remembered are not read."""
        names = [name for name in self._listing if name in _SMALL or is_manifest(name)]

        def look(name: str) -> Known | None:
            known, state = before.get(name), self._listing[name].state
            if known is not None and state and known.state == state:
                return known
            data = self.store.read(name)
            return None if data is None else Known.of(name, data, state)

        return {
            name: one for name, one in zip(names, in_threads(look, names), strict=True) if one is not None
        }

    def _refuse_other(self, before: dict[str, Known], writer: bool) -> None:
        visible = [name for name in self._listing if not name.startswith(".") and name != METRICS]
        if "recipe.yaml" in self._there or (writer and not visible):
            return
        if writer:
            raise StepconfError(
                f"{self.store.url} is not empty and not a run.", "Give a new folder with --out."
            )
        if not before and (self.copy / "recipe.yaml").exists():
            return  # begun here, and nothing of it sent yet
        raise StepconfError(
            f"{self.store.url} is not a run (no recipe.yaml there).",
            "Check the bucket and the name, or make one: stepconf generate --out URL ...",
        )

    def _pull_small(self, before: dict[str, Known]) -> None:
        for name in list(self._here()):
            if is_manifest(name) and not self._is_whole(name, before):
                (self.copy / name).unlink()
        mine = {name: file_digest(self.copy / name) for name in self._here()}
        there = {name: known.digest for name, known in self._there.items()}
        if there == {name: known.digest for name, known in before.items()}:
            behind = [name for name in there if name not in mine]
        else:
            behind = [name for name in there if mine.get(name) != there[name]]
            gone = sorted(name for name in mine if name not in there)
            known = {name: one.digest for name, one in before.items()}
            lost = [n for n in gone + behind if is_manifest(n) and n in mine and mine[n] != known.get(n)]
            if lost:
                warn("superseded", f"{self.store.url} has been written from elsewhere; what was made here and not sent "
                     f"is left out: {', '.join(lost)}.", files=lost)  # fmt: skip
            for name in gone:  # manifests before the recipe
                (self.copy / name).unlink()
        in_threads(lambda name: self.store.fetch(name, self.copy / name), behind)
        for name in behind:  # what came may be newer than what was looked at, or gone
            data = (self.copy / name).read_bytes() if (self.copy / name).exists() else None
            if data is None:
                del self._there[name]
            elif hash_of(data) != there[name]:
                self._there[name] = Known.of(name, data)
        remember(self.copy, self._there)

    def _is_whole(self, manifest: str, before: dict[str, Known]) -> bool:
        """Whether the copy's manifest can be read and, where the URL has not had it so, its shards are there."""
        data = (self.copy / manifest).read_bytes()
        if isinstance(read_manifest(self.copy / manifest), str):
            return False
        known = before.get(manifest)
        if known is not None and known.digest == hash_of(data):
            return True
        return all(self._has(name, digest) for name, digest in shards_in(data).items())

    def _here(self) -> Iterator[str]:
        yield from (name for name in _SMALL if (self.copy / name).exists())
        yield from (f"manifests/{file.name}" for file in sorted((self.copy / "manifests").glob("*.json")))

    def _fetch_shards(self, tables: tuple[str, ...], tick: Tick) -> bool:
        """Fetch the tables' shards that the copy lacks; False where one is not what its manifest says."""
        pending = {
            name for manifest in self._pending() for name in shards_in((self.copy / manifest).read_bytes())
        }
        shards = self._shards()
        wanted = [
            name
            for name, digest in shards.items()
            if name not in pending and name.partition("/")[0] in tables and not self._has(name, digest)
        ]
        if wanted:
            tick("fetch", -len(wanted))

        def fetch(name: str) -> bool:
            staged, file = STAGED + shards[name], self.copy / name
            if not (staged in self._listing and self.store.fetch(staged, file)):
                self.store.fetch(name, file)
            if not self._has(name, shards[name]):  # replaced since it was listed, perhaps
                self.store.fetch(staged, file)
            tick("fetch", 1)
            return self._has(name, shards[name])

        return all(in_threads(fetch, wanted))

    def _sweep(self) -> None:
        """Remove shards of the copy that are no longer part of the run, as those of pairs that were removed."""
        kept = {
            n
            for name in self._here()
            if is_manifest(name)
            for n in shards_in((self.copy / name).read_bytes())
        }
        for table in TABLES:
            for file in (self.copy / table).glob("*.parquet"):
                if f"{table}/{file.name}" not in kept:
                    file.unlink()

    def _has(self, name: str, digest: str) -> bool:
        file = self.copy / name
        return file.exists() and digest_of(file) == digest

    def _pending(self) -> list[str]:
        """What was committed in the copy and has not arrived at the URL."""
        mine = {name: file_digest(self.copy / name) for name in self._here()}
        return [n for n in mine if n not in self._there or self._there[n].digest != mine[n]]

    def _torn(self) -> list[str]:
        """The shards that the copy has whole and the URL, when it was listed, had not, or not in this size."""
        sizes = {name: entry.size for name, entry in self._listing.items()}
        return [
            name
            for name, digest in self._shards().items()
            if (self.copy / name).exists()
            and sizes.get(name) != (self.copy / name).stat().st_size
            and STAGED + digest not in sizes
            and self._has(name, digest)
        ]
