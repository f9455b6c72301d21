"""Names that nobody gives by chance, terminals without width or letters, requests that no browser sends."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from socket import create_connection

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepconf.calibration import figures
from tests.edited_run import edit, good_run
from tests.report.test_view import serving
from tests.test_names import SIBLINGS, expected, outcome

pytestmark = pytest.mark.slow

_LETTERS = st.sampled_from("[]*?{}!~$%#& '\"\\;|<>()=:,+@^`.-_\n\téß漢\u0301\u202e🙂az19")
NAMES = st.text(_LETTERS | st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
LEGAL = NAMES.filter(lambda name: name not in (".", "..", "out", *SIBLINGS) and len(name.encode()) <= 200)


@given(LEGAL)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_run_under_any_legal_name_is_read_as_under_a_plain_one(name: str) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda *arguments: None)
        for sibling in SIBLINGS:
            other = Path(shutil.copytree(good_run(), Path(folder) / sibling))
            edit(other, "steps", lambda rows: [row.update(confidence=0.99, label="correct") for row in rows])
        wanted = expected()
        shutil.copytree(good_run(), Path(folder) / name)
        os.chdir(folder)
        try:
            assert outcome(f"./{name}", Path(folder) / "out") == wanted
        finally:
            os.chdir(before)


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "1"},
        {"COLUMNS": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "7"},
        {"PYTHONIOENCODING": "latin-1", "TERM": "dumb"},
    ],
    ids=str,
)
def test_every_table_is_shown_on_any_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    # Where arguments are read as ASCII, others are refused.
    name = "run" if "PYTHONUTF8" in environment else "é漢🙂 x]"
    run = shutil.copytree(good_run(), tmp_path / name)
    commands: list[list[object]] = [
        ["status", run],
        ["check", run],
        ["pairs", run],
        ["calibrate", run, "--resamples", 10],
        ["verify", run, "--verify", "final", "--out", tmp_path / "verified", "--report"],
        ["relabel", run, "--policy", "consensus"],
        ["report", run],
        ["compact", run],
        ["push", run, "me/set", "--dry-run", "--out", tmp_path / "set"],
        ["--help"],
    ]
    for command in commands:
        ended = subprocess.run(
            [sys.executable, "-m", "stepconf", *map(str, command)],
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0 and b"Traceback" not in ended.stderr, (command, ended.stderr)
        lines = ended.stdout.splitlines()
        assert sum(len(line.strip()) == 1 for line in lines) <= 2 and len(lines) < 250, ended.stdout


TARGETS = st.binary(max_size=300) | st.from_regex(rb"[/?=&\[\]:%0-9a-z]{1,80}", fullmatch=True)


def test_view_answers_any_target_without_a_traceback() -> None:
    failed: list[object] = []
    with pytest.MonkeyPatch.context() as patch, serving(good_run()) as server:
        patch.setattr(server, "handle_error", lambda *request: failed.append(sys.exc_info()[1]))
        host = f"127.0.0.1:{server.server_address[1]}".encode()

        @given(st.sampled_from([b"/", b"/api/problems?", b"http://", b""]), TARGETS)
        @settings(max_examples=500, deadline=None)
        def ask(start: bytes, raw: bytes) -> None:
            target = start + raw.replace(b"\n", b"")
            with create_connection(server.server_address[:2], timeout=60) as sent:
                sent.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                assert sent.makefile("rb").read()
            assert not failed

        ask()
