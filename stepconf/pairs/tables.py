"""Step pairs of a run by columns: from the tables of whole problems to rows of `pairs`.

The rows are those that `core.pairs.steps`, which says what the strategies are, makes one by one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.pairs.columns import INCORRECT, Outcomes, caspo_columns, step_dpo_columns
from stepconf.core.pairs.traces import ID_BYTES, pair_id
from stepconf.core.schema import arrow_schema
from stepconf.pairs.columns import (
    Lists,
    Part,
    Read,
    content_hash,
    in_order,
    lists,
    mixed,
    numbers,
    one,
    prompts_of,
    read_part,
)
from stepconf.recipe import PairsRecipe

_GIVEN = ["problem_id", "solution_id", "problem", "text", "model"]
AGAIN = "same pair again"


class Tokens(NamedTuple):
    """A tokenizer, from any thread: of a critic's text, and of prompts."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]


class Made(NamedTuple):
    """The pairs of a part as a table, each pair of token sequences once; and its steps without one, by reason."""

    name: str
    n_solutions: int
    pairs: Any
    drops: dict[str, int]


def make_part(
    part: Part, options: PairsRecipe, tau: float | None, tokens: Tokens, metadata: dict[str, str]
) -> Made:
    """The pairs of a part by caspo, or by step-dpo where `tau` is None. For any thread."""
    solutions, steps = in_order(part.solutions, part.steps)
    read = read_part(solutions, steps)
    found = (
        step_dpo_columns(read.steps) if tau is None else caspo_columns(read.steps, tau, options.after_error)
    )
    sides = _sides(read, found, tokens)
    table = _table(solutions, steps, read, sides, tokens, options.round, arrow_schema("pairs", metadata))
    drops = found.drops()
    again = int(np.count_nonzero((found.other >= 0) | found.by_critic)) - len(table)
    return Made(part.name, len(solutions), table, drops | ({AGAIN: again} if again else {}))


class _Sides(NamedTuple):
    """Pairs (p,): the step that gives rise to each, and the steps that are its sides; -1 where a critic wrote it.

    `incorrect`: of that kind, else `correct_uncertain`. `texts`, `ids`: what critics wrote, in the order of pairs.
    """

    step: Any
    chosen: Any
    rejected: Any
    incorrect: Any
    texts: list[str]
    ids: list[list[int]]


def _sides(read: Read, found: Outcomes, tokens: Tokens) -> _Sides:
    """The sides of all pairs that there are; equal sides after equal tokens are one pair, the first."""
    step = np.flatnonzero((found.other >= 0) | found.by_critic)
    incorrect = read.steps.label[step] == INCORRECT
    chosen = np.where(incorrect, found.other[step], step)
    rejected = np.where(incorrect, step, found.other[step])
    written = {row: tokens.encode(read.put_right[row]) for row in step[chosen < 0].tolist()}
    contents = read.content[chosen]
    for pair in np.flatnonzero(chosen < 0).tolist():
        contents[pair] = content_hash(written[step[pair]], int(read.at[step[pair]]))
    whole = mixed(read.prefix[step] + mixed(contents + mixed(read.content[rejected])))
    kept = np.sort(np.unique(whole, return_index=True)[1])
    by_critic = step[kept][chosen[kept] < 0].tolist()
    texts, ids = [read.put_right[row] for row in by_critic], [written[row] for row in by_critic]
    return _Sides(step[kept], chosen[kept], rejected[kept], incorrect[kept], texts, ids)


