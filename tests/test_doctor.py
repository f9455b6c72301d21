"""`stepconf doctor` on an engine that keeps every promise: it passes, and says so."""

from typer.testing import CliRunner

from stepconf.cli import app
from tests.tiny import tiny_model


def test_every_check_passes_on_the_reference_engine() -> None:
    asked = ["doctor", "--model", str(tiny_model()), "--engine", "transformers", "--dtype", "float32"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "4 of 4; in a batch of 64, 4 of 4" in result.output
    assert "FAILS" not in result.output and result.output.count(" ok ") == 3
