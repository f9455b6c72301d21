"""`stepconf calibrate`: is the confidence of a run honest, and which signal tells right from wrong?

OUT/calibration.json              every figure of the tables, with intervals over problems
FILE of --fit                     a fitted confidence, which `--set confidence=FILE` uses
OUT/reliability-steps.svg, .png   and so on: see `_draw`
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.calibration import figures
from stepconf.calibration.fit import fit_confidence, write_confidence
from stepconf.calibration.protocols import protocols
from stepconf.calibration.signals import Column, Kind, Units, read_units
from stepconf.calibration.truncated import topk_entropies
from stepconf.core.bootstrap import Resampled, Statistic, difference, interval, resample
from stepconf.core.calibration import (
    auprc_errors,
    aurc,
    auroc,
    brier,
    brier_decomposition,
    ece,
    entropy_gap,
    fit_isotonic,
    fit_platt,
    length_controlled_auroc,
    log_loss,
    mce,
    problem_split,
    reliability_bins,
    risk_coverage,
)
from stepconf.core.reasoning import PARTS
from stepconf.core.signals import ENTROPY_MEAN, LENGTH, NOT_OF_TOKENS, SIGNALS, Signal
from stepconf.errors import StepconfError
from stepconf.run.events import Tick
from stepconf.run.shards import write_atomically
from stepconf.run.tables import read_recipe
from stepconf.stores.places import check_file_place

KINDS: tuple[Kind, ...] = ("steps", "answers")
DRAWN = 8  # signals in the plot of risk against coverage: those of the smallest area


@dataclass(frozen=True, slots=True)
class Fit:
    """The file of a fitted confidence, and the signals that it is fitted on; None takes all that can be."""

    file: Path
    signals: Sequence[str] | None = None


def _mean(values: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    return float(np.average(np.asarray(values, dtype=float), weights=weights))


# Of a confidence as the probability of being correct.
HONESTY: dict[str, Statistic] = {
    "ece_10": ece,
    "ece_15": partial(ece, n_bins=15),
    "ece_10_equal_mass": partial(ece, binning="equal-mass"),
    "mce_10": mce,
    "brier": brier,
    "log_loss": log_loss,
}
# Of a confidence as a ranking.
RANKING: dict[str, Statistic] = {"auroc": auroc, "auprc_errors": auprc_errors, "aurc": aurc}
_BY_PART = ("ece_10", "brier", "auroc", "auprc_errors")
POSTHOC = ("ece_10", "brier", "log_loss")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """`cluster_bootstrap` with its settings and progress. Called, it gives the interval as a plain dict."""

    resamples: int = 1000
    seed: int = 0
    tick: Tick = lambda stage, n: None

    def __call__(self, statistic: Statistic, problems: Column, *arrays: Column) -> dict[str, Any]:
        """The interval of a statistic of the arrays."""
        return asdict(interval(self.resample(statistic, problems, *arrays)))

    def resample(self, statistic: Statistic, problems: Column, *arrays: Column) -> Resampled:
        """The statistic on every resample."""
        found = resample(statistic, problems, *arrays, n_resamples=self.resamples, seed=self.seed)
        self.tick("measure", 1)
        return found


def calibrate(
    run: Path,
    before: Path | None,
    out: Path,
    resamples: int,
    seed: int,
    tick: Tick,
    top_k: int | None = None,
    own: Sequence[Signal] = (),
    fit: Fit | None = None,
    branches: bool = False,
) -> dict[str, Any]:
    """Measure the steps and the answers of a run; write OUT/calibration.json and the figures.

    Args:
        run: a run with scored and labelled steps.
        before: another run, of the model before training: measured too, and the change with its interval.
        out: the folder for what is written; made if absent.
        resamples: of the bootstrap over problems, at least 1.
        seed: of the bootstrap, and of the half of the problems on which post-hoc calibration is fitted.
        tick: progress.
        top_k: also the entropy over so many tokens alone, as a signal of `run`: a forward of its model.
        own: signals beside the built-in ones, of both runs.
        fit: fit a confidence on `run` and write its file.
        branches: the steps of branches too.

    Raises:
        StepconfError: not a run, its model is gone (`top_k`), neither a step nor an answer of it is both scored and
            decided, one of `own` cannot be set beside the others, or a confidence cannot be fitted or written.
    """
    _check(own, fit)
    runs = {"after": run} if before is None else {"after": run, "before": before}
    truncated = None if top_k is None else topk_entropies(run, top_k, tick)
    topk = {"after": truncated, "before": None}
    units = {
        name: {kind: read_units(path, kind, topk[name], own, branches) for kind in KINDS}
        for name, path in runs.items()
    }
    for name, path in runs.items():
        if not any(one.correct.size for one in units[name].values()):
            raise StepconfError(
                f"no step and no answer in {path} is both scored and decided.",
                "Score it (stepconf score), and verify it: stepconf verify RUN --verify final,symbolic",
            )
    bootstrap = Bootstrap(resamples, seed, tick)
    report: dict[str, Any] = {"run": run.resolve().name, "model": read_recipe(run).get("model", "")}
    if fit is not None:
        report["fit"] = fit_confidence(run, units["after"], fit.signals, resamples, seed)
        write_confidence(report["fit"], fit.file)
    report |= {kind: profile(units["after"][kind], bootstrap, seed) for kind in KINDS}
    report["by_part"] = by_part(units["after"]["steps"], bootstrap)
    if before is not None:
        report |= _against(before, units, bootstrap, seed)
    report["settings"] = {"resamples": resamples, "seed": seed, "level": 0.95, "top_k": top_k}
    report["settings"] |= {"signals": [signal.name for signal in own], "branches": branches}
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "calibration.json", json.dumps(report, indent=1).encode())
    _draw(report, units, out)
    return report


def _against(
    before: Path, units: Mapping[str, Mapping[Kind, Units]], bootstrap: Bootstrap, seed: int
) -> dict[str, Any]:
    """The figures of the run before training, and the change."""
    older: dict[str, Any] = {"run": before.resolve().name, "model": read_recipe(before).get("model", "")}
    older |= {kind: profile(units["before"][kind], bootstrap, seed) for kind in KINDS}
    changes = {kind: change(units["after"][kind], units["before"][kind], bootstrap) for kind in KINDS}
    return {"before": older, "change": changes}


def _check(own: Sequence[Signal], fit: Fit | None) -> None:
    if fit is not None:
        check_file_place(fit.file)
    taken = {signal.name for signal in (*SIGNALS, *NOT_OF_TOKENS)}
    for signal in own:
        if signal.name in taken:
            raise StepconfError(
                f"there is more than one signal of the name {signal.name!r}.", "Rename yours."
            )
        if signal.higher_is_better is None:
            raise StepconfError(
                f"the signal {signal.name!r} cannot rank: its higher_is_better is None.",
                "Say True where a higher value speaks for correctness, otherwise False.",
            )
        taken.add(signal.name)


def profile(units: Units, bootstrap: Bootstrap, seed: int) -> dict[str, Any]:
    """Every figure of one kind of rows; only the counts where there is none."""
    found: dict[str, Any] = {
        "n": int(units.correct.size),
        "problems": len(set(units.problems.tolist())),
        "left_out": units.left_out,
    }
    if not units.correct.size:
        return found
    pair = (units.confidence, units.correct)
    measured = {name: bootstrap(one, units.problems, *pair) for name, one in (HONESTY | RANKING).items()}
    entropy = units.signals[ENTROPY_MEAN.name]
    return found | {
        "accuracy": bootstrap(_mean, units.problems, units.correct),
        "mean_confidence": bootstrap(_mean, units.problems, units.confidence),
        **measured,
        "brier_decomposition": asdict(brier_decomposition(*pair)),
        "entropy": asdict(entropy_gap(entropy, units.correct))
        | {
            name: bootstrap(_of_gap(name), units.problems, entropy, units.correct)
            for name in ("gap", "hedges_g")
        },
        "signals": signals(units, bootstrap),
        "signals_without_value": list(units.without_value),
        "protocols": protocols(units, bootstrap.resamples, seed),
        "posthoc": posthoc(units, bootstrap, seed),
        "reliability": reliability(units, bootstrap),
    }


def by_part(units: Units, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """The steps of the thinking and those of the answer, each by themselves; empty where there is one part alone."""
    found: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        own = units.parts == part
        if not own.any() or own.all():
            return {}
        problems, confidence, correct = (
            column[own] for column in (units.problems, units.confidence, units.correct)
        )
        found[part] = {
            "n": int(own.sum()),
            "problems": len(set(problems.tolist())),
            "accuracy": bootstrap(_mean, problems, correct),
            "mean_confidence": bootstrap(_mean, problems, confidence),
            **{
                name: bootstrap(one, problems, confidence, correct)
                for name, one in (HONESTY | RANKING).items()
                if name in _BY_PART
            },
        }
    return found


def signals(units: Units, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """Each signal as a ranking: AUROC, that minus the mean entropy's, within equal lengths, errors found, AURC.

    Of the rows on which the signal has a value, and so the mean entropy beside it; `without_value` are the others.
    """
    scores = units.scores
    entropy = bootstrap.resample(auroc, units.problems, scores[ENTROPY_MEAN.name], units.correct)
    found = {}
    for name, values in scores.items():
        there = ~np.isnan(values)
        rows = (units.problems, values, units.correct, units.signals[LENGTH.name], scores[ENTROPY_MEAN.name])
        problems, score, correct, lengths, base = (column[there] for column in rows)
        ranked = entropy if name == ENTROPY_MEAN.name else bootstrap.resample(auroc, problems, score, correct)
        beside = entropy if there.all() else bootstrap.resample(auroc, problems, base, correct)
        found[name] = {
            "auroc": asdict(interval(ranked)),
            "auroc_minus_entropy": asdict(interval(difference(ranked, beside))),
            "length_controlled_auroc": bootstrap(length_controlled_auroc, problems, score, correct, lengths),
            "auprc_errors": auprc_errors(score, correct),
            "aurc": aurc(score, correct),
            "without_value": int((~there).sum()),
            "why": units.failures.get(name, ""),
        }
    return found


def posthoc(units: Units, bootstrap: Bootstrap, seed: int) -> dict[str, Any]:
    """The mean entropy made a probability on half of the problems, and measured on the others.

    `as_is` is exp(-mean entropy) on those same others.
    """
    if len(set(units.problems.tolist())) < 2:
        return {}
    fitting = problem_split(units.problems.tolist(), 0.5, seed)
    score, correct = units.scores[ENTROPY_MEAN.name], units.correct
    fitted_on = (score[fitting], correct[fitting])
    held_out = {
        "as_is": units.confidence[~fitting],
        "isotonic": fit_isotonic(*fitted_on).predict(score[~fitting]),
        "platt": fit_platt(*fitted_on).predict(score[~fitting]),
    }
    problems = units.problems[~fitting]
    found: dict[str, Any] = {
        "problems_fitted": len(set(units.problems[fitting].tolist())),
        "problems_measured": len(set(problems.tolist())),
    }
    for name, probability in held_out.items():
        found[name] = {
            metric: bootstrap(HONESTY[metric], problems, probability, correct[~fitting]) for metric in POSTHOC
        }
    return found


def reliability(units: Units, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The ten equal-width bins that are not empty, `accuracy` with its interval over problems."""
    bins = []
    for one in reliability_bins(units.confidence, units.correct):
        inside = (units.confidence <= one.high) & ((units.confidence > one.low) | (one.low == 0))
        interval = bootstrap(_mean, units.problems[inside], units.correct[inside])
        bins.append(asdict(one) | {"accuracy": interval})
    return bins


