"""Is confidence honest? Metrics of probabilities, of rankings, and post-hoc calibration, on numpy arrays."""

from stepconf.core.calibration.ranking import (
    RiskCoverage,
    auprc_errors,
    aurc,
    auroc,
    length_controlled_auroc,
    risk_coverage,
)

__all__ = [
    "RiskCoverage",
    "auprc_errors",
    "aurc",
    "auroc",
    "length_controlled_auroc",
    "risk_coverage",
]
