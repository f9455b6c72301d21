"""Every signal of a run under rankings that the hardness of its problems cannot inflate (`core.calibration.protocols`).

The direction of a signal is the declared one everywhere; none is turned by what the labels say.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from stepconf.calibration.signals import Column, Units
from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import auroc, length_controlled_auroc
from stepconf.core.calibration.protocols import Tally, first_error_rank, permuted_auroc, within_groups
from stepconf.core.signals import LENGTH

PERMUTATIONS = 1000


def protocols(units: Units, n_resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Of each signal, by protocol, the figure with its 95 % interval and `informative`, the problems that it rests on.

    `pooled`: AUROC over all pairs, for comparison. `within`: pairs of one problem. `equal`: pairs of one length in
    tokens and one position. `up_to_error`: as `within`, without the steps after a first error. `null`: what `within`
    is where labels are shuffled within problems: mean, interval, and `p`, the share of shuffles that reach it.
    `first_error_rank`: the share of a chain's other steps that score higher than its first error.

    Args:
        units: of a run.
        n_resamples: of the problems.
        seed: of the resamples and shuffles.
    """
    codes = np.unique(units.problems, return_inverse=True)[1]
    nulls = _nulls(units, codes, seed)
    found: dict[str, dict[str, Any]] = {}
    for name, values in units.scores.items():
        there = ~np.isnan(values)
        own, scores, correct = codes[there], values[there], units.correct[there]
        within = within_groups(own, scores, correct)
        found[name] = {
            "pooled": _interval(auroc, own, n_resamples, seed, scores, correct),
            "within": _tallied(within, n_resamples, seed),
            "equal": _equal(units, there, own, scores, n_resamples, seed),
            "null": _null(nulls[name], within.value),
        }
        if units.kind == "steps":
            before = ~units.after_error[there]
            if before.any():
                tally = within_groups(own[before], scores[before], correct[before])
                found[name]["up_to_error"] = _tallied(tally, n_resamples, seed)
            found[name]["first_error_rank"] = _rank(units, name, n_resamples, seed)
    return found


def _tallied(tally: Tally | None, n_resamples: int, seed: int) -> dict[str, Any]:
    if tally is None:
        return {"estimate": None, "low": None, "high": None, "informative": 0}
    return asdict(tally.interval(n_resamples, seed)) | {"informative": tally.n_groups}


def _interval(
    statistic: Any,
    codes: Column,
    n_resamples: int,
    seed: int,
    *columns: Column,
    informative: int | None = None,
) -> dict[str, Any]:
    found = asdict(cluster_bootstrap(statistic, codes, *columns, n_resamples=n_resamples, seed=seed))
    return found | {"informative": found["n_clusters"] if informative is None else informative}


def _equal(
    units: Units, there: Column, codes: Column, scores: Column, n_resamples: int, seed: int
) -> dict[str, Any]:
    positions = units.positions[there] if units.kind == "steps" else np.zeros(codes.size)
    places = np.stack([units.signals[LENGTH.name][there], positions], axis=1)
    strata = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)
    correct = units.correct[there]
    right = np.bincount(strata, correct)
    mixed = (right > 0) & (right < np.bincount(strata))
    used = mixed[strata]
    if not used.any():
        return _tallied(None, n_resamples, seed)
    columns = (scores[used], correct[used], strata[used].astype(float))
    informative = len(np.unique(codes[used]))
    return _interval(
        length_controlled_auroc, codes[used], n_resamples, seed, *columns, informative=informative
    )


def _nulls(units: Units, codes: Column, seed: int) -> dict[str, Column]:
    """Of each signal, its AUROC within problems under each shuffle; one set of shuffles for all that are complete."""
    scores = units.scores
    complete = [name for name, values in scores.items() if not np.isnan(values).any()]
    found: dict[str, Column] = {}
    if complete:
        stacked = np.stack([scores[name] for name in complete], axis=1)
        null = permuted_auroc(codes, stacked, units.correct, PERMUTATIONS, seed)
        found |= dict(zip(complete, null.T, strict=True))
    for name in scores.keys() - found.keys():
        there = ~np.isnan(scores[name])
        own = scores[name][there][:, None]
        found[name] = permuted_auroc(codes[there], own, units.correct[there], PERMUTATIONS, seed)[:, 0]
    return found


def _null(values: Column, observed: float | None) -> dict[str, float | None]:
    if observed is None:
        return {"mean": None, "low": None, "high": None, "p": None}
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    reached = int((values >= observed - 1e-12).sum())
    return {"mean": float(values.mean()), "low": low, "high": high, "p": (1 + reached) / (1 + values.size)}


def _rank(units: Units, name: str, n_resamples: int, seed: int) -> dict[str, Any]:
    chains = units.chains
    if chains is None or not chains.problems.size:
        return _tallied(None, n_resamples, seed)
    values: Mapping[str, Column] = units.turned(chains.signals)
    there = ~np.isnan(values[name])
    if not there.any():
        return _tallied(None, n_resamples, seed)
    groups, codes = (
        np.unique(column[there], return_inverse=True)[1] for column in (chains.problems, chains.solutions)
    )
    tally = first_error_rank(groups, codes, chains.is_first_error[there], values[name][there])
    return _tallied(tally, n_resamples, seed)
