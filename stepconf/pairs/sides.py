"""The pairs of a part before they are rows: which steps are their sides, and the tokens that name them."""

from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.pairs.columns import INCORRECT, Outcomes
from stepconf.core.pairs.select import SPLITS, least_of_train
from stepconf.core.pairs.traces import pair_digest
from stepconf.pairs.columns import Read
from stepconf.pairs.tokens import Lists, content_hash, joined, mixed


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
    written = {row: encoder.encode(read.put_right[row]) for row in step[chosen < 0].tolist()}
    contents = read.content[chosen]
    for pair in np.flatnonzero(chosen < 0).tolist():
        contents[pair] = content_hash(read.tokens, written[step[pair]])
    whole = mixed(read.prefix[step] + mixed(contents + mixed(read.content[rejected])))
    kept = np.sort(np.unique(whole, return_index=True)[1])
    return Sides(step, chosen, rejected, incorrect, written).at(kept)


def by_split(sides: Sides, read: Read, validation: float) -> tuple[Sides, Any]:
    """The pairs of train, then those of validation; and the number (p,) of the split of each."""
    held_out = pc.less(read.problems.dictionary, least_of_train(validation)).to_numpy(zero_copy_only=False)
    number = np.where(held_out, SPLITS.index("validation"), SPLITS.index("train"))
    split = number[read.problems.indices.to_numpy()[read.owner[sides.step]]]
    order = np.argsort(split, kind="stable")
    return sides.at(order), split[order]


class PairTokens(NamedTuple):
    """The token ids of pairs (p,): as bytes, `joined` (`pairs.tokens`)."""

    prompt: Any
    chosen: Any
    rejected: Any

    def at(self, rows: Any) -> "PairTokens":
        """Those of some of the pairs."""
        return PairTokens(*(own.take(pa.array(rows)) for own in self))

    def digests(self) -> list[bytes]:
        """The ids of the pairs."""
        return list(map(pair_digest, *(own.to_pylist() for own in self)))


def pair_tokens(read: Read, sides: Sides) -> PairTokens:
    """The tokens that the pairs are made of."""
    own = [sides.written.get(step, []) for step in np.where(sides.chosen < 0, sides.step, -1).tolist()]
    sizes = np.array(list(map(len, own)), np.int64)
    written = Lists(np.fromiter(chain.from_iterable(own), np.int32), np.cumsum(sizes) - sizes, sizes)
    return PairTokens(
        _before(read, sides.step),
        joined(_steps(read, sides.chosen), written),
        joined(_steps(read, sides.rejected)),
    )


def after_same_tokens(read: Read, sides: Sides, prompts: Any) -> Any:
    """Whether the sides of each pair (p,) do follow the same tokens: a text can be made so that hashes alone agree.

    `prompts`: what stands before the steps that give rise to the pairs.
    """
    other = np.where(sides.incorrect, sides.chosen, sides.rejected)
    of_other = _before(read, np.where(other < 0, sides.step, other))
    return pc.equal(prompts, of_other).to_numpy(zero_copy_only=False)


def _steps(read: Read, rows: Any) -> Lists:
    """The tokens of steps; none for -1."""
    own = read.tokens.own
    starts = own.starts[read.owner[rows]] + read.start[rows]
    return Lists(own.values, starts, np.where(rows < 0, 0, read.size[rows]))


def _before(read: Read, rows: Any) -> Any:
    """What stands before steps: the prompt, and what their solutions have before them."""
    (prompts, prompt, own), owner = read.tokens, read.owner[rows]
    row = prompt[owner]
    of_prompt = Lists(prompts.values, prompts.starts[row], prompts.sizes[row])
    return joined(of_prompt, Lists(own.values, own.starts[owner], read.start[rows]))
