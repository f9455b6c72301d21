"""Which problems the explorer lists. A problem is listed if one of its steps meets every condition at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stepconf.errors import StepconfError
from stepconf.report.index import KINDS, LABELS, Bools, Index, Ints


@dataclass(frozen=True)
class Filter:
    """The conditions on a step; an empty one holds for all. `low` and `high` bound its mean entropy in nats."""

    text: str = ""
    label: str = ""
    conflict: bool = False
    low: float | None = None
    high: float | None = None
    kind: str = ""


def parse_filter(query: Mapping[str, str]) -> Filter:
    """The filter in the page's words.

    Raises:
        StepconfError: a value that no control of the page can have.
    """
    label, kind = query.get("label", ""), query.get("kind", "")
    if (label and label not in LABELS) or (kind and kind not in KINDS):
        raise StepconfError(f"there is no label {label!r} or no kind of pairs {kind!r}.")
    return Filter(
        text=query.get("q", ""),
        label=label,
        conflict=query.get("conflict") == "1",
        low=_number(query.get("low")),
        high=_number(query.get("high")),
        kind=kind,
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise StepconfError(f"{text!r} is not a number of nats.") from error


def matching_steps(index: Index, wanted: Filter, hits: Bools | None) -> Bools:
    """Which steps meet the conditions; `hits` are those that have the text."""
    found = index.problem >= 0
    if wanted.text and hits is not None:
        found &= hits
    if wanted.label:
        found &= index.label == LABELS.index(wanted.label)
    if wanted.conflict:
        found &= index.conflict
    if wanted.low is not None:
        found &= index.entropy >= wanted.low  # NaN: no entropy, no match
    if wanted.high is not None:
        found &= index.entropy <= wanted.high
    if wanted.kind:
        found &= (index.kinds >> KINDS.index(wanted.kind) & 1).astype(bool)
    return found


def matching_problems(index: Index, wanted: Filter, hits: Bools | None) -> Ints:
    """The problems with such a step, in order."""
    if wanted == Filter():
        return np.arange(len(index.problem_ids))
    return np.unique(index.problem[matching_steps(index, wanted, hits)])
