"""Signals: numbers that stand for the confidence in a span of tokens, a step or a whole solution.

Each is declared once, in `SIGNALS`. What is there is a row of `stepconf calibrate`; with `column`, it is also a column
of `steps`, which `stepconf check` computes again from the tokens. One's own is a `Signal` in any module:
`stepconf calibrate RUN --signal module:name`.

Cumulative confidence is no signal of a span: it is of the path of steps up to one (`core.steps.build_steps`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf
from typing import Literal

from stepconf.core.records import TokenScores

# Of the log-probabilities, entropies and largest probabilities of a span's tokens (see `TokenScores`), each of one
# length n >= 1; None where the signal has no value there.
Formula = Callable[[Sequence[float], Sequence[float], Sequence[float]], float | None]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The formula `then(how(list))` of one of the token lists: millions of spans at once are a few array operations."""

    how: Literal["count", "sum", "mean", "max"]
    of: Literal["logprobs", "entropies", "max_probs"]
    then: Callable[[float], float] = float

    def __call__(
        self, logprobs: Sequence[float], entropies: Sequence[float], max_probs: Sequence[float]
    ) -> float:
        """The value over one span."""
        values = {"logprobs": logprobs, "entropies": entropies, "max_probs": max_probs}[self.of]
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

    @property
    def described(self) -> str:
        """The meaning with the unit or, of a plain number, the range."""
        bounds = f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"
        if self.high == inf:
            bounds = f">= {self.low:g}"
        return f"{self.meaning}, {self.unit or bounds}"

    def over(self, scores: TokenScores) -> float | None:
        """The value over a span of tokens; None over none."""
        return self.of_tokens(scores.logprobs, scores.entropies, scores.max_probs) if len(scores) else None


def confidence(entropy_mean: float) -> float:
    """exp(-mean entropy in nats), in (0, 1]: the normalised confidence of eq. (4) of arXiv 2605.07353."""
    return exp(-entropy_mean)


def _perplexity(logprob_mean: float) -> float:
    # Beyond float range a perplexity says nothing more than "infinite".
    return exp(min(-logprob_mean, 700.0))


LENGTH = Signal("length", "tokens", "number of tokens", False, Pooled("count", "entropies"), low=1)
# Eq. (2) of arXiv 2605.07353, in nats (the paper calls it the negative average, a slip of the sign).
ENTROPY_MEAN = Signal(
    "entropy_mean", "nats", "mean of token_entropies", False, Pooled("mean", "entropies"), low=0, column=True
)
# Not ranked: the mean entropy gives the same order.
CONFIDENCE = Signal(
    "confidence", "", "exp(-entropy_mean)", None, Pooled("mean", "entropies", confidence),
    low=0, high=1, open_low=True, column=True,
)  # fmt: skip

# The columns come in this order.
SIGNALS: tuple[Signal, ...] = (
    LENGTH,
    ENTROPY_MEAN,
    Signal(
        "entropy_max", "nats", "maximum of token_entropies", False, Pooled("max", "entropies"),
        low=0, column=True,
    ),
    Signal("entropy_sum", "nats", "sum of token_entropies", False, Pooled("sum", "entropies"), low=0),
    Signal(
        "logprob_sum", "nats", "sum of token_logprobs", None, Pooled("sum", "logprobs"), high=0, column=True
    ),
    Signal(
        "perplexity", "", "exp(-mean of token_logprobs)", False, Pooled("mean", "logprobs", _perplexity),
        low=1, column=True,
    ),
    Signal(
        "max_prob_mean", "", "mean of token_max_probs", True, Pooled("mean", "max_probs"),
        low=0, high=1, open_low=True, column=True,
    ),
    CONFIDENCE,
)  # fmt: skip
