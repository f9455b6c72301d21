"""Step-wise confidence datasets for math reasoning. Start reading at `stepconf/pipeline.py`.

>>> import stepconf
>>> stepconf.verify_answer("1/2", "0.5")
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepconf import metrics, rewards
    from stepconf.api import Run, check_steps, extract_answer, load_run, segment, verify_answer

__version__ = "0.1.0"
__all__ = [
    "Run",
    "check_steps",
    "extract_answer",
    "load_run",
    "metrics",
    "rewards",
    "segment",
    "verify_answer",
]
_MODULES = ("metrics", "rewards")


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name in _MODULES:
        return import_module(f"stepconf.{name}")
    if name in __all__:
        return getattr(import_module("stepconf.api"), name)
    raise AttributeError(f"module 'stepconf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
