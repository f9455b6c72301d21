"""The laws of solutions and their steps, checked on the columns of one chunk at once.

Every function takes Arrow tables and puts what it finds into `Findings`. n is the number of steps of the
chunk, m of solutions, t of tokens.
"""

from math import log
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.checks.findings import Findings
from stepconf.core.noise import SOURCE
from stepconf.core.signals import ENTROPY_MEAN, SIGNALS
from stepconf.core.spans import TOKEN_LISTS, Tokens, over_spans, spread

Mask = np.ndarray  # of bool
_SLACK = 1e-3  # nats: token columns are float32, and what an engine adds up may round
_GIVEN = TOKEN_LISTS[:3]
_MAYBE_GIVEN = TOKEN_LISTS[3:]  # null where an engine or an older version does not give them


class Grouped(NamedTuple):
    """Steps in the order of their solutions: `code` (n,) is the row of each one's solution.

    `first` and `last` (n,) mark the ends of each solution's steps; `size` (m,) is how many it has.
    """

    steps: Any
    solutions: Any
    code: np.ndarray
    first: Mask
    last: Mask
    size: np.ndarray


def check_chunk(solutions: Any, steps: Any, vocabulary: int | None, found: Findings) -> Grouped:
    """Check the solutions and steps of one chunk against each other and each step by itself; returns them grouped.

    Args:
        solutions: the chunk's rows of `solutions`, with the columns of the schema.
        steps: its rows of `steps`.
        vocabulary: V, for the bounds of token ids and entropies; None leaves those bounds out.
        found: where findings go.
    """
    grouped = group(solutions, steps, found)
    _counts(grouped, found)
    _texts(grouped, found)
    lengths = _list_lengths(grouped, found)
    _token_spans(grouped, lengths, found)
    if (lengths >= 0).all():  # otherwise no step's tokens are known
        _token_ranges(grouped.steps, lengths, vocabulary, found)
        _aggregates(grouped, lengths, found)
    _labels(grouped, found)
    return grouped


def group(solutions: Any, steps: Any, found: Findings) -> Grouped:
    """Sort steps by solution and index; those of no solution here are counted and left out."""
    found_at = pc.index_in(steps["solution_id"], value_set=one_array(solutions["solution_id"]))
    orphan = numbers(found_at.is_null())
    found.add_rows("orphan-step", orphan, steps["step_id"])
    if orphan.any():
        steps, found_at = steps.filter(pa.array(~orphan)), found_at.filter(pa.array(~orphan))
    code, index = numbers(found_at).astype(np.int64), numbers(steps["step_index"])
    order = np.lexsort((index, code))
    if (order[1:] < order[:-1]).any():
        steps, code = steps.take(pa.array(order)), code[order]
    change = np.flatnonzero(np.diff(code)) + 1
    first, last = np.zeros(len(code), bool), np.zeros(len(code), bool)
    first[change], last[change - 1] = True, True
    if len(code):
        first[0] = last[-1] = True
    return Grouped(steps, solutions, code, first, last, np.bincount(code, minlength=len(solutions)))


def _counts(g: Grouped, found: Findings) -> None:
    found.add_rows("no-steps", g.size == 0, g.solutions["solution_id"])
    wrong = (g.size != numbers(g.solutions["n_steps"])) & (g.size > 0)
    found.add_rows("step-count", wrong, g.solutions["solution_id"])
    place = np.arange(len(g.code)) - np.flatnonzero(g.first)[np.cumsum(g.first) - 1]
    wrong = (numbers(g.steps["step_index"]) != place) | (numbers(g.steps["n_steps"]) != g.size[g.code])
    found.add_rows("step-count", wrong, g.steps["step_id"])
    theirs = g.solutions["problem_id"].take(pa.array(g.code))
    found.add_rows(
        "foreign-problem", numbers(pc.not_equal(g.steps["problem_id"], theirs)), g.steps["step_id"]
    )


def _texts(g: Grouped, found: Findings) -> None:
    """Spans that touch, from 0 to the end, as long as their texts, which join: so text == its span's."""
    start, end = numbers(g.steps["char_start"]), numbers(g.steps["char_end"])
    whole = numbers(pc.utf8_length(g.solutions["text"])).astype(np.int64)[g.code]
    wrong = _gaps(start, end, whole, g) | (start >= end)
    wrong |= numbers(pc.utf8_length(g.steps["text"])) != end - start
    found.add_rows("char-spans", wrong, g.steps["step_id"])
    offsets = np.concatenate([[0], np.cumsum(g.size)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), one_array(g.steps["text"])), "")
    wrong = numbers(pc.not_equal(joined, g.solutions["text"])) & (g.size > 0)
    found.add_rows("step-text", wrong, g.solutions["solution_id"])


