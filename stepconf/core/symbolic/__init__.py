"""Claims inside a step that can be checked without a model: see `check.py`."""

from stepconf.core.symbolic.check import StepCheck, check_steps
from stepconf.core.symbolic.claims import Claim

__all__ = ["Claim", "StepCheck", "check_steps"]
