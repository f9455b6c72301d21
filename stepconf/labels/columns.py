"""`core.labels` over the columns of a chunk: the rules see each different case once, not each step.

What a step is labelled depends on what was said of it, whether it is the last, and whether an error came before.
A run of millions of steps has a few hundred such cases.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.labels import TAKEN_BACK, answer_by, label_step
from stepconf.core.reasoning import takes_itself_back
from stepconf.core.records import Verdict


class Labelled(NamedTuple):
    """A chunk's tables with their labels, and which of them (`solutions`, `steps`) are not as they were."""

    solutions: Any
    steps: Any
    changed: tuple[str, ...]


def label_chunk(solutions: Any, steps: Any, policy: str) -> Labelled:
    """Label the steps of a chunk by `policy`, and its solutions' answers by what `final` said.

    Args:
        solutions: rows of `solutions`, an Arrow table.
        steps: all their rows of `steps`; those of a solution in order.
        policy: one of `core.labels.POLICIES`.
    """
    owner = steps["solution_id"].combine_chunks().dictionary_encode()
    code = owner.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    code = code[order]
    case, said = _cases(steps["verdicts"].combine_chunks())
    is_taken_back = _taken_back(code, steps.take(pa.array(order)))
    late = np.zeros(len(owner.dictionary), bool)  # branches that leave after an error
    parents, nodes = _parents(solutions, owner.dictionary)
    while True:
        labels, sources, first, after = _label_steps(code, case[order], said, policy, late, is_taken_back)
        known, late = late, _late(code, first, late, parents, nodes)
        if (known == late).all():
            break
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    columns = {"label": labels, "label_source": sources, "is_first_error": pa.array(first)}
    columns["after_error"] = pa.array(after)
    new_steps = _with(steps, {name: column.take(pa.array(back)) for name, column in columns.items()})
    ends = np.append(np.flatnonzero(np.diff(code)), len(code) - 1) if len(code) else np.zeros(0, np.int64)
    answers = pa.array([answer_by(verdicts) for verdicts in said], pa.bool_())
    of_owner = answers.take(pa.array(case[order][ends]))
    row = pc.index_in(solutions["solution_id"], value_set=owner.dictionary)  # null: without steps
    new_solutions = _with(solutions, {"answer_correct": of_owner.take(row)})
    changed = [
        name
        for name, old, new in (("solutions", solutions, new_solutions), ("steps", steps, new_steps))
        if not new.equals(old)
    ]
    return Labelled(new_solutions, new_steps, tuple(changed))


def _cases(verdicts: Any) -> tuple[np.ndarray, list[list[Verdict]]]:
    """Which case each row (n,) is, and the verdicts of each case."""
    bounds = verdicts.offsets.to_numpy()
    starts, sizes = bounds[:-1], np.diff(bounds)
    spoken = [verdicts.values.field(name).dictionary_encode() for name in ("verifier", "label")]
    n_labels = max(len(spoken[1].dictionary), 1)
    words = spoken[0].indices.to_numpy().astype(np.int64) * n_labels + spoken[1].indices.to_numpy() + 1
    case = np.zeros(len(verdicts), np.int64)
    first = np.zeros(min(len(case), 1), np.int64)
    for place in range(sizes.max(initial=0)):
        word = np.zeros_like(case)
        there = sizes > place
        word[there] = words[starts[there] + place]
        # Numbered again at every place, so that nothing overflows.
        _, first, case = np.unique(case * (words.max() + 1) + word, return_index=True, return_inverse=True)
    rows = verdicts.take(pa.array(first)).to_pylist()
    return case, [[Verdict(**verdict) for verdict in row] for row in rows]


def _label_steps(
    code: np.ndarray,
    case: np.ndarray,
    said: list[list[Verdict]],
    policy: str,
    late: np.ndarray,
    is_taken_back: np.ndarray,
) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Labels, sources, first errors and what comes after them, of steps (n,) in the order of their solutions.

    late (m,): solutions whose every step comes after an error. is_taken_back (n,): their errors are none.
    """
    is_last = np.append(code[1:] != code[:-1], True)[: len(code)]
    rules = {
        (last, seen): [label_step(verdicts, policy, last, seen) for verdicts in said]
        for last in (False, True)
        for seen in (False, True)
    }
    wrong = {key: np.array([label == "incorrect" for label, _ in row], bool) for key, row in rules.items()}
    # Up to and with the first error of a solution, its steps are labelled as if there were none before.
    at_first = np.where(is_last, wrong[True, False][case], wrong[False, False][case]) & ~is_taken_back
    before = np.cumsum(at_first) - at_first
    starts = np.flatnonzero(np.append(True, code[1:] != code[:-1])[: len(code)])
    seen = before > np.repeat(before[starts], np.diff(np.append(starts, len(code))))
    seen |= late[code]
    texts = [pa.array([row[i] for part in rules.values() for row in part], pa.string()) for i in (0, 1)]
    chosen = pa.array((is_last * 2 + seen) * len(said) + case)
    labels, sources = texts[0].take(chosen), texts[1].take(chosen)
    if is_taken_back.any():
        no_error = pc.and_(pc.equal(labels, "incorrect"), pa.array(is_taken_back))
        labels, sources = pc.if_else(no_error, "unknown", labels), pc.if_else(no_error, TAKEN_BACK, sources)
    return labels, sources, at_first & ~seen, seen


def _taken_back(code: np.ndarray, steps: Any) -> np.ndarray:
    """`core.labels.taken_back` of steps (n,) in the order of their solutions."""
    reasons = pc.equal(steps["part"], "reasoning").to_numpy()
    reconsiders = reasons & steps["is_reconsidering"].to_numpy()
    if not reconsiders.any():
        return np.zeros(len(code), bool)
    is_last = np.append(code[1:] != code[:-1], True)
    ends = np.flatnonzero(is_last)
    so_far = np.cumsum(reconsiders)
    later = so_far < np.repeat(so_far[ends], np.diff(np.append(-1, ends)))
    at = np.flatnonzero(reconsiders & ~later)
    own = np.zeros(len(code), bool)
    own[at] = [takes_itself_back(text) for text in steps["text"].take(pa.array(at)).to_pylist()]
    found: np.ndarray = reasons & ~is_last & (later | own)
    return found


def _parents(solutions: Any, ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of each solution in `ids` (m,): the place of its parent there, -1 for none, and the step where it leaves it."""
    rows = pc.index_in(ids, value_set=solutions["solution_id"])
    parents = pc.index_in(solutions["parent_solution_id"], value_set=ids).take(rows)
    nodes = solutions["branch_step"].take(rows)
    return tuple(pc.fill_null(column, -1).to_numpy() for column in (parents, nodes))


def _late(
    code: np.ndarray, first: np.ndarray, late: np.ndarray, parents: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """Which solutions (m,) leave their parent after an error; `first` (n,) marks the steps that are first errors."""
    starts = np.flatnonzero(np.append(True, code[1:] != code[:-1])[: len(code)])
    error_at = np.full(len(late), np.iinfo(np.int64).max)
    errors = np.flatnonzero(first)
    error_at[code[errors]] = errors - starts[code[errors]]
    found: np.ndarray = (parents >= 0) & (late[parents] | (error_at[parents] < nodes))
    return found


def _with(table: Any, columns: dict[str, Any]) -> Any:
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), values)
    return table
