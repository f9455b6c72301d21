"""From the shards of a run to what strategies of pairs read: only the columns they need, no object per token."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from stepconf.core.pairs.traces import ID_BYTES, Place, Side, Trace
from stepconf.run.ahead import ahead
from stepconf.run.parts import Part
from stepconf.run.tables import all_parts, read_aligned, read_shard

_SOLUTION = ["solution_id", "problem_id", "problem", "text", "finish_reason", "answer_correct", "confidence"]
_SOLUTION += ["model", "gold_answer", "extra"]
_STEP = ["solution_id", "step_index", "n_steps", "char_start", "char_end", "token_start", "token_end"]
_STEP += ["logprob_sum", "confidence", "label"]
_REFERENCES = "verdicts.list.element.reference"


def read_traces(run: Path, with_logprobs: bool = False) -> Iterator[tuple[str, list[Trace]]]:
    """The name of each part of a run, with its solutions and their steps.

    Args:
        run: a run folder.
        with_logprobs: read the tokens' log-probabilities too.
    """
    of_solutions = [*_SOLUTION, "prompt_token_ids", "token_ids"]
    of_steps = [*_STEP, _REFERENCES, *(["token_logprobs"] if with_logprobs else [])]
    for name, solution_table, step_table in read_aligned(run, of_solutions, of_steps):
        traces = _traces(solution_table)
        _add_steps({trace.solution_id: trace for trace in traces}, step_table, with_logprobs)
        yield name, traces


def whole_problems(run: Path, with_logprobs: bool = False) -> Iterator[tuple[str, list[Trace]]]:
    """The name of each part of a run, with all solutions of the problems that end in it.

    Where solutions were imported, those of one problem may lie in several parts, and siblings apart.
    """
    last, _ = last_parts(run, all_parts(run))
    held: dict[str, list[Trace]] = {}
    for index, (name, part) in enumerate(read_traces(run, with_logprobs)):
        for trace in part:
            held.setdefault(trace.problem_id, []).append(trace)
        ended = [problem for problem in held if last[problem] == index]
        yield name, [trace for problem in ended for trace in held.pop(problem)]


def last_parts(run: Path, parts: list[Part]) -> tuple[dict[str, int], set[int]]:
    """The part in which each problem ends, and the parts in which there are problems of several parts."""
    last: dict[str, int] = {}
    torn: set[int] = set()
    for index, own in enumerate(ahead(partial(_problems, run), parts)):
        problems = dict.fromkeys(own, index)
        before = {last[problem] for problem in problems.keys() & last.keys()}
        torn |= before | {index} if before else set()
        last |= problems
    return last, torn


def _problems(run: Path, part: Part) -> list[str]:
    ids: list[str] = read_shard(run, part.solutions, ["problem_id"])["problem_id"].unique().to_pylist()
    return ids


def _traces(table: Any) -> list[Trace]:
    columns = [table[name].to_pylist() for name in _SOLUTION]
    prompts, ids = _rows(table["prompt_token_ids"]), _rows(table["token_ids"])
    return [
        Trace(
            solution_id=solution_id,
            problem_id=problem_id,
            problem=problem,
            prompt_ids=prompt,
            text=text,
            ids=own,
            finished=finish != "length",
            answer_correct=right,
            confidence=confidence,
            model=model,
            gold_answer=gold,
            extra=extra,
            places=[],
        )
        for solution_id, problem_id, problem, text, finish, right, confidence, model, gold, extra, prompt, own in zip(
            *columns, prompts, ids, strict=True
        )
    ]


def _add_steps(traces: dict[str, Trace], table: Any, with_logprobs: bool) -> None:
    columns = [_values(table[name]) for name in _STEP]
    references = _references(table["verdicts"])
    wrong: set[str] = set()
    for row, values in enumerate(zip(*columns, strict=True)):
        owner, index, n_steps, char, char_end, token, token_end, logprob, confidence, label = values
        trace, size = traces[owner], token_end - token
        scored = logprob is not None and size > 0
        side = Side(
            trace.text[char:char_end],
            trace.ids[ID_BYTES * token : ID_BYTES * token_end] if scored else b"",
            label,
            confidence,
            logprob / size if scored else float("-inf"),
            index == n_steps - 1 and trace.finished,
            "step",
            owner,  # of the steps after one prefix, no two are of one solution
            trace.answer_correct,
        )
        after_error = owner in wrong
        is_first_error = label == "incorrect" and not after_error
        if is_first_error:
            wrong.add(owner)
        trace.places.append(
            Place(trace, index, char, token, after_error, is_first_error, side, references.get(row, ()))
        )
    if with_logprobs:
        for owner, logprobs in zip(columns[0], _rows(table["token_logprobs"]), strict=True):
            traces[owner].logprobs += logprobs


def _values(column: Any) -> list[Any]:
    """A column as a list; numbers the fast way, where none is null."""
    numeric = str(column.type).startswith(("int", "double"))
    values: list[Any] = (
        column.to_numpy().tolist() if numeric and not column.null_count else column.to_pylist()
    )
    return values


def _rows(column: Any) -> list[bytes]:
    """The rows of a column of lists of four-byte numbers, as they lie in memory."""
    lists = column.combine_chunks()
    data = lists.values.to_numpy(zero_copy_only=False).tobytes()
    bounds = lists.offsets.to_pylist()
    return [data[ID_BYTES * a : ID_BYTES * b] for a, b in pairwise(bounds)]


def _references(column: Any) -> dict[int, tuple[str, ...]]:
    """By row, the references of its verdicts; most rows have none."""
    lists = column.combine_chunks()
    texts = lists.values.field("reference")
    if texts.null_count == len(texts):
        return {}
    bounds, found = lists.offsets.to_pylist(), texts.to_pylist()
    rows = ((row, tuple(filter(None, found[a:b]))) for row, (a, b) in enumerate(pairwise(bounds)))
    return {row: own for row, own in rows if own}
