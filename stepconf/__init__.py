"""Step-wise confidence datasets for math reasoning. Start reading at `stepconf/pipeline.py`.

>>> import stepconf
>>> stepconf.verify_answer("1/2", "0.5")
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepconf.version import __version__ as __version__

if TYPE_CHECKING:
    from stepconf import metrics, rewards
    from stepconf.api.models import Model, Scored, infer, load_engine, sample, score
    from stepconf.api.runs import Run, generate, load_run, make_pairs, train
    from stepconf.api.text import check_steps, extract_answer, segment, verify_answer


__all__ = [
    "Model",
    "Run",
    "Scored",
    "check_steps",
    "extract_answer",
    "generate",
    "infer",
    "load_engine",
    "load_run",
    "make_pairs",
    "metrics",
    "rewards",
    "sample",
    "score",
    "segment",
    "train",
    "verify_answer",
]
_HOMES = {
    "stepconf.api.models": ("Model", "Scored", "infer", "load_engine", "sample", "score"),
    "stepconf.api.runs": ("Run", "generate", "load_run", "make_pairs", "train"),
    "stepconf.api.text": ("check_steps", "extract_answer", "segment", "verify_answer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name in ("metrics", "rewards"):
        return import_module(f"stepconf.{name}")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'stepconf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
