"""A branch with what comes before it: pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stepconf.core.records import Solution, Solved


def whole_paths(solved: Sequence[Solved]) -> list[Solved]:
    """Each solution as a verifier must see it: a branch with the text and steps of its path before its own.

    A branch's own steps are the last ones of its path. A solution whose parent is not among those before it stays
    as it is.
    """
    paths: dict[str, Solved] = {}
    own: dict[str, int] = {}  # steps
    for one in solved:
        parent = paths.get(one.solution.parent_solution_id or "")
        path = one if parent is None else _extended(parent, own[parent.solution.solution_id], one)
        paths[one.solution.solution_id], own[one.solution.solution_id] = path, len(one.steps)
    return list(paths.values())


def first_steps(solutions: Iterable[tuple[str, str | None, int | None]]) -> dict[str, int]:
    """By solution, the index of its first own step on its whole path: 0 for samples.

    Args:
        solutions: id, id of the parent and `branch_step` of each; a parent comes before its branches.
    """
    found: dict[str, int] = {}
    for solution, parent, branch_step in solutions:
        found[solution] = found.get(parent or "", 0) + (branch_step or 0)
    return found


def families(solved: Iterable[Solved]) -> Iterator[list[Solved]]:
    """Each sample with its branches, which come after it."""
    family: list[Solved] = []
    for one in solved:
        if family and one.solution.parent_solution_id is None:
            yield family
            family = []
        family.append(one)
    if family:
        yield family


def _extended(parent: Solved, n_own: int, branch: Solved) -> Solved:
    """The path of `branch`, from that of its parent, of which the last `n_own` steps are the parent's own."""
    kept = parent.steps[: len(parent.steps) - n_own + (branch.solution.branch_step or 0)]
    before = "".join(step.text for step in kept)
    n_steps = len(kept) + len(branch.steps)
    steps = [replace(step, n_steps=n_steps) for step in kept]
    for index, step in enumerate(branch.steps, len(kept)):
        start, end = (len(before) + at for at in (step.char_start, step.char_end))
        steps.append(replace(step, step_index=index, n_steps=n_steps, char_start=start, char_end=end))
    return Solved(replace(on_path(parent.solution, before, branch.solution), n_steps=n_steps), steps)


def on_path(parent: Solution, before: str, branch: Solution) -> Solution:
    """A branch with the text of its path, and the thinking in it.

    Args:
        parent: with the text of its own path.
        before: what the branch keeps of that.
        branch: with its own text alone.
    """
    at = len(before)
    start, end = parent.reasoning_start, parent.reasoning_end
    if branch.reasoning_start is not None and branch.reasoning_end is not None:
        start = start if start is not None and start < at else at + branch.reasoning_start
        end = at + branch.reasoning_end
    elif end is not None and end > at:
        start = end = None
    return replace(branch, text=before + branch.text, reasoning_start=start, reasoning_end=end)
