"""What can be had in kinds: one table each of those that come with stepconf, by name.

Wherever a name is taken, `module:name` stands for one's own: an object of the kind's record, or, for a verifier, a
function. The current folder is searched for the module, after everything that is installed.

    kind              record                            taken by
    verifier          verifiers.base.Verifier           --verify
    pair strategy     core.pairs.frames.PairStrategy    pairs --strategy
    strategy          inference.base.Strategy           infer, evaluate, serve --strategy
    engine            engines.base.EngineClass          --engine
    signal            core.signals.Signal               calibrate --signal
"""

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stepconf.errors import StepconfError

_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing, and the table of those that come with stepconf.

    Args:
        what: how messages call it.
        record: what every one of them is, as `module:name`.
        built_in: name -> `module:name` of its record.
        wrap: `module:name` of what makes a record of `(name, function)`; none where a function is not enough.
    """

    what: str
    record: str
    built_in: Mapping[str, str]
    wrap: str = ""

    def check(self, name: str) -> None:
        """Without importing anything, raise StepconfError where `name` is neither in the table nor `module:name`."""
        if name not in self.built_in and not is_own(name):
            choice = f"Choose from: {', '.join(self.built_in)}; or" if self.built_in else "Give"
            raise StepconfError(f"unknown {self.what} {name!r}.", f"{choice} module:name, one of your own.")

    def load(self, name: str) -> Any:
        """The record of that name.

        Raises:
            StepconfError: there is none, its module cannot be imported, or it is something else.
        """
        self.check(name)
        found = _imported(self.built_in.get(name, name), self.what)
        record = _imported(self.record, self.what)
        if isinstance(found, record):
            return found
        if self.wrap and callable(found) and not isinstance(found, type):
            return _imported(self.wrap, self.what)(name, found)
        raise StepconfError(
            f"{name} is of type {type(found).__name__}, and no {self.what}.",
            f"Make it a {self.record.replace(':', '.')}{', or a function' if self.wrap else ''}.",
        )


VERIFIERS = Kind(
    "verifier",
    "stepconf.verifiers.base:Verifier",
    {
        "final": "stepconf.verifiers.final:FINAL",
        "symbolic": "stepconf.verifiers.symbolic:SYMBOLIC",
        "critic": "stepconf.stages.model_verifiers:CRITIC",
        "rollout": "stepconf.verifiers.base:ROLLOUT",
        "prm": "stepconf.stages.model_verifiers:PRM",
    },
    wrap="stepconf.verifiers.function:verifier_of",
)
PAIR_STRATEGIES = Kind(
    "pair strategy",
    "stepconf.core.pairs.frames:PairStrategy",
    {
        "caspo": "stepconf.core.pairs.steps:CASPO",
        "step-dpo": "stepconf.core.pairs.steps:STEP_DPO",
        "rstar": "stepconf.core.pairs.outcomes:RSTAR",
        "cgpo": "stepconf.core.pairs.outcomes:CGPO",
        "dpo-vp": "stepconf.core.pairs.solutions:DPO_VP",
        "pcpo": "stepconf.core.pairs.solutions:PCPO",
    },
)
STRATEGIES = Kind(
    "strategy",
    "stepconf.inference.base:Strategy",
    {
        "greedy": "stepconf.inference.whole:GREEDY",
        "cot": "stepconf.inference.whole:COT",
        "self-consistency": "stepconf.inference.whole:SELF_CONSISTENCY",
        "dipt": "stepconf.inference.whole:DIPT",
        "best-of-n": "stepconf.inference.whole:BEST_OF_N",
        "deepconf": "stepconf.inference.whole:DEEPCONF",
        "cisc": "stepconf.inference.whole:CISC",
        "adaptive": "stepconf.inference.whole:ADAPTIVE",
        "adaptive-k": "stepconf.inference.whole:ADAPTIVE_K",
        "esc": "stepconf.inference.whole:ESC",
        "cges": "stepconf.inference.whole:CGES",
        "gate": "stepconf.inference.whole:GATE",
        "beam": "stepconf.inference.tree:BEAM",
        "cat": "stepconf.inference.tree:CAT",
        "particle": "stepconf.inference.paths:PARTICLE",
        "deepconf-online": "stepconf.inference.paths:DEEPCONF_ONLINE",
    },
)
ENGINES = Kind(
    "engine",
    "stepconf.engines.base:EngineClass",
    {
        "vllm": "stepconf.engines.classes:VLLM",
        "transformers": "stepconf.engines.classes:TRANSFORMERS",
    },
)
# All that come with stepconf are computed everywhere (core.signals.SIGNALS): no name of theirs is ever taken.
SIGNALS = Kind("signal", "stepconf.core.signals:Signal", {})
KINDS = (VERIFIERS, PAIR_STRATEGIES, STRATEGIES, ENGINES, SIGNALS)


def check_own(kind: Kind, names: Iterable[str]) -> None:
    """Load those of one's own: what is wrong with them is said before hours of sampling, not after.

    Raises:
        StepconfError: as `Kind.load`.
    """
    for name in filter(is_own, names):
        kind.load(name)


def is_own(name: str) -> bool:
    """Whether a name has the form `module:name`, so that loading it runs code of that module."""
    return _OWN.fullmatch(name) is not None


@cache
def _imported(place: str, what: str) -> Any:
    module, _, attribute = place.partition(":")
    here = str(Path.cwd())
    if not module.startswith("stepconf.") and here not in sys.path:
        sys.path.append(here)  # last: its files must not stand in the way of what is installed
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a module of one's own may raise anything as it is imported
        raise StepconfError(
            f"the {what} {place} cannot be imported: {type(error).__name__}: {error}",
            f"Type: python -c 'import {module}' in the folder that holds it, or install its package.",
        ) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise StepconfError(
            f"there is no {attribute!r} in {module} ({found.__file__}).", f"Give module:name of a {what}."
        ) from error
