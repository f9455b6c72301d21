"""From this process to a Ray cluster: on one of its nodes, in one made here, or over Ray's client from outside."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepconf.errors import StepconfError


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected; a connection that the caller has made is taken, and kept.

    Raises:
        StepconfError: Ray is not installed, or no cluster answers at the address.
    """
    if address.startswith("ray://") and _has_token():
        # At other addresses Ray itself takes a token that is there. It reads this when it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StepconfError(
            f"--ray needs Ray, which cannot be imported: {error}", "Type: pip install 'stepconf[ray]'"
        ) from error
    noisy = logging.getLogger("ray.data")
    level = noisy.level
    noisy.setLevel(logging.CRITICAL)
    own = not ray.is_initialized()
    try:
        if own:
            connect(ray, address)
        yield ray
    finally:
        noisy.setLevel(level)
        if own:
            ray.shutdown()


def connect(ray: Any, address: str) -> None:
    """Connect; raises as `connected`."""
    # Its C++ side tells stderr of errors of no consequence, past every setting of Python's logging.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers are nice (15) by default: next to another job an engine would stand still.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # An engine and a verifier have a CPU each, on paper, on the smallest machine too.
        options |= {"include_dashboard": False, "num_cpus": max(2, os.cpu_count() or 1)}
    else:
        # The code of this process, whatever the nodes have: the same rows as here.
        options["runtime_env"] = {"py_modules": [str(Path(__file__).parents[1])]}
    on_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _stderr_closed():  # to what it says of that variable
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        first, *more = str(error).strip().splitlines()
        reason = (
            f"{first} {more[-1]}" if more and first.endswith(":") else first
        )  # above a traceback of theirs
        raise StepconfError(
            f"there is no Ray cluster at {address!r}: {reason}",
            "Start one (ray start --head), give another address, or take --ray local. A cluster that asks for a "
            "token does not answer without it: put it into RAY_AUTH_TOKEN or ~/.ray/auth_token.",
        ) from error
    finally:
        if on_main:  # Ray has put its own in its place, which ends the process at once
            signal.signal(signal.SIGTERM, handler)


def _has_token() -> bool:
    return bool(
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").exists()
    )


def from_head(ray: Any, source: Callable[[], Iterator[bytes]]) -> Generator[bytes, None, None]:
    """What `source` yields, run in an actor on the cluster's head node.

    Ray Data drives its actors from within the cluster only: Ray's client has no streams of objects.
    """
    on_head = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    driver = ray.remote(**on_head)(_Driving).remote(source)
    try:
        while (packed := ray.get(driver.take.remote())) is not None:
            yield packed
    finally:
        ray.kill(driver)  # and the actors that it has started with it


class _Driving:
    def __init__(self, source: Callable[[], Iterator[bytes]]) -> None:
        self._source = source()

    def take(self) -> bytes | None:
        return next(self._source, None)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Nothing reaches the process's stderr, from whatever language."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
