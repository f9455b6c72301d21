"""Signals: formulas against plain definitions, one span and many at once, and what a new one brings along."""

import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.records import TokenScores
from stepconf.core.signals import CONFIDENCE, NOT_OF_TOKENS, SIGNALS, Signal, confidence
from stepconf.core.signals.shape import picsar
from stepconf.core.spans import Tokens, Values, over_spans, spread

PROBABILITY = st.floats(1e-6, 1)
TOKEN = st.tuples(
    st.floats(-30, 0), st.floats(0, 12), PROBABILITY, st.floats(0, 100), st.floats(-40, -1), st.floats(0, 0.5)
)
SPAN = st.lists(TOKEN, min_size=1, max_size=40)


def spikes(t: TokenScores) -> float:
    h = t.entropies
    bursts = [i for i in range(len(h)) if i + 4 < len(h) and h[i + 4] - h[i] > 1.36]
    rebounds = [i for i in range(1, len(h)) if h[i] - min(h[s] for s in range(i)) > 1.33]
    return (len(bursts) + len(rebounds)) / 2 * (1 + float(np.var(h)))


def tail_median(t: TokenScores) -> float:
    mean = float(np.mean(t.entropies))
    w = 2048 if mean == 0 else min(max(math.sqrt(len(t)) / mean, 64), 2048)
    return float(np.median(t.entropies[-int(w) :]))


def worst_window(t: TokenScores) -> float:
    w = min(16, len(t))
    return max(float(np.mean(t.entropies[i : i + w])) for i in range(len(t) - w + 1))


def centroid(t: TokenScores) -> float | None:
    h, n = t.entropies, len(t)
    high = sorted(h, reverse=True)[math.ceil(n / 100) - 1]
    low = sorted(h)[math.ceil(0.8 * n) - 1]
    inside: list[int] = []
    for start in range(n):
        if h[start] < high:
            continue
        for i in range(start, n):
            if i > start and h[i] < high and all(h[j] <= low for j in range(i, min(i + 2, n))):
                break
            inside.append(i)
    phases = sorted(set(inside))
    total = sum(map(Fraction, (h[i] for i in phases)))
    return float(sum(Fraction(h[i]) * (2 * i + 1) / (2 * n) for i in phases) / total) if total else None


