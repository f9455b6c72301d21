"""A run at a URL and its local copy, kept the same. What is at the URL is the run; the copy is where it is worked on.

A chunk is part of the run when its manifest is at the URL: its shards are sent before, and what a manifest names
is deleted after it. So a reader sees whole chunks only, whatever was cut off. A chunk whose shards change in place
(relabel) is replaced at once, too: the new shards are sent to `.staged/HASH`, then the manifest, then they are put
in their places; until then a reader finds them by the hash that the manifest says.

The copy remembers in `.synced` what was at the URL when it last was the same. From that follows what to do when
it is opened again, of recipe.yaml, source.json, summary.json and the manifests:

- The URL is as it was remembered: what differs in the copy was made here and not sent (its upload was cut off). It
  stays, and a writer sends it.
- Otherwise someone else has written there: what differs in the copy is replaced, what is not at the URL removed.

Shards follow their manifests: those that are missing here or have not their size and hash are fetched. A writer
also removes shards at the URL that no manifest names. metrics.json is only news: the newer one is taken as it is.
"""

import contextlib
from pathlib import Path

from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.run.known import Known, alone, is_manifest, is_shard, remember, shards_in
from stepconf.run.lease import Lease
from stepconf.run.reader import METRICS, STAGED, Reader, no_tick


class Mirror(Reader):
    """The copy of a run, for its writer."""

    def __init__(self, copy: Path, url: str) -> None:
        super().__init__(copy, url)
        self._lease: Lease | None = None
        self._news: int | None = None  # when the metrics that were sent last had been written

    def open(self) -> None:
        """Become the writer, bring the copy up to date, send what was not sent. For the holder of the copy's lock."""
        self._lease = Lease(self.store, self.copy, self._send_metrics)
        try:
            with alone(self.copy):
                self._pull(tuple(TABLES), no_tick, writer=True)
                self._news = self._metrics_written()
                self._push_pending()
                self._tidy()
        except BaseException:  # Ctrl-C too must give the lock back
            self._lease.release()
            raise

    def close(self) -> None:
        """Stop being the writer."""
        if self._lease is not None:
            with contextlib.suppress(StepconfError, OSError):  # news only
                self._send_metrics()
            self._lease.release()

    def put(self, name: str) -> None:
        """Send a small file of the run."""
        self._check()
        data = (self.copy / name).read_bytes()
        self.store.write(name, data)
        self._remember(name, Known.of(name, data))

    def commit(self, manifest: str) -> None:
        """Send a chunk that is committed in the copy, its manifest (`manifests/00003.json`) last."""
        self._check()
        data = (self.copy / manifest).read_bytes()
        known = self._there.get(manifest)
        there, replaced = self._shards(), {}
        for name, digest in shards_in(data).items():
            if name not in there:
                self.store.send(self.copy / name, name)
            elif there[name] != digest:
                self.store.send(self.copy / name, STAGED + digest)
                replaced[name] = digest
        self.store.write(manifest, data)
        self._remember(manifest, Known.of(manifest, data))
        for name, digest in replaced.items():
            self._place(name, digest)
        for name in (known.shards if known else {}).keys() - shards_in(data).keys():
            self.store.delete(name)

    def withdraw(self, manifest: str) -> None:
        """Undo a commit at the URL, while the copy still has it: the manifest goes first, then its shards."""
        self._check()
        self.store.delete(manifest)
        known = self._there.get(manifest)
        self._remember(manifest, None)
        for name in known.shards if known else ():
            self.store.delete(name)

    def _check(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _place(self, name: str, digest: str) -> None:
        self.store.copy(STAGED + digest, name)
        self.store.delete(STAGED + digest)

    def _push_pending(self) -> None:
        for name in sorted(self._pending(), key=lambda name: (name != "recipe.yaml", name)):
            if is_manifest(name):
                self.commit(name)
            else:
                self.put(name)

    def _tidy(self) -> None:
        """Finish what a killed writer began at the URL, remove shards that no manifest names, mend what is lost."""
        shards = self._shards()
        places = {digest: name for name, digest in shards.items()}
        for name in self._listing:
            digest = name.removeprefix(STAGED)
            if name.startswith(STAGED) and digest in places:
                self._place(places[digest], digest)
            elif name.startswith(STAGED) or (is_shard(name) and name not in shards):
                self.store.delete(name)
        for name in self._torn():
            self.store.send(self.copy / name, name)

    def _send_metrics(self) -> None:
        written = self._metrics_written()
        if written is not None and written != self._news:
            self.store.write(METRICS, (self.copy / METRICS).read_bytes())
            self._news = written

    def _metrics_written(self) -> int | None:
        file = self.copy / METRICS
        return file.stat().st_mtime_ns if file.exists() else None

    def _remember(self, name: str, known: Known | None) -> None:
        self._there.pop(name, None)
        if known is not None:
            self._there[name] = known
        remember(self.copy, self._there)
