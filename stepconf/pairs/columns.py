"""From the shards of a run to the arrays that step pairs are chosen by: no object per step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.pairs.columns import CORRECT, INCORRECT, UNKNOWN, Steps
from stepconf.core.pairs.steps import put_right
from stepconf.pairs.tokens import Tokens, mixed, one, read_tokens, step_hashes
from stepconf.pairs.traces import last_parts
from stepconf.run.parts import Part
from stepconf.run.tables import read_part

SOLUTION_COLUMNS = ["solution_id", "problem_id", "problem", "text", "finish_reason", "answer_correct"]
SOLUTION_COLUMNS += ["model", "prompt_token_ids", "token_ids"]
STEP_COLUMNS = ["solution_id", "step_index", "n_steps", "text", "char_start", "token_start", "token_end"]
STEP_COLUMNS += ["logprob_sum", "confidence", "label"]
_REFERENCES = "verdicts.list.element.reference"
_BLANK = ord(" ")
# White space within a text that is not a blank: control characters, and whatever is not ASCII might be.
_ODD_BYTES = np.array([byte > 127 or (chr(byte).isspace() and byte != _BLANK) for byte in range(256)])


class WholePart(NamedTuple):
    """A part of the run, of which pairs are made.

    `tables`: all solutions of the problems that end in it, and their steps; None where those are the part's own.
    """

    own: Part
    tables: tuple[Any, Any] | None


def whole_parts(run: Path, parts: list[Part]) -> Iterator[WholePart]:
    """Whole problems of all parts of a run, part by part.

    Where solutions were imported, those of one problem may lie in several parts: they are held until the last.
    """
    last, torn = last_parts(run, parts)
    held: list[tuple[Any, Any]] = []
    for index, part in enumerate(parts):
        if index not in torn:
            yield WholePart(part, None)
            continue
        tables = zip(*held, read_columns(run, part), strict=True)
        # Other writers let items of lists be missing, and their shards may lie beside ours.
        solutions, steps = (pa.concat_tables(own, promote_options="default") for own in tables)
        problems = one(solutions["problem_id"]).dictionary_encode()
        ends = np.array([last[problem] == index for problem in problems.dictionary.to_pylist()], bool)
        ended = pa.array(ends[problems.indices.to_numpy()])
        held = [_of_solutions(solutions.filter(pc.invert(ended)), steps)]
        yield WholePart(part, _of_solutions(solutions.filter(ended), steps))


def read_columns(run: Path, part: Part) -> tuple[Any, Any]:
    """What pairs are made from, of a part's solutions and of their steps."""
    return read_part(run, part, SOLUTION_COLUMNS, [*STEP_COLUMNS, _REFERENCES])


def _of_solutions(solutions: Any, steps: Any) -> tuple[Any, Any]:
    return solutions, steps.filter(pc.is_in(steps["solution_id"], solutions["solution_id"]))


def in_order(solutions: Any, steps: Any) -> tuple[Any, Any, Any]:
    """Solutions problem by problem, their steps in the same order, and the row of each step's solution."""
    problem = one(solutions["problem_id"]).dictionary_encode().indices.to_numpy()
    if (problem[1:] < problem[:-1]).any():
        solutions = solutions.take(pa.array(np.argsort(problem, kind="stable")))
    owner = _owners(solutions, steps)
    if (owner[1:] < owner[:-1]).any():
        order = np.argsort(owner, kind="stable")
        steps, owner = steps.take(pa.array(order)), owner[order]
    return solutions, steps, owner


def _owners(solutions: Any, steps: Any) -> Any:
    ids, of_steps = one(solutions["solution_id"]), one(steps["solution_id"])
    begun = np.cumsum(numbers(steps["step_index"]) == 0)
    if len(begun) and begun[0] and begun[-1] <= len(ids) and ids.take(pa.array(begun - 1)).equals(of_steps):
        return begun - 1  # as they nearly always lie; to look each up takes three times as long
    return pc.index_in(of_steps, value_set=ids).to_numpy().astype(np.int64)


class Read(NamedTuple):
    """What is known of the steps (n,) of a part, in order.

    `owner`: the row of each step's solution. `start`, `size`: its tokens in its solution, none where it has no
    scores. `prefix`, `content`: hashes of the tokens before it and its own. `put_right`: by row, an incorrect step as
    a critic wants it. `tokens`, `problems`: those of the solutions (m,).
    """

    steps: Steps
    owner: Any
    start: Any
    size: Any
    prefix: Any
    content: Any
    put_right: dict[int, str]
    tokens: Tokens
    problems: Any


