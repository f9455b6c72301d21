"""The other side of a step pair by source, and the strategies beside CASPO's, against literal readings."""

from collections import Counter
from dataclasses import replace
from math import exp, isclose, log

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.pairs.steps import NO_CORRECTION, NO_RIVAL, caspo, step_dpo, step_outcomes
from stepconf.core.pairs.traces import Draft, Side, Trace, ids_of, to_bytes
from stepconf.core.pairs.trajectories import consistency, dpo_vp, pcpo
from stepconf.core.records import Label, Solved, Verdict
from tests.core.test_pairs import SAMPLES, Sample, encode, make, paired, trace_of


def answered(one: Solved, correct: bool | None) -> Solved:
    return Solved(replace(one.solution, answer_correct=correct), one.steps)


def with_reference(one: Solved, index: int, *references: str | None) -> Solved:
    verdicts = [Verdict("critic", "1", "incorrect", reference=text) for text in references]
    steps = [replace(s, verdicts=verdicts) if s.step_index == index else s for s in one.steps]
    return Solved(one.solution, steps)


WRONG = make(Sample(0, [("a\n", "correct", 0.2), ("b\n", "incorrect", 0.5)], "stop"), 0)
RIGHT = make(Sample(0, [("a\n", "correct", 0.2), ("d\n", "correct", 0.5)], "stop"), 1)


def test_the_critic_comes_first_and_only_its_own_text_is_tokenised() -> None:
    one = with_reference(WRONG, 1, None, " b ", "  e = mc^2 ")
    pairs, dropped = paired([one, RIGHT], caspo(0.1, "stop", encode))
    (pair,) = pairs
    assert pair.chosen == "e = mc^2\n", "the step's own line end, not the reference's spaces"
    assert pair.chosen_ids == ids_of(encode("e = mc^2\n")) and pair.prompt_ids == [90, 99, 1]
    assert (pair.chosen_source, pair.rejected_source, pair.kind) == ("critic", "step", "incorrect")
    assert pair.chosen_confidence is None and not pair.chosen_is_terminal and pair.rejected_is_terminal
    assert pair.round == 3
    without, _ = paired([WRONG, RIGHT], caspo(0.1, "stop", encode))
    assert [(p.chosen, p.chosen_source) for p in without] == [("d\n", "candidate")]
    nothing, dropped = paired([with_reference(WRONG, 1, "b", "\n")], caspo(0.1, "stop", encode))
    assert nothing == [] and dropped[NO_CORRECTION] == 1


def candidate(text: str, label: Label, logprob: float) -> Side:
    return Side(text, encode(text), label, 0.4, logprob, False, "candidate", text)


def test_sampled_candidates_compete_with_siblings() -> None:
    place = trace_of(WRONG).places[1]
    sampled = {place.prefix_ids: [candidate("x\n", "correct", -0.1), candidate("y\n", "correct", -9)]}
    traces = [trace_of(WRONG), trace_of(RIGHT)]
    rule = caspo(0.1, "stop", encode)
    (draft,) = [o for _, o in step_outcomes(traces, rule, sampled) if isinstance(o, Draft)]
    assert (draft.chosen.text, draft.chosen.source) == ("x\n", "candidate")
    sampled = {place.prefix_ids: [candidate("y\n", "correct", -9)]}
    (draft,) = [o for _, o in step_outcomes(traces, rule, sampled) if isinstance(o, Draft)]
    assert draft.chosen.text == "d\n"


def test_what_is_verified_correct_or_reads_alike_is_no_rejected_side() -> None:
    place = trace_of(RIGHT).places[1]
    rule = caspo(1.0, "stop", encode)
    more = [candidate("x\n", "correct", -0.1), candidate(" d", "unknown", -0.2)]
    outcomes = [o for _, o in step_outcomes([trace_of(RIGHT)], rule, {place.prefix_ids: more})]
    assert outcomes == [NO_RIVAL, NO_RIVAL]
    more += [candidate("y\n", "unknown", -4), candidate("z\n", "incorrect", -5)]
    outcomes = [o for _, o in step_outcomes([trace_of(RIGHT)], rule, {place.prefix_ids: more})]
    assert isinstance(outcomes[1], Draft) and outcomes[1].rejected.text == "y\n"
    assert outcomes[1].kind == "correct_uncertain" and outcomes[1].chosen.source == "step"


def test_step_dpo_prefers_its_own_steps_that_reach_the_answer() -> None:
    rule = step_dpo(encode)
    likelier = make(Sample(0, [("a\n", "correct", 0.2), ("c c\n", "correct", 0.0)], "stop"), 2)
    solved = [answered(WRONG, False), answered(likelier, False), answered(RIGHT, True)]
    pairs, dropped = paired([with_reference(solved[0], 1, "better"), *solved[1:]], rule)
    assert [(p.rejected, p.chosen, p.chosen_source) for p in pairs] == [("b\n", "d\n", "candidate")]
    assert dropped == {"not a first error": 5}
    pairs, _ = paired(solved[:2], rule)
    assert [p.chosen for p in pairs] == ["c c\n"]
    pairs, _ = paired([with_reference(solved[0], 1, "better")], rule)
    assert [(p.chosen, p.chosen_source) for p in pairs] == [("better\n", "critic")]
    _, dropped = paired(solved[:1], rule)
    assert dropped == {"not a first error": 1, NO_CORRECTION: 1}


