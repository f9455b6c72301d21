"""Rows of steps: aggregates by the formulas of the data dictionary, spans that partition."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.records import Step, TokenScores
from stepconf.core.steps import build_steps, measure
from tests.invariants import check_solution

ENTROPIES = st.floats(0, 12)
LOGPROBS = st.floats(-30, 0)
MAX_PROBS = st.floats(1e-6, 1)


@st.composite
def divided(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], list[int], TokenScores]:
    """A text, spans that partition it, the starts of its tokens, and their scores."""
    text = draw(st.text(min_size=1, max_size=40))
    cuts = sorted(draw(st.sets(st.integers(1, len(text)), max_size=6)) - {len(text)})
    bounds = [0, *cuts, len(text)]
    starts = sorted(draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=30)))
    n = len(starts)
    scores = TokenScores(
        *(draw(st.lists(kind, min_size=n, max_size=n)) for kind in (LOGPROBS, ENTROPIES, MAX_PROBS))
    )
    return text, list(itertools.pairwise(bounds)), starts, scores


@given(divided())
def test_steps_partition_text_and_tokens(
    given_: tuple[str, list[tuple[int, int]], list[int], TokenScores],
) -> None:
    text, spans, starts, scores = given_
    ids = list(range(100, 100 + len(starts)))
    steps = build_steps("s", "p", text, spans, ids, starts, scores)
    assert "".join(step.text for step in steps) == text
    assert [t for step in steps for t in step.token_ids] == ids
    assert [h for step in steps for h in step.token_entropies] == scores.entropies
    assert [x for step in steps for x in step.token_logprobs] == scores.logprobs
    assert [p for step in steps for p in step.token_max_probs] == scores.max_probs
    for step in steps:
        inside = [i for i, start in enumerate(starts) if step.char_start <= start < step.char_end]
        assert list(range(step.token_start, step.token_end)) == inside, "a token belongs where it starts"
    assert len({step.step_id for step in steps}) == len(steps)
    _check_aggregates(steps)


def _check_aggregates(steps: list[Step]) -> None:
    product = 1.0
    for step in steps:
        n = len(step.token_ids)
        if n == 0:
            assert step.signals == measure(TokenScores([], [], []))
            assert step.entropy_mean is step.confidence is None
        else:
            scores = TokenScores(step.token_logprobs, step.token_entropies, step.token_max_probs)
            assert step.signals == measure(scores) and None not in step.signals.values()
            assert step.entropy_mean == step.signals["entropy_mean"]
            assert step.confidence is not None and step.confidence == step.signals["confidence"]
            product *= step.confidence
        assert step.cumulative_confidence == pytest.approx(product)


def test_without_scores_tokens_stay_in_the_solution() -> None:
    plain = build_steps("s", "p", "a b", [(0, 2), (2, 3)])
    tokens = build_steps("s", "p", "a b", [(0, 2), (2, 3)], [7, 8], [0, 2])
    for step in [*plain, *tokens]:
        assert step.token_ids == step.token_logprobs == step.token_entropies == step.token_max_probs == []
        assert step.entropy_mean is step.confidence is step.cumulative_confidence is None
    assert [(step.token_start, step.token_end) for step in tokens] == [(0, 1), (1, 2)]
    assert [(step.token_start, step.token_end) for step in plain] == [(0, 0), (0, 0)]


def test_ids_tell_solutions_and_spans_apart() -> None:
    ids = {
        step.step_id
        for solution in ("s", "t")
        for spans in ([(0, 2), (2, 3)], [(0, 1), (1, 3)])
        for step in build_steps(solution, "p", "a b", spans)
    }
    assert len(ids) == 8


def test_a_long_product_does_not_lose_its_last_digits() -> None:
    n = 2000
    scores = TokenScores([-0.1] * n, [0.3] * n, [0.9] * n)
    spans = [(i, i + 1) for i in range(n)]
    steps = build_steps("s", "p", "x" * n, spans, list(range(n)), list(range(n)), scores)
    assert steps[-1].cumulative_confidence == pytest.approx(math.exp(-0.3 * n), rel=1e-9)


def test_the_checker_of_invariants_sees_errors() -> None:
    """The checks that every run goes through are not empty."""
    from dataclasses import asdict

    scores = TokenScores([-0.5, -0.25], [0.9, 0.8], [0.7, 0.8])
    built = build_steps("s", "p", "a b", [(0, 2), (2, 3)], [7, 8], [0, 2], scores)
    steps = [asdict(step) | step.signals for step in built]
    solution = {"problem_id": "p", "n_steps": 2, "n_tokens": 2, "token_ids": [7, 8], "text": "a b"}
    solution |= {"entropy_mean": 0.85, "confidence": math.exp(-0.85)}
    check_solution(solution, steps, 100)
    wrong = {
        "token_entropies": [math.log(100) + 0.1],
        "token_logprobs": [0.1],
        "token_max_probs": [1.1],
        "token_ids": [9],
        "char_end": 1,
        "confidence": 0.5,
        "is_first_error": True,
    }
    for name, value in wrong.items():
        with pytest.raises(AssertionError):
            check_solution(solution, [{**steps[0], name: value}, steps[1]], 100)
