"""The strategies by name. One of your own is a function of `frames.Frames` and `frames.Rules`, and a line here."""

from stepconf.core.pairs.frames import Strategy
from stepconf.core.pairs.outcomes import cgpo, rstar
from stepconf.core.pairs.solutions import dpo_vp, pcpo
from stepconf.core.pairs.steps import caspo, step_dpo

STRATEGIES: dict[str, Strategy] = {
    "caspo": caspo,
    "step-dpo": step_dpo,
    "rstar": rstar,
    "cgpo": cgpo,
    "dpo-vp": dpo_vp,
    "pcpo": pcpo,
}