@given(SAMPLES)
def test_step_dpo_rejects_first_errors_only(samples: list[Sample]) -> None:
    solved = [make(sample, i) for i, sample in enumerate(samples)]
    pairs, dropped = paired(solved, step_dpo(encode))
    assert len(pairs) + dropped.total() == sum(len(one.steps) for one in solved)
    by_id = {one.solution.solution_id: one for one in solved}
    for pair in pairs:
        labels = [step.label for step in by_id[pair.solution_id].steps]
        assert labels.index("incorrect") == pair.step_index and pair.kind == "incorrect"


ANSWERS = st.lists(st.sampled_from([True, False, None]), min_size=7, max_size=7)


def traces_of(samples: list[Sample], answers: list[bool | None]) -> list[Trace]:
    return [
        trace_of(answered(make(sample, i), answer))
        for i, (sample, answer) in enumerate(zip(samples, answers, strict=False))
    ]


def check_trajectories(drafts: list[Draft], traces: list[Trace], dropped: Counter[str]) -> None:
    """Right over wrong of one problem, whole; a solution is a side of some pair or counted."""
    by_id = {trace.solution_id: trace for trace in traces}
    sides = set()
    for draft in drafts:
        assert draft.kind == "trajectory" and draft.step_index == draft.char_start == 0
        assert draft.prefix_ids == draft.trace.prompt_ids
        assert draft.chosen.reaches is True and draft.rejected.reaches is False
        for side in (draft.chosen, draft.rejected):
            source = by_id[side.tie]
            assert source.problem_id == draft.trace.problem_id and side.ids == source.ids
            assert side.text == source.text and side.is_terminal == source.finished
            sides.add(side.tie)
    assert len(sides) + dropped.total() == len(traces)


@given(SAMPLES, ANSWERS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_verifiable_pairs_use_each_solution_once(
    samples: list[Sample], answers: list[bool | None], seed: int, random: object
) -> None:
    traces, dropped = traces_of(samples, answers), Counter[str]()
    drafts = list(dpo_vp(traces, seed, dropped))
    check_trajectories(drafts, traces, dropped)
    used = [side.tie for draft in drafts for side in (draft.chosen, draft.rejected)]
    assert len(set(used)) == len(used)
    shuffled = random.sample(traces, len(traces))  # type: ignore[attr-defined]  # random.Random
    again = dpo_vp(shuffled, seed, Counter())
    assert {(d.chosen.tie, d.rejected.tie) for d in again} == {(d.chosen.tie, d.rejected.tie) for d in drafts}


@given(SAMPLES, ANSWERS)
def test_each_wrong_solution_gets_the_most_consistent_right_one(
    samples: list[Sample], answers: list[bool | None]
) -> None:
    traces, dropped = traces_of(samples, answers), Counter[str]()
    drafts = list(pcpo(traces, dropped))
    check_trajectories(drafts, traces, dropped)
    for draft in drafts:
        wrong = next(t for t in traces if t.solution_id == draft.rejected.tie)
        scores = {
            t.solution_id: consistency(t, wrong)
            for i, t in enumerate(traces)
            if t.problem_id == wrong.problem_id
            and t.answer_correct
            and all(
                (t.problem_id, t.ids) != (s.problem_id, s.ids)
                for s in traces[:i]
                if s.answer_correct is not None
            )
        }
        assert isclose(scores[draft.chosen.tie], max(scores.values()))


def scored(ids: list[int], probabilities: list[float]) -> Trace:
    from array import array

    one = trace_of(RIGHT)
    return replace(one, ids=to_bytes(ids), logprobs=array("f", map(log, probabilities)).tobytes())


def test_consistency_by_hand() -> None:
    chosen = scored([1, 2, 3, 9], [0.5, 0.5, 0.9, 0.3])
    rejected = scored([1, 2, 7, 8, 9], [0.5, 0.25, 0.1, 0.1, 0.6])
    assert isclose(consistency(chosen, rejected), (1 + 0.5 + 0.5) / 5, rel_tol=1e-6)
    assert isclose(consistency(rejected, chosen), (1 + 0.5 + 0.5) / 4, rel_tol=1e-6)
    assert isclose(consistency(chosen, chosen), 1.0, rel_tol=1e-6)
    assert consistency(chosen, scored([5, 6], [0.5, 0.5])) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 1.0)), min_size=1, max_size=12), st.data())
def test_consistency_stays_between_zero_and_one(tokens: list[tuple[int, float]], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 1.0)), min_size=1, max_size=12))
    first, second = (scored([t for t, _ in own], [p for _, p in own]) for own in (tokens, other))
    value = consistency(first, second)
    shared = sum((Counter(t for t, _ in tokens) & Counter(t for t, _ in other)).values())
    assert 0 <= value <= min(1.0, shared / len(other)) + 1e-6
    assert value <= exp(0) + 1e-6
