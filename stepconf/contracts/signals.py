"""What a signal promises."""

from collections.abc import Iterator
from copy import deepcopy
from math import isfinite, log
from random import Random

from stepconf.contracts import Promise, expect
from stepconf.core.records import TokenScores
from stepconf.core.signals import Signal
from stepconf.kinds import SIGNALS

_VOCABULARY = 1000
_LENGTHS = (1, 2, 3, 10, 200)


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the signal of that name."""
    signal: Signal = SIGNALS.load(name)
    spans = [_span(n, seed) for n in _LENGTHS for seed in range(20)]
    yield Promise("its name is a column's", lambda: expect(signal.name.isidentifier(), f"{signal.name!r}"))
    yield Promise("it has a value, in its range, on most spans", lambda: _is_in_range(signal, spans))
    yield Promise("it gives the same value again", lambda: _is_repeatable(signal, spans))
    yield Promise("it tells spans apart", lambda: _differs(signal, spans))
    yield Promise("it leaves the lists of tokens as they are", lambda: _is_pure(signal, spans))


def _span(n: int, seed: int) -> TokenScores:
    """Tokens of distributions that may be: one likeliest token, the rest of the mass spread evenly."""
    draw = Random(f"{n} {seed}")  # noqa: S311  spans to try a formula on
    tops = [draw.uniform(0.01, 0.999) for _ in range(n)]
    entropies = [-p * log(p) - (1 - p) * log((1 - p) / (_VOCABULARY - 1)) for p in tops]
    logprobs = [log(p) if draw.random() < 0.8 else log((1 - p) / (_VOCABULARY - 1)) for p in tops]
    rest = [(1 - p) / (_VOCABULARY - 1) for p in tops]
    pairs = list(zip(tops, rest, entropies, strict=True))
    varentropies = [p * (log(p) + h) ** 2 + (1 - p) * (log(q) + h) ** 2 for p, q, h in pairs]
    means = [(log(p) + (_VOCABULARY - 1) * log(q)) / _VOCABULARY for p, q, _ in pairs]
    return TokenScores(logprobs, entropies, tops, varentropies, means, rest)


def _values(signal: Signal, spans: list[TokenScores]) -> list[float]:
    found = [signal.over(span) for span in spans]
    return [value for value in found if value is not None]


def _is_in_range(signal: Signal, spans: list[TokenScores]) -> None:
    values = _values(signal, spans)
    expect(2 * len(values) > len(spans), f"a value on {len(values)} of {len(spans)}")
    for value in values:
        expect(isfinite(value), f"{value}")
        expect(signal.low <= value <= signal.high, f"{value}, out of [{signal.low}, {signal.high}]")


def _is_repeatable(signal: Signal, spans: list[TokenScores]) -> None:
    first, again = _values(signal, spans), _values(signal, spans)
    expect(first == again, "it does not")


def _differs(signal: Signal, spans: list[TokenScores]) -> None:
    different = len(set(_values(signal, spans)))
    expect(different > 1, f"it is {_values(signal, spans)[:1]} everywhere")


def _is_pure(signal: Signal, spans: list[TokenScores]) -> None:
    before = deepcopy(spans)
    _values(signal, spans)
    after = spans
    expect(before == after, "it changes them")
