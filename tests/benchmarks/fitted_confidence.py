"""A confidence that is fitted on some problems of a run, measured on the others, against every single signal.

usage: python -m tests.benchmarks.fitted_confidence RUN [FIT_FRACTION=0.5] [--on RUN] [--branches] [--signals a,b]

Problems are split by a hash of their id; with --on it is fitted on all of RUN, and measured on another run. The best
single signal is the one of the highest AUROC on the problems that are measured, which favours it; AUROC is compared on
the same resamples.
"""

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepconf.calibration.calibrate import KINDS
from stepconf.calibration.fit import fit_confidence, quality
from stepconf.calibration.signals import Column, Units, read_units
from stepconf.core.bootstrap import difference, interval, resample
from stepconf.core.calibration import auroc
from stepconf.core.calibration.protocols import Tally, within_groups
from stepconf.core.confidence import POSITION, FittedConfidence
from stepconf.errors import StepconfError
from tests.benchmarks.signals_by_protocol import cell

RESAMPLES = 1000


def main() -> None:
    """Print ECE, Brier score and AUROC of both kinds of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("fraction", type=float, nargs="?", default=0.5)
    parser.add_argument("--on", type=Path, help="a run of other problems, to measure on")
    parser.add_argument("--branches", action="store_true", help="the steps of branches too")
    parser.add_argument("--signals", help="comma-separated; all by default")
    args = parser.parse_args()
    names = args.signals.split(",") if args.signals else None
    for kind in KINDS:
        units = read_units(args.run, kind, branches=args.branches)
        if args.on is None:
            fitting = np.array([is_fitted_on(one, args.fraction) for one in units.problems.tolist()])
            units, apart = part(units, fitting), part(units, ~fitting)
        else:
            apart = read_units(args.on, kind, branches=args.branches)
        try:
            document = fit_confidence(args.run, {kind: units}, names, 10, 0)
        except StepconfError as error:
            print(f"{kind}: {error}")
            continue
        report(document, apart, document[kind])


def is_fitted_on(problem: str, fraction: float) -> bool:
    """By a hash of its id: the same in every run."""
    digest = hashlib.sha256(problem.encode()).digest()
    return int.from_bytes(digest[:4], "big") < fraction * 2**32


def part(units: Units, rows: Column) -> Units:
    """Some of the rows."""
    columns = ("problems", "correct", "confidence")
    return replace(
        units,
        **{name: getattr(units, name)[rows] for name in columns},
        positions=units.positions[rows] if units.kind == "steps" else units.positions,
        signals={name: values[rows] for name, values in units.signals.items()},
        chains=None,
    )


def report(document: Mapping[str, Any], apart: Units, fitted_part: Mapping[str, Any]) -> None:
    """The figures on problems kept apart."""
    fitted = getattr(FittedConfidence.of_document({"steps": None, "answers": None, **document}), apart.kind)
    columns = [
        apart.positions.astype(float) if name == POSITION else apart.signals[name] for name in fitted.signals
    ]
    probability = fitted.probabilities(np.stack(columns, axis=1))
    there = ~np.isnan(probability)
    apart, probability = part(apart, there), probability[there]
    n_problems = len(set(apart.problems.tolist()))
    print(
        f"\n{apart.kind}: fitted on {fitted_part['n']:,} of {fitted_part['problems']} problems, measured on "
        f"{apart.correct.size:,} of {n_problems} others, {apart.correct.mean():.3f} right"
    )
    for name, values in (("exp(-entropy)", apart.confidence), ("fitted", probability)):
        found = quality(apart.problems, values, apart.correct, RESAMPLES, 0)
        figures = ", ".join(
            f"{key} {cell(found[key])}" for key in ("ece_10", "brier", "auroc", "auroc_within")
        )
        print(f"  {name}: {figures}")
    against_single(apart, probability)


def against_single(apart: Units, probability: Column) -> None:
    """The fitted confidence against the best single signal: AUROC pooled and within problems, paired."""
    codes = np.unique(apart.problems, return_inverse=True)[1]
    full = {name: values for name, values in apart.scores.items() if not np.isnan(values).any()}
    best = max(full, key=lambda name: auroc(full[name], apart.correct) or 0)
    ours, theirs = (
        resample(auroc, apart.problems, values, apart.correct, n_resamples=RESAMPLES, seed=0)
        for values in (probability, full[best])
    )
    print(
        f"  pooled, best single {best} {cell(asdict(interval(theirs)))}: fitted minus it",
        cell(asdict(interval(difference(ours, theirs)))),
    )
    tallies = {name: within_groups(codes, values, apart.correct) for name, values in full.items()}
    best = max(tallies, key=lambda name: tallies[name].value or 0)
    own = within_groups(codes, probability, apart.correct)
    gap = Tally(own.won - tallies[best].won, own.asked)
    print(
        f"  within, best single {best} {cell(asdict(tallies[best].interval(RESAMPLES)))}: fitted minus it",
        cell(asdict(gap.interval(RESAMPLES))),
        f"({own.n_groups} problems)",
    )


if __name__ == "__main__":
    main()
