"""Step pairs by columns are, row for row and drop for drop, those that the strategies' rules make one by one."""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stepconf.core.pairs.traces import to_bytes
from stepconf.core.records import Solved, Verdict
from stepconf.pairs import by_columns
from stepconf.pairs import make as preference
from stepconf.pairs.columns import _ranks, _without_spaces, whole_parts
from stepconf.pairs.tally import Tally
from stepconf.recipe import PairsRecipe
from stepconf.run.reader import no_tick
from stepconf.run.shards import Run
from stepconf.run.tables import all_parts, read_shards
from tests.core.test_pairs import SAMPLES, TAUS, Sample, encode, make
from tests.edited_run import with_lists_of_others


class Words:
    """Stands for a tokenizer: characters are tokens."""

    def encode(self, text: str) -> list[int]:
        return [1000 + ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f"<{token}>" for token in ids)

    def decode_all(self, ids: Any, ends: Any) -> list[str]:
        return [self.decode(ids[start:end]) for start, end in pairwise([0, *ends])]


class Twist(NamedTuple):
    """What `make` leaves plain: the answer, and at some step a critic's reference, or no scores."""

    answer: bool | None
    references: list[str | None]
    at: int
    unscored: bool
    alike_prompt: bool


TWISTS = st.builds(
    Twist,
    st.sampled_from([True, False, None]),
    st.lists(st.sampled_from(["a", " b ", "better", "", None]), max_size=2),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)


def twisted(one: Solved, twist: Twist) -> Solved:
    steps = list(one.steps)
    if twist.at < len(steps):
        verdicts = [Verdict("critic", "1", "incorrect", reference=text) for text in twist.references]
        steps[twist.at] = replace(steps[twist.at], verdicts=verdicts)
    if twist.unscored:
        steps = [replace(step, logprob_sum=None, confidence=None) for step in steps]
    prompt = [90, 99] if twist.alike_prompt else one.solution.prompt_token_ids
    plain: dict[str, Any] = {"external_id": None, "gold_answer": None, "predicted_answer": None}
    plain |= dict.fromkeys(("source", "split", "model_revision", "engine"), "")
    plain |= {"sample_index": 0, "n_tokens": len(one.solution.token_ids)}
    solution = replace(one.solution, answer_correct=twist.answer, prompt_token_ids=prompt, **plain)
    return Solved(solution, steps)


ABOUT_PAIRS = {"solutions": 0, "options": {"strategy": "caspo"}, "tau": 0.5}


def write(folder: Path, solved: list[Solved], cuts: list[int]) -> Run:
    """A run of several chunks, which may cut a problem in two."""
    run = Run(folder, {"command": "score"})
    bounds = [0, *sorted(min(cut, len(solved)) for cut in cuts), len(solved)]
    for index, (start, end) in enumerate(pairwise(bounds)):
        part = solved[start:end]
        steps = [step for one in part for step in one.steps]
        facts = {"solutions": len(part), "steps": len(steps), "tokens": 0, "drops": {}, "seconds": {}}
        run.commit(f"{index:05d}", {"solutions": [one.solution for one in part], "steps": steps}, facts)
    return run


@pytest.mark.parametrize("strategy", ["caspo", "step-dpo"])
@given(
    samples=SAMPLES,
    twists=st.lists(TWISTS, min_size=7, max_size=7),
    cuts=st.lists(st.integers(0, 7), max_size=2),
    tau=TAUS,
    after_error=st.sampled_from(["stop", "continue"]),
    cap=st.sampled_from([None, 2]),
    balance=st.booleans(),
    at_once=st.sampled_from([0, by_columns.GROUP_BYTES]),
)
@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_the_rows_of_both_ways_are_equal(
    strategy: Any,
    samples: list[Sample],
    twists: list[Twist],
    cuts: list[int],
    tau: float,
    after_error: Any,
    cap: int | None,
    balance: bool,
    at_once: int,
) -> None:
    solved = [twisted(make(sample, i), twists[i]) for i, sample in enumerate(samples)]
    options = PairsRecipe(
        strategy=strategy, after_error=after_error, max_per_problem=cap, validation=0.4, balance=balance
    )
    threshold = tau if strategy == "caspo" else None
    words: Any = Words()
    rule = preference._rule(options, threshold, encode)
    means = preference._ForRows(rule, None, words)  # type: ignore[arg-type]  # no candidates, no policy

    def by_rows(run: Run, tally: Tally) -> None:
        preference._make_by_rows(run, options, means, tally, no_tick)

    def make_by_columns(run: Run, tally: Tally) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(by_columns, "GROUP_BYTES", at_once)
            by_columns.make_by_columns(run, options, lambda: threshold, words, tally, no_tick)

    found = []
    with tempfile.TemporaryDirectory() as folder, write(Path(folder) / "run", solved, cuts) as run:
        for make_pairs in (by_rows, make_by_columns):
            tally = Tally(options)
            make_pairs(run, tally)
            run.drop_staged(tally.balance())
            run.commit_pairs(tally.facts() | ABOUT_PAIRS)
            shards = [read_shards(run.path, "pairs", stem=split) for split in ("train", "validation")]
            rows = [list(chain.from_iterable(own)) for own in shards]
            facts = tally.facts()
            found.append((rows, facts["kinds"], facts["splits"], facts["drops"]))
    assert found[0] == found[1]


