"""From the shards of a run to the arrays that step pairs are chosen by: no object per step.

Token sequences are compared by hashes of 64 bits: the sum over tokens of a number for the token times an odd one for
its position, so that what stands before a step, and the step itself, are differences of running sums.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.pairs.columns import CORRECT, INCORRECT, Steps
from stepconf.core.pairs.steps import put_right
from stepconf.core.records import Label
from stepconf.pairs.traces import last_parts
from stepconf.run.parts import Part
from stepconf.run.tables import all_parts, read_part

SOLUTION_COLUMNS = ["solution_id", "problem_id", "problem", "text", "finish_reason", "answer_correct"]
SOLUTION_COLUMNS += ["model", "prompt_token_ids", "token_ids"]
STEP_COLUMNS = ["solution_id", "step_index", "n_steps", "text", "char_start", "token_start", "token_end"]
STEP_COLUMNS += ["logprob_sum", "confidence", "label"]
_REFERENCES = "verdicts.list.element.reference"
_LABELS: tuple[Label, ...] = ("correct", "incorrect", "unknown")
_SPACE = r"[\s\x1c-\x1f]"  # where Python's str.split() divides
# All that is not a single blank: to replace those too by what they are would take five times as long.
_SPACES = rf"{_SPACE}{{2,}}|[{_SPACE}--[ ]]"
_CACHED = 1 << 15  # numbers at a time: what a core's cache holds
_SPREAD, _ODD = np.uint64(0xBF58476D1CE4E5B9), np.uint64(1)


class WholePart(NamedTuple):
    """A part of the run, of which pairs are made.

    `tables`: all solutions of the problems that end in it, and their steps; None where those are the part's own.
    """

    own: Part
    tables: tuple[Any, Any] | None


def whole_parts(run: Path) -> Iterator[WholePart]:
    """Whole problems, part by part.

    Where solutions were imported, those of one problem may lie in several parts: they are held until the last.
    """
    last, torn = last_parts(run)
    held: list[tuple[Any, Any]] = []
    for index, part in enumerate(all_parts(run)):
        if index not in torn:
            yield WholePart(part, None)
            continue
        solutions, steps = (pa.concat_tables(own) for own in zip(*held, read_columns(run, part), strict=True))
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


def in_order(solutions: Any, steps: Any) -> tuple[Any, Any]:
    """Solutions problem by problem, and their steps in the same order."""
    problem = one(solutions["problem_id"]).dictionary_encode().indices.to_numpy()
    order = np.argsort(problem, kind="stable")
    if (order[1:] < order[:-1]).any():
        solutions = solutions.take(pa.array(order))
    order = np.argsort(_owners(solutions, steps), kind="stable")
    if (order[1:] < order[:-1]).any():
        steps = steps.take(pa.array(order))
    return solutions, steps


class Read(NamedTuple):
    """What is known of the steps (n,) of a part, in order.

    `owner`: the row of each step's solution. `at`: the position of its first token, the prompt's counted; `start`,
    `size`: its tokens in its solution, none where it has no scores. `prefix`, `content`: hashes of the tokens before
    it and its own. `put_right`: by row, an incorrect step as a critic wants it.
    """

    steps: Steps
    owner: Any
    at: Any
    start: Any
    size: Any
    prefix: Any
    content: Any
    put_right: dict[int, str]


def read_steps(solutions: Any, steps: Any) -> Read:
    """The arrays of tables that are `in_order`."""
    owner = _owners(solutions, steps)
    start, end = numbers(steps["token_start"]), numbers(steps["token_end"])
    at = lists(solutions["prompt_token_ids"]).sizes[owner] + start
    prefix, content = _hashes(solutions, owner, start, end)
    problem = one(solutions["problem_id"]).dictionary_encode().indices.to_numpy()
    _, group = np.unique(prefix ^ mixed(problem[owner].astype(np.uint64)), return_inverse=True)
    logprob = floats(steps["logprob_sum"])
    has_tokens = ~np.isnan(logprob) & (end > start)
    size = np.where(has_tokens, end - start, 0)
    label = pc.index_in(one(steps["label"]), value_set=pa.array(_LABELS)).to_numpy().astype(np.int64)
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
        tie=pc.rank(one(solutions["solution_id"])).to_numpy().astype(np.int64)[owner],
        after_error=after_error,
        is_first_error=(label == INCORRECT) & ~after_error,
        reaches=right[owner],
        referenced=referenced,
    )
    return Read(arrays, owner, at, start, size, prefix, content, corrected)


def _owners(solutions: Any, steps: Any) -> Any:
    rows = pc.index_in(one(steps["solution_id"]), value_set=one(solutions["solution_id"]))
    return rows.to_numpy().astype(np.int64)


def _hashes(solutions: Any, owner: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """Of each step, the hash of all tokens before it, the prompt's included, and that of its own."""
    prompts, which = prompts_of(solutions)
    own, size = lists(solutions["token_ids"]), prompts.sizes[which]
    prompt_sums = _running(prompts, np.zeros(len(prompts.sizes), np.int64))
    of_prompt = prompt_sums[prompts.starts + prompts.sizes] - prompt_sums[prompts.starts]
    sums = _running(own, size)  # positions go on after the prompt: only the whole sequence counts
    lift = of_prompt[which] - sums[own.starts]
    at_start, at_end = (sums[own.starts[owner] + place] for place in (start, end))
    length = (size[owner] + start).astype(np.uint64)
    return at_start + lift[owner] + mixed(length), at_end - at_start + (end - start).astype(np.uint64)