def change(after: Units, before: Units, bootstrap: Bootstrap) -> dict[str, Any]:
    """After minus before for every metric that both have, both over the same resampled problems."""
    if not (after.correct.size and before.correct.size):
        return {}
    problems = np.concatenate([after.problems, before.problems])
    is_after = np.repeat([True, False], [after.correct.size, before.correct.size])
    correct = np.concatenate([after.correct, before.correct])
    confidence = np.concatenate([after.confidence, before.confidence])
    entropy = np.concatenate([after.signals[ENTROPY_MEAN.name], before.signals[ENTROPY_MEAN.name]])
    found = {"accuracy": bootstrap(_difference(_accuracy), problems, confidence, correct, is_after)}
    for name, one in (HONESTY | RANKING).items():
        found[name] = bootstrap(_difference(one), problems, confidence, correct, is_after)
    found["entropy_gap"] = bootstrap(_difference(_of_gap("gap")), problems, entropy, correct, is_after)
    return found


def _of_gap(part: str) -> Statistic:
    def statistic(entropy: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike) -> float | None:
        value: float | None = getattr(entropy_gap(entropy, correct, weights), part)
        return value

    return statistic


def _accuracy(confidence: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    return _mean(correct, weights)


def _difference(statistic: Statistic) -> Statistic:
    def after_minus_before(
        values: Column, correct: Column, is_after: Column, weights: Column
    ) -> float | None:
        found = []
        for part in (is_after, ~is_after):
            if not weights[part].any():
                return None
            found.append(statistic(values[part], correct[part], weights=weights[part]))
        return None if found[0] is None or found[1] is None else found[0] - found[1]

    return after_minus_before


def _draw(report: dict[str, Any], units: Mapping[str, Mapping[Kind, Units]], out: Path) -> None:
    """What each kind of rows has: reliability, entropy and risk-coverage; with two runs, both in one plot."""
    for kind in KINDS:
        own = units["after"][kind]
        if not own.correct.size:
            continue
        curves = {"": report[kind]["reliability"]}
        entropies = {"": (own.signals[ENTROPY_MEAN.name], own.correct)}
        older = units["before"][kind] if "before" in units else None
        if older is not None and older.correct.size:
            curves = {"before": report["before"][kind]["reliability"], "after": report[kind]["reliability"]}
            entropies = {"before": (older.signals[ENTROPY_MEAN.name], older.correct), "after": entropies[""]}
        figures.save(figures.reliability(curves, kind), out, f"reliability-{kind}")
        figures.save(figures.entropy_histograms(entropies, kind), out, f"entropy-{kind}")
        drawn = {}
        areas = {name: one["aurc"] for name, one in report[kind]["signals"].items()}
        for name in sorted(areas, key=lambda name: areas[name])[:DRAWN]:
            there = ~np.isnan(own.scores[name])
            curve = risk_coverage(own.scores[name][there], own.correct[there])
            drawn[name] = (curve.coverage, curve.risk)
        figures.save(figures.risk_coverage(drawn, kind), out, f"risk-coverage-{kind}")
        if fitted := report.get("fit", {}).get(kind):
            held = fitted["held_out"]
            curves = {"exp(-mean entropy)": held["as_is"], "fitted, held out": held["fitted"]}
            bins = {name: one["reliability"] for name, one in curves.items()}
            figures.save(figures.reliability(bins, kind, "confidence"), out, f"reliability-fitted-{kind}")
