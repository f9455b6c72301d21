"""`core.noise` over the tables of a chunk: labels are flipped, and errors are looked for again."""

from functools import cache
from typing import Any

import pyarrow as pa

from stepconf.core.noise import Noise, noised


def with_noise(solutions: Any, steps: Any, noise: Noise) -> Any:
    """The rows of `steps` (an Arrow table) with noise in their labels; first errors and what follows them as they
    are then.

    Args:
        solutions: rows of `solutions`, an Arrow table; those that branches leave are among them.
        steps: all their rows of `steps`.
        noise: which labels are flipped.
    """
    names = ("solution_id", "step_index", "step_id", "label", "label_source")
    owners, indices, ids, labels, sources = (steps[name].to_pylist() for name in names)
    new = [noised(*row, noise) for row in zip(labels, sources, ids, strict=True)]
    first: dict[str, int] = {}
    for owner, index, (label, _) in zip(owners, indices, new, strict=True):
        if label == "incorrect":
            first[owner] = min(index, first.get(owner, index))
    is_late = _late(solutions, first)
    place = [
        (owner, index - first[owner] if owner in first else -1)
        for owner, index in zip(owners, indices, strict=True)
    ]
    columns = {
        "label": [label for label, _ in new],
        "label_source": [source for _, source in new],
        "is_first_error": [distance == 0 and not is_late(owner) for owner, distance in place],
        "after_error": [distance > 0 or is_late(owner) for owner, distance in place],
    }
    for name, values in columns.items():
        at = steps.schema.get_field_index(name)
        field = steps.schema.field(at)
        steps = steps.set_column(at, field, pa.array(values, field.type))
    return steps


def _late(solutions: Any, first: dict[str, int]) -> Any:
    """Whether a solution leaves another one after an error; `first`: by solution, its first wrong step."""
    names = ("solution_id", "parent_solution_id", "branch_step")
    rows = zip(*(solutions[name].to_pylist() for name in names), strict=True)
    left = {one: (parent, step) for one, parent, step in rows if parent is not None}

    @cache
    def is_late(solution: str) -> bool:
        if solution not in left:
            return False
        parent, step = left[solution]
        return is_late(parent) or first.get(parent, step) < step

    return is_late
