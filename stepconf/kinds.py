"""What users bring of their own, by `module:name`."""

import sys
from importlib import import_module
from pathlib import Path

from stepconf.core.signals import Signal
from stepconf.errors import StepconfError

_HINT = "Give MODULE:NAME, where NAME is a stepconf.core.signals.Signal; MODULE may be in the current folder."


def signal(name: str) -> Signal:
    """The signal at `module:attribute`. The current folder is where modules are looked for last.

    Raises:
        StepconfError: the module cannot be imported, or has no such attribute, or that is no signal.
    """
    module, _, attribute = name.partition(":")
    path = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        raise StepconfError(f"no signal {name!r}: {type(error).__name__}: {error}", _HINT) from error
    finally:
        sys.path[:] = path
    if not isinstance(found, Signal):
        raise StepconfError(f"{name!r} is no signal but of the type {type(found).__name__}.", _HINT)
    return found