def _list_lengths(g: Grouped, found: Findings) -> np.ndarray:
    """Tokens of each step (n,); -1 where its lists disagree."""
    lengths = [numbers(pc.list_value_length(g.steps[name])) for name in ("token_ids", *_GIVEN)]
    differ = np.any([length != lengths[0] for length in lengths[1:]], axis=0)
    for name in _MAYBE_GIVEN:
        there = numbers(pc.is_valid(g.steps[name]))
        differ |= there & (numbers(pc.list_value_length(g.steps[name])) != lengths[0])
    found.add_rows("list-lengths", differ, g.steps["step_id"])
    return np.where(differ, -1, lengths[0])


def _token_spans(g: Grouped, lengths: np.ndarray, found: Findings) -> None:
    start, end = numbers(g.steps["token_start"]), numbers(g.steps["token_end"])
    n_tokens = numbers(g.solutions["n_tokens"])
    wrong = n_tokens != numbers(pc.list_value_length(g.solutions["token_ids"]))
    found.add_rows("token-spans", wrong, g.solutions["solution_id"], "n_tokens")
    spans = _gaps(start, end, n_tokens[g.code], g) | (start > end)
    # A step of a solution that was not scored has a span but no tokens of its own.
    scored = (np.bincount(g.code, np.maximum(lengths, 0), len(g.solutions)) > 0)[g.code]
    spans |= scored & (lengths >= 0) & (lengths != end - start)
    found.add_rows("token-spans", spans, g.steps["step_id"])
    if spans.any() or wrong.any() or (lengths < 0).any():
        return
    theirs = pc.list_flatten(
        g.solutions["token_ids"].filter(pa.array(np.isin(np.arange(len(g.solutions)), g.code[scored])))
    )
    differ = numbers(pc.list_flatten(g.steps["token_ids"])) != numbers(theirs)
    found.add_rows("token-ids", rows_with(differ, lengths), g.steps["step_id"])


def _token_ranges(steps: Any, lengths: np.ndarray, vocabulary: int | None, found: Findings) -> None:
    ids = numbers(pc.list_flatten(steps["token_ids"]))
    logprobs, entropies, most, varentropies, means, second = _tokens(steps, lengths)
    with np.errstate(divide="ignore", invalid="ignore"):
        most_log = np.log(most)
    highest = log(vocabulary) + _SLACK if vocabulary else np.inf
    of_varentropy, of_mean, of_second = (
        np.repeat(numbers(pc.is_valid(steps[name])), lengths) for name in _MAYBE_GIVEN
    )
    # Written so that a NaN, which compares as false, counts as wrong.
    wrong = {
        "probability-range": ~((most > 0) & (most <= 1 + 1e-6))
        | (of_second & ~((second >= 0) & (second <= most + 1e-6))),
        "logprob-range": ~((logprobs <= 0) & (logprobs <= most_log + _SLACK)) | (of_mean & ~(means <= 0)),
        # The most probable token bounds the entropy from below: H >= -log max p.
        "entropy-range": ~((entropies >= 0) & (entropies <= highest) & (entropies >= -most_log - _SLACK))
        | (of_varentropy & ~(varentropies >= 0)),
        "token-range": (ids < 0) | (ids >= vocabulary if vocabulary else False),
    }
    for check, mask in wrong.items():
        found.add_rows(check, rows_with(mask, lengths), steps["step_id"])


def _tokens(steps: Any, lengths: np.ndarray) -> Tokens:
    given = [numbers(pc.list_flatten(steps[name])).astype(np.float64) for name in _GIVEN]
    for name in _MAYBE_GIVEN:
        flat, there = numbers(pc.list_flatten(steps[name])), numbers(pc.is_valid(steps[name]))
        given.append(spread(flat.astype(np.float64), there, lengths.astype(np.int64)))
    return Tokens(*given)


