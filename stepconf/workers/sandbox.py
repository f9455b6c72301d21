"""Runs a Python program that nobody has read: solutions of code benchmarks with their tests.

Each run is a process tree of its own in Linux namespaces: no network, a file system that holds the
interpreter and the system's libraries read-only, one empty folder (/box) to write into, limits on CPU time,
memory, processes and file sizes, and a wall clock at whose end the whole tree is killed, whatever it forked.
`sandbox_jail.py` is the other side. Where the kernel does not grant all of it, nothing is run.

The kernel refuses (seccomp) the system calls by which a program gets memory that its limits do not count (memfd,
System V shared memory, semaphores and message queues, vmsplice), those on keys, new namespaces, and ptrace, bpf,
io_uring, perf events and userfaultfd. It begins with an empty session keyring.

What is left: all other system calls are allowed, so a fault in the kernel may be reached; memory is limited per
process, in all to `processes` times as much, and beside it are `disk_bytes` of files and what pipes and sockets
hold (up to some 256 descriptors a process); and a program that means to can learn how its end is recognised, or
change what its tests call, since it shares a process with them. Linux 5.12 or newer on x86_64 or aarch64 only.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from stepconf.core.documents import read_json
from stepconf.errors import StepconfError

_JAIL = Path(__file__).with_name("sandbox_jail.py")
_START_S = 60.0  # how long the walls may take to stand on a busy machine
_END_S = 10.0
_UNSTARTED = "the program cannot be started"
_KEPT_BYTES = 1 << 16  # of each output
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use: seconds of wall clock and CPU, and of each process's address space, in bytes.

    `disk_bytes`: all it writes. `processes`: those and threads, at once.
    """

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 1 << 30
    disk_bytes: int = 64 << 20
    processes: int = 8


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended. `failure` is "" where it and its tests reached their last lines, else why not:

    "timeout", "exit <code>", "signal <number>", or "error: <the exception>". `stdout` and `stderr` hold the
    first 64 KiB.
    """

    failure: str
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the program and its tests reached their last lines."""
        return not self.failure


class SandboxError(StepconfError):
    """There is no sandbox to be had here."""


def run_program(program: str, tests: str = "", stdin: str = "", limits: Limits | None = None) -> Ran:
    """Run a Python program, hostile text, to its end or its limits.

    Args:
        program: run as the module `__main__`.
        tests: run in the same module after it. They are compiled on their own, so that no text of the program
            (an open string, say) can swallow them.
        stdin: what it reads.
        limits: what both together may use.

    Raises:
        SandboxError: the kernel does not grant the walls; nothing of the program has run.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="stepconf-sandbox-") as root:
        order = {
            "root": root,
            "binds": _binds(),
            "python": sys.executable,
            "program": program,
            "tests": tests,
            "stdin": stdin,
        }
        return _Run(json.dumps(order | asdict(limits)).encode(), limits.wall_s).result()


@cache
def check_sandbox() -> None:
    """Try the walls once.

    Raises:
        SandboxError: they cannot be had, or the interpreter cannot be used within them.
    """
    ran = run_program("import json, math, typing")
    if not ran.passed:
        raise SandboxError(
            f"this Python cannot be used in the sandbox: {ran.failure}.",
            "Use a Python that every user of this machine may read.",
        )


class _Run:
    """One process tree, from its start to its end."""

    def __init__(self, order: bytes, wall_s: float) -> None:
        self._wall_s, self._order = wall_s, order
        report, write_report = os.pipe()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, report)
            with contextlib.closing(os.fdopen(write_report, "wb")):
                self._process = subprocess.Popen(  # noqa: S603  this interpreter, no shell
                    [sys.executable, "-I", "-S", str(_JAIL), str(write_report)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(write_report,),
                    start_new_session=True,
                    env={},
                )
            undo.pop_all()
        self._report = report
        self._kept = {"report": bytearray(), "stdout": bytearray(), "stderr": bytearray()}

    def result(self) -> Ran:
        """Wait for the end, or bring it about."""
        begun = time.monotonic()
        try:
            self._send_order()
            in_time = self._listen()
        finally:
            self._end()
        lines = bytes(self._kept["report"]).decode(errors="replace").splitlines()
        unstarted = [line for line in lines if line.startswith(_UNSTARTED)]
        if "started" not in lines or unstarted:
            said = [*unstarted, *lines, *self._text("stderr").strip().splitlines()[-1:], "it gives no reason"]
            raise SandboxError(
                f"there is no sandbox for programs here: {said[0]}.",
                "It needs Linux 5.12 with seccomp, on x86_64 or aarch64, and user namespaces allowed "
                "(user.max_user_namespaces, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or root "
                "with CAP_SYS_ADMIN.",
            )
        failure = self._failure(lines[-1]) if in_time else "timeout"
        return Ran(failure, self._text("stdout"), self._text("stderr"), time.monotonic() - begun)

    def _send_order(self) -> None:
        assert self._process.stdin is not None  # noqa: S101  asked for above
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(self._order)

    def _listen(self) -> bool:
        """Keep what comes until all has ended; False where the time ran out before."""
        deadline, started = time.monotonic() + _START_S, False
        with selectors.DefaultSelector() as selector:
            selector.register(self._report, selectors.EVENT_READ, "report")
            for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if time.monotonic() >= deadline:
                    return False
                for key, _ in ready:
                    data, kept = os.read(key.fd, 1 << 16), self._kept[key.data]
                    if not data:
                        selector.unregister(key.fileobj)
                    kept += data[: _KEPT_BYTES - len(kept)]
                if not started and b"started\n" in self._kept["report"]:
                    deadline, started = time.monotonic() + self._wall_s, True
        return True

    def _end(self) -> None:
        """Kill the tree, and wait until all of it is gone."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # the tree ends with it, by itself
            self._process.kill()
            self._process.wait()
        os.close(self._report)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _failure(self, last: str) -> str:
        """Why the program did not reach its last line, by the jail's last words."""
        try:
            said = read_json(last)
        except ValueError:
            return "error: the sandbox was ended from within"
        if said["finished"]:
            return ""
        if said["status"] < 0:
            return f"signal {-said['status']}"
        line = self._text("stderr").strip().rpartition("\n")[2]
        return f"error: {line[:200]}" if said["status"] == 1 and line else f"exit {said['status']}"

    def _text(self, name: str) -> str:
        return bytes(self._kept[name]).decode(errors="replace")


def _binds() -> Sequence[str]:
    """What of the file system a program sees: the system's libraries, and this interpreter."""
    python = [sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), str(Path(sys.executable).parent)]
    python.append(str(Path(sys.executable).resolve().parents[1]))
    found: list[str] = []
    for path in (*_SYSTEM, *python):
        inside = any(Path(path).is_relative_to(other) for other in found if other != path)
        if os.access(path, os.F_OK) and not inside and path not in found and path != "/":
            found.append(path)
    return found
