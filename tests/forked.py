"""Commands in processes of their own that start in milliseconds, to be killed, interrupted and starved.

One fresh interpreter imports the heavy packages once, starts no threads, and forks a child for each order.
It adopts what a dead child leaves behind, so "nothing survives" is a fact that it waits for.
"""

import atexit
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
# Not polars, which starts a thread when it is imported, and not what imports it.
_PRELOAD = ("pyarrow.parquet", "stepconf.pipeline", "stepconf.ui.console")
_PRELOAD += ("stepconf.engines.transformers", "stepconf.verifiers.critic.opening", "stepconf.verifiers.final")
_PRELOAD += ("stepconf.verifiers.symbolic", "transformers.models.auto.modeling_auto")
_PRELOAD += ("transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto")

_ENVIRONMENT = {
    "COLUMNS": "100",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Forked:
    """How a child ended: `code` as in `subprocess` (minus the signal), and how often each point was passed."""

    code: int
    seconds: float
    out: str
    err: str
    calls: dict[str, int]


def forked(
    arguments: list[Any],
    scratch: Path,
    *,
    kill_after: float | None = None,
    at: tuple[str, int, str] | None = None,
    sent: signal.Signals = signal.SIGKILL,
    raising: str | None = None,
    file_bytes: int | None = None,
    obey_modes: bool = False,
) -> Forked:
    """Run a command in a forked child and wait for it and for all it started.

    Args:
        scratch: a folder that it runs in, and for its output.
        kill_after: seconds after which it gets SIGKILL.
        at: ("module.function", n, "before" or "after"): its process group gets `sent` at the n-th call, from 1.
        raising: instead of the signal, a key of `FAULTS`: what happens at that call, in the calling thread.
        file_bytes: RLIMIT_FSIZE.
        obey_modes: the modes of files and folders hold for it, even as root.
    """
    server = _server()
    assert server.stdin and server.stdout
    order = {
        "arguments": [str(argument) for argument in arguments],
        "scratch": str(scratch),
        "kill_after": kill_after,
        "at": at,
        "sent": int(sent),
        "raising": raising,
        "file_bytes": file_bytes,
        "obey_modes": obey_modes,
    }
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    reply = json.loads(server.stdout.readline())
    out, err = ((scratch / name).read_text(errors="replace") for name in ("out", "err"))
    calls = json.loads((scratch / "calls").read_text()) if (scratch / "calls").exists() else {}
    return Forked(reply["code"], reply["seconds"], out, err, calls)


@cache
def _server() -> "subprocess.Popen[str]":
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    server = subprocess.Popen(
        [sys.executable, "-c", "from tests.forked import serve; serve()"],
        env=os.environ | threads | _ENVIRONMENT,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """The server's life: one order a line on stdin, one reply a line on stdout."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for module in _PRELOAD:
        importlib.import_module(module)
    gc.freeze()
    threads = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    # Arrow's allocator has a thread that it starts again after a fork; another would be lost.
    assert [name for name in threads if not name.startswith("jemalloc")] == threads[:1], threads
    for line in sys.stdin:
        order = json.loads(line)
        started = time.perf_counter()
        pid = os.fork()
        if not pid:
            _child(order)
        patience = order["kill_after"]
        if patience is not None:
            patience = max(0.0, started + patience - time.perf_counter())
        ended, _, _ = select.select([os.pidfd_open(pid)], [], [], patience)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seconds = time.perf_counter() - started
        _await_group(pid)
        print(json.dumps({"code": code, "seconds": seconds}), flush=True)


def _await_group(group: int) -> None:
    """Wait until nothing of the group is left: orphans are ours to wait for."""
    while True:
        try:
            os.waitpid(-group, 0)
        except ChildProcessError:
            return


def _child(order: Mapping[str, Any]) -> None:
    """Run the command as a fresh process group would, and end without the server's exit handlers."""
    code = 1
    scratch = Path(order["scratch"])
    try:
        os.setsid()
        os.chdir(scratch)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(scratch / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        calls: dict[str, int] = {}
        for point in ("os.replace", "os.rename", "os.fsync", "stepconf.engines.transformers._draw"):
            _count(point, calls, order["at"], FAULTS[order["raising"] or "signal"], order["sent"])
        if order["obey_modes"]:
            _give_up_override()
        if order["file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"],) * 2)
        code = _main(order["arguments"])
        if order["file_bytes"] is None:
            (scratch / "calls").write_text(json.dumps(calls))
    except BaseException:  # noqa: BLE001  a traceback is what the tests look for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(arguments: list[str]) -> int:
    from stepconf.cli import main

    sys.argv = ["stepconf", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _give_up_override() -> None:
    """Take the capabilities to ignore the modes of files from this process (no effect without them)."""
    version_3, this_process = 0x20080522, 0
    header = (ctypes.c_uint32 * 2)(version_3, this_process)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    for bit in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        sets[0] &= ~(1 << bit)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _out_of_memory(_: int) -> None:
    import torch

    raise torch.OutOfMemoryError("out of memory, as a test asked for")


def _crash(_: int) -> None:
    raise RuntimeError("the model failed, as a test asked for")


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _clock_jumps(_: int) -> None:
    wall = time.time
    time.time = lambda: wall() - 86_400.0


# What may happen at a call.
FAULTS: dict[str, Callable[[int], None]] = {
    "signal": lambda sent: os.killpg(0, sent),
    "out of memory": _out_of_memory,
    "crash": _crash,
    "no space": _no_space,
    "clock": _clock_jumps,
}


def _count(
    point: str,
    calls: dict[str, int],
    at: tuple[str, int, str] | None,
    fault: Callable[[int], None],
    sent: int,
) -> None:
    """Count the calls of a function; the fault happens at the one that is wanted."""
    module_name, _, name = point.rpartition(".")
    module = importlib.import_module(module_name)
    function: Callable[..., Any] = getattr(module, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[point] = calls.get(point, 0) + 1
        is_it = at is not None and (at[0], at[1]) == (point, calls[point])
        if is_it and at and at[2] == "before":
            fault(sent)
        result = function(*arguments, **named)
        if is_it and at and at[2] == "after":
            fault(sent)
        return result

    setattr(module, name, counted)
