"""What a signal is: its formula with range, direction and source."""

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum, inf
from typing import Literal

from stepconf.core.records import TokenScores

# Of a span of n >= 1 tokens; None where the signal has no value there.
Formula = Callable[[TokenScores], float | None]
TokenList = Literal["logprobs", "entropies", "max_probs", "varentropies", "mean_logprobs", "second_probs"]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The formula `then(how(list))` of one of the token lists: millions of spans at once are a few array operations."""

    how: Literal["count", "sum", "mean", "max"]
    of: TokenList
    then: Callable[[float], float] = float

    def __call__(self, scores: TokenScores) -> float | None:
        """The value over one span; None where the span lacks the list."""
        values: list[float] | None = getattr(scores, self.of)
        if values is None:
            return None
        if self.how == "count":
            return self.then(len(values))
        if self.how == "max":
            return self.then(max(values))
        return self.then(fsum(values) / (len(values) if self.how == "mean" else 1))


@dataclass(frozen=True, slots=True)
class Signal:
    """A number for each span of tokens.

    Attributes:
        name: of the column and in every table.
        unit: such as nats; empty for a plain number.
        meaning: what it is, in a few words.
        higher_is_better: whether a higher value speaks for correctness; None keeps it out of `stepconf calibrate`.
        of_tokens: the formula.
        low, high: its range, both included, but for `low` where `open_low`.
        column: whether `steps` has it as a column. One more changes the format: see `VERSION` in `core/schema.py`.
        source: the paper that it comes from.
        needs: a list of the tokens without which it has no value.
    """

    name: str
    unit: str
    meaning: str
    higher_is_better: bool | None
    of_tokens: Formula
    low: float = -inf
    high: float = inf
    open_low: bool = False
    column: bool = False
    source: str = ""
    needs: TokenList = "logprobs"

    @property
    def described(self) -> str:
        """The meaning with the unit or, of a plain number, the range."""
        bounds = f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"
        if self.high == inf:
            bounds = f">= {self.low:g}"
        return f"{self.meaning}, {self.unit or bounds}"

    def over(self, scores: TokenScores) -> float | None:
        """The value over a span of tokens; None over none."""
        return self.of_tokens(scores) if len(scores) else None
