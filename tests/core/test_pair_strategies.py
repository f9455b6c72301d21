"""The other side of a step pair by source, and the strategies beside CASPO's, against literal readings."""

import sys
from collections import Counter
from dataclasses import replace
from math import exp, isclose, log
from typing import get_args

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.pairs.frames import PAIRS, SOLUTIONS, STEPS, Rules, reading
from stepconf.core.pairs.reasons import NO_CORRECTION, NO_LOGPROBS, NO_RIVAL
from stepconf.core.pairs.solutions import consistency, dpo_vp, pcpo
from stepconf.core.pairs.steps import caspo, step_dpo
from stepconf.core.records import Pair, PairKind, Solved, Verdict
from stepconf.kinds import PAIR_STRATEGIES
from tests.made_pairs import SAMPLES, WRITER, Sample, make, paired, read


def answered(one: Solved, correct: bool | None) -> Solved:
    return Solved(replace(one.solution, answer_correct=correct), one.steps)


def with_reference(one: Solved, index: int, *references: str | None) -> Solved:
    verdicts = [Verdict("critic", "1", "incorrect", reference=text) for text in references]
    steps = [replace(s, verdicts=verdicts) if s.step_index == index else s for s in one.steps]
    return Solved(one.solution, steps)


WRONG = make(Sample(0, [("a\n", "correct", 0.2), ("b\n", "incorrect", 0.5)], "stop"), 0)
RIGHT = make(Sample(0, [("a\n", "correct", 0.2), ("d\n", "correct", 0.5)], "stop"), 1)


def test_frames_have_the_declared_columns() -> None:
    frames = read([WRONG, RIGHT])
    for frame, declared in ((frames.steps, STEPS), (frames.solutions, SOLUTIONS)):
        kinds = {name: kind for name, (kind, _) in declared.items() if name != "token_logprobs"}
        assert {name: frame.schema[name] for name in kinds} == kinds
    for name in PAIR_STRATEGIES.built_in:
        solutions = frames.solutions.with_columns(token_logprobs=pl.lit([0.0, 0.0], pl.List(pl.Float32)))
        made = PAIR_STRATEGIES.load(name).choose(frames._replace(solutions=solutions), Rules()).pairs
        assert made.schema == {name: kind for name, (kind, _) in PAIRS.items()}
        assert set(made["kind"]) <= set(get_args(PairKind))


def test_every_white_space_is_looked_at() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    texts = ["", *(f"{one}a{one}b{other}{one}c {one}" for one in every for other in every)]
    found = pl.DataFrame({"text": texts}).select(reading(pl.col("text")))["text"]
    assert found.to_list() == [" ".join(text.split()) for text in texts]


def test_the_critic_comes_first_and_only_its_own_text_is_tokenised() -> None:
    one = with_reference(WRONG, 1, None, " b ", "  e = mc^2 ")
    (pair,), _ = paired([one, RIGHT], caspo, Rules(0.1))
    assert pair.chosen == "e = mc^2\n", "the step's own line end, not the reference's spaces"
    assert pair.chosen_ids == WRITER.tokenizer.encode("e = mc^2\n") and pair.prompt_ids == [90, 99, 1]
    assert (pair.chosen_source, pair.rejected_source, pair.kind) == ("critic", "step", "incorrect")
    assert pair.chosen_confidence is None and not pair.chosen_is_terminal and pair.rejected_is_terminal
    without, _ = paired([WRONG, RIGHT], caspo, Rules(0.1))
    assert [(p.chosen, p.chosen_source) for p in without] == [("d\n", "candidate")]
    nothing, dropped = paired([with_reference(WRONG, 1, "b", "\n")], caspo, Rules(0.1))
    assert nothing == [] and dropped[NO_CORRECTION] == 1


def test_what_reads_as_a_correct_step_is_not_rejected() -> None:
    """ " a" is not verified, but it reads as "a", which is correct."""
    unsure = make(Sample(0, [(" a \n", "unknown", 0.2)], "stop"), 2)
    other = make(Sample(0, [("d\n", "correct", 0.2)], "stop"), 3)
    _, dropped = paired([WRONG, unsure, other], caspo, Rules(1.0))
    assert dropped[NO_RIVAL] == 2
    rival = make(Sample(0, [("b\n", "unknown", 1.0)], "stop"), 4)
    pairs, _ = paired([WRONG, unsure, other, rival], caspo, Rules(1.0))
    assert [(p.chosen, p.rejected) for p in pairs] == [("a\n", "b\n"), ("d\n", "b\n")]


def test_step_dpo_prefers_its_own_steps_that_reach_the_answer() -> None:
    likelier = make(Sample(0, [("a\n", "correct", 0.2), ("c c\n", "correct", 0.0)], "stop"), 2)
    solved = [answered(WRONG, False), answered(likelier, False), answered(RIGHT, True)]
    pairs, dropped = paired([with_reference(solved[0], 1, "better"), *solved[1:]], step_dpo)
    assert [(p.rejected, p.chosen, p.chosen_source) for p in pairs] == [("b\n", "d\n", "candidate")]
    assert dropped == {"not a first error": 5}
    pairs, _ = paired(solved[:2], step_dpo)
    assert [p.chosen for p in pairs] == ["c c\n"]
    pairs, _ = paired([with_reference(solved[0], 1, "better")], step_dpo)
    assert [(p.chosen, p.chosen_source) for p in pairs] == [("better\n", "critic")]
    _, dropped = paired(solved[:1], step_dpo)
    assert dropped == {"not a first error": 1, NO_CORRECTION: 1}


