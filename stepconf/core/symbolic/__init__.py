"""Claims inside a step that can be checked without a model: see `check.py`."""

from stepconf.core.symbolic.check import Claim, StepCheck, check_steps

__all__ = ["Claim", "StepCheck", "check_steps"]
