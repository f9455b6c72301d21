"""What is printed is what was read, character by character: no markup, and nothing that a terminal obeys."""

import json
import logging
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from stepconf.core.printable import printable
from stepconf.errors import StepconfError
from stepconf.run.events import json_lines, log, warn
from stepconf.ui.console import console, output, say, styled
from stepconf.ui.progress import LoopProgress, StageProgress
from tests.hostile_texts import HOSTILE, NAME, check_inert, check_shown
from tests.report.made_run import made_run
from tests.tiny import stepconf


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_is_inert_and_says_what_was_there(text: str) -> None:
    shown = printable(text)
    check_inert(shown)
    shown.encode()
    assert printable(shown) == shown
    assert printable("a") + shown == printable("a" + text)


def test_plain_text_stays_as_it_is() -> None:
    text = "Zwei Äpfel\tund\n½ · \u05d4\u05ea\u05e9\u05d5\u05d1\u05d4 \U0001f468\u200d\U0001f469 \u00a0 [0, 1] \\n"
    assert printable(text) == text


def test_every_way_to_print_is_inert() -> None:
    out, err = StringIO(), StringIO()
    output.width = console.width = 200
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(styled((HOSTILE, "bold"), (HOSTILE, "red")))
    with redirect_stdout(out), redirect_stderr(err):
        say(f"{HOSTILE}\nsecond line", "bold")
        output.print(HOSTILE)
        output.print(table)
        with StageProgress() as tick:
            tick(HOSTILE, -2)
            tick(HOSTILE, 1)
        with LoopProgress() as progress:
            progress.announce(HOSTILE)
            progress.tick(HOSTILE, 1)
    check_inert(out.getvalue())
    check_inert(err.getvalue())
    for part in ("[/INST]", "[old]", "[link=https://a.example]y[/link]", ":bomb:"):
        assert out.getvalue().count(part) == 8, part
        assert err.getvalue().count(part) == 3, part
    assert r"\nsecond line" in out.getvalue(), "one line stays one"


def test_status_shows_the_error_of_a_run(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    metrics = {
        "state": "failed",
        "error": HOSTILE,
        "stages": {HOSTILE: {"done": 1, "total": 2, "per_second": 1.0}},
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    for options in ((), ("--watch",)):
        check_shown(stepconf("status", run, *options, columns=300), "failed", HOSTILE[:60])
    ended = stepconf("status", run, "--json")
    check_shown(ended)
    assert json.loads(ended.out)["error"] == HOSTILE


def test_a_folder_is_called_by_its_name(tmp_path: Path) -> None:
    check_shown(stepconf("status", made_run(tmp_path / "a [old]"), columns=300), "a [old]")
    run = made_run(tmp_path / NAME)
    ended = stepconf("relabel", run, "--policy", "majority", columns=400)
    check_shown(ended, f"Files: {printable(str(run))}/solutions")


def test_errors_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_shown(stepconf("status", tmp_path / NAME), r":bomb: \x1b]0", "is not a run folder", code=1)

    def fail(run: Path) -> None:
        raise StepconfError(HOSTILE, f"Type: {HOSTILE}")

    monkeypatch.setattr("stepconf.run.status.read_status", fail)
    run = made_run(tmp_path / "run")
    check_shown(stepconf("status", run), f"stepconf: {HOSTILE[:60]}", f"Type: {HOSTILE[:60]}", code=1)


def test_warnings_and_events_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("stepconf")
    monkeypatch.setattr(logger, "handlers", [])  # workers of other tests may listen
    err = StringIO()
    with redirect_stderr(err):
        with json_lines(None):
            warn("odd", HOSTILE)
        with json_lines(Path("-")):
            log("event", fact=HOSTILE)
            warn("odd", HOSTILE, fact=HOSTILE)
    check_inert(err.getvalue())
    sentence, *lines = err.getvalue().splitlines()
    assert sentence.startswith(HOSTILE[:60])
    assert [json.loads(line)["fact"] for line in lines] == [HOSTILE, HOSTILE]
    assert not logger.handlers
