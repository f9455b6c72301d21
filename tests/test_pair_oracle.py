"""The strategies make the pairs, field by field, and count the reasons of the rules of `tests/core/pair_rules.py`."""

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stepconf.core.records import Pair, Solved, Verdict
from stepconf.pairs import read
from stepconf.pairs.make import stage_pairs
from stepconf.recipe import PairsRecipe
from stepconf.run.shards import Run
from stepconf.run.tables import read_pairs
from tests.core import pair_rules as rules
from tests.made_pairs import SAMPLES, TAUS, WRITER, Sample, make

ABOUT_PAIRS = {
    "solutions": 0,
    "options": {"strategy": "caspo"},
    "tau": 0.5,
    "drops": {},
    "kinds": {},
    "splits": {},
}


class Twist(NamedTuple):
    """What `make` leaves plain: at some step a critic's references, no scores, no ids of prefixes (schema 1.0)."""

    references: list[str | None]
    at: int
    unscored: bool
    old: bool


TWISTS = st.builds(
    Twist,
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
        steps = [replace(step, signals=dict.fromkeys(step.signals)) for step in steps]
    if twist.old:
        steps = [replace(step, prefix_id=None) for step in steps]
    return Solved(one.solution, steps)


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


def trace_of(one: Solved) -> rules.Trace:
    solution = one.solution
    trace = rules.Trace(
        solution_id=solution.solution_id,
        problem_id=solution.problem_id,
        problem=solution.problem,
        prompt_ids=rules.to_bytes(solution.prompt_token_ids),
        text=solution.text,
        ids=rules.to_bytes(solution.token_ids),
        finished=solution.finish_reason != "length",
        answer_correct=solution.answer_correct,
        confidence=solution.confidence,
        model=solution.model,
        gold_answer=solution.gold_answer,
        extra="{}",
        places=[],
        logprobs=array("f", [x for step in one.steps for x in step.token_logprobs]).tobytes(),
    )
    for step in one.steps:
        logprob_sum = step.signals["logprob_sum"]
        scored = logprob_sum is not None
        side = rules.Side(
            text=step.text,
            ids=rules.to_bytes(step.token_ids) if scored else b"",
            label=step.label,
            confidence=step.confidence,
            mean_logprob=(logprob_sum or 0.0) / len(step.token_ids) if scored else float("-inf"),
            is_terminal=step.step_index == step.n_steps - 1 and trace.finished,
            source="step",
            tie=trace.solution_id,
            reaches=trace.answer_correct,
        )
        references = tuple(v.reference for v in step.verdicts if v.reference)
        place = rules.Place(
            trace, step.step_index, step.char_start, step.token_start, step.after_error, step.is_first_error,
            side, references,
        )  # fmt: skip
        trace.places.append(place)
    return trace


def encode(text: str) -> bytes:
    return rules.to_bytes(WRITER.tokenizer.encode(text))


def by_rules(
    strategy: str, solved: list[Solved], tau: float, options: Any
) -> tuple[list[Pair], Counter[str]]:
    traces, dropped = [trace_of(one) for one in solved], Counter[str]()

    def drafts() -> Iterator[rules.Draft]:
        if strategy == "dpo-vp":
            yield from rules.dpo_vp(traces, options.seed, dropped)
        elif strategy == "pcpo":
            yield from rules.pcpo(traces, dropped)
        else:
            rule = (
                rules.caspo(tau, options.after_error, encode)
                if strategy == "caspo"
                else rules.step_dpo(encode)
            )
            for _, outcome in rules.step_outcomes(traces, rule):
                if isinstance(outcome, str):
                    dropped[outcome] += 1
                else:
                    yield outcome

    def prompt(trace: rules.Trace) -> str:
        ids = rules.ids_of(trace.prompt_ids)
        return WRITER.tokenizer.decode_all(ids, [len(ids)])[0]

    return [rules.to_pair(draft, prompt, WRITER.round) for draft in rules.unique(drafts(), dropped)], +dropped


def in_order(solved: list[Solved], cuts: list[int], at_once: bool) -> list[Solved]:
    """Problem by problem, as they end in a part and begin in it."""
    part = [sum(min(cut, len(solved)) <= row for cut in cuts) for row in range(len(solved))]
    problems = [one.solution.problem_id for one in solved]
    last = {problem: 0 if at_once else index for problem, index in zip(problems, part, strict=True)}
    return sorted(
        solved, key=lambda one: (last[one.solution.problem_id], problems.index(one.solution.problem_id))
    )


@pytest.mark.parametrize("strategy", ["caspo", "step-dpo", "dpo-vp", "pcpo"])
@given(
    samples=SAMPLES,
    twists=st.lists(TWISTS, min_size=7, max_size=7),
    cuts=st.lists(st.integers(0, 7), max_size=2),
    tau=TAUS,
    after_error=st.sampled_from(["stop", "continue"]),
    worded_alike=st.booleans(),
    at_once=st.booleans(),
)
@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_the_pairs_are_those_of_the_rules(
    strategy: Any,
    samples: list[Sample],
    twists: list[Twist],
    cuts: list[int],
    tau: float,
    after_error: Any,
    worded_alike: bool,
    at_once: bool,
) -> None:
    of_steps = strategy in ("caspo", "step-dpo")
    prompt = [90, 99] if worded_alike and of_steps else []
    solved = [twisted(make(sample, i, prompt), twists[i]) for i, sample in enumerate(samples)]
    options = PairsRecipe(strategy=strategy, after_error=after_error, validation=0.4)
    with (
        tempfile.TemporaryDirectory() as folder,
        write(Path(folder) / "run", solved, cuts) as run,
        pytest.MonkeyPatch.context() as patch,
    ):
        if not at_once:
            patch.setattr(read, "_BATCH_BYTES", 0)
        dropped = stage_pairs(run, options, tau, WRITER, lambda stage, n: None)
        run.commit_pairs(ABOUT_PAIRS)
        shards = chain(read_pairs(run.path), read_pairs(run.path, "validation"))
        found = {pair.pair_id: pair for shard in shards for pair in shard}
    wanted, reasons = by_rules(strategy, in_order(solved, cuts, at_once), tau, options)
    assert found == {pair.pair_id: pair for pair in wanted}
    assert +dropped == reasons


def test_a_problem_in_several_chunks_is_paired_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_BATCH_BYTES", 0)
    sides: list[Any] = [("a\n", "correct", 0.2), ("b\n", "incorrect", 0.3)]
    solved = [make(Sample(i % 2, [sides[i // 2 % 2]], "stop"), i) for i in range(6)]
    with write(tmp_path / "run", solved, [3, 5]) as run:
        held = list(read.batches(run.path))
        assert [set(batch.solutions["problem_id"]) for batch in held] == [set(), {"p0"}, {"p1"}]
        assert [(batch.solutions.height, batch.steps.height) for batch in held] == [(0, 0), (3, 3), (3, 3)]
        dropped = stage_pairs(run, PairsRecipe(validation=0), 0.1, WRITER, lambda stage, n: None)
        run.commit_pairs(ABOUT_PAIRS)
        pairs = [pair for shard in read_pairs(run.path) for pair in shard]
    assert {pair.problem_id for pair in pairs} == {"p0", "p1"} and len(pairs) + dropped.total() == 6
