"""A run from outside the cluster, over Ray's client, to a cluster that asks for a token."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_cluster import AS_LOCAL, check_same, plain, problems, ray
from tests.tiny import tiny_model

__all__ = ["plain", "problems", "ray"]  # fixtures, and that Ray is installed
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "auth_token"
    file.write_text("0123456789abcdef" * 4)
    return file


@pytest.fixture(scope="module")
def head(token: Path) -> Iterator[str]:
    """The address of a cluster of one node, which is no child of Ray in this process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sc-", ignore_cleanup_errors=True) as scratch:
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"]
        command += [f"--ray-client-server-port={port}", "--num-cpus=2", "--include-dashboard=false"]
        command += ["--object-store-memory=100000000", f"--temp-dir={scratch}"]
        with subprocess.Popen(
            command, env={**os.environ, **AS_LOCAL, **secret}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert any("Ray runtime started" in line for line in process.stdout)
            yield f"ray://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            process.stdout.read()


def generate_at(
    address: str, problems: Path, out: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepconf", "generate", "--problems", problems, "--out", out]
    command += ["--model", tiny_model(), "--engine", "transformers", "--samples", 2, "--max-tokens", 10]
    command += ["--verify", "final", "--ray", address, "--set", "chunk=2", "--set", "verify.workers=1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        list(map(str, command)), env=environment | variables, capture_output=True, text=True, check=False
    )


def test_from_outside_the_cluster(
    head: str, token: Path, problems: Path, plain: Path, tmp_path: Path
) -> None:
    ended = generate_at(head, problems, tmp_path / "run", RAY_AUTH_TOKEN_PATH=str(token))
    assert ended.returncode == 0, ended.stderr
    check_same(tmp_path / "run", plain)


def test_without_the_token(head: str, problems: Path, tmp_path: Path) -> None:
    ended = generate_at(head, problems, tmp_path / "run", HOME=str(tmp_path))
    assert ended.returncode == 1
    assert "there is no Ray cluster at" in ended.stderr and "RAY_AUTH_TOKEN" in ended.stderr