def _table(
    solutions: Any, steps: Any, read: Read, sides: _Sides, tokens: Tokens, round_: int, schema: Any
) -> Any:
    owner = read.owner[sides.step]
    given = solutions.select(_GIVEN).take(pa.array(owner))
    (prompts, of_solution), own = prompts_of(solutions), lists(solutions["token_ids"])
    which = of_solution[owner]
    starts = np.stack([prompts.starts[which], len(prompts.values) + own.starts[owner]], axis=1)
    sizes = np.stack([prompts.sizes[which], read.start[sides.step]], axis=1)
    prompt_ids = _gathered(np.concatenate([prompts.values, own.values]), starts, sizes)
    text = pl.DataFrame(
        {"text": pl.from_arrow(one(given["text"])), "n": numbers(steps["char_start"])[sides.step]}
    )
    prefix = text.select(pl.col("text").str.head("n")).to_series()
    chosen = _side(solutions, steps, read, own, sides.chosen, sides)
    rejected = _side(solutions, steps, read, own, sides.rejected, sides)
    by_critic = sides.chosen < 0
    columns = {
        "pair_id": _pair_ids(prompt_ids, chosen["ids"], rejected["ids"]),
        "problem_id": given["problem_id"],
        "solution_id": given["solution_id"],
        "step_index": steps["step_index"].take(pa.array(sides.step)),
        "kind": _words(sides.incorrect, ("correct_uncertain", "incorrect")),
        "messages": _messages(given["problem"]),
        "prefix": prefix.to_arrow(),
        "prompt": (_prompts(prompts, which, tokens) + prefix).to_arrow(),
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "prompt_ids": prompt_ids,
        "chosen_ids": chosen["ids"],
        "rejected_ids": rejected["ids"],
        "chosen_is_terminal": chosen["is_terminal"],
        "rejected_is_terminal": rejected["is_terminal"],
        "chosen_confidence": chosen["confidence"],
        "rejected_confidence": rejected["confidence"],
        "chosen_source": _words(np.where(by_critic, 2, sides.incorrect), ("step", "candidate", "critic")),
        "rejected_source": _words(~sides.incorrect, ("step", "candidate")),
        "round": pa.array(np.full(len(owner), round_)),
        "policy": given["model"],
    }
    return pa.table({field.name: columns[field.name].cast(field.type) for field in schema}, schema=schema)


def _side(solutions: Any, steps: Any, read: Read, own: Lists, rows: Any, sides: _Sides) -> dict[str, Any]:
    """The columns of one side, whose steps are `rows`."""
    absent = rows < 0
    at = pa.array(rows, mask=absent)
    text = one(steps["text"].take(at))
    starts, sizes = own.starts[read.owner[rows]] + read.start[rows], read.size[rows]
    values = own.values
    if absent.any():
        text = pc.replace_with_mask(text, pa.array(absent), pa.array(sides.texts, text.type))
        lengths = np.array([len(ids) for ids in sides.ids])
        starts[absent] = len(values) + np.cumsum(lengths) - lengths
        sizes[absent] = lengths
        values = np.concatenate([values, np.array([i for ids in sides.ids for i in ids], np.int32)])
    finished = numbers(pc.not_equal(solutions["finish_reason"], "length")).astype(bool)
    is_last = numbers(steps["step_index"])[rows] == numbers(steps["n_steps"])[rows] - 1
    return {
        "text": text,
        "ids": _gathered(values, starts[:, None], sizes[:, None]),
        "is_terminal": pa.array(is_last & finished[read.owner[rows]] & ~absent),
        "confidence": steps["confidence"].take(at),
    }


def _gathered(values: Any, starts: Any, sizes: Any) -> Any:
    """Lists (p,) of what lies at `starts` (p, k) in `values`, `sizes` (p, k) long, one behind the other."""
    flat = sizes.ravel()
    ends = np.cumsum(flat)
    index = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts.ravel() - ends + flat, flat)
    bounds = np.concatenate([[0], np.cumsum(sizes.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values[index]))


def _pair_ids(*token_lists: Any) -> Any:
    """Content hashes, of each pair's three sequences."""
    data = [column.values.to_numpy().tobytes() for column in token_lists]
    bounds = [(column.offsets.to_numpy().astype(np.int64) * ID_BYTES).tolist() for column in token_lists]
    (prompt, chosen, rejected), (p, c, r) = data, bounds
    return pa.array(
        [
            pair_id(prompt[p[i] : p[i + 1]], chosen[c[i] : c[i + 1]], rejected[r[i] : r[i + 1]])
            for i in range(len(p) - 1)
        ],
        pa.string(),
    )


def _prompts(prompts: Lists, which: Any, tokens: Tokens) -> Any:
    """The text of each pair's prompt; `which` is its row among the prompts."""
    used, rows = np.unique(which, return_inverse=True)
    spans = zip(prompts.starts[used].tolist(), (prompts.starts + prompts.sizes)[used].tolist(), strict=True)
    texts = [tokens.decode(prompts.values[start:end]) for start, end in spans]
    return pl.Series(texts, dtype=pl.String).gather(rows)


def _messages(problems: Any) -> Any:
    n = len(problems)
    message = pa.StructArray.from_arrays([_words(np.zeros(n), ("user",)), one(problems)], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), message)


def _words(codes: Any, words: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())