def third(t: TokenScores, which: int) -> float:
    n = len(t)
    own = [
        h for i, h in enumerate(t.entropies)
        if (i < n / 3, n // 3 <= i < 2 * n / 3, i >= n - math.ceil(n / 3))[which]
    ]  # fmt: skip
    return float(np.mean(own))


def slope(t: TokenScores) -> float:
    return float(np.polyfit(np.linspace(0, 1, len(t)), t.entropies, 1)[0]) if len(t) > 1 else 0.0


PLAIN: dict[str, Callable[[TokenScores], float | None]] = {
    "length": lambda t: len(t),
    "entropy_mean": lambda t: fmean(t.entropies),
    "entropy_max": lambda t: sorted(t.entropies)[-1],
    "entropy_sum": lambda t: sum(t.entropies),
    "logprob_sum": lambda t: sum(t.logprobs),
    "perplexity": lambda t: math.prod(math.exp(-x / len(t)) for x in t.logprobs),
    "max_prob_mean": lambda t: fmean(t.max_probs),
    "confidence": lambda t: math.exp(-sum(t.entropies) / len(t)),
    "spikes": spikes,
    "tail_median": tail_median,
    "worst_window": worst_window,
    "entropy_centroid": centroid,
    "entropy_early": lambda t: third(t, 0),
    "entropy_middle": lambda t: third(t, 1),
    "entropy_late": lambda t: third(t, 2),
    "entropy_slope": slope,
    "committal": lambda t: float(np.mean([-lp - h for lp, h in zip(t.logprobs, t.entropies, strict=True)])),
    "varentropy": lambda t: float(np.mean(t.varentropies or [])),
    "self_certainty": lambda t: -float(np.mean(t.mean_logprobs or [])),
    "margin": lambda t: fmean(a - b for a, b in zip(t.max_probs, t.second_probs or [], strict=True)),
}
BY_NAME = {signal.name: signal for signal in SIGNALS}
NEEDING = {"varentropy", "self_certainty", "margin"}


def scores_of(span: list[tuple[float, ...]]) -> TokenScores:
    """As a distribution has them: the second probability is no larger than the first."""
    columns = [list(column) for column in zip(*span, strict=True)]
    columns[5] = [min(pair) for pair in zip(columns[2], columns[5], strict=True)]
    return TokenScores(*columns)


def test_names_are_unique_and_each_has_a_plain_definition() -> None:
    assert len(BY_NAME) == len(SIGNALS) and set(BY_NAME) == set(PLAIN)
    declared = [*BY_NAME, *(signal.name for signal in NOT_OF_TOKENS)]
    assert len(declared) == len(set(declared))
    assert {name for name, signal in BY_NAME.items() if signal.needs != "logprobs"} == NEEDING


@pytest.mark.parametrize("name", BY_NAME)
@given(span=SPAN)
def test_a_formula_is_its_plain_definition_and_keeps_its_range(
    name: str, span: list[tuple[float, ...]]
) -> None:
    signal, scores = BY_NAME[name], scores_of(span)
    value, expected = signal.over(scores), PLAIN[name](scores)
    assert (value is None) == (expected is None)
    if value is not None:
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert signal.low <= value <= signal.high
        assert not (signal.open_low and value == signal.low)
    assert signal.over(TokenScores([], [], [])) is None


@pytest.mark.parametrize("name", BY_NAME)
@given(span=SPAN)
def test_without_the_later_lists_only_what_needs_them_has_no_value(
    name: str, span: list[tuple[float, ...]]
) -> None:
    scores = scores_of(span)
    fewer = TokenScores(scores.logprobs, scores.entropies, scores.max_probs)
    expected = None if name in NEEDING else BY_NAME[name].over(scores)
    assert BY_NAME[name].over(fewer) == expected


@pytest.mark.parametrize("n", [63, 64, 65, 300, 2500])
@pytest.mark.parametrize("scale", [1e-4, 0.03, 2.0])
@pytest.mark.parametrize("name", ["tail_median", "worst_window", "entropy_centroid", "spikes"])
def test_long_spans(name: str, n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    entropies = (rng.exponential(scale, n)).tolist()
    scores = TokenScores([-0.1] * n, entropies, [0.9] * n)
    assert BY_NAME[name].over(scores) == pytest.approx(PLAIN[name](scores), rel=1e-9)


@given(st.lists(st.floats(-20, 0), max_size=9), st.lists(st.floats(-20, 0), max_size=9))
def test_picsar(reasoning: list[float], answer: list[float]) -> None:
    expected = np.mean(reasoning) + np.mean(answer) if reasoning and answer else None
    found = picsar(reasoning, answer)
    assert found == (None if expected is None else pytest.approx(float(expected)))


@given(st.lists(st.one_of(st.just([]), SPAN), max_size=8))
def test_many_spans_at_once_are_each_span_by_itself(spans: list[list[tuple[float, ...]]]) -> None:
    whole = [scores_of(span) for span in spans if span]
    flat = [np.array([x for one in whole for x in one.columns()[i] or []], float) for i in range(6)]
    lengths = np.array([len(span) for span in spans], np.int64)
    for signal in SIGNALS:
        for formula in (signal.of_tokens, lambda scores, of=signal.of_tokens: of(scores)):
            own = Signal(signal.name, "", "", True, formula)
            found = over_spans(own, Tokens(*flat), lengths)
            alone = [signal.over(scores_of(span)) if span else None for span in spans]
            expected = [math.nan if value is None else value for value in alone]
            assert found.values == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
            assert found.failure in ("", "the formula gave None")


def test_a_list_that_some_spans_lack() -> None:
    lengths, given_ = np.array([2, 0, 1, 3]), np.array([True, True, False, True])
    flat = spread(np.array([1.0, 3.0, 5.0, 6.0, 7.0]), given_, lengths)
    tokens = Tokens(*(np.zeros(6),) * 3, flat, *(np.full(6, np.nan),) * 2)
    assert over_spans(BY_NAME["varentropy"], tokens, lengths).values == pytest.approx(
        [2.0, math.nan, math.nan, 6.0], nan_ok=True
    )
    own = Signal("own", "", "", True, lambda scores: sum(scores.varentropies or [-1.0]))
    assert over_spans(own, tokens, lengths).values == pytest.approx([4.0, math.nan, -1.0, 18.0], nan_ok=True)


@given(SPAN, SPAN, st.integers(0, 40))
def test_spans_of_scores_join_again(first: list[Any], second: list[Any], at: int) -> None:
    a, b = scores_of(first), scores_of(second)
    assert (a + b)[: len(a)] == a and (a + b)[len(a) :] == b
    assert a[:at] + a[at:] == a
    bare = TokenScores(b.logprobs, b.entropies, b.max_probs)
    assert (a + bare).columns()[3:] == (None, None, None), "what one lacks, the whole lacks"
    assert TokenScores([], [], []) + a == a, "but none of no tokens"


def test_extremes_stay_finite() -> None:
    hopeless = TokenScores([-1e6, -1e6], [11.0, 11.0], [1e-9, 1e-9])
    sure = TokenScores([0.0], [0.0], [1.0], [0.0], [-50.0], [0.0])
    assert all(math.isfinite(signal.over(hopeless) or 0.0) for signal in SIGNALS)
    values = {signal.name: signal.over(sure) for signal in SIGNALS}
    ones = {"length", "perplexity", "max_prob_mean", "confidence", "margin"}
    assert {name for name, value in values.items() if value == 1} == ones
    assert values["entropy_centroid"] is None and values["self_certainty"] == 50.0
    assert all(values[name] == 0 for name in set(values) - ones - {"entropy_centroid", "self_certainty"})
    impossible = over_spans(CONFIDENCE, Tokens(*np.array([[-1000.0]] * 6)), np.array([1]))
    assert np.isnan(impossible.values).all(), "of tokens that no model gives there is no confidence"


@given(st.floats(0, 20), st.floats(0, 20))
def test_confidence_falls_with_entropy(a: float, b: float) -> None:
    assert 0 < confidence(a) <= 1
    assert (confidence(a) >= confidence(b)) or a > b


def test_a_formula_that_fails_has_no_value_there() -> None:
    def picky(scores: TokenScores) -> float | None:
        if scores.entropies[0] == 1.0:
            raise KeyError("one")
        return {2.0: math.nan, 3.0: None}.get(scores.entropies[0], scores.entropies[0])

    def over(lengths: list[int], *values: float) -> Values:
        tokens = Tokens(*(np.array(values),) * 6)
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
                        lambda scores: sorted(scores.entropies)[-2], low=0, column=True)
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
