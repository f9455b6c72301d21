"""Step pairs of a run by columns: from the tables of whole problems to rows of `pairs`.

The rows are those that `core.pairs.steps`, which says what the strategies are, makes one by one.
"""

from collections import Counter
from collections.abc import Sequence, Set
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.ids import CONTENT_ID_BYTES
from stepconf.core.pairs.columns import caspo_columns, step_dpo_columns
from stepconf.core.pairs.select import SPLITS, Split, capped
from stepconf.core.pairs.steps import NO_RIVAL
from stepconf.pairs.columns import Read, WholePart, in_order, numbers, read_columns, read_steps
from stepconf.pairs.sides import (
    Encoder,
    PairTokens,
    Sides,
    after_same_tokens,
    by_split,
    pair_tokens,
    sides_of,
)
from stepconf.pairs.tally import AGAIN
from stepconf.pairs.tokens import Tokens, joined_lists, one
from stepconf.recipe import PairsRecipe
from stepconf.run.shard import Shard

_GIVEN = ["problem_id", "solution_id", "problem", "text", "model"]


class Texts(Encoder, Protocol):
    """A tokenizer: of a critic's text, and of prompts."""

    def decode_all(self, token_ids: Any, ends: Any) -> list[str]:
        """Texts of lists of ids that lie one behind the other."""


class Means(NamedTuple):
    """What all pairs are made with. `schema`: the shards', with their metadata."""

    run: Path
    options: PairsRecipe
    tokenizer: Texts
    schema: Any


class Task(NamedTuple):
    """Parts to make pairs of, and the confidence up to which caspo chooses correct steps; None for step-dpo."""

    parts: list[WholePart]
    tau: float | None


class Made(NamedTuple):
    """The pairs of a part.

    `ids` (p, 10): the ids, as bytes, of all that there are but for the cap, each pair of token sequences once.
    `incorrect` (p,): which are of that kind. `kept`: the rows of those that are kept, by split, and `tables`, what is
    written of them. `drops`: steps without a pair, and pairs not kept, by reason.
    """

    n_solutions: int
    ids: Any
    incorrect: Any
    kept: dict[Split, Any]
    tables: dict[Split, Any]
    drops: Counter[str]


class Written(NamedTuple):
    """What is made of several parts: the shards, by name, and the rest without tables."""

    made: list[Made]
    shards: dict[str, Shard]

    @classmethod
    def of(cls, parts: Sequence[WholePart], made: Sequence[Made]) -> "Written":
        """The tables as files, one per split: a file of a few rows costs as much as one of a thousand."""
        shards = {
            name: Shard.of(pa.concat_tables([one.tables[split] for one in made if split in one.tables]))
            for split, name in shard_names(parts, made).items()
        }
        return cls([one._replace(tables={}) for one in made], shards)


def shard_names(parts: Sequence[WholePart], made: Sequence[Made]) -> dict[Split, str]:
    """Of the splits that the parts have pairs of, what their shards are called: by the first part."""
    return {
        split: f"{split}-{parts[0].own.name}" for split in SPLITS if any(split in one.kept for one in made)
    }


def make_parts(task: Task, means: Means) -> Written:
    """The pairs of some parts. For any thread or process."""
    return Written.of(task.parts, [make_part(part, task.tau, means) for part in task.parts])


def make_part(part: WholePart, tau: float | None, means: Means, known: Set[bytes] = frozenset()) -> Made:
    """The pairs of a part; `known` are the ids of pairs that other parts have given."""
    options = means.options
    solutions, steps, owner = in_order(*(part.tables or read_columns(means.run, part.own)))
    read = read_steps(solutions, steps, owner)
    found = (
        step_dpo_columns(read.steps) if tau is None else caspo_columns(read.steps, tau, options.after_error)
    )
    drops = Counter(found.drops())
    sides = sides_of(read, found, means.tokenizer)
    drops[AGAIN] += int(np.count_nonzero((found.other >= 0) | found.by_critic)) - len(sides.step)
    sides, split = by_split(sides, read, options.validation)
    ids = pair_tokens(read, sides)
    same = np.flatnonzero(after_same_tokens(read, sides, ids.prompt))
    if len(same) < len(split):
        drops[NO_RIVAL] += len(split) - len(same)
        sides, split, ids = sides.at(same), split[same], ids.at(same)
    digests = ids.digests()
    made = Made(len(solutions), _as_array(digests), sides.incorrect, {}, {}, drops)
    rows = np.arange(len(digests))
    if known or options.max_per_problem is not None:
        problems = read.problems.take(pa.array(owner[sides.step])).to_pylist()
        rows = _kept(digests, problems, known, options, drops)
        sides, ids = sides.at(rows), ids.at(rows)
    pairs = _table(solutions, steps, read, sides, ids, _hex(made.ids[rows]), means)
    ends = np.searchsorted(split[rows], np.arange(len(SPLITS) + 1)).tolist()
    for name, (start, end) in zip(SPLITS, pairwise(ends), strict=True):
        if start < end:
            made.kept[name] = rows[start:end]
            made.tables[name] = pairs.slice(start, end - start)
    return made


