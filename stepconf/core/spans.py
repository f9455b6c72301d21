"""A signal over many spans of tokens at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stepconf.core.records import TokenScores
from stepconf.core.signals import Pooled, Signal

Floats = npt.NDArray[np.float64]
_POOLS = {"sum": np.add, "mean": np.add, "max": np.maximum}


# The columns of `steps` that `Tokens` are made of, in its order.
TOKEN_LISTS = (
    *("token_logprobs", "token_entropies", "token_max_probs"),
    *("token_varentropies", "token_mean_logprobs", "token_second_probs"),
)


class Tokens(NamedTuple):
    """The token lists of consecutive spans, one span after the other: each (t,), NaN where a list was not given."""

    logprobs: Floats
    entropies: Floats
    max_probs: Floats
    varentropies: Floats
    mean_logprobs: Floats
    second_probs: Floats

    def span(self, start: int, end: int) -> TokenScores:
        """Of the tokens from `start` to before `end`; a list with a NaN is not there."""
        own = [column[start:end] for column in self]
        given = [own[0], own[1], own[2], *(None if np.isnan(one).any() else one for one in own[3:])]
        return TokenScores(*(None if one is None else one.tolist() for one in given))  # type: ignore[arg-type]  # the first three are there


def spread(flat: Floats, given: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> Floats:
    """A token list (t,) of consecutive spans of which some may lack it: NaN there.

    Args:
        flat: the values of those that have it, one span after the other.
        given: whether each span has it (n,).
        lengths: tokens of each span (n,), which add up to t.
    """
    values = np.full(int(lengths.sum()), np.nan)
    values[np.repeat(given, lengths)] = flat
    return values


class Values(NamedTuple):
    """A signal's `values` (n,), NaN where it has none; `failure` says why the first span with tokens has none."""

    values: Floats
    failure: str


def over_spans(signal: Signal, tokens: Tokens, lengths: npt.NDArray[np.int64]) -> Values:
    """The signal over each of the spans; a formula that raises or gives no number has no value there.

    Args:
        signal: whose formula it is.
        tokens: of all spans, float64.
        lengths: tokens of each span (n,), which add up to t.
    """
    values = np.full(len(lengths), np.nan)
    some = np.flatnonzero(lengths > 0)
    ends = np.cumsum(lengths)[some]
    starts = ends - lengths[some]
    failure = ""
    if isinstance(signal.of_tokens, Pooled):
        values[some] = _pooled(signal.of_tokens, tokens, starts, lengths[some])
        return Values(values, failure)
    for span, start, end in zip(some, starts, ends, strict=True):
        value, why = _value(signal, tokens.span(start, end))
        values[span] = value
        failure = failure or why
    return Values(values, failure)


def _pooled(
    formula: Pooled, tokens: Tokens, starts: npt.NDArray[np.int64], n: npt.NDArray[np.int64]
) -> Floats:
    if formula.how == "count" or not len(starts):
        found = n.astype(float)
    else:
        found = _POOLS[formula.how].reduceat(getattr(tokens, formula.of), starts)
        found = found / n if formula.how == "mean" else found
    if formula.then is float:
        return found
    return np.fromiter((_mapped(formula.then, one) for one in found.tolist()), float, len(found))


def _mapped(then: Callable[[float], float], pooled: float) -> float:
    try:
        return then(pooled)
    except OverflowError:  # of tokens that no model gives, such as an entropy of -1000
        return np.nan


def _value(signal: Signal, span: TokenScores) -> tuple[float, str]:
    try:
        value = signal.of_tokens(span)
        number = np.nan if value is None else float(value)
    except Exception as error:  # noqa: BLE001  the formula is the user's; what it raises is reported
        return np.nan, f"{type(error).__name__}: {error}"
    return number, f"the formula gave {value}" if np.isnan(number) else ""
