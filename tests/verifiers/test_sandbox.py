"""The sandbox: what programs may do, and what does not get out."""

import os
import socket
import threading
from pathlib import Path

import pytest

from stepconf.verifiers.sandbox import Limits, SandboxError, check_sandbox, run_program
from tests.shared_data import shared_rows

MARK = b"stepconf-sandbox"


@pytest.fixture(autouse=True)
def sandbox() -> None:
    try:
        check_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def left_over() -> list[str]:
    """Processes of programs that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if MARK in arguments:
            found.append(process.name)
    return found


def test_output_input_and_errors() -> None:
    ran = run_program("name = input()\nprint('hello', name)", stdin="you\n")
    assert ran.passed and ran.stdout == "hello you\n" and ran.stderr == ""
    ran = run_program("assert 1 == 2, 'not the same'")
    assert ran.failure == "error: AssertionError: not the same"
    assert run_program("def f(:").failure.startswith("error: SyntaxError")
    assert run_program("import typing, math, json, collections, hashlib, re").passed


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("raise SystemExit(0)\nassert False", "exit 0"),
        ("import os; os._exit(0)", "exit 0"),
        ("import os; os._exit(3)", "exit 3"),
        ("import os; os.abort()", "signal 6"),
        ("import os; os.close(4)", "exit 1"),
    ],
)
def test_only_its_last_line_is_success(program: str, failure: str) -> None:
    assert run_program(program).failure.split(":")[0] in (failure, "error")


def test_an_endless_loop_ends() -> None:
    ran = run_program("while True: pass", limits=Limits(wall_s=0.5))
    assert ran.failure == "timeout" and not left_over()
    ran = run_program("while True: pass", limits=Limits(wall_s=60, cpu_s=1))
    assert ran.failure in ("signal 24", "signal 9")  # SIGXCPU, and SIGKILL a second later
    ran = run_program(
        "import signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\ntime.sleep(1000)",
        limits=Limits(wall_s=0.5),
    )
    assert ran.failure == "timeout" and not left_over()


def test_a_fork_bomb_ends() -> None:
    ran = run_program("import os\nwhile True:\n    os.fork()", limits=Limits(wall_s=3))
    assert ran.failure and not left_over()
    patient = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)"
    ran = run_program(patient, limits=Limits(wall_s=1))
    assert ran.failure == "timeout" and not left_over()


def test_what_it_forked_and_left_ends_with_it() -> None:
    daemon = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(1000)
    os._exit(0)
"""
    assert run_program(daemon).passed and not left_over()


def test_ten_gigabytes_are_refused() -> None:
    ran = run_program("x = bytearray(10 << 30)")
    assert ran.failure == "error: MemoryError"
    many = "import os\nfor _ in range(5): os.fork()\nx = bytearray(10 << 30)"
    assert run_program(many).failure and not left_over()


def test_writes_stay_in_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    here = Path(__file__).resolve()
    program = f"""
import os, pathlib, sys, tempfile
assert os.listdir(".") == [], os.listdir(".")
pathlib.Path("mine").write_text("x")
with tempfile.TemporaryFile() as f:
    f.write(b"x")
for place in ({str(outside)!r}, "/", "/tmp", "/usr", "/etc", "/dev", "/root", sys.prefix, os.path.dirname(os.__file__)):
    try:
        with open(os.path.join(place, "hostile"), "w") as f:
            f.write("x")
    except OSError:
        continue
    raise SystemExit(place)
for secret in ({str(here)!r}, "/etc/passwd", "/etc/shadow", "/proc/1/environ", "/sys/kernel"):
    assert not os.path.exists(secret), secret
"""
    ran = run_program(program)
    assert ran.passed, ran
    assert not list(outside.iterdir())
    assert not (here.parent / "hostile").exists()


def test_a_full_disk_is_its_own() -> None:
    ran = run_program("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))")
    assert "OSError" in ran.failure or ran.failure == "signal 25"  # no space, or SIGXFSZ
    many = "import os\nfor i in range(100_000): open(str(i), 'w').close()"
    assert "No space" in run_program(many).failure


def test_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reached = threading.Event()

        def listen() -> None:
            try:
                server.accept()
                reached.set()
            except OSError:
                return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        ran = run_program(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5)")
        assert "OSError" in ran.failure or "ConnectionRefused" in ran.failure
        assert not reached.is_set()
    ran = run_program(
        "import socket\nassert [n for _, n in socket.if_nameindex() if n != 'lo'] == []\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('192.0.2.1', 53))"
    )
    assert "Network is unreachable" in ran.failure


def test_no_rights_are_left() -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert os.getuid() != 0 and os.geteuid() != 0
for attempt in (
    lambda: os.setuid(0),
    lambda: os.kill(1, 9) or os.kill(1, 0) and 1 / 0,
    lambda: os.chroot("/box"),
    lambda: os.mknod("/box/sda", 0o60600, os.makedev(8, 0)),
):
    try:
        attempt()
    except OSError:
        continue
assert os.getuid() != 0
assert libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None) != 0
assert libc.umount2(b"/usr", 2) != 0
assert libc.sethostname(b"owned", 5) != 0
assert not os.path.exists("/box/sda")
"""
    ran = run_program(program)
    assert ran.passed, ran


def test_output_without_end_is_cut() -> None:
    ran = run_program("while True: print('x' * 1000)", limits=Limits(wall_s=0.5))
    assert ran.failure == "timeout" and len(ran.stdout) == 1 << 16


def test_descriptors_of_ours_are_closed() -> None:
    kept = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        ran = run_program(
            "import os\nopen_ = []\nfor fd in range(256):\n    try: os.fstat(fd); open_.append(fd)\n"
            "    except OSError: pass\nassert open_ == [0, 1, 2, 4], open_"
        )
    finally:
        os.close(kept)
    assert ran.passed, ran


def test_text_that_is_no_text() -> None:
    assert run_program("x = '\ud800'").failure
    assert run_program("\0").failure
    assert run_program("print('\N{SNOWMAN}')").stdout == "\N{SNOWMAN}\n"


@pytest.mark.slow
def test_canonical_solutions_of_humaneval_pass() -> None:
    failed = {}
    for row in shared_rows("benchmarks/humaneval.jsonl.gz"):
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        ran = run_program(
            f"{row['prompt']}{row['canonical_solution']}\n{tests}", limits=Limits(wall_s=60, cpu_s=60)
        )
        if not ran.passed:
            failed[row["task_id"]] = ran
    assert not failed