def read_steps(solutions: Any, steps: Any, owner: Any) -> Read:
    """The arrays of tables that are `in_order`."""
    start, end = numbers(steps["token_start"]), numbers(steps["token_end"])
    tokens = read_tokens(solutions)
    prefix, content = step_hashes(tokens, owner, start, end)
    problems = one(solutions["problem_id"]).dictionary_encode()
    problem = mixed(problems.indices.to_numpy().astype(np.uint64))
    _, group = np.unique(prefix ^ problem[owner], return_inverse=True)
    logprob = floats(steps["logprob_sum"])
    has_tokens = ~np.isnan(logprob) & (end > start)
    size = np.where(has_tokens, end - start, 0)
    label = _labels(one(steps["label"]))
    after_error = _seen_before(label == INCORRECT, owner)
    corrected = _put_right(steps, label == INCORRECT)
    referenced = np.zeros(len(owner), bool)
    referenced[list(corrected)] = True
    right = one(solutions["answer_correct"]).fill_null(False).to_numpy(zero_copy_only=False)
    arrays = Steps(
        group=group,
        text=_reading(steps["text"], group, content, label == CORRECT),
        has_tokens=has_tokens,
        label=label,
        confidence=floats(steps["confidence"]),
        mean_logprob=np.where(has_tokens, logprob / np.maximum(size, 1), -np.inf),
        tie=_ranks(one(solutions["solution_id"]))[owner],
        after_error=after_error,
        is_first_error=(label == INCORRECT) & ~after_error,
        reaches=right[owner],
        referenced=referenced,
    )
    return Read(arrays, owner, start, size, prefix, content, corrected, tokens, problems)


def _labels(texts: Any) -> Any:
    correct, incorrect = (
        pc.equal(texts, text).to_numpy(zero_copy_only=False) for text in ("correct", "incorrect")
    )
    return np.where(correct, CORRECT, np.where(incorrect, INCORRECT, UNKNOWN))


def _ranks(ids: Any) -> Any:
    """The place of each id among all; where they differ in their first 8 bytes, as hashes do, by these as numbers."""
    data = pc.binary_slice(ids.cast(pa.binary()), 0, 8)
    if len(ids) and pc.min(pc.binary_length(data)).as_py() == 8:
        heads = np.frombuffer(data.buffers()[2], ">u8")[: len(ids)].astype(np.uint64)
        order = np.argsort(heads)
        if (heads[order][1:] != heads[order][:-1]).all():
            ranks = np.empty(len(ids), np.int64)
            ranks[order] = np.arange(len(ids))
            return ranks
    return pc.rank(ids).to_numpy().astype(np.int64)


def _seen_before(flags: Any, owner: Any) -> Any:
    """Whether a step before it, of the same solution, is flagged."""
    before = np.cumsum(flags) - flags
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    return before > np.repeat(before[first], np.diff(np.append(first, len(owner))))


def _reading(texts: Any, group: Any, content: Any, correct: Any) -> Any:
    """A number for how each step reads, white space apart.

    0 in groups without a pair: those whose steps are all the same tokens, all correct, or none of them.
    """
    length = pc.binary_length(one(texts)).to_numpy().astype(np.uint64)
    which = content ^ mixed(length)  # the same tokens may be cut at another character
    rows = np.flatnonzero(_differs(which, group) & _differs(correct, group))
    reading = np.zeros(len(group), np.int64)
    told = one(texts).take(pa.array(rows)).dictionary_encode()
    words = _without_spaces(told.dictionary).dictionary_encode()
    reading[rows] = words.indices.to_numpy()[told.indices.to_numpy()]
    return reading


def _without_spaces(texts: Any) -> Any:
    """Texts as `" ".join(text.split())` leaves them; Python is asked only where blanks stand otherwise within."""
    trimmed = pc.ascii_trim_whitespace(texts)
    ends = np.cumsum(pc.binary_length(trimmed).to_numpy())
    data = np.frombuffer(trimmed.buffers()[2] or b"", np.uint8)[: int(ends.max(initial=0))]
    odd = _ODD_BYTES[data]
    odd[:-1] |= (data[:-1] == _BLANK) & (data[1:] == _BLANK)
    rows = np.unique(np.searchsorted(ends, np.flatnonzero(odd), side="right"))
    if not len(rows):
        return trimmed
    mended = [" ".join(text.split()) for text in trimmed.take(pa.array(rows)).to_pylist()]
    mask = np.zeros(len(trimmed), bool)
    mask[rows] = True
    return pc.replace_with_mask(trimmed, pa.array(mask), pa.array(mended, trimmed.type))


def _differs(values: Any, group: Any) -> Any:
    """Whether the values of each one's group are not all the same."""
    of_group = np.zeros(int(group.max(initial=-1)) + 1, values.dtype)
    of_group[group] = values
    differs = np.zeros(len(of_group), bool)
    differs[group[values != of_group[group]]] = True
    return differs[group]


def _put_right(steps: Any, incorrect: Any) -> dict[int, str]:
    verdicts = one(steps["verdicts"])
    references = verdicts.values.field("reference")
    if references.null_count == len(references):
        return {}
    bounds, texts = verdicts.offsets.to_pylist(), steps["text"]
    found = {}
    for row in np.flatnonzero(incorrect).tolist():
        own = [one for one in references[bounds[row] : bounds[row + 1]].to_pylist() if one]
        corrected = put_right(texts[row].as_py(), own) if own else None
        if corrected is not None:
            found[row] = corrected
    return found


def numbers(column: Any) -> Any:
    """Integers without nulls, as int64."""
    return one(column).to_numpy(zero_copy_only=False).astype(np.int64)


def floats(column: Any) -> Any:
    """Numbers as float64, NaN where there is none."""
    return one(column).to_numpy(zero_copy_only=False).astype(np.float64)
