"""Figures: drawn from anything that a report may hold, the same bytes each time, legible names."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepconf.calibration import figures
from stepconf.kinds import STRATEGIES

HOSTILE = "$x_{$ <script> & [b]\n" + "ab" * 60


def interval(value: float, half: float | None = 0.1) -> dict[str, Any]:
    known = half is not None
    return {
        "estimate": value,
        "low": value - half if known else None,
        "high": value + half if known else None,
    }


def bins(*accuracies: float, half: float | None = 0.1) -> list[dict[str, Any]]:
    return [
        {"low": i / 10, "high": (i + 1) / 10, "count": i + 1, "confidence": i / 10 + 0.05,
         "accuracy": interval(accuracy, half)}
        for i, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def result(strategy: str, benchmark: str = "b", half: float | None = 0.1) -> dict[str, Any]:
    return {"benchmark": benchmark, "strategy": strategy, "pass@1": interval(0.5, half),
            "tokens_per_question": interval(90.0, half)}  # fmt: skip


RIGHT = np.array([True, False, True])
DRAWN = {
    "reliability": lambda: figures.reliability({"": bins(0.1, 0.4, 0.5)}, "steps"),
    "two runs": lambda: figures.reliability(
        {"before": bins(0.1, 0.4), HOSTILE: bins(0.3, half=None)}, "steps"
    ),
    "entropy": lambda: figures.entropy_histograms({"": (np.array([0.1, 0.4, 2.0]), RIGHT)}, "steps"),
    "one class": lambda: figures.entropy_histograms({HOSTILE: (np.zeros(2), np.ones(2, bool))}, "steps"),
    "risk": lambda: figures.risk_coverage({HOSTILE: (np.array([0.5, 1.0]), np.array([0.0, 0.5]))}, "steps"),
    "one item": lambda: figures.risk_coverage({"length": (np.ones(1), np.zeros(1))}, "answers"),
    "many items": lambda: figures.risk_coverage(
        {"length": (np.linspace(0, 1, 10_000), np.linspace(0, 0.5, 10_000))}, "steps"
    ),
    "accuracy": lambda: figures.accuracy_against_tokens([result(f"s{i}") for i in range(9)]),
    "all strategies": lambda: figures.accuracy_against_tokens([result(name) for name in STRATEGIES.built_in]),
    "benchmarks": lambda: figures.accuracy_against_tokens([result("cat", HOSTILE), result("cat", "c", None)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_svg_and_png(name: str, tmp_path: Path) -> None:
    svg, png = figures.save(DRAWN[name](), tmp_path, "a")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert png.read_bytes()[:4] == b"\x89PNG" and png.stat().st_size < 300_000 > svg.stat().st_size
    again = figures.save(DRAWN[name](), tmp_path, "b")
    assert [file.read_bytes() for file in again] == [svg.read_bytes(), png.read_bytes()]
    assert not list(tmp_path.glob("*.tmp"))


def test_no_series_is_told_by_its_colour_alone() -> None:
    assert len(set(figures._MARKERS)) == len(set(figures._LINES)) == len(set(figures._COLOURS)) == 8


def test_all_strategies_look_different() -> None:
    """A strategy is a colour and a marker, and no other has both."""
    figure = figures.accuracy_against_tokens([result(name) for name in STRATEGIES.built_in])
    (axes,) = figure.axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_legend().legend_handles}
    assert len(looks) == len(STRATEGIES.built_in) > 8
