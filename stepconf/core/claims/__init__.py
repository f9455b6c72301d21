"""Claims inside a step that can be checked without a model: see `check.py`."""

from stepconf.core.claims.check import StepCheck, check_steps
from stepconf.core.claims.claims import Claim

__all__ = ["Claim", "StepCheck", "check_steps"]