@given(SAMPLES)
def test_step_dpo_rejects_first_errors_only(samples: list[Sample]) -> None:
    solved = [make(sample, i) for i, sample in enumerate(samples)]
    pairs, dropped = paired(solved, step_dpo)
    assert len(pairs) + sum(dropped.values()) == sum(len(one.steps) for one in solved)
    by_id = {one.solution.solution_id: one for one in solved}
    for pair in pairs:
        labels = [step.label for step in by_id[pair.solution_id].steps]
        assert labels.index("incorrect") == pair.step_index and pair.kind == "incorrect"


def check_trajectories(pairs: list[Pair], solved: list[Solved], dropped: dict[str, int]) -> None:
    """Right over wrong of one problem, whole; a solution is a side of some pair or counted."""
    by_tokens = {(one.solution.problem_id, tuple(one.solution.token_ids)) for one in solved}
    sides = set()
    for pair in pairs:
        assert pair.kind == "trajectory" and pair.step_index == 0 and pair.prefix == ""
        for ids in (pair.chosen_ids, pair.rejected_ids):
            assert (pair.problem_id, tuple(ids)) in by_tokens
            sides.add((pair.problem_id, tuple(ids)))
    assert len(sides) + sum(dropped.values()) == len(solved)


@given(SAMPLES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_verifiable_pairs_use_each_solution_once(samples: list[Sample], seed: int, random: object) -> None:
    solved = [make(sample, i) for i, sample in enumerate(samples)]
    pairs, dropped = paired(solved, dpo_vp, Rules(seed=seed))
    check_trajectories(pairs, solved, dropped)
    used = [(p.problem_id, tuple(ids)) for p in pairs for ids in (p.chosen_ids, p.rejected_ids)]
    assert len(set(used)) == len(used)
    shuffled = random.sample(solved, len(solved))  # type: ignore[attr-defined]  # random.Random
    again, _ = paired(shuffled, dpo_vp, Rules(seed=seed))
    assert {p.pair_id for p in again} == {p.pair_id for p in pairs}


def test_solutions_without_log_probabilities_make_no_consistent_pair() -> None:
    def bare(one: Solved, correct: bool) -> Solved:
        return answered(Solved(one.solution, [replace(s, token_logprobs=[]) for s in one.steps]), correct)

    pairs, dropped = paired([bare(WRONG, False), answered(RIGHT, True)], pcpo)
    assert pairs == [] and dropped[NO_LOGPROBS] == 1 and sum(dropped.values()) == 2


@given(SAMPLES)
def test_each_wrong_solution_gets_the_most_consistent_right_one(samples: list[Sample]) -> None:
    solved = [make(sample, i) for i, sample in enumerate(samples)]
    pairs, dropped = paired(solved, pcpo)
    check_trajectories(pairs, solved, dropped)
    first: dict[tuple[str, tuple[int, ...]], Solved] = {}  # of equal ones, the first that is decided
    for one in solved:
        if one.solution.answer_correct is not None:
            first.setdefault((one.solution.problem_id, tuple(one.solution.token_ids)), one)

    def score(chosen: Solved, rejected: Solved) -> float:
        sides = (
            (one.solution.token_ids, [x for step in one.steps for x in step.token_logprobs])
            for one in (chosen, rejected)
        )
        return consistency(*next(sides), *next(sides))

    for pair in pairs:
        chosen, wrong = (first[pair.problem_id, tuple(ids)] for ids in (pair.chosen_ids, pair.rejected_ids))
        right = [
            one
            for (problem, _), one in first.items()
            if problem == pair.problem_id and one.solution.answer_correct
        ]
        best = max(score(one, wrong) for one in right)
        assert isclose(score(chosen, wrong), best, rel_tol=1e-6), "the run's log-probabilities are float32"


def test_consistency_by_hand() -> None:
    chosen = ([1, 2, 3, 9], list(map(log, [0.5, 0.5, 0.9, 0.3])))
    rejected = ([1, 2, 7, 8, 9], list(map(log, [0.5, 0.25, 0.1, 0.1, 0.6])))
    assert isclose(consistency(*chosen, *rejected), (1 + 0.5 + 0.5) / 5)
    assert isclose(consistency(*rejected, *chosen), (1 + 0.5 + 0.5) / 4)
    assert isclose(consistency(*chosen, *chosen), 1.0)
    assert consistency(*chosen, [5, 6], [log(0.5), log(0.5)]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 1.0)), min_size=1, max_size=12), st.data())
def test_consistency_stays_between_zero_and_one(tokens: list[tuple[int, float]], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 1.0)), min_size=1, max_size=12))
    first, second = (([t for t, _ in own], [log(p) for _, p in own]) for own in (tokens, other))
    value = consistency(*first, *second)
    shared = sum((Counter(t for t, _ in tokens) & Counter(t for t, _ in other)).values())
    assert 0 <= value <= min(1.0, shared / len(other)) + 1e-6
    assert value <= exp(0) + 1e-6
