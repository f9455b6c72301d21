"""The sandbox: what programs may do, and what does not get out."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import stepconf.workers.sandbox as sandbox_module
from stepconf.workers.sandbox import Limits, SandboxError, check_sandbox, run_program

MARK = b"stepconf-sandbox"
KEYCTL, ADD_KEY = {"aarch64": (219, 217)}.get(os.uname().machine, (250, 248))
SYSTEM = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.mmap.restype = ctypes.c_void_p
x86 = os.uname().machine == "x86_64"
def call(on_x86_64, on_aarch64, *arguments):
    done = libc.syscall(ctypes.c_long(on_x86_64 if x86 else on_aarch64), *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done
"""


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


def in_a_thread(work: Callable[[], object]) -> None:
    """Do it in a thread of its own: what it changes in its credentials ends with it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


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


TESTS = 'assert f(2) == 4\nassert f(3) == 9, """ the end """'


@pytest.mark.parametrize(
    ("program", "passes"),
    [
        ("def f(x): return x * x", True),
        ("def f(x): return 4", False),
        ("def f(x): return x * x\nraise SystemExit(0)", False),
        ("import sys\ndef f(x): sys.exit(0)", False),
        ("from sys import exit as f", False),
        ("import os\ndef f(x): os._exit(0)", False),
        (
            "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\ndef f(x):\n    while 1: 0",
            False,
        ),
        ("import os, sys\nsys.excepthook = lambda *error: os._exit(0)", False),
        ("import os\nif os.fork(): os._exit(0)\ndef f(x): return 4", False),
        ('x = """', False),
        ('def f(x): return 4\n"""', False),
        ("def f(x): return 4\nif False:", False),
        ("import builtins\nbuiltins.exec = builtins.compile = lambda *given: None", False),
        ("import os\nos.write = os._exit = print", False),
    ],
)
def test_a_program_passes_by_its_tests_alone(program: str, passes: bool) -> None:
    assert run_program(program, TESTS).passed is passes


def test_tests_are_in_the_same_module() -> None:
    tests = "import sys, __main__\nassert __main__.f is f and sys.argv == ['/program.py'] and __name__ == '__main__'"
    assert run_program("def f(): pass", tests).passed


@pytest.mark.parametrize(
    "more",
    [
        """
fds = []
while True:
    fds.append(os.memfd_create("x"))
    for _ in range(64): os.write(fds[-1], bytes(1 << 20))
""",
        """
while True:
    place = libc.shmat(call(29, 194, 0, 64 << 20, 0o1600), None, 0)
    ctypes.memset(place, 1, 64 << 20)
    libc.shmdt(ctypes.c_void_p(place))
""",
        "while True: call(68, 186, 0, 0o1600)  # msgget",
        "while True: call(64, 190, 0, 32000, 0o1600)  # semget",
        """
import mmap
while True:
    kept = mmap.mmap(-1, 4 << 20)
    kept.write(bytes(4 << 20))
    wanted = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.c_char.from_buffer(kept)), 4096)
    call(278, 75, os.pipe()[1], wanted, 1, 8)  # vmsplice
""",
        """
assert libc.unshare(0x10020000) == 0, "Operation not permitted"
assert libc.mount(b"tmpfs", b"/box", b"tmpfs", 0, b"size=100g") == 0
while True: print("no limit")
""",
    ],
    ids=["memfd", "shm", "messages", "semaphores", "vmsplice", "tmpfs"],
)
def test_memory_beside_the_limits_is_refused(more: str) -> None:
    """Each of them could take all of the machine's memory, or the kernel's, under any limit of a process."""
    ran = run_program(SYSTEM + more, limits=Limits(wall_s=5))
    assert "Operation not permitted" in ran.failure, ran
    assert not left_over()


def test_no_further_namespaces() -> None:
    program = """
import errno, threading
user, net = 0x10000000, 0x40000000
for attempt, number in (
    (lambda: call(272, 97, user), errno.EPERM),  # unshare
    (lambda: call(308, 268, 0, 0), errno.EPERM),  # setns
    (lambda: call(56, 220, user | 17, 0, 0, 0, 0), errno.EPERM),  # clone
    (lambda: call(56, 220, net | 17, 0, 0, 0, 0), errno.EPERM),
    (lambda: call(435, 435, None, 0), errno.ENOSYS),  # clone3
):
    try:
        assert attempt() != 0, "in another namespace"
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError("a namespace of its own")
threading.Thread(target=print, args=("threads", "are left")).start()
if not os.fork(): os._exit(0)
assert os.wait()[1] == 0
"""
    ran = run_program(SYSTEM + program)
    assert ran.passed and ran.stdout == "threads are left\n", ran


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has a second way to call")
def test_calls_of_another_architecture_are_refused() -> None:
    ran = run_program(SYSTEM + "call(0x40000000 + 319, 0, b'x', 0)  # memfd_create, as x32 has it")
    assert "Operation not permitted" in ran.failure
    as_i386 = """
import mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000 cd80 c3"))  # getpid by int 0x80
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
    assert run_program(SYSTEM + as_i386).failure == "signal 31"  # SIGSYS


def test_keys_of_ours_cannot_be_read() -> None:
    """A child possesses the keys in its parent's session keyring, and may read any whose owner may."""
    libc = ctypes.CDLL(None, use_errno=True)
    join, set_permissions, owner_may_all = 1, 5, 0x3F3F3F3F
    found = []

    def with_a_key() -> None:
        if libc.syscall(KEYCTL, join, None) < 0:
            return
        key = libc.syscall(ADD_KEY, b"user", b"stepconf-test", b"secret", 6, -3)
        if key < 0 or libc.syscall(KEYCTL, set_permissions, key, owner_may_all) < 0:
            return
        program = f"""
def read(key):
    room = ctypes.create_string_buffer(64)
    call(250, 219, 11, key, room, 64)
    raise SystemExit(f"read {{room.value}}")
for attempt in (
    lambda: read({key}),
    lambda: read(call(250, 219, 10, -3, b"user", b"stepconf-test", 0)),  # search
    lambda: read(call(249, 218, b"user", b"stepconf-test", None, 0)),  # request_key
    lambda: call(248, 217, b"user", b"mine", b"x", 1, -3),  # add_key
):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit("keys can be reached")
"""
        found.append(run_program(SYSTEM + program))

    in_a_thread(with_a_key)
    if not found:
        pytest.skip("there are no keys on this machine")
    assert found[0].passed, found[0]


def test_a_machine_without_the_filter_has_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jail = tmp_path / "sandbox_jail.py"
    text = Path(sandbox_module._JAIL).read_text().replace("os.uname().machine", "'riscv64'")
    jail.write_text(text)
    monkeypatch.setattr(sandbox_module, "_JAIL", jail)
    with pytest.raises(SandboxError, match="riscv64"):
        run_program("print('ran')")
