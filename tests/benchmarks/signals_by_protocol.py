"""Every signal under every protocol, over the labelled steps and answers of some runs together.

usage: python -m tests.benchmarks.signals_by_protocol RUN [RUN ...] [--branches] [--resamples 1000]

Prints Markdown. Intervals resample problems; a head has the number of problems with a pair that counts. The direction
of a signal is the declared one: a figure below 0.5 says that the signal ranks the wrong way round.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepconf.calibration.calibrate import KINDS
from stepconf.calibration.protocols import protocols
from stepconf.calibration.signals import Chains, Units, read_units

HEADS = {
    "pooled": "pooled",
    "within": "within problems",
    "equal": "equal length and position",
    "up_to_error": "within, up to the first error",
    "first_error_rank": "rank of the first error",
}


def main() -> None:
    """Print a table for the steps and one for the answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--branches", action="store_true", help="the steps of branches too")
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    for kind in KINDS:
        units = joined([read_units(run, kind, branches=args.branches) for run in args.runs])
        n_problems = len(set(units.problems.tolist()))
        print(f"\n{units.correct.size:,} {kind} of {n_problems} problems, {units.correct.mean():.3f} right")
        print("\n".join(table(protocols(units, args.resamples, 0))))
        if units.without_value:
            print(f"\nNo value in these runs: {', '.join(units.without_value)}")


def joined(parts: Sequence[Units]) -> Units:
    """The rows of several runs of different problems; a signal without a value in one of them is left out."""
    names = [name for name in parts[0].signals if all(name in one.signals for one in parts)]
    chains = [one.chains for one in parts if one.chains is not None]
    columns = ("problems", "correct", "confidence", "positions", "after_error")
    return replace(
        parts[0],
        **{name: np.concatenate([getattr(one, name) for one in parts]) for name in columns},
        signals={name: np.concatenate([one.signals[name] for one in parts]) for name in names},
        higher_is_better={name: parts[0].higher_is_better[name] for name in names},
        without_value=tuple(dict.fromkeys(name for one in parts for name in one.without_value)),
        chains=_joined_chains(chains, names) if chains else None,
    )


def _joined_chains(chains: Sequence[Chains], names: Sequence[str]) -> Chains:
    return Chains(
        *(
            np.concatenate([getattr(one, name) for one in chains])
            for name in ("problems", "solutions", "is_first_error")
        ),
        signals={name: np.concatenate([one.signals[name] for one in chains]) for name in names},
    )


def table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    shown = [key for key in HEADS if any(key in one for one in found.values())]
    counts = {key: max(one[key]["informative"] for one in found.values() if key in one) for key in shown}
    heads = [f"{HEADS[key]} ({counts[key]} problems)" for key in shown]
    yield "| " + " | ".join(["signal", *heads, "within, labels shuffled", "p"]) + " |"
    yield "|" + "---|" * (len(shown) + 3)
    for name, one in sorted(found.items(), key=lambda item: -(item[1]["within"]["estimate"] or 0)):
        null = one["null"]
        cells = [cell(one[key]) if key in one else "" for key in shown]
        p = "-" if null["p"] is None else f"{null['p']:.3f}"
        yield "| " + " | ".join([f"`{name}`", *cells, cell({"estimate": null["mean"], **null}), p]) + " |"


def cell(interval: Mapping[str, Any]) -> str:
    """An estimate with its interval."""
    if interval["estimate"] is None:
        return "-"
    bounds = "" if interval["low"] is None else f" [{interval['low']:.2f}, {interval['high']:.2f}]"
    return f"{interval['estimate']:.3f}{bounds}"


if __name__ == "__main__":
    main()
