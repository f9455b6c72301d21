"""What each kind of thing promises, as checks that one's own can be put to.

    python -m stepconf.contracts my_lab.checks:units

In a test: `assert not broken("my_lab.checks:units")`.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import NamedTuple

from stepconf.errors import StepconfError
from stepconf.kinds import (
    ENGINES,
    KINDS,
    OBJECTIVES,
    PAIR_STRATEGIES,
    SIGNALS,
    STRATEGIES,
    VERIFIERS,
    Kind,
    is_own,
)

_CHECKS = {
    VERIFIERS.what: "stepconf.contracts.verifiers",
    PAIR_STRATEGIES.what: "stepconf.contracts.pairs",
    STRATEGIES.what: "stepconf.contracts.strategies",
    ENGINES.what: "stepconf.contracts.engines",
    SIGNALS.what: "stepconf.contracts.signals",
    OBJECTIVES.what: "stepconf.contracts.objectives",
}


class Promise(NamedTuple):
    """One thing that is promised; `check` raises AssertionError, or whatever the checked code raises."""

    says: str
    check: Callable[[], None]


class Kept(NamedTuple):
    """A promise, and how it is broken; "" where it is kept."""

    says: str
    fault: str


def expect(kept: bool, fault: str) -> None:
    """Raise AssertionError with the fault where a promise is not kept, also under `python -O`."""
    if not kept:
        raise AssertionError(fault)


def checked(name: str, model: str = "demo") -> Iterator[Kept]:
    """The promises of what has that name, in order, each with its fault.

    Args:
        name: of the tables in `kinds`, or `module:name`.
        model: with which an engine is opened.

    Raises:
        StepconfError: nothing has that name, or it cannot be opened.
    """
    kind = kind_of(name)
    promises: Iterable[Promise] = import_module(_CHECKS[kind.what]).promises(name, model)
    for says, check in promises:
        try:
            check()
        except AssertionError as error:
            yield Kept(says, str(error) or "it does not")
        except Exception as error:  # noqa: BLE001  it is another's code that is checked
            yield Kept(says, f"it raises {type(error).__name__}: {error}")
        else:
            yield Kept(says, "")


def broken(name: str, model: str = "demo") -> list[str]:
    """The promises that are not kept, each with its fault; raises as `checked`."""
    return [f"{one.says}: {one.fault}" for one in checked(name, model) if one.fault]


def kind_of(name: str) -> Kind:
    """The kind of what has that name.

    Raises:
        StepconfError: it is of none.
    """
    for kind in KINDS:
        if name in kind.built_in:
            return kind
    if not is_own(name):
        raise StepconfError(f"nothing is called {name!r}.", "Give module:name, one of your own.")
    refusals = []
    for kind in reversed(KINDS):  # a plain function is a verifier: that is asked last
        try:
            kind.load(name)
        except StepconfError as error:
            refusals.append(error)
        else:
            return kind
    if " is of type " in refusals[-1].problem:
        records = ", ".join(kind.record.replace(":", ".") for kind in KINDS)
        raise StepconfError(f"{name} is of no kind.", f"Make it one of: {records}; or a function.")
    raise refusals[-1]
