"""Fit a confidence: `stepconf calibrate RUN --fit FILE`. The one home of scikit-learn.

A logistic regression on normal scores of the signals; on its sums, over problems that it has not seen, an isotonic
map. Every figure that the file states is of problems on which neither was fitted.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from stepconf.calibration.signals import Column, Kind, Units
from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import auroc, brier, ece, reliability_bins
from stepconf.core.calibration.protocols import within_groups
from stepconf.core.confidence import FORMAT, POSITION, VERSION, FittedMap, Scale, normal_scores
from stepconf.core.signals import SIGNALS
from stepconf.errors import StepconfError
from stepconf.run.shards import write_atomically
from stepconf.run.tables import read_metadata, read_recipe
from stepconf.version import __version__

FOLDS = 5
INVERSE_PENALTY = 0.1  # scikit-learn's C: signals of one list say much the same, and answers are few
RANKS = (np.arange(33) + 0.5) / 33  # of a signal's scale: as many as 30 problems with an answer each can fill
NORMAL_QUANTILES = np.array([NormalDist().inv_cdf(rank) for rank in RANKS])
LEAST_PROBLEMS = 30
LEAST_WITH_EACH = FOLDS  # problems that have a right row, and a wrong one: so that each fold may have both
FITTABLE = (*(one.name for one in SIGNALS if one.higher_is_better is not None), POSITION)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a map is fitted on: `values` (n, k) of the signals `names`, none NaN."""

    names: tuple[str, ...]
    values: Column
    correct: Column
    problems: Column
    as_is: Column


def fit_confidence(
    run: Path, units: Mapping[Kind, Units], names: Sequence[str] | None, n_resamples: int, seed: int
) -> dict[str, Any]:
    """The document of a confidence file: two maps, and how good they are on problems kept apart.

    Args:
        run: whose tokens and labels they are.
        units: its steps and answers.
        names: the signals; None takes all that have a value on every row and are not constant.
        n_resamples: of the intervals.
        seed: of the intervals.

    Raises:
        StepconfError: a name is no signal of tokens or has no value in the run, or neither steps nor answers can be
            fitted: too few problems, or one class only.
    """
    unknown = sorted({*(names or ())} - {*FITTABLE})
    if unknown:
        raise StepconfError(
            f"no signal to fit on: {', '.join(unknown)}.", f"Choose from: {', '.join(FITTABLE)}."
        )
    recipe = read_recipe(run)
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "stepconf": __version__,
        "model": recipe.get("model", ""),
        "revision": recipe.get("model_revision") or "",
        "tokenizer": read_metadata(run).get("tokenizer", ""),
        "labels": recipe.get("verify", {}).get("verifiers", []),
        "policy": recipe.get("verify", {}).get("policy", ""),
        "steps": None,
        "answers": None,
        "not_fitted": {},
    }
    refused: list[StepconfError] = []
    for kind, of_kind in units.items():
        try:
            rows = _rows(of_kind, names)
            document[kind] = _fitted(rows) | {"held_out": _held_out(rows, n_resamples, seed)}
        except StepconfError as error:
            refused.append(error)
            document["not_fitted"][kind] = error.problem
    if len(refused) == len(units):
        raise refused[0]
    return document


def write_confidence(document: Mapping[str, Any], file: Path) -> None:
    """Write a confidence file."""
    write_atomically(file, json.dumps(document, indent=1).encode())


def _rows(units: Units, names: Sequence[str] | None) -> Rows:
    columns = {name: values for name, values in units.signals.items() if name in FITTABLE}
    if units.kind == "steps":
        columns[POSITION] = units.positions.astype(float)
    wanted = [name for name in names or () if name != POSITION or units.kind == "steps"]
    missing = [name for name in wanted if name not in columns]
    if missing and units.correct.size:
        raise StepconfError(
            f"the signal {missing[0]} has no value on any of the run's {units.kind}.",
            "Its engine or version did not record what it needs: sample again, or leave it out of --fit-signals.",
        )
    _check_enough(units.problems, units.correct, f"decided and scored {units.kind}")
    if names is None:
        wanted = [n for n, v in columns.items() if not np.isnan(v).any() and v.min() < v.max()]
    values = np.stack([columns[name] for name in wanted], axis=1) if wanted else np.empty((0, 0))
    finite = np.isfinite(values)
    there = finite.all(axis=1)
    values, correct, problems = values[there], units.correct[there], units.problems[there]
    if not there.all():
        rarest = wanted[int(finite.sum(axis=0).argmin())]
        _check_enough(problems, correct, f"{units.kind} with a value of {rarest}")
    constant = [name for name, column in zip(wanted, values.T, strict=False) if np.ptp(column) == 0]
    if constant or not wanted:
        raise StepconfError(
            f"the signal {constant[0]} is {values[0, wanted.index(constant[0])]:g} on all {units.kind}."
            if constant
            else f"no signal varies over the run's {units.kind}.",
            "A constant tells nothing apart: leave it out of --fit-signals.",
        )
    return Rows(tuple(wanted), values, correct, problems, units.confidence[there])


