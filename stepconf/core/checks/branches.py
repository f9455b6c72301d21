"""The laws of branches, and of what a step owes to those before it on its path, checked on the columns of one chunk.

n is the number of steps of the chunk, m of solutions.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from stepconf.core.checks.findings import Findings
from stepconf.core.checks.steps import Grouped, flagged, numbers, one_array, rows_with
from stepconf.core.ids import prefix_ids
from stepconf.core.schema import was_unknown

_HASHED = 200  # solutions of a chunk
_NEVER = np.iinfo(np.int64).max


def check_branches(g: Grouped, found: Findings) -> None:
    """Check the branches of a chunk against their parents, and `prefix_id`, `after_error` and `is_first_error`.

    Prefixes are hashed for `_HASHED` solutions of a chunk, spread evenly over it: to hash them all would take longer
    than all other checks. A damaged value is a matter of checksums; here a writer is found that hashes something else.
    """
    parent, node = _parents(g, found)
    branches = np.flatnonzero(parent >= 0)
    starts = np.concatenate([[0], np.cumsum(g.size)])
    leaves = starts[parent[branches]] + node[branches]  # the row of the parent's step that a branch replaces
    is_end = node[branches] == g.size[parent[branches]]
    _prompts(g, branches, parent[branches], np.where(is_end, -1, leaves), found)
    has_first = ~is_end & (g.size[branches] > 0)
    _prefixes(g, starts, starts[branches[has_first]], leaves[has_first], found)
    _errors(g, starts, parent, node, found)


def _parents(g: Grouped, found: Findings) -> tuple[np.ndarray, np.ndarray]:
    """The row of each solution's parent (m,), -1 for samples and where it is not as it must be; and `branch_step`."""
    solutions = g.solutions
    at = pc.index_in(solutions["parent_solution_id"], value_set=one_array(solutions["solution_id"]))
    parent = numbers(at.fill_null(-1)).astype(np.int64)
    node = numbers(solutions["branch_step"]).astype(np.int64)
    is_branch = numbers(solutions["parent_solution_id"].is_valid())
    wrong = is_branch != numbers(solutions["branch_step"].is_valid())
    wrong |= is_branch & ((parent < 0) | (parent >= np.arange(len(parent))))
    problem = numbers(pc.index_in(solutions["problem_id"], value_set=pc.unique(solutions["problem_id"])))
    if len(parent):
        wrong |= is_branch & ((problem != problem[parent]) | (node < 0) | (node > g.size[parent]))
    found.add_rows("branch-parent", wrong, solutions["solution_id"])
    return np.where(wrong, -1, parent), node


def _prompts(
    g: Grouped, branches: np.ndarray, parents: np.ndarray, leaves: np.ndarray, found: Findings
) -> None:
    """A branch's prompt is its parent's and the parent's tokens before step `leaves` (its row; -1 for the end)."""
    prompts, prompt_at, prompt_size = _flat(g.solutions["prompt_token_ids"])
    tokens, token_at, token_size = _flat(g.solutions["token_ids"])
    step_start = np.append(numbers(g.steps["token_start"]), 0).astype(np.int64)
    kept = np.where(leaves < 0, token_size[parents], step_start[leaves])
    size = prompt_size[branches]
    wrong = (kept < 0) | (kept > token_size[parents]) | (size != prompt_size[parents] + kept)
    ok = ~wrong
    own = prompts[_ranges(prompt_at[branches[ok]], size[ok])]
    sources = np.stack([prompt_at[parents[ok]], len(prompts) + token_at[parents[ok]]], axis=1)
    sizes = np.stack([prompt_size[parents[ok]], kept[ok]], axis=1)
    theirs = np.concatenate([prompts, tokens])[_ranges(sources.ravel(), sizes.ravel())]
    wrong[np.flatnonzero(ok)[rows_with(own != theirs, size[ok])]] = True
    found.add_rows("branch-prompt", flagged(branches[wrong], len(g.solutions)), g.solutions["solution_id"])


def _prefixes(
    g: Grouped, starts: np.ndarray, first: np.ndarray, sibling: np.ndarray, found: Findings
) -> None:
    """`prefix_id`: there where there are tokens, a hash of them, and that of the parent's step for a branch's first.

    `first` and `sibling` are rows of steps.
    """
    given = g.steps["prefix_id"]
    has_tokens = numbers(pc.list_value_length(g.solutions["token_ids"])) > 0
    there = numbers(given.is_valid())
    wrong = there & ~has_tokens[g.code]
    if not was_unknown("steps", "prefix_id", g.steps):
        wrong |= ~there & has_tokens[g.code]
    differ = pc.not_equal(given.take(first), given.take(sibling))
    wrong[first[numbers(differ)]] = True
    for row in range(0, len(g.solutions), max(1, -(-len(g.solutions) // _HASHED))):
        low, high = starts[row], starts[row + 1]
        if there[low:high].any():
            ids = [g.solutions[name][row].as_py() for name in ("prompt_token_ids", "token_ids")]
            ends = np.maximum.accumulate(numbers(g.steps["token_start"][low:high]))
            hashed = prefix_ids(ids[0] + ids[1], (len(ids[0]) + np.clip(ends, 0, len(ids[1]))).tolist())
            said = given[low:high].to_pylist()
            wrong[low:high] |= [one is not None and one != own for one, own in zip(said, hashed, strict=True)]
    found.add_rows("prefix-id", wrong, g.steps["step_id"])


def _errors(g: Grouped, starts: np.ndarray, parent: np.ndarray, node: np.ndarray, found: Findings) -> None:
    """`after_error`: a step before it on its path is labelled incorrect; `is_first_error`: it is, and none before."""
    incorrect = numbers(pc.equal(g.steps["label"], "incorrect"))
    before = np.concatenate([[0], np.cumsum(incorrect)])
    seen = before[:-1] > np.repeat(before[starts[:-1]], g.size)
    error_at = np.full(len(g.size), _NEVER)
    errors = np.flatnonzero(incorrect & ~seen)
    error_at[g.code[errors]] = errors - starts[g.code[errors]]
    late = np.zeros(len(g.size), bool)  # solutions that leave their path after an error
    while len(late):
        known, late = late, (parent >= 0) & (late[parent] | (error_at[parent] < node))
        if (known == late).all():
            break
    seen |= late[g.code]
    ids = g.steps["step_id"]
    found.add_rows("first-error", numbers(g.steps["is_first_error"]) != (incorrect & ~seen), ids)
    found.add_rows("after-error", numbers(g.steps["after_error"]) != seen, ids)


def _flat(lists: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The items of lists (m,) one after the other, where each list begins, and its length."""
    size = numbers(pc.list_value_length(lists)).astype(np.int64)
    return numbers(pc.list_flatten(lists)), np.cumsum(size) - size, size


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers from each start on, as many as its size says, one after the other."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    found: np.ndarray = np.arange(total) + np.repeat(starts - ends + sizes, sizes)
    return found
