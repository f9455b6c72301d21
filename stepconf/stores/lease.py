"""One writer at a time at a URL: the object `.lock`, made only where there is none, and renewed while it is held.

A store knows no process that ends, so a lock counts as long as its owner renews it: one that was not renewed for
`LOST_S` seconds is a dead owner's and is taken over. The clocks of two machines are taken to agree to within a
minute. Where the store can make an object only if there is none (S3, GCS, memory), two takers at once cannot
both succeed; elsewhere it is looked for, written and read back, and the later of two stays. In either case, and
when a dead owner's is taken over, a writer that was overtaken finds out before its next commit, by `check`.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_json
from stepconf.core.printable import printable
from stepconf.errors import StepconfError
from stepconf.stores.remote import ATTEMPTS, Store

LOCK = ".lock"
LOST_S = 120.0
BEAT_S = 10.0  # between two renewals


class Lease:
    """The right to write at a URL, until `close`.

    Args:
        store: the folder.
        copy: its local copy, which this process has locked for itself: an owner of the same copy is dead.
        beat: called every `BEAT_S` seconds from a thread of its own; what it raises is let be.

    Raises:
        StepconfError: another writer holds it.
    """

    def __init__(self, store: Store, copy: Path, beat: Callable[[], None] = lambda: None) -> None:
        self._store, self._beat = store, beat
        self._own = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "copy": str(copy),
            "id": uuid.uuid4().hex,
        }
        self._take()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stepconf-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise StepconfError where someone else has the lock now: what is there is not to be touched."""
        found = read_lock(self._store)
        if found is None:
            self._store.write(LOCK, self._text())
        elif not self._is_own(found):
            raise StepconfError(
                f"{self._store.url} has been taken over by {_owner(found)}; this writer stops.",
                "It had not been heard of for too long. Let the other one finish.",
            )

    def close(self) -> None:
        """Give the right back."""
        self._ended.set()
        self._thread.join(timeout=BEAT_S)
        with contextlib.suppress(StepconfError):  # a lock that stays is taken over after LOST_S
            if self._is_own(read_lock(self._store)):
                self._store.delete(LOCK)

    def _take(self) -> None:
        for _ in range(ATTEMPTS):
            # Looked for first: there are servers that heed no condition and would overwrite a living owner's.
            found = read_lock(self._store)
            if self._is_own(found):
                return  # also where only the answer was lost
            if found is not None:
                self._dispossess(found)
            # Stores say in many ways that it is there, or that they cannot tell; the next turn reads what is so.
            with contextlib.suppress(Exception):
                self._store.create(LOCK, self._text())
        self._store.write(LOCK, self._text())
        self.check()

    def _dispossess(self, found: dict[str, Any]) -> None:
        """Take a dead owner's lock away; raise where the owner is alive."""
        age = _age(found)
        dead_here = found.get("host") == self._own["host"] and found.get("copy") == self._own["copy"]
        if age < LOST_S and not dead_here:
            raise StepconfError(
                f"{self._store.url} is being written by {_owner(found)}, last heard of {age:.0f} s ago.",
                f"Wait for it (stepconf status {self._store.url} --watch). If it is dead, its lock ends "
                f"{LOST_S:.0f} s after its last sign of life.",
            )
        if not dead_here:
            tell(
                "lock",
                f"{self._store.url}: the lock of {_owner(found)} was not renewed for {age:.0f} s: taken over.",
            )
        self._store.delete(LOCK)

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(StepconfError, OSError):  # `check` decides, before the next commit
                self._beat()
                if self._is_own(read_lock(self._store)) and not self._ended.is_set():
                    self._store.write(LOCK, self._text())

    def _is_own(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self._own["id"]

    def _text(self) -> bytes:
        return json.dumps(self._own | {"time": time.time()}).encode()


def tell(event: str, message: str) -> None:
    """Warn of something that a person should know of, as `run.events.warn` does."""
    logging.getLogger("stepconf").warning(printable(message), extra={"event": event})


def read_lock(store: Store) -> dict[str, Any] | None:
    """What the lock says; None where there is none, and nothing but an unknown owner where it cannot be read."""
    text = store.read(LOCK)
    if text is None:
        return None
    try:
        found = read_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_held(store: Store) -> bool:
    """Whether a writer that is alive holds the lock."""
    found = read_lock(store)
    return found is not None and _age(found) < LOST_S


def _age(found: dict[str, Any]) -> float:
    said = found.get("time")
    return max(0.0, time.time() - said) if isinstance(said, int | float) else LOST_S


def _owner(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {found.get('host', '?')}"