def _aggregates(g: Grouped, lengths: np.ndarray, found: Findings) -> None:
    """The columns that have the name of a signal are that signal of the step's, or of all the solution's, tokens."""
    tokens = _tokens(g.steps, lengths)
    _signals(g.steps, g.steps["step_id"], tokens, lengths, found)
    per_solution = np.bincount(g.code, lengths, len(g.solutions)).astype(np.int64)
    solutions = g.solutions.filter(pa.array(g.size > 0))
    _signals(solutions, solutions["solution_id"], tokens, per_solution[g.size > 0], found)
    _running(g, tokens, lengths, per_solution, found)


def _signals(rows: Any, ids: Any, tokens: Tokens, lengths: np.ndarray, found: Findings) -> None:
    for signal in SIGNALS:
        if signal.name in rows.column_names:
            values = over_spans(signal, tokens, lengths).values
            there = ~np.isnan(values)
            wrong = numbers(pc.is_valid(rows[signal.name])) != there
            wrong |= there & ~np.isclose(_floats(rows[signal.name]), values, rtol=1e-4, atol=1e-5)
            found.add_rows("aggregate", wrong, ids, signal.name)


def _running(
    g: Grouped, tokens: Tokens, lengths: np.ndarray, per_solution: np.ndarray, found: Findings
) -> None:
    """Cumulative confidence is the running product over each solution's steps."""
    per_step = np.where(lengths > 0, over_spans(ENTROPY_MEAN, tokens, lengths).values, 0.0)
    running = np.cumsum(per_step)
    before = (running - per_step)[np.flatnonzero(g.first)]
    running -= np.repeat(before, g.size[g.size > 0])
    scored = (per_solution > 0)[g.code]
    wrong = numbers(pc.is_valid(g.steps["cumulative_confidence"])) != scored
    given = _floats(g.steps["cumulative_confidence"])
    wrong[scored] |= ~np.isclose(given, np.exp(-running), rtol=1e-3, atol=1e-12)[scored]
    found.add_rows("aggregate", wrong, g.steps["step_id"], "cumulative_confidence")


def _labels(g: Grouped, found: Findings) -> None:
    verdicts = pc.list_flatten(g.steps["verdicts"])
    rows = numbers(pc.list_parent_indices(g.steps["verdicts"])).astype(np.int64)
    said = pc.struct_field(verdicts, "label")
    known = numbers(pc.is_in(said, value_set=pa.array(["correct", "incorrect", "unknown"])))
    score = _floats(pc.struct_field(verdicts, "score"))  # NaN where there is none
    wrong_verdict = ~known | (score < 0) | (score > 1)
    found.add_rows("verdict", flagged(rows[wrong_verdict], len(g.code)), g.steps["step_id"])
    backed = numbers(pc.equal(said, g.steps["label"].take(pa.array(rows))))
    unbacked = ~flagged(rows[backed], len(g.code)) & numbers(pc.not_equal(g.steps["label"], "unknown"))
    turned = numbers(pc.match_substring_regex(g.steps["label_source"], rf"(^|\+){SOURCE}$"))
    found.add_rows("noise", turned, g.steps["step_id"])
    found.add_rows("label-source", unbacked & ~turned, g.steps["step_id"])


def _gaps(start: np.ndarray, end: np.ndarray, whole: np.ndarray, g: Grouped) -> Mask:
    """Steps whose span does not begin where the one before ends, or misses the ends 0 and `whole`."""
    before = np.concatenate([[0], end[:-1]])
    wrong: Mask = start != np.where(g.first, 0, before)
    wrong |= g.last & (end != whole)
    return wrong


def rows_with(flags: np.ndarray, lengths: np.ndarray) -> Mask:
    """Which rows (n,) with a flagged token, from `flags` (t,) and the tokens of each row (n,)."""
    rows = np.searchsorted(np.cumsum(lengths), np.flatnonzero(flags), side="right")
    return flagged(rows, len(lengths))


def flagged(rows: np.ndarray, n: int) -> Mask:
    """A mask (n,) that is true at `rows`."""
    mask = np.zeros(n, bool)
    mask[rows] = True
    return mask


def numbers(column: Any) -> np.ndarray:
    """An Arrow column without nulls as NumPy; a null is 0 or false (and is counted as `null` elsewhere)."""
    column = one_array(column)
    if column.null_count:
        column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    return values


def _floats(column: Any) -> np.ndarray:
    values: np.ndarray = one_array(column).to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def one_array(column: Any) -> Any:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
