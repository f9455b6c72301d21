"""Caps, balance and splits: laws, and that no order decides."""

from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.ids import content_id
from stepconf.core.pairs.select import capped, split_of, surplus

KINDS = ("correct_uncertain", "incorrect", "trajectory", "outcome")
PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.sampled_from(KINDS)), max_size=20).map(
    lambda rows: pl.DataFrame(
        [(f"{i}", f"p{problem}", kind) for i, problem, kind in {row[0]: row for row in rows}.values()],
        schema=dict.fromkeys(("pair_id", "problem_id", "kind"), pl.String),
        orient="row",
    )
)


@given(PAIRS, st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 9))
def test_caps(pairs: pl.DataFrame, limit: int | None, seed: int) -> None:
    kept = capped(pairs, limit, 7)
    counts, before = Counter(kept["problem_id"]), Counter(pairs["problem_id"])
    assert counts == {problem: min(n, limit or n) for problem, n in before.items()}
    assert kept.equals(pairs.filter(pl.col("pair_id").is_in(kept["pair_id"].implode()))), "in the order given"
    shuffled = capped(pairs.sample(fraction=1, shuffle=True, seed=seed), limit, 7)
    assert set(shuffled["pair_id"]) == set(kept["pair_id"])


@given(PAIRS, st.integers(0, 5))
def test_balance(pairs: pl.DataFrame, seed: int) -> None:
    dropped = set(surplus(pairs, seed))
    rows = list(zip(pairs["pair_id"], pairs["kind"], strict=True))
    kept = Counter(kind for pair_id, kind in rows if pair_id not in dropped)
    before = Counter(kind for _, kind in rows)
    assert kept["correct_uncertain"] == kept["incorrect"] == min(
        before["correct_uncertain"], before["incorrect"]
    )  # fmt: skip
    assert all(kept[kind] == before[kind] for kind in ("trajectory", "outcome"))
    assert set(surplus(pairs.reverse(), seed)) == dropped


def test_splits_are_by_problem_and_of_about_the_size_asked_for() -> None:
    ids = [content_id(i) for i in range(4000)]
    drawn = {i for i in ids if split_of(i, 0.05) == "validation"}
    assert 150 < len(drawn) < 250
    assert drawn <= {i for i in ids if split_of(i, 0.2) == "validation"}, "a larger share holds the smaller"
    assert {split_of(i, 0.0) for i in ids} == {"train"}
