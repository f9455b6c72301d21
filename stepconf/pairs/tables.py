"""Step pairs of a run by columns: from the tables of whole problems to rows of `pairs`.

The rows are those that `core.pairs.steps`, which says what the strategies are, makes one by one.
"""

from collections import Counter
from collections.abc import Set
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.pairs.columns import INCORRECT, Outcomes, caspo_columns, step_dpo_columns
from stepconf.core.pairs.select import Split, by_split, capped
from stepconf.core.pairs.traces import ID_BYTES, id_of_packed
from stepconf.core.schema import arrow_schema
from stepconf.pairs.columns import (
    Lists,
    Read,
    WholePart,
    content_hash,
    in_order,
    lists,
    mixed,
    numbers,
    one,
    prompts_of,
    ranges,
    read_columns,
    read_steps,
)
from stepconf.recipe import PairsRecipe
from stepconf.run.shard import Shard

_GIVEN = ["problem_id", "solution_id", "problem", "text", "model"]
AGAIN = "same pair again"
_ENCODING = Lock()  # a tokenizer that encodes must not be asked by two threads


class Texts(Protocol):
    """A tokenizer: of a critic's text, and of prompts."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode_all(self, token_ids: Any, ends: Any) -> list[str]:
        """Texts of lists of ids that lie one behind the other."""


class Made(NamedTuple):
    """The pairs of a part.

    `ids`: of all that there are but for the cap, each pair of token sequences once. `kinds`: those of the pairs that
    are kept, by id. `drops`: steps without a pair, and pairs not kept, by reason.
    """

    n_solutions: int
    ids: list[str]
    kinds: dict[Split, dict[str, str]]
    shards: dict[Split, Shard]
    drops: Counter[str]


class _Row(NamedTuple):
    """A pair that is a row of a table."""

    row: int
    pair_id: str
    problem_id: str
    kind: str


def make_part(
    part: WholePart,
    run: Path,
    options: PairsRecipe,
    tau: float | None,
    tokenizer: Texts,
    metadata: dict[str, str],
    known: Set[str] = frozenset(),
) -> Made:
    """The pairs of a part by caspo, or by step-dpo where `tau` is None. For any thread or process.

    Args:
        part: of which.
        run: where it lies.
        options: strategy, cap, split, round.
        tau: the confidence up to which caspo chooses correct steps.
        tokenizer: the run's.
        metadata: what goes into the shards' schema metadata.
        known: the ids of pairs that other parts have given.
    """
    solutions, steps = in_order(*(part.tables or read_columns(run, part.own)))
    read = read_steps(solutions, steps)
    found = (
        step_dpo_columns(read.steps) if tau is None else caspo_columns(read.steps, tau, options.after_error)
    )
    sides = _sides(read, found, tokenizer)
    pairs = _table(solutions, steps, read, sides, tokenizer, options.round, arrow_schema("pairs", metadata))
    columns = [pairs[name].to_pylist() for name in ("pair_id", "problem_id", "kind")]
    new = [row for row in map(_Row, range(len(pairs)), *columns) if row.pair_id not in known]
    drops = Counter(found.drops())
    drops[AGAIN] += int(np.count_nonzero((found.other >= 0) | found.by_critic)) - len(new)
    own = by_split(capped(new, options.max_per_problem, options.seed, drops), options.validation)
    kinds = {split: {row.pair_id: row.kind for row in rows} for split, rows in own.items()}
    shards = {split: Shard.of(pairs.take([row.row for row in rows])) for split, rows in own.items()}
    return Made(len(solutions), columns[0], kinds, shards, drops)


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


def _sides(read: Read, found: Outcomes, tokenizer: Texts) -> _Sides:
    """The sides of all pairs that there are; equal sides after equal tokens are one pair, the first."""
    step = np.flatnonzero((found.other >= 0) | found.by_critic)
    incorrect = read.steps.label[step] == INCORRECT
    chosen = np.where(incorrect, found.other[step], step)
    rejected = np.where(incorrect, step, found.other[step])
    with _ENCODING:
        written = {row: tokenizer.encode(read.put_right[row]) for row in step[chosen < 0].tolist()}
    contents = read.content[chosen]
    for pair in np.flatnonzero(chosen < 0).tolist():
        contents[pair] = content_hash(written[step[pair]], int(read.at[step[pair]]))
    whole = mixed(read.prefix[step] + mixed(contents + mixed(read.content[rejected])))
    kept = np.sort(np.unique(whole, return_index=True)[1])
    by_critic = step[kept][chosen[kept] < 0].tolist()
    texts, ids = [read.put_right[row] for row in by_critic], [written[row] for row in by_critic]
    return _Sides(step[kept], chosen[kept], rejected[kept], incorrect[kept], texts, ids)


def _table(
    solutions: Any, steps: Any, read: Read, sides: _Sides, tokenizer: Texts, round_: int, schema: Any
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
        "prompt": (_prompts(prompts, which, tokenizer) + prefix).to_arrow(),
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
    bounds = np.concatenate([[0], np.cumsum(sizes.sum(axis=1))])
    gathered = values[ranges(starts.ravel(), sizes.ravel())]
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(gathered))


def _pair_ids(*token_lists: Any) -> Any:
    """Content hashes of each pair's three sequences (p,): what `pair_id` hashes is gathered for all at once."""
    own = [lists(column) for column in token_lists]
    sizes = np.stack([one.sizes for one in own], axis=1)
    lengths = np.ascontiguousarray(sizes[:, :2] * ID_BYTES).view(np.int32)  # (p, 4), two to a length
    values = np.concatenate([lengths.ravel(), *(one.values for one in own)])
    n_before = np.cumsum([lengths.size, *(len(one.values) for one in own)])
    of_lengths = np.arange(len(lengths)) * 4
    starts = np.stack(
        [of_lengths, *(one.starts + n for one, n in zip(own, n_before[:-1], strict=True))], axis=1
    )
    packed = _gathered(values, starts, np.column_stack([np.full(len(lengths), 4), sizes]))
    data, bounds = packed.values.to_numpy().tobytes(), (numbers(packed.offsets) * ID_BYTES).tolist()
    return pa.array([id_of_packed(data[start:end]) for start, end in pairwise(bounds)], pa.string())


def _prompts(prompts: Lists, which: Any, tokenizer: Texts) -> Any:
    """The text of each pair's prompt; `which` is its row among the prompts."""
    texts = tokenizer.decode_all(prompts.values, prompts.starts + prompts.sizes)
    return pl.Series(texts, dtype=pl.String).gather(which)


def _messages(problems: Any) -> Any:
    n = len(problems)
    message = pa.StructArray.from_arrays([_words(np.zeros(n), ("user",)), one(problems)], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), message)


def _words(codes: Any, words: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())
