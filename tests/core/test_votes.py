"""Votes: against a slow count, by their laws, and at ties."""

from collections import Counter
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.votes import confident_vote, majority, most_confident, softmax_weights, vote

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", "01", None]), max_size=12)


def same(a: str, b: str) -> bool:
    return int(a) == int(b)


@given(ANSWERS)
def test_majority_is_a_count(answers: list[str | None]) -> None:
    count = Counter(int(a) for a in answers if a)
    tallies = majority(answers, same)
    assert {int(answers[t.members[0]] or 0): t.weight for t in tallies} == dict(count)
    assert sorted(i for t in tallies for i in t.members) == [i for i, a in enumerate(answers) if a]
    assert [t.weight for t in tallies] == sorted((t.weight for t in tallies), reverse=True)


def test_ties_go_to_the_larger_class_then_to_the_earlier() -> None:
    assert vote(["1", "2", "2"], [2.0, 1.0, 1.0], same)[0].members == (1, 2)
    assert vote(["2", "1"], [1.0, 1.0], same)[0].members == (0,)
    assert vote([None, None], [1.0, 1.0], same) == []


def test_the_confident_vote_leaves_out_the_least_confident() -> None:
    answers, confidences = ["1", "2", "2", None, "3"], [0.9, 0.4, 0.4, 0.99, None]
    assert confident_vote(answers, confidences, 1.0, same)[0].members == (0,)  # .9 against .8
    assert confident_vote(answers, [0.7, 0.4, 0.4, 0.99, None], 1.0, same)[0].members == (1, 2)
    assert confident_vote(answers, [0.7, 0.4, 0.4, 0.99, None], 0.34, same)[0].members == (0,)
    assert len(confident_vote(answers, confidences, 0.01, same)) == 1  # one vote at least
    assert confident_vote([None], [0.5], 0.9, same) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["1", "2", None]), st.one_of(st.none(), st.floats(0.01, 1))), max_size=9
    )
)
def test_keeping_all_is_the_weighted_vote(rows: list[tuple[str | None, float | None]]) -> None:
    answers = [a if c is not None else None for a, c in rows]
    weights = [c or 0.0 for _, c in rows]
    kept = confident_vote([a for a, _ in rows], [c for _, c in rows], 1.0, same)
    assert kept == vote(answers, weights, same)


def test_the_most_confident_wins_the_earlier_of_equals() -> None:
    assert most_confident(["1", None, "3", "4"], [0.5, 0.9, 0.8, 0.8]) == 2
    assert most_confident([None, "1"], [0.1, None]) is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=9), st.floats(0.01, 100))
def test_cisc_weights_are_a_softmax(confidences: list[float | None], temperature: float) -> None:
    found = softmax_weights(confidences, temperature)
    literal = [0.0 if c is None else exp(c / temperature) for c in confidences]
    total = sum(literal)
    assert found == pytest.approx([one / total if total else 0.0 for one in literal], rel=1e-9)


def test_cisc_is_a_majority_when_hot_and_best_of_n_when_cold() -> None:
    answers, confidences = ["1", "2", "2"], [0.9, 0.5, 0.6]
    hot, cold = (vote(answers, softmax_weights(confidences, t), same) for t in (100.0, 0.01))
    assert (hot[0].members, cold[0].members) == ((1, 2), (0,))
