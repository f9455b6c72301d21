"""The pairs of a part before they are rows: which steps are their sides, and the tokens that name them."""

from operator import add, eq
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from stepconf.core.pairs.columns import INCORRECT, Outcomes
from stepconf.core.pairs.select import SPLITS, split_of
from stepconf.core.pairs.traces import ID_BYTES, pair_digest, to_bytes
from stepconf.pairs.columns import Read
from stepconf.pairs.tokens import content_hash, mixed

_ENCODING = Lock()  # a tokenizer that encodes must not be asked by two threads


class Encoder(Protocol):
    """A tokenizer, of a critic's text."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""


class Sides(NamedTuple):
    """Pairs (p,): the step that gives rise to each, and the steps that are its sides; -1 where a critic wrote it.

    `incorrect`: of that kind, else `correct_uncertain`. `written`: the ids of what critics wrote, by step.
    """

    step: Any
    chosen: Any
    rejected: Any
    incorrect: Any
    written: dict[int, list[int]]

    def at(self, rows: Any) -> "Sides":
        """Some of the pairs."""
        return Sides(
            self.step[rows], self.chosen[rows], self.rejected[rows], self.incorrect[rows], self.written
        )


def sides_of(read: Read, found: Outcomes, encoder: Encoder) -> Sides:
    """The sides of all pairs that there are; equal sides after equal tokens are one pair, the first."""
    step = np.flatnonzero((found.other >= 0) | found.by_critic)
    incorrect = read.steps.label[step] == INCORRECT
    chosen = np.where(incorrect, found.other[step], step)
    rejected = np.where(incorrect, step, found.other[step])
    with _ENCODING:
        written = {row: encoder.encode(read.put_right[row]) for row in step[chosen < 0].tolist()}
    contents = read.content[chosen]
    for pair in np.flatnonzero(chosen < 0).tolist():
        contents[pair] = content_hash(read.tokens, written[step[pair]])
    whole = mixed(read.prefix[step] + mixed(contents + mixed(read.content[rejected])))
    kept = np.sort(np.unique(whole, return_index=True)[1])
    return Sides(step, chosen, rejected, incorrect, written).at(kept)


def by_split(sides: Sides, read: Read, validation: float) -> tuple[Sides, Any]:
    """The pairs of train, then those of validation; and the number (p,) of the split of each."""
    problem = read.problems.indices.to_numpy()[read.owner[sides.step]]
    there = np.unique(problem)
    ids = read.problems.dictionary.take(pa.array(there)).to_pylist()
    split = np.zeros(len(read.problems.dictionary), np.int64)
    split[there] = [SPLITS.index(split_of(one, validation)) for one in ids]
    order = np.argsort(split[problem], kind="stable")
    return sides.at(order), split[problem][order]


class TokenBytes(NamedTuple):
    """The token ids of pairs (p,) as bytes, as `core.pairs.traces` has them."""

    prompt: list[bytes]
    chosen: list[bytes]
    rejected: list[bytes]

    def at(self, rows: Any) -> "TokenBytes":
        """Those of some of the pairs."""
        return TokenBytes(*([own[row] for row in rows] for own in self))

    def digests(self) -> list[bytes]:
        """The ids of the pairs."""
        return list(map(pair_digest, *self))


def token_bytes(read: Read, data: bytes, sides: Sides) -> TokenBytes:
    """What the pairs are made of; `data`: all tokens of `read`, as bytes.

    Python copies a thousand stretches faster than NumPy gathers their tokens.
    """

    def side(rows: Any) -> list[bytes]:
        starts = read.tokens.own.starts[read.owner[rows]] + read.start[rows]
        return _sliced(data, starts, read.size[rows])

    chosen = side(sides.chosen)
    for pair in np.flatnonzero(sides.chosen < 0).tolist():
        chosen[pair] = to_bytes(sides.written[sides.step[pair]])
    return TokenBytes(_before(read, data, sides.step), chosen, side(sides.rejected))


def after_same_tokens(read: Read, data: bytes, sides: Sides, prompts: list[bytes]) -> Any:
    """Whether the sides of each pair (p,) do follow the same tokens: a text can be made so that hashes alone agree.

    `data`: as for `token_bytes`; `prompts`: what stands before the steps that give rise to the pairs.
    """
    other = np.where(sides.incorrect, sides.chosen, sides.rejected)
    of_other = _before(read, data, np.where(other < 0, sides.step, other))
    return np.fromiter(map(eq, prompts, of_other), bool, len(other))


def _before(read: Read, data: bytes, rows: Any) -> list[bytes]:
    """What stands before steps: the prompt, and what their solutions have before them."""
    tokens, owner = read.tokens, read.owner[rows]
    prompt = tokens.prompt[owner]
    prompts = _sliced(data, tokens.prompts.starts[prompt], tokens.prompts.sizes[prompt])
    return list(map(add, prompts, _sliced(data, tokens.own.starts[owner], read.start[rows])))


def _sliced(data: bytes, starts: Any, sizes: Any) -> list[bytes]:
    bounds = zip((starts * ID_BYTES).tolist(), ((starts + sizes) * ID_BYTES).tolist(), strict=True)
    return [data[start:end] for start, end in bounds]
