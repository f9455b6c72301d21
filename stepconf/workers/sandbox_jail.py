"""The other side of `sandbox.py`: builds the walls, then runs the program within them. Standard library only.

Three processes: this one enters the namespaces; its child, the first of a process namespace and thus the one
whose end ends all others, builds the file system and waits; the grandchild gives up every right and becomes the
program. Reports go to the descriptor in `argv[1]`: "started", then how the program ended; or what went wrong.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (1 << bit for bit in (17, 26, 27, 28, 29, 30))
_SPACES = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MNT_DETACH, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_SETATTR = 2, -100, 1 << 15, 442
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1
_NOBODY = 65534
_FIRST_UID = 1_900_000_000  # of a range no machine gives to anyone; each run takes its own
_NO_START = 127
_WHOLE_RANGE = "4294967295"
_TOKEN_FD, _RESULT_FD = 3, 4
_UNSTARTED = "the program cannot be started"
_OWN = "/box"  # the program's folder
_RUNNER = """import os, sys, types
token = os.read(3, 16)
os.close(3)
sys.argv[:] = ["/program.py"]
main = sys.modules["__main__"] = types.ModuleType("__main__")
main.__file__ = "/program.py"
codes = []
for path in ("/program.py", "/tests.py"):
    with open(path, "rb") as file:
        codes.append(compile(file.read(), path, "exec"))
run, write, leave = exec, os.write, os._exit  # the program may put others in their places
for code in codes:
    run(code, main.__dict__)
try:
    sys.stdout.flush()
except Exception:
    pass
