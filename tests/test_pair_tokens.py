"""Hashes of steps are equal where the tokens are, whatever stands around them."""

from itertools import accumulate, chain, combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stepconf.pairs import tokens as module
from stepconf.pairs.sides import Sides, after_same_tokens, pair_tokens
from stepconf.pairs.tokens import Lists, content_hash, joined, joined_lists, read_tokens, step_hashes

TOKENS = st.lists(st.sampled_from([0, 1, 2, 2**31 - 1]), max_size=4)
SOLUTIONS = st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=3)), min_size=1, max_size=5)


def hashed(given_: list[tuple[list[int], list[list[int]]]]) -> tuple[list[Any], list[Any], Any]:
    """Of all steps: what stands before and the step itself, their hashes, and the tokens."""
    lists = pa.list_(pa.int32())
    whole = [list(chain.from_iterable(steps)) for _, steps in given_]
    table = pa.table(
        {
            "prompt_token_ids": pa.array([prompt for prompt, _ in given_], lists),
            "token_ids": pa.array(whole, lists),
        }
    )
    tokens = read_tokens(table)
    ends = [list(accumulate(map(len, steps))) for _, steps in given_]
    spans = [
        (row, start, end) for row, own in enumerate(ends) for start, end in zip([0, *own], own, strict=False)
    ]
    prefix, content = step_hashes(tokens, *map(np.array, zip(*spans, strict=True)))
    said = [
        (tuple(given_[row][0] + whole[row][:start]), tuple(whole[row][start:end]))
        for row, start, end in spans
    ]
    return said, list(zip(prefix.tolist(), content.tolist(), strict=True)), tokens


@given(SOLUTIONS)
def test_equal_where_the_tokens_are(given_: list[tuple[list[int], list[list[int]]]]) -> None:
    said, hashes, tokens = hashed(given_)
    for (before, own), (prefix, content) in combinations(zip(said, hashes, strict=True), 2):
        assert (before[0] == own[0]) == (prefix[0] == content[0])
        assert (before[1] == own[1]) == (prefix[1] == content[1])
    assert all(
        content_hash(tokens, list(own)) == content
        for (_, own), (_, content) in zip(said, hashes, strict=True)
    )


def test_a_text_whose_hash_is_that_of_another_makes_no_pair_with_it() -> None:
    """Thue and Morse's sequence and its complement have one polynomial modulo 2^64, whatever its base."""
    words = [bin(place).count("1") % 2 for place in range(2**12)]
    given_ = [([5], [own, [7]]) for own in (words, [1 - word for word in words], words)]
    _, hashes, tokens = hashed(given_)
    first, unlike, like = hashes[1::2]
    assert first == unlike == like
    owner, start = np.repeat(np.arange(3), 2), np.tile([0, len(words)], 3)
    read: Any = SimpleNamespace(tokens=tokens, owner=owner, start=start, size=np.full(6, 1))
    rows = np.array([1, 1, 1])
    sides = Sides(rows, rows, np.array([3, 5, 1]), np.zeros(3, bool), {})
    prompts = pair_tokens(read, sides).prompt
    assert after_same_tokens(read, sides, prompts).tolist() == [False, True, True]


@given(st.data(), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30), st.integers(0, 5))
def test_stretches_of_any_length_are_joined_row_by_row(data: Any, values: list[int], n: int) -> None:
    ends = st.integers(0, len(values))
    spans = st.lists(st.tuples(ends, ends).map(sorted), min_size=n, max_size=n)
    columns = data.draw(st.lists(spans, min_size=1, max_size=3))
    taken = [Lists(np.array(values, np.int32), *np.array(own, np.int64).reshape(n, 2).T) for own in columns]
    taken = [own._replace(sizes=own.sizes - own.starts) for own in taken]
    whole = joined(*taken)
    whole.validate(full=True)
    found = joined_lists(whole)
    assert [
        found.values[at : at + size].tolist() for at, size in zip(found.starts, found.sizes, strict=True)
    ] == [
        list(chain.from_iterable(values[start:end] for start, end in row))
        for row in zip(*columns, strict=True)
    ]


def test_blocks_make_no_difference(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    made = [
        (rng.integers(0, 9, 5).tolist(), [rng.integers(0, 99, 40).tolist() for _ in range(3)])
        for _ in range(9)
    ]
    whole = hashed(made)[1]
    monkeypatch.setattr(module, "_CACHED", 7)
    assert hashed(made)[1] == whole


def test_what_is_read_once_is_every_prompt() -> None:
    rows = [[1, 2], [3], [1, 2], [], [3]]
    lists = pa.list_(pa.int32())
    tokens = read_tokens(
        pa.table({"prompt_token_ids": pa.array(rows, lists), "token_ids": pa.array([[7]] * 5, lists)})
    )
    values, starts, sizes = tokens.prompts
    found = [values[starts[row] : starts[row] + sizes[row]].tolist() for row in tokens.prompt]
    assert found == rows and len(sizes) == 3