def _check_enough(problems: Column, correct: Column, rows: str) -> None:
    """Raise StepconfError unless enough problems have such rows, and enough have right ones and wrong ones."""
    n_problems = len(set(problems.tolist()))
    if n_problems < LEAST_PROBLEMS:
        raise StepconfError(
            f"{n_problems} problems have {rows}; a fit needs {LEAST_PROBLEMS}.",
            "Sample more problems: stepconf generate --problems SET --limit 100 ...",
        )
    for value, what in ((True, "right"), (False, "wrong")):
        n = len(set(problems[correct == value].tolist()))
        if n < LEAST_WITH_EACH:
            raise StepconfError(
                f"{n} of {n_problems} problems have {rows} that are {what}; a fit needs {LEAST_WITH_EACH}.",
                "Take problems that the model solves sometimes, or more samples of each.",
            )


def folds(rows: Rows) -> Iterator[tuple[Column, Column]]:
    """Rows to fit on and rows kept apart, disjoint by problem."""
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Of folds within folds the smallest has fewer problems of a class than folds, which leaves some without.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(split.split(rows.values, rows.correct, rows.problems))
    yield from parts


def _part(rows: Rows, index: Column) -> Rows:
    return Rows(rows.names, rows.values[index], rows.correct[index], rows.problems[index], rows.as_is[index])


def _scale(values: Column) -> Scale:
    """Of one signal (n,): where quantiles are equal, their mean normal score."""
    quantiles, place = np.unique(np.quantile(values, RANKS, method="inverted_cdf"), return_inverse=True)
    scores = np.bincount(place, NORMAL_QUANTILES) / np.bincount(place)
    return Scale(tuple(quantiles.tolist()), tuple(scores.tolist()))


def _linear(rows: Rows) -> tuple[tuple[Scale, ...], Column, float]:
    """Scales, coefficients and intercept of a logistic regression with an L2 penalty."""
    from sklearn.linear_model import LogisticRegression

    if len(set(rows.correct.tolist())) < 2:
        raise StepconfError(
            "the wrong rows, or the right ones, are all in the same few problems.",
            "Take problems that the model solves sometimes, or more samples of each.",
        )
    scales = tuple(_scale(column) for column in rows.values.T)
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    model.fit(normal_scores(rows.values, scales), rows.correct)
    return scales, model.coef_[0], float(model.intercept_[0])


def _map(rows: Rows) -> FittedMap:
    """The regression on all rows, and the isotonic map of sums that regressions on other problems gave."""
    from sklearn.isotonic import IsotonicRegression

    sums = np.empty(len(rows.correct))
    for fitting, apart in folds(rows):
        scales, coefficients, intercept = _linear(_part(rows, fitting))
        sums[apart] = normal_scores(rows.values[apart], scales) @ coefficients + intercept
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(sums, rows.correct.astype(float))
    # Never certain: a row more of either class might have come.
    least = 1 / (len(rows.correct) + 2)
    levels = np.clip(isotonic.y_thresholds_, least, 1 - least)
    knots, first = np.unique(isotonic.X_thresholds_, return_index=True)
    scales, coefficients, intercept = _linear(rows)
    return FittedMap(
        rows.names,
        scales,
        tuple(coefficients.tolist()),
        intercept,
        tuple(knots.tolist()),
        tuple(levels[first].tolist()),
    )


def _fitted(rows: Rows) -> dict[str, Any]:
    n_problems = len(set(rows.problems.tolist()))
    return asdict(_map(rows)) | {"n": len(rows.correct), "problems": n_problems}


def held_out_probabilities(rows: Rows) -> Column:
    """Of each row (n,) its probability by a map that was fitted on other problems."""
    found = np.empty(len(rows.correct))
    for fitting, apart in folds(rows):
        found[apart] = _map(_part(rows, fitting)).probabilities(rows.values[apart])
    return found


def _held_out(rows: Rows, n_resamples: int, seed: int) -> dict[str, Any]:
    fitted = held_out_probabilities(rows)
    return {
        "folds": FOLDS,
        "fitted": quality(rows.problems, fitted, rows.correct, n_resamples, seed),
        "as_is": quality(rows.problems, rows.as_is, rows.correct, n_resamples, seed),
    }


def quality(
    problems: Column, probability: Column, correct: Column, n_resamples: int, seed: int
) -> dict[str, Any]:
    """ECE (10 bins), Brier score, AUROC pooled and within problems, with intervals over problems; reliability bins."""
    found: dict[str, Any] = {
        name: asdict(
            cluster_bootstrap(one, problems, probability, correct, n_resamples=n_resamples, seed=seed)
        )
        for name, one in (("ece_10", ece), ("brier", brier), ("auroc", auroc))
    }
    tally = within_groups(np.unique(problems, return_inverse=True)[1], probability, correct)
    found["auroc_within"] = asdict(tally.interval(n_resamples, seed)) | {"informative": tally.n_groups}
    bins = []
    for one in reliability_bins(probability, correct):
        inside = (probability <= one.high) & ((probability > one.low) | (one.low == 0))
        share = cluster_bootstrap(
            _share, problems[inside], correct[inside], n_resamples=n_resamples, seed=seed
        )
        bins.append(asdict(one) | {"accuracy": asdict(share)})
    return found | {"reliability": bins}


def _share(correct: Column, weights: Column) -> float | None:
    return float(np.average(correct, weights=weights)) if weights.any() else None
