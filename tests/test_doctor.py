"""`stepconf doctor` on an engine that keeps every promise: it passes, and says so."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepconf import bench
from stepconf.cli import app
from tests.tiny import stepconf, tiny_model


def asked() -> list[str]:
    return ["doctor", "--model", str(tiny_model()), "--engine", "transformers", "--dtype", "float32"]


def test_every_check_passes_on_the_reference_engine() -> None:
    result = CliRunner().invoke(app, asked())
    assert result.exit_code == 0, result.output
    assert "4 of 4; in a batch of 64, 4 of 4" in result.output
    assert "FAILS" not in result.output and result.output.count(" ok ") == 3


def test_bench_writes_what_this_machine_does_and_says_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LIMIT_S", 250)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trl" else real(name))
    file = tmp_path / "figures.json"
    ended = stepconf(*asked(), "--bench", file)
    assert ended.code == 0, ended.err
    found = json.loads(file.read_text())
    assert found["model"] == str(tiny_model()) and found["engine"]["dtype"] == "float32"
    assert found["sampling"] is None, "only vLLM has a plain engine to compare with"
    ours, trl = found["training"]["stepconf"], found["training"]["trl"]
    assert ours["pairs_per_second"] == pytest.approx(
        ours["pairs"] / ours["seconds"], rel=0.1
    )  # both are rounded
    assert ours["peak_gib"] > 0 and trl == {"lacks": "trl is not installed"}
    assert "trl is not installed" in ended.out and str(ours["pairs_per_second"]) in ended.out


def test_a_place_for_figures_that_is_none_is_told_first(tmp_path: Path) -> None:
    ended = stepconf(*asked(), "--bench", tmp_path / "no" / "figures.json")
    assert ended.code == 1 and "there is no folder" in ended.err and "mkdir -p" in ended.err
    assert "starting" not in ended.err


def test_a_trainer_that_fails_or_hangs_is_a_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LIMIT_S", 250)
    assert "Error: " in bench._trained("stepconf", str(tmp_path / "absent"))["lacks"]
    monkeypatch.setattr(bench, "LIMIT_S", 0.01)
    assert bench._trained("stepconf", str(tiny_model())) == {"lacks": "not done in 0.01 s"}


@pytest.mark.slow
def test_trl_trains_on_the_same_pairs() -> None:
    pytest.importorskip("trl")
    from stepconf.training.measure import measure

    found = measure("trl", str(tiny_model()))
    assert found["pairs_per_second"] > 0 and found["peak_gib"] > 0