def test_processes_make_the_rows_that_threads_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With problems worded alike in two parts, and one that lies in several."""
    sides = [("a\n", "correct", 0.2), ("b\n", "incorrect", 0.3), ("c c\n", "unknown", 0.1)]
    samples = [Sample(i // 3, [sides[i % 3]], "stop") for i in range(24)]
    solved = [twisted(make(sample, i), Twist(None, [], 9, False, True)) for i, sample in enumerate(samples)]
    options = PairsRecipe(max_per_problem=2, validation=0.4)
    words: Any = Words()
    found = []
    with write(tmp_path / "run", solved, [6, 11, 18]) as run:
        for many, at_once in product((by_columns.MANY_STEPS, 0), (by_columns.GROUP_BYTES, 0)):
            monkeypatch.setattr(by_columns, "MANY_STEPS", many)
            monkeypatch.setattr(by_columns, "GROUP_BYTES", at_once)
            tally = Tally(options)
            by_columns.make_by_columns(run, options, lambda: 0.5, words, tally, no_tick)
            run.commit_pairs(tally.facts() | ABOUT_PAIRS)
            rows = [list(read_shards(run.path, "pairs", stem=split)) for split in ("train", "validation")]
            found.append((rows, tally.facts()))
    rows_of_all = [[list(chain.from_iterable(own)) for own in rows] for rows, _ in found]
    assert all(rows == rows_of_all[0] for rows in rows_of_all)
    assert all(facts == found[0][1] for _, facts in found)
    assert found[0][1]["drops"]["same pair again"] and found[0][1]["splits"]


@given(
    parts=st.lists(st.lists(st.integers(0, 12), unique=True, max_size=4), max_size=5),
)
def test_ids_of_several_parts(parts: list[list[int]]) -> None:
    ids = [np.array([[n % 2] * 8 + [n // 2, 0] for n in own], np.uint8).reshape(-1, 10) for own in parts]
    everywhere = Counter(chain.from_iterable(parts))
    shared = [{bytes([n % 2] * 8 + [n // 2, 0]) for n in own if everywhere[n] > 1} for own in parts]
    assert all(those <= found for those, found in zip(shared, by_columns.shared_ids(ids), strict=True))
    far = [np.array([[n] * 10 for n in own], np.uint8).reshape(-1, 10) for own in parts]
    wanted = [{bytes([n] * 10) for n in own if everywhere[n] > 1} for own in parts]
    assert by_columns.shared_ids(far) == wanted


@given(
    st.lists(
        st.text(st.sampled_from(["a", "b", " ", "\n", "\t", "\x1c", "\u00a0", "\u2003", "é", "\u200b"])),
        max_size=9,
    )
)
def test_white_space_is_what_python_divides_at(texts: list[str]) -> None:
    found = _without_spaces(pa.array(["", *texts], pa.string())).to_pylist()
    assert found == [" ".join(text.split()) for text in ["", *texts]]


def test_every_white_space_is_looked_at() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    texts = [f"a{one}b{other}{one}c {one}" for one in every for other in every]
    assert _without_spaces(pa.array(texts)).to_pylist() == [" ".join(text.split()) for text in texts]


@given(st.lists(st.text("ab0", max_size=10), unique=True, max_size=9), st.booleans())
def test_ranks_are_the_order_of_ids(ids: list[str], hashes: bool) -> None:
    if hashes:
        ids = [blake2b(one.encode(), digest_size=10).hexdigest() for one in ids]
    order = sorted(ids)
    assert np.argsort(_ranks(pa.array(ids, pa.string()))).tolist() == [ids.index(one) for one in order]


def test_problems_that_lie_in_several_chunks_are_held(tmp_path: Path) -> None:
    samples = [Sample(i % 2, [("a\n", "correct", 0.2)], "stop") for i in range(6)]
    plain = Twist(None, [], 0, False, False)
    solved = [twisted(make(sample, i), plain) for i, sample in enumerate(samples)]
    with write(tmp_path / "run", solved, [3, 5]) as run:
        tables = [part.tables for part in whole_parts(run.path, all_parts(run.path))]
    solutions, steps = zip(*filter(None, tables), strict=True)
    assert [len(own) for own in solutions] == [0, 3, 3]
    assert [set(own["problem_id"].to_pylist()) for own in solutions] == [set(), {"p0"}, {"p1"}]
    assert [len(own) for own in steps] == [0, 3, 3]


def test_lists_that_others_wrote_lie_beside_our_own(tmp_path: Path) -> None:
    plain = Twist(None, [], 0, False, False)
    solved = [twisted(make(Sample(0, [("a\n", "correct", 0.2)], "stop"), i), plain) for i in range(2)]
    with write(tmp_path / "run", solved, [1]) as run:
        first = all_parts(run.path)[0]
        for file in (run.path / first.solutions, run.path / first.steps):
            pq.write_table(with_lists_of_others(pq.read_table(file)), file)
        _, (solutions, steps) = (part.tables for part in whole_parts(run.path, all_parts(run.path)))
    assert len(solutions) == len(steps) == 2


def test_whole_problems_are_left_in_their_files(tmp_path: Path) -> None:
    problems = [0, 0, 1, 2, 2, 3]
    plain = Twist(None, [], 0, False, False)
    samples = [Sample(problem, [("a\n", "correct", 0.2)], "stop") for problem in problems]
    solved = [twisted(make(sample, i), plain) for i, sample in enumerate(samples)]
    with write(tmp_path / "run", solved, [2, 4]) as run:  # the third problem is torn
        parts = list(whole_parts(run.path, all_parts(run.path)))
    assert [part.tables is None for part in parts] == [True, False, False]


def test_encoded_ids_are_those_of_the_rows() -> None:
    assert to_bytes(Words().encode("a b")) == encode("a b")
