"""Caps, balance and splits: laws, and that no order decides."""

from collections import Counter
from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.ids import content_id
from stepconf.core.pairs.select import capped, split_of, surplus, unique
from stepconf.core.pairs.traces import Draft, Side
from stepconf.core.records import Pair


def pair(i: int, problem: int) -> Pair:
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(Pair)), None)
    return Pair(**(values | {"pair_id": f"{i}", "problem_id": f"p{problem}"}))


PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=20).map(
    lambda rows: [pair(i, problem) for i, problem in rows]
)


@given(st.lists(st.tuples(*[st.binary(max_size=2)] * 3), max_size=20))
def test_each_pair_once(tokens: list[tuple[bytes, bytes, bytes]]) -> None:
    side = Side("", b"", "correct", None, 0.0, False, "step", "")
    drafts = [
        Draft("incorrect", None, 0, 0, prefix, side._replace(ids=chosen), side._replace(ids=rejected))  # type: ignore[arg-type]  # no trace is needed
        for prefix, chosen, rejected in tokens
    ]
    dropped: Counter[str] = Counter()
    kept = [(d.prefix_ids, d.chosen.ids, d.rejected.ids) for d in unique(drafts, dropped)]
    assert kept == list(dict.fromkeys(tokens))
    assert len(kept) + dropped.total() == len(drafts)


@given(PAIRS, st.one_of(st.none(), st.integers(1, 5)), st.randoms(use_true_random=False))
def test_caps(pairs: list[Pair], limit: int | None, random: Any) -> None:
    pairs = list({p.pair_id: p for p in pairs}.values())
    dropped: Counter[str] = Counter()
    kept = list(capped(pairs, limit, 7, dropped))
    counts, before = Counter(p.problem_id for p in kept), Counter(p.problem_id for p in pairs)
    assert counts == {problem: min(n, limit or n) for problem, n in before.items()}
    assert len(kept) + dropped.total() == len(pairs)
    shuffled = capped(random.sample(pairs, len(pairs)), limit, 7, Counter())
    assert {p.pair_id for p in shuffled} == {p.pair_id for p in kept}


@given(
    st.dictionaries(
        st.integers(0, 50).map(str), st.sampled_from(["correct_uncertain", "incorrect", "trajectory"])
    ),
    st.integers(0, 5),
)
def test_balance(kinds: dict[str, str], seed: int) -> None:
    dropped = surplus(kinds, seed)
    kept = Counter(kind for pair_id, kind in kinds.items() if pair_id not in dropped)
    before = Counter(kinds.values())
    assert kept["correct_uncertain"] == kept["incorrect"] == min(
        before["correct_uncertain"], before["incorrect"]
    )  # fmt: skip
    assert kept["trajectory"] == before["trajectory"]
    assert surplus(dict(reversed(kinds.items())), seed) == dropped


def test_splits_are_by_problem_and_of_about_the_size_asked_for() -> None:
    ids = [content_id(i) for i in range(4000)]
    drawn = {i for i in ids if split_of(i, 0.05) == "validation"}
    assert 150 < len(drawn) < 250
    assert drawn <= {i for i in ids if split_of(i, 0.2) == "validation"}, "a larger share holds the smaller"
    assert {split_of(i, 0.0) for i in ids} == {"train"}
