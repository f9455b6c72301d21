"""Is a confidence honest? Metrics of `confidence` in [0, 1] against `correct`, and intervals over problems.

>>> from stepconf import metrics
>>> round(metrics.ece([0.9, 0.9, 0.1, 0.1], [True, True, False, False]), 3)
0.1
"""

from stepconf.core.bootstrap import Interval, cluster_bootstrap
from stepconf.core.calibration import (
    aurc,
    auroc,
    brier,
    ece,
    fit_isotonic,
    fit_platt,
    length_controlled_auroc,
    problem_split,
    reliability_bins,
)

__all__ = [
    "Interval",
    "aurc",
    "auroc",
    "brier",
    "cluster_bootstrap",
    "ece",
    "fit_isotonic",
    "fit_platt",
    "length_controlled_auroc",
    "problem_split",
    "reliability_bins",
]
