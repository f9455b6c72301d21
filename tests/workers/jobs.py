"""What the pool's tests run in workers: small, and importable by name."""

import os
import signal
import time
from pathlib import Path


def square(x: int) -> int:
    if x < 0:
        raise ValueError(f"negative: {x}")
    return x * x


def spin(seconds: float) -> float:
    """Keeps the interpreter busy, as a runaway simplification does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def fill(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def end(how: int) -> int:
    if how:
        os._exit(how)
    return how


def who(_: int) -> tuple[int, int]:
    """This worker's pid, and its parent's."""
    return os.getpid(), os.getppid()


def unpicklable(_: int) -> object:
    return lambda: None


def environment(name: str) -> str | None:
    return os.environ.get(name)


def killed_once(marker: str) -> str:
    """As the kernel does it to whom it chooses when memory runs out; a second time it is left alone."""
    if marker and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker


def always_killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