class Lists(NamedTuple):
    """A column of lists of int32: all values, and where each list starts and how long it is."""

    values: Any
    starts: Any
    sizes: Any


def lists(column: Any) -> Lists:
    """The lists of a column without nulls."""
    whole = one(column)
    bounds = whole.offsets.to_numpy().astype(np.int64)
    values = whole.values.to_numpy(zero_copy_only=False)[bounds[0] : bounds[-1]]
    return Lists(values, bounds[:-1] - bounds[0], np.diff(bounds))


def prompts_of(solutions: Any) -> tuple[Lists, Any]:
    """The different prompts of solutions (m,), which samples of a problem share, and the row of each one's (m,)."""
    prompt = lists(solutions["prompt_token_ids"])
    ends = np.append(prompt.starts, len(prompt.values)) * prompt.values.itemsize
    buffers = [None, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(prompt.values))]
    coded = pa.Array.from_buffers(pa.large_binary(), len(prompt.sizes), buffers).dictionary_encode()
    which = coded.indices.to_numpy().astype(np.int64)
    first = np.unique(which, return_index=True)[1]  # codes count up in the order of their first rows
    sizes = prompt.sizes[first]
    values = np.frombuffer(coded.dictionary.buffers()[2] or b"", np.int32)[: sizes.sum()]
    return Lists(values, np.cumsum(sizes) - sizes, sizes), which


def _running(tokens: Lists, first: Any) -> Any:
    """Running sums, modulo 2^64, over the numbers of all tokens; positions count from `first` in each list."""
    sums = np.zeros(len(tokens.values) + 1, np.uint64)
    np.cumsum(_placed(tokens, first), out=sums[1:])
    return sums


def _placed(tokens: Lists, first: Any) -> Any:
    """A number for each (position, token): one for the token, times an odd one for its position."""
    of_position = mixed(np.arange(int(np.max(first + tokens.sizes, initial=0)), dtype=np.uint64)) | _ODD
    placed = of_position[ranges(first, tokens.sizes)]
    ids = tokens.values.view(np.uint32)
    for start in range(0, len(placed), _CACHED):
        of_token = ids[start : start + _CACHED] * _SPREAD
        of_token ^= of_token >> np.uint64(29)
        placed[start : start + _CACHED] *= of_token
    return placed


def ranges(starts: Any, sizes: Any) -> Any:
    """Of each i, the `sizes[i]` numbers from `starts[i]` on, one behind the other."""
    some = sizes > 0
    starts, sizes = starts[some], sizes[some]
    steps = np.ones(int(sizes.sum()), np.int64)
    if len(steps):
        steps[0] = starts[0]
        steps[np.cumsum(sizes)[:-1]] = starts[1:] - (starts + sizes)[:-1] + 1
    return np.cumsum(steps, out=steps)


def content_hash(ids: list[int], at: int) -> int:
    """The hash of tokens that stand at position `at`: see `Read.content`."""
    tokens = Lists(np.array(ids, np.int32), np.zeros(1, np.int64), np.array([len(ids)]))
    return int(np.sum(_placed(tokens, np.array([at])), dtype=np.uint64) + np.uint64(len(ids)))


def mixed(values: Any) -> Any:
    """SplitMix64 (Steele et al. 2014) of unsigned 64-bit integers."""
    result = values + np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(result), _CACHED):
        mix = result[start : start + _CACHED]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mix ^= mix >> np.uint64(shift)
            mix *= np.uint64(factor)
        mix ^= mix >> np.uint64(31)
    return result


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
    words = pl.Series(told.dictionary).str.replace_all(_SPACES, " ").str.strip_chars(" ").to_arrow()
    reading[rows] = words.dictionary_encode().indices.to_numpy()[told.indices.to_numpy()]
    return reading


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


def one(column: Any) -> Any:
    """A column as one array; copied only where it is several."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