write(4, token)
leave(0)
"""
_ENVIRONMENT = {
    "HOME": _OWN,
    "TMPDIR": _OWN,
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# What the program may not ask of the kernel: the number of each system call on x86_64 and on aarch64.
_REFUSED_CALLS = {
    # memory that no limit of a process counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "vmsplice": (278, 75),  # pins whole huge pages after they are unmapped
    # keys: a key may be readable by its number, in whatever keyring it is
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # namespaces: in one of its own, the program could mount a file system without a size
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes, and the parts of the kernel where most faults were found
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
_KEYCTL = _REFUSED_CALLS["keyctl"]
_CLONE, _CLONE3 = (56, 220), (435, 435)
_X32_CALLS = 0x40000000  # x86_64: from here on the same calls again, under other numbers
_NEW_SPACES = 0x7E020000  # CLONE_NEW*
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_LOAD, _IS, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF
_CALL_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data; the low half comes first
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("skip_if_true", ctypes.c_uint8),
        ("skip_if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def main(report: int) -> None:
    """Run the order on standard input."""
    os.set_inheritable(report, False)
    parent = os.getppid()
    order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    try:
        uid = _enter_namespaces()
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        if os.getppid() != parent:
            return
        child = os.fork()
    except OSError as error:
        os.write(report, f"{error.strerror or error}\n".encode())
        return
    if not child:
        _first(order, uid, report)
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, signal.SIGKILL))
    os.close(report)
    os.waitpid(child, 0)


def _enter_namespaces() -> int | None:
    """Enter them; the uid that the program must take, None where it has no right of its own anyway.

    Root needs no user namespace, and gives each program a uid of its own, by which its processes are counted.
    Anyone else, and a root who may not, gets the right to build from a user namespace.
    """
    whole = _WHOLE_RANGE in Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    uid = _FIRST_UID + os.getpid()
    if os.geteuid() == 0 and whole:
        if _libc.unshare(_SPACES) == 0:
            return uid
        _become(uid)
        _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")  # else /proc/self is root's
    outside, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_SPACES | _NEWUSER), "namespaces")
    maps = {"setgroups": "deny", "uid_map": f"{_NOBODY} {outside} 1", "gid_map": f"{_NOBODY} {group} 1"}
    for file, text in maps.items():
        Path(f"/proc/self/{file}").write_text(text, encoding="ascii")
    return None


def _first(order: dict[str, Any], uid: int | None, report: int) -> NoReturn:
    """The first process of the namespace: builds, starts the program, says how it ended."""
    try:
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _build(order)
        token = os.urandom(16)
        give, take = os.pipe(), os.pipe()
        os.write(give[1], token)
        os.write(report, b"started\n")
        program = os.fork()
        if not program:
            _become_program(order, uid, give[0], take[1], report)
        for fd in (give[0], give[1], take[1]):
            os.close(fd)
        while True:
            pid, status = os.wait()  # the orphans of others come here too
            if pid == program:
                break
        os.set_blocking(take[0], False)
        try:
            finished = os.read(take[0], 64) == token
        except BlockingIOError:  # a child of it still holds the other end
            finished = False
        code = os.waitstatus_to_exitcode(status)
        os.write(report, json.dumps({"status": code, "finished": finished and code == 0}).encode() + b"\n")
    except OSError as error:
        os.write(report, f"{error.strerror or error}\n".encode())
    os._exit(0)


def _build(order: dict[str, Any]) -> None:
    """A root of the program's own: what it may read, bound read-only, and one empty folder."""
    root = order["root"]
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=16m,mode=755")
    for source in order["binds"]:
        if Path(source).is_symlink() and _within(Path(source).resolve(), order["binds"]):
            _place(root + source).symlink_to(Path(source).readlink())
            continue
        _bind(source, root + source, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        _bind(device, root + device, _ATTR_RDONLY | _ATTR_NOSUID)
    for name, key in (("program.py", "program"), ("tests.py", "tests"), ("input", "stdin")):
        Path(root, name).write_text(order[key], encoding="utf-8", errors="surrogatepass")
    room = f"size={order['disk_bytes']},nr_inodes=10k,mode=1777"
    Path(root + _OWN).mkdir()
    _mount("tmpfs", root + _OWN, "tmpfs", _MS_NOSUID | _MS_NODEV, room)
    _protect(root, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0)
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def _within(path: Path, folders: list[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _place(path: str) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _bind(source: str, target: str, attributes: int) -> None:
    place = _place(target)
    if Path(source).is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(source, target, None, _MS_BIND | _MS_REC)
    _protect(target, attributes, _AT_RECURSIVE)


def _become_program(order: dict[str, Any], uid: int | None, token: int, result: int, report: int) -> NoReturn:
    """Give up every right, then be the program."""
    try:
        os.dup2(os.open("/input", os.O_RDONLY), 0)
        token, result, report = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (token, result, report))
        os.closerange(3, 64)
        os.dup2(token, _TOKEN_FD)
        os.dup2(result, _RESULT_FD)
        _limit(order)
        if uid is not None:
            _become(uid)
        column, architecture = _machine()
        _leave_session_keyring(_KEYCTL[column])
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _refuse_calls(column, architecture)
        os.chdir(_OWN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        python = order["python"]
        arguments = [python, "-I", "-B", "-c", _RUNNER, "stepconf-sandbox"]
        os.execve(python, arguments, _ENVIRONMENT)  # noqa: S606  no shell is wanted
    except OSError as error:
        os.write(report, f"{_UNSTARTED}: {error.strerror or error}\n".encode())
    os._exit(_NO_START)


def _limit(order: dict[str, Any]) -> None:
    """No more than the order allows, for good: the program has no right to raise a hard limit."""
    others = 3  # this module's processes, which count where they share the program's uid
    cpu_s = order["cpu_s"]
    for what, most in (
        (resource.RLIMIT_AS, order["memory_bytes"]),
        (resource.RLIMIT_FSIZE, order["disk_bytes"]),
        (resource.RLIMIT_NPROC, order["processes"] + others),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def _machine() -> tuple[int, int]:
    """The column of the system calls' numbers, and the kernel's name of the architecture.

    Raises:
        OSError: they are not known.
    """
    name = os.uname().machine
    if name not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system calls are known of {name}, only of {' and '.join(_MACHINES)}")
    return _MACHINES[name]


def _leave_session_keyring(keyctl: int) -> None:
    """Take an empty session keyring in place of the parent's, whose keys a child possesses too."""
    number = ctypes.c_long(keyctl)
    if _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0 and ctypes.get_errno() != errno.ENOSYS:
        raise OSError(ctypes.get_errno(), f"keyctl: {os.strerror(ctypes.get_errno())}")


def _refuse_calls(column: int, architecture: int) -> None:
    """Have the kernel refuse `_REFUSED_CALLS`, and calls of another architecture, for good.

    Raises:
        OSError: the kernel has no such filter.
    """
    lines = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_IS, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL_AT),
        (_AT_LEAST, 0, 1, _X32_CALLS),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    for numbers in _REFUSED_CALLS.values():
        lines += [(_IS, 0, 1, numbers[column]), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    lines += [
        (
            _IS,
            0,
            1,
            _CLONE3[column],
        ),  # its flags cannot be read here; C libraries take clone where it is not there
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
        (_IS, 0, 3, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_HAS, 0, 1, _NEW_SPACES),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    wanted = _Filter(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    done = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(wanted), 0, 0)
    _check(done, "filter of system calls")


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    said = [None if text is None else text.encode() for text in (source, target, kind, options)]
    done = _libc.mount(said[0], said[1], said[2], ctypes.c_ulong(flags), said[3])
    _check(done, f"mount {target}")


def _protect(path: str, attributes: int, flags: int) -> None:
    wanted = _Attributes(attributes, 0, 0, 0)
    number, size = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_size_t(ctypes.sizeof(wanted))
    done = _libc.syscall(number, _AT_FDCWD, path.encode(), flags, ctypes.byref(wanted), size)
    _check(done, f"mount_setattr {path}")


def _check(done: int, what: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