class _Row(NamedTuple):
    """A pair that is a row of a table."""

    row: int
    pair_id: str
    problem_id: str


def _kept(
    digests: list[bytes], problems: list[str], known: Set[bytes], options: PairsRecipe, drops: Counter[str]
) -> Any:
    """The rows of pairs that are new and within the cap."""
    rows = enumerate(zip(digests, problems, strict=True))
    new = [_Row(row, digest.hex(), problem) for row, (digest, problem) in rows if digest not in known]
    drops[AGAIN] += len(digests) - len(new)
    kept = capped(new, options.max_per_problem, options.seed, drops)
    return np.array([row.row for row in kept], np.int64)


def _as_array(digests: list[bytes]) -> Any:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, CONTENT_ID_BYTES)


def _hex(ids: Any) -> Any:
    """Ids (p, 10) as texts."""
    bounds = np.arange(len(ids) + 1, dtype=np.int32) * (2 * CONTENT_ID_BYTES)
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(bounds), pa.py_buffer(ids.tobytes().hex().encode())
    )


def _table(
    solutions: Any, steps: Any, read: Read, sides: Sides, ids: PairTokens, pair_ids: Any, means: Means
) -> Any:
    owner = read.owner[sides.step]
    given = solutions.select(_GIVEN).take(pa.array(owner))
    ends = numbers(steps["char_start"])[sides.step].tolist()
    own = zip(given["text"].to_pylist(), ends, strict=True)
    prefix = pa.array([text[:end] for text, end in own], pa.string())
    chosen = _side(solutions, steps, read, sides.chosen, sides)
    rejected = _side(solutions, steps, read, sides.rejected, sides)
    by_critic = sides.chosen < 0
    columns = {
        "pair_id": pair_ids,
        "problem_id": given["problem_id"],
        "solution_id": given["solution_id"],
        "step_index": steps["step_index"].take(pa.array(sides.step)),
        "kind": _words(sides.incorrect, ("correct_uncertain", "incorrect")),
        "messages": _messages(given["problem"]),
        "prefix": prefix,
        "prompt": _prompts(read.tokens, owner, prefix, means.tokenizer),
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "prompt_ids": _lists(ids.prompt),
        "chosen_ids": _lists(ids.chosen),
        "rejected_ids": _lists(ids.rejected),
        "chosen_is_terminal": chosen["is_terminal"],
        "rejected_is_terminal": rejected["is_terminal"],
        "chosen_confidence": chosen["confidence"],
        "rejected_confidence": rejected["confidence"],
        "chosen_source": _words(np.where(by_critic, 2, sides.incorrect), ("step", "candidate", "critic")),
        "rejected_source": _words(~sides.incorrect, ("step", "candidate")),
        "round": pa.array(np.full(len(owner), means.options.round)),
        "policy": given["model"],
    }
    casted = {field.name: columns[field.name].cast(field.type) for field in means.schema}
    return pa.table(casted, schema=means.schema)


def _side(solutions: Any, steps: Any, read: Read, rows: Any, sides: Sides) -> dict[str, Any]:
    """The columns of one side, whose steps are `rows`."""
    absent = rows < 0
    at = pa.array(rows, mask=absent)
    text = one(steps["text"].take(at))
    if absent.any():
        written = [read.put_right[row] for row in sides.step[absent].tolist()]
        text = pc.replace_with_mask(text, pa.array(absent), pa.array(written, text.type))
    finished = numbers(pc.not_equal(solutions["finish_reason"], "length")).astype(bool)
    is_last = numbers(steps["step_index"])[rows] == numbers(steps["n_steps"])[rows] - 1
    return {
        "text": text,
        "is_terminal": pa.array(is_last & finished[read.owner[rows]] & ~absent),
        "confidence": steps["confidence"].take(at),
    }


def _lists(ids: Any) -> Any:
    """Token ids (p,) as lists."""
    values, starts, _ = joined_lists(ids)
    bounds = pa.array(np.append(starts, len(values))).cast(pa.int32())
    return pa.ListArray.from_arrays(bounds, pa.array(values))


def _prompts(tokens: Tokens, owner: Any, prefix: Any, tokenizer: Texts) -> Any:
    """What stands before each pair's sides: the text of its prompt, which is decoded once, and its prefix."""
    values, starts, sizes = tokens.prompts
    texts = pa.array(tokenizer.decode_all(values, starts + sizes), pa.string())
    return pc.binary_join_element_wise(texts.take(pa.array(tokens.prompt[owner])), prefix, "")


def _messages(problems: Any) -> Any:
    n = len(problems)
    message = pa.StructArray.from_arrays([_words(np.zeros(n), ("user",)), one(problems)], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), message)


def _words(codes: Any, words: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())
