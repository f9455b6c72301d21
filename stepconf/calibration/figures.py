"""The figures, as SVG and PNG: reliability, entropies, risk-coverage, accuracy against cost.

For print at one column's width and for the colour-blind: Okabe and Ito's colours, and for every series a marker,
line style or hatching of its own besides. No global state: figures are made without pyplot.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from stepconf.core.printable import printable
from stepconf.run.shards import write_atomically

P = ParamSpec("P")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (3, 1, 3, 4)))
_GREY = "#777777"
_POINTS = 400  # of a curve: more than a page resolves
_STYLE = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "stepconf",  # the same figure is the same file
    "text.parse_math": False,  # names of models and files are no formulas
}


def _styled(draw: Callable[P, Any]) -> Callable[P, Any]:
    """Drawn in our style, and nobody else's figures touched: some of it is read when a part is made."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Any:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@_styled
def save(figure: Any, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write a figure as FOLDER/NAME.svg and .png; the files."""
    files = []
    for suffix in formats:
        image = BytesIO()
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(image, format=suffix, dpi=200, metadata=metadata)
        files.append(folder / f"{name}.{suffix}")
        write_atomically(files[-1], image.getvalue())
    return files


@_styled
def reliability(curves: Mapping[str, Sequence[Mapping[str, Any]]], what: str) -> Any:
    """Accuracy against confidence in bins, with the share of the items in each bin below.

    Args:
        curves: by name (one may be ""), bins with `low`, `high`, `count`, `confidence` and `accuracy`, an
            interval with `estimate`, `low` and `high`.
        what: what is correct or not: steps or answers.
    """
    figure, (top, below) = _panels(2, width=3.5, height=4.0, ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="calibrated")
    for number, (name, bins) in enumerate(curves.items()):
        x = np.array([one["confidence"] for one in bins])
        y = np.array([one["accuracy"]["estimate"] for one in bins])
        look = {"color": _COLOURS[number], "linestyle": _LINES[number], "marker": _MARKERS[number]}
        top.errorbar(x, y, yerr=_bars(y, [one["accuracy"] for one in bins]), label=_short(name, 24) or what,
                     markersize=5, linewidth=1.5, capsize=2, elinewidth=1, **look)  # fmt: skip
        counts = np.array([one["count"] for one in bins], dtype=float)
        width = 0.1 / len(curves)
        left = np.array([one["low"] for one in bins]) + number * width
        below.bar(left, counts / counts.sum(), width=width * 0.92, align="edge", color=_COLOURS[number],
                  hatch=("", "////")[number % 2], edgecolor="white", linewidth=0)  # fmt: skip
    top.set(ylabel=f"share of {what} correct", ylim=(-0.02, 1.02))
    top.legend(loc="upper left")
    below.set(xlabel="confidence  exp(−mean entropy)", ylabel="share", xlim=(-0.01, 1.01))
    for axes in (top, below):
        _grid(axes)
    return figure


@_styled
def entropy_histograms(panels: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], what: str) -> Any:
    """Distribution of the mean entropy of what is correct and of what is not, a panel for each run.

    Args:
        panels: by name (one may be ""), entropies in nats and whether each item is correct.
        what: steps or answers.
    """
    everything = np.concatenate([entropy for entropy, _ in panels.values()])
    most = float(np.quantile(everything, 0.995)) or 1.0
    edges = np.linspace(0, most, 31)
    figure, drawn = _panels(len(panels), width=3.5, height=0.8 + 1.9 * len(panels))
    for axes, (name, (entropy, correct)) in zip(drawn, panels.items(), strict=True):
        for number, (label, part) in enumerate((("correct", correct), ("incorrect", ~correct))):
            if not part.any():
                continue
            # What lies beyond the last edge is counted in the last bar.
            share, _ = np.histogram(np.minimum(entropy[part], most), edges)
            mean = float(entropy[part].mean())
            text = f"{label}: {int(part.sum()):,}, mean {mean:.3f}"
            axes.stairs(share / part.sum(), edges, color=_COLOURS[number], linewidth=1.5,
                        linestyle=_LINES[number], label=text, fill=False)  # fmt: skip
            axes.stairs(share / part.sum(), edges, facecolor=_COLOURS[number], edgecolor=_COLOURS[number],
                        alpha=0.25, fill=True, hatch=("", "////")[number], linewidth=0)  # fmt: skip
            axes.axvline(min(mean, most), ymax=0.68, color=_COLOURS[number], linestyle=_LINES[number],
                         linewidth=1)  # fmt: skip
        axes.set(ylabel=f"share of {what}", xlim=(0, most), ylim=(0, 1.45 * axes.dataLim.y1))
        axes.legend(loc="upper right", title=_short(name, 24) or None, title_fontsize=8)
        _grid(axes)
    drawn[-1].set_xlabel("mean entropy, nats")
    return figure


@_styled
def risk_coverage(curves: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], what: str) -> Any:
    """Error rate among the items that a signal ranks first, against their share; the legend has the areas.

    Args:
        curves: by signal, coverage ascending in (0, 1] and the risk there.
        what: steps or answers.
    """
    figure, (axes,) = _panels(1, width=3.5, height=3.5)
    for number, (name, (coverage, risk)) in enumerate(curves.items()):
        # The first few items make a jagged start that says nothing.
        kept = np.unique(
            np.linspace(min(len(risk) - 1, len(risk) // 100), len(risk) - 1, _POINTS).astype(int)
        )
        label = f"{_short(name, 24)} ({float(np.mean(risk)):.3f})"
        every = max(1, len(kept) // 8)
        look = number % len(_COLOURS)
        again = (number + number // len(_COLOURS)) % len(
            _LINES
        )  # of more curves than colours, lines tell them apart
        axes.plot(coverage[kept], risk[kept], label=label, color=_COLOURS[look], linestyle=_LINES[again],
                  marker=_MARKERS[look], markersize=4, markevery=(look * every // 4, every),
                  linewidth=1.5)  # fmt: skip
    overall = float(next(iter(curves.values()))[1][-1])
    axes.axhline(overall, color=_GREY, linewidth=1, linestyle=":", label=f"no signal ({overall:.3f})")
    axes.set(xlabel=f"coverage: share of {what} kept", ylabel="risk: share of them incorrect", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    title = "signal (area below its curve)"
    figure.legend(loc="outside upper center", ncols=2, title=title, title_fontsize=8)
    _grid(axes)
    return figure


@_styled
def accuracy_against_tokens(results: Sequence[Mapping[str, Any]]) -> Any:
    """pass@1 against tokens spent on a question, a panel for each benchmark, a marker for each strategy.

    Args:
        results: as in the report of `evaluate`: benchmark, strategy, pass@1 and tokens_per_question, each an
            interval.
    """
    benchmarks = list(dict.fromkeys(one["benchmark"] for one in results))
    strategies = list(dict.fromkeys(one["strategy"] for one in results))
    # Of more strategies than colours, another marker tells apart those of one colour.
    n = len(_COLOURS)
    looks = {
        name: (_COLOURS[i % n], _MARKERS[(i + i // n) % len(_MARKERS)]) for i, name in enumerate(strategies)
    }
    panel = max(2.2, 0.18 * len(strategies))  # room for the legend
    figure, drawn = _panels(len(benchmarks), width=5.4, height=0.9 + panel * len(benchmarks), share_x=False)
    for axes, benchmark in zip(drawn, benchmarks, strict=True):
        shown = {}
        for one in (one for one in results if one["benchmark"] == benchmark):
            x, y = one["tokens_per_question"]["estimate"], one["pass@1"]["estimate"]
            colour, marker = looks[one["strategy"]]
            drawn_point = axes.errorbar(
                [x], [y], xerr=_bars(np.array([x]), [one["tokens_per_question"]]),
                yerr=_bars(np.array([y]), [one["pass@1"]]), color=colour, marker=marker, linestyle="",
                markersize=10 if marker == "*" else 6, capsize=2, elinewidth=1,
            )  # fmt: skip
            shown[one["strategy"]] = drawn_point[0]  # the marker alone, without its bars
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain_number)
        axes.xaxis.set_minor_formatter(_plain_number)
        axes.set(ylabel="pass@1", title=_short(benchmark))
        axes.set_ylim(bottom=0)
        axes.legend(
            shown.values(), [_short(name, 28) for name in shown], loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
        _grid(axes)
    drawn[-1].set_xlabel("tokens per question, all counted (log scale)")
    return figure


def _panels(
    count: int, width: float, height: float, ratios: Sequence[float] | None = None, share_x: bool = True
) -> tuple[Any, list[Any]]:
    """A figure (inches) of panels one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    drawn = figure.subplots(count, 1, sharex=share_x, squeeze=False, height_ratios=ratios)
    return figure, [row[0] for row in drawn]


def _grid(axes: Any) -> None:
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def _bars(values: npt.NDArray[Any], intervals: Sequence[Mapping[str, Any]]) -> npt.NDArray[Any]:
    """Lengths below and above; none where a bound is not known."""
    bounds = [[one["low"], one["high"]] for one in intervals]
    known = [
        [value if bound is None else bound for bound in pair]
        for value, pair in zip(values, bounds, strict=True)
    ]
    low, high = np.array(known).T
    return np.maximum([values - low, high - values], 0)


def _plain_number(value: float, position: int) -> str:
    digit = f"{value:e}"[0]
    return f"{value:,.0f}" if digit in "125" else ""


def _short(name: str, most: int = 50) -> str:
    """A name on one line; of a file without its folders."""
    flat = printable(re.sub(r"\s+", " ", Path(name).name if name.startswith(("/", "~", ".")) else name))
    return flat if len(flat) <= most else f"{flat[: most - 3]}..."
