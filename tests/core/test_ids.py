"""Ids depend on content only, and on all of it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.ids import content_id, digest_of_ids, problem_id

PARTS = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(0, 99), max_size=4),
)


def test_golden_values() -> None:
    # Ids lie in published data sets: a change of these values orphans every one of them.
    assert content_id("Natalia", 3, [1, 2, 3], None) == "23205f7cb379b5981793"
    assert problem_id("What is 2+2?", "4") == "7e2cba55c070817d06f8"
    assert digest_of_ids(["a", "b"]) == "eab0d769de02b2edbaba"


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_different_parts_have_different_ids(one: list[object], other: list[object]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)  # type: ignore[arg-type]


def test_parts_do_not_run_together() -> None:
    alike = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        ("", "abc"),
        (1,),
        ("1",),
        ([1],),
        (12,),
        ([1, 2],),
        (b"1",),
    ]
    assert len({content_id(*parts) for parts in alike}) == len(alike)
    assert content_id() != content_id(None) != content_id("")


def test_any_text_and_any_sequence_of_integers() -> None:
    assert len(content_id("\ud800", 10**40, (1, 2), range(3))) == 20
    assert content_id([1, 2]) == content_id((1, 2))


@given(st.text(), st.none() | st.text())
def test_problem_ids_ignore_composition_and_whitespace(text: str, gold: str | None) -> None:
    spaced = "  " + unicodedata.normalize("NFD", text).replace(" ", " \n\t ") + "\n"
    assert problem_id(spaced, gold) == problem_id(text, gold)


def test_problem_ids_tell_problems_apart() -> None:
    assert problem_id("a b", "1") != problem_id("ab", "1")
    assert problem_id("a", None) != problem_id("a", "") != problem_id("a", "1")
    assert problem_id("Caf\u00e9", "1") == problem_id("Cafe\u0301", "1")


@given(st.lists(st.text(max_size=4), max_size=6), st.randoms())
def test_the_digest_of_ids_knows_no_order(ids: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(ids, len(ids))
    assert digest_of_ids(shuffled) == digest_of_ids(ids)
    assert digest_of_ids([*ids, "one more"]) != digest_of_ids(ids)
