"""vLLM's processes end with the process that uses them, even if that is killed while they start."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cluster import descendants
from tests.tiny import tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow

ENGINE = """
from stepconf.engines.vllm import VllmEngine
if __name__ == "__main__":
    VllmEngine({model!r}, dtype="float32")
    print("up")
    input()
"""


@pytest.mark.parametrize("when", ["starting", "up"])
@pytest.mark.parametrize("method", ["fork", "spawn"])  # a shell's, and that of an actor of Ray
def test_client_is_killed(when: str, method: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(ENGINE.format(model=str(tiny_model())))
    environment = {**os.environ, "VLLM_WORKER_MULTIPROC_METHOD": method}
    command = [sys.executable, str(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as client:  # type: ignore[call-overload]
        if when == "up":
            assert client.stdout.readline() == b"up\n"
        engine: dict[int, str] = {}
        while not any("VLLM::Worker" in name for name in engine.values()):
            assert client.poll() is None, "the engine did not start"
            engine = descendants()
        watched = [os.pidfd_open(pid) for pid, name in engine.items() if "VLLM::" in name]
        client.send_signal(signal.SIGKILL)
        for one in watched:
            assert select.select([one], [], [], 60)[0], "it is still there"
            os.close(one)
