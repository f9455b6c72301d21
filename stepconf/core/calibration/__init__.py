"""Is confidence honest? Metrics of probabilities and of rankings, signals, post-hoc calibration."""

from stepconf.core.calibration.posthoc import (
    IsotonicFit,
    PlattFit,
    fit_isotonic,
    fit_platt,
    problem_split,
)
from stepconf.core.calibration.ranking import (
    RiskCoverage,
    auprc_errors,
    aurc,
    auroc,
    length_controlled_auroc,
    risk_coverage,
)
from stepconf.core.calibration.reliability import (
    LOG_LOSS_CLIP,
    Binning,
    BrierDecomposition,
    ReliabilityBin,
    brier,
    brier_decomposition,
    ece,
    log_loss,
    mce,
    reliability_bins,
)
from stepconf.core.calibration.separation import EntropyGap, entropy_gap

__all__ = [
    "LOG_LOSS_CLIP",
    "Binning",
    "BrierDecomposition",
    "EntropyGap",
    "IsotonicFit",
    "PlattFit",
    "ReliabilityBin",
    "RiskCoverage",
    "auprc_errors",
    "aurc",
    "auroc",
    "brier",
    "brier_decomposition",
    "ece",
    "entropy_gap",
    "fit_isotonic",
    "fit_platt",
    "length_controlled_auroc",
    "log_loss",
    "mce",
    "problem_split",
    "reliability_bins",
    "risk_coverage",
]
