"""How good a policy is and how honest its confidence: the figures of a run, with intervals over its problems."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.core.bootstrap import Statistic, cluster_bootstrap
from stepconf.core.calibration import auroc, brier, ece
from stepconf.run.columns import Column, answer_columns, step_columns

# Steps are those labelled correct or incorrect; an unknown one is in no figure but the share of unknowns.
STEP_MEASURES = ("step_accuracy", "entropy_correct", "entropy_incorrect", "auroc", "ece", "brier")
MEASURES = (*STEP_MEASURES, "final_accuracy")


def measure_run(run: Path) -> dict[str, Any]:
    """Each measure's estimate and 95 % interval (bootstrap over problems); None where the run lacks its rows.

    `auroc`: of -entropy_mean for the label. `ece` (10 equal-width bins) and `brier`: of the step confidence
    exp(-entropy_mean) as a probability that the step is correct. Entropies are nats.
    """
    return measure_columns(step_columns(run), answer_columns(run))


def measure_columns(
    steps: tuple[Column, Column, Column, Column], answers: tuple[Column, Column], n_resamples: int = 1000
) -> dict[str, Any]:
    """As `measure_run`, of columns as `summary.step_columns` and `summary.answer_columns` give them."""
    problems, entropy, confidence, correct = steps
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    step_measures: dict[str, tuple[Statistic, tuple[Column, ...]]] = {
        "step_accuracy": (_share, (correct,)),
        "entropy_correct": (_mean_where(True), (entropy, correct)),
        "entropy_incorrect": (_mean_where(False), (entropy, correct)),
        "auroc": (auroc, (-entropy, correct)),
        "ece": (ece, (confidence, correct)),
        "brier": (brier, (confidence, correct)),
    }
    if len(correct):
        for name, (statistic, arrays) in step_measures.items():
            found[name] = asdict(cluster_bootstrap(statistic, problems, *arrays, n_resamples=n_resamples))
    answer_problems, right = answers
    if len(right):
        interval = cluster_bootstrap(_share, answer_problems, right, n_resamples=n_resamples)
        found["final_accuracy"] = asdict(interval)
    return found


def _share(correct: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    return float(np.average(np.asarray(correct, dtype=float), weights=weights))


def _mean_where(wanted: bool) -> Callable[..., float | None]:
    def mean(values: npt.ArrayLike, correct: npt.ArrayLike, weights: npt.ArrayLike) -> float | None:
        counts = np.asarray(weights) * (np.asarray(correct) == wanted)
        return float(np.average(np.asarray(values), weights=counts)) if counts.any() else None

    return mean
