"""Signals: formulas against plain definitions, one span and many at once, and what a new one brings along."""

import math
import subprocess
import sys
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.records import TokenScores
from stepconf.core.signals import CONFIDENCE, SIGNALS, Signal, confidence
from stepconf.core.spans import Tokens, Values, over_spans

SPAN = st.lists(st.tuples(st.floats(-30, 0), st.floats(0, 12), st.floats(1e-6, 1)), min_size=1, max_size=20)
PLAIN: dict[str, Callable[[TokenScores], float]] = {
    "length": lambda t: len(t),
    "entropy_mean": lambda t: fmean(t.entropies),
    "entropy_max": lambda t: sorted(t.entropies)[-1],
    "entropy_sum": lambda t: sum(t.entropies),
    "logprob_sum": lambda t: sum(t.logprobs),
    "perplexity": lambda t: math.prod(math.exp(-x / len(t)) for x in t.logprobs),
    "max_prob_mean": lambda t: fmean(t.max_probs),
    "confidence": lambda t: math.exp(-sum(t.entropies) / len(t)),
}
BY_NAME = {signal.name: signal for signal in SIGNALS}


def scores_of(span: list[tuple[float, float, float]]) -> TokenScores:
    return TokenScores(*(list(column) for column in zip(*span, strict=True)))


def test_names_are_unique_and_each_has_a_plain_definition() -> None:
    assert len(BY_NAME) == len(SIGNALS) and set(BY_NAME) == set(PLAIN)


@pytest.mark.parametrize("name", BY_NAME)
@given(span=SPAN)
def test_a_formula_is_its_plain_definition_and_keeps_its_range(
    name: str, span: list[tuple[float, float, float]]
) -> None:
    signal, scores = BY_NAME[name], scores_of(span)
    value = signal.over(scores)
    assert value == pytest.approx(PLAIN[name](scores), rel=1e-9, abs=1e-12)
    assert value is not None and signal.low <= value <= signal.high
    assert not (signal.open_low and value == signal.low)
    assert signal.over(TokenScores([], [], [])) is None


@given(st.lists(st.one_of(st.just([]), SPAN), max_size=8))
def test_many_spans_at_once_are_each_span_by_itself(spans: list[list[tuple[float, float, float]]]) -> None:
    flat = np.array([token for span in spans for token in span], float).reshape(-1, 3)
    lengths = np.array([len(span) for span in spans], np.int64)
    for signal in SIGNALS:
        for formula in (signal.of_tokens, lambda *lists, of=signal.of_tokens: of(*lists)):
            own = Signal(signal.name, "", "", True, formula)
            found = over_spans(own, Tokens(*flat.T), lengths)
            alone = [signal.over(scores_of(span)) if span else None for span in spans]
            expected = [math.nan if value is None else value for value in alone]
            assert found.values == pytest.approx(expected, rel=1e-12, nan_ok=True) and found.failure == ""


def test_extremes_stay_finite() -> None:
    hopeless = TokenScores([-1e6, -1e6], [11.0, 11.0], [1e-9, 1e-9])
    sure = TokenScores([0.0], [0.0], [1.0])
    assert all(math.isfinite(signal.over(hopeless) or 0.0) for signal in SIGNALS)
    assert [signal.over(sure) for signal in SIGNALS] == [1, 0, 0, 0, 0, 1, 1, 1]
    impossible = over_spans(CONFIDENCE, Tokens(*np.array([[-0.1], [-1000.0], [0.9]])), np.array([1]))
    assert np.isnan(impossible.values).all(), "of tokens that no model gives there is no confidence"


@given(st.floats(0, 20), st.floats(0, 20))
def test_confidence_falls_with_entropy(a: float, b: float) -> None:
    assert 0 < confidence(a) <= 1
    assert (confidence(a) >= confidence(b)) or a > b


def test_a_formula_that_fails_has_no_value_there() -> None:
    def picky(logprobs: list[float], entropies: list[float], max_probs: list[float]) -> float | None:
        if entropies[0] == 1.0:
            raise KeyError("one")
        return {2.0: math.nan, 3.0: None}.get(entropies[0], entropies[0])

    def over(lengths: list[int], *values: float) -> Values:
        tokens = Tokens(*(np.array(values),) * 3)
        return over_spans(Signal("picky", "", "", True, picky), tokens, np.array(lengths))

    values, failure = over([1, 1, 1, 1, 0, 1], 0.5, 3.0, 1.0, 2.0, 7.0)
    assert values == pytest.approx([0.5, *[math.nan] * 4, 7.0], nan_ok=True)
    assert failure == "the formula gave None", "the first of the reasons"
    assert over([1], 1.0).failure == "KeyError: 'one'"
    assert over([1], 2.0).failure == "the formula gave nan"
    assert over([2, 0], 0.5, 1.0).failure == "", "a span without tokens is no failure"


NEW_COLUMN = """
from dataclasses import replace
from stepconf.core import signals
second = signals.Signal("second", "nats", "second largest of token_entropies", False,
                        lambda logprobs, entropies, max_probs: sorted(entropies)[-2], low=0, column=True)
signals.SIGNALS += (second,)
import pyarrow as pa
from stepconf.core.checks.columns import check_values
from stepconf.core.checks.findings import Findings
from stepconf.core.checks.steps import check_chunk
from stepconf.core.schema import arrow_schema, json_schema, step_of, to_columns
from tests.test_shards import solved
assert json_schema("steps")["properties"]["second"]["description"] == "second largest of token_entropies, nats"
one = solved(0)
entropies = [step.token_entropies for step in one.steps]
assert [step.signals["second"] for step in one.steps] == [sorted(some)[-2] for some in entropies]
def found(steps):
    tables = [pa.Table.from_pydict(to_columns(name, rows), schema=arrow_schema(name))
              for name, rows in (("solutions", [one.solution]), ("steps", steps))]
    assert [step_of(row).signals.keys() for row in tables[1].to_pylist()] == [step.signals.keys() for step in steps]
    findings = Findings()
    check_values("steps", tables[1], findings)
    check_chunk(*tables, None, findings)
    return {(f.check, f.examples[0].split()[-1]) for f in findings.all() if f.examples[0].endswith("second")}
assert found(one.steps) == set()
other = replace(one.steps[0], signals=one.steps[0].signals | {"second": -1.0})
assert found([other, *one.steps[1:]]) == {("value", "second"), ("aggregate", "second")}
"""


def test_a_signal_added_to_the_table_is_a_column_that_is_checked() -> None:
    """In a process of its own: the tables are declared when they are imported."""
    run = subprocess.run([sys.executable, "-c", NEW_COLUMN], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
