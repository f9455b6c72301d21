"""CASPO's pairs against a second, literal reading of the rules, on random small runs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.pairs.frames import Rules
from stepconf.core.pairs.steps import caspo
from stepconf.core.records import Pair, Solved
from tests.made_pairs import SAMPLES, TAUS, Sample, make, paired
from tests.made_pairs import path_tokens as _q


def run(
    samples: list[Sample], tau: float, after_error: Any
) -> tuple[list[Solved], list[Pair], dict[str, int]]:
    solved = [make(sample, index) for index, sample in enumerate(samples)]
    return solved, *paired(solved, caspo, Rules(tau, after_error))


class Wanted(NamedTuple):
    """What identifies a pair: its tokens."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def literal(solved: list[Solved], tau: float, after_error: str) -> Iterator[tuple[str, set[Wanted]]]:
    """Per step that makes a pair: its kind, and every pair that the rules allow for it.

    "correct and confident: skip; correct and uncertain: chosen s_j, rejected a competing candidate at q_j, not
    reading as one verified correct, of the highest mean log-probability; incorrect: chosen
    the likeliest correct candidate at q_j, rejected s_j; after the first wrong step: stop."
    """
    for one in solved:
        for j, step in enumerate(one.steps):
            if after_error == "stop" and any(s.label == "incorrect" for s in one.steps[:j]):
                continue
            q_j = _q(one, j)
            candidates = [
                (sum(c.token_logprobs) / len(c.token_ids), c)
                for other in solved
                for k, c in enumerate(other.steps)
                if _q(other, k) == q_j and c.text.split() != step.text.split()
            ]
            if step.label == "incorrect":
                fit = [(p, c) for p, c in candidates if c.label == "correct"]
            elif step.label == "correct" and step.confidence is not None and step.confidence <= tau:
                right = {tuple(c.text.split()) for _, c in candidates if c.label == "correct"}
                fit = [
                    (p, c)
                    for p, c in candidates
                    if c.label != "correct" and tuple(c.text.split()) not in right
                ]
            else:
                continue
            best = [c for p, c in fit if p == max(p for p, _ in fit)]
            own = tuple(step.token_ids)
            if best and step.label == "incorrect":
                yield "incorrect", {Wanted(q_j, tuple(c.token_ids), own) for c in best}
            elif best:
                yield "correct_uncertain", {Wanted(q_j, own, tuple(c.token_ids)) for c in best}


@given(SAMPLES, TAUS, st.sampled_from(["stop", "continue"]))
def test_pairs_are_those_of_a_literal_reading(samples: list[Sample], tau: float, after_error: str) -> None:
    solved, pairs, _ = run(samples, tau, after_error)
    made = {Wanted(tuple(p.prompt_ids), tuple(p.chosen_ids), tuple(p.rejected_ids)): p.kind for p in pairs}
    wanted = list(literal(solved, tau, after_error))
    for kind, choices in wanted:
        assert choices & made.keys(), f"a pair of kind {kind} is missing"
    for pair, kind in made.items():
        assert any(pair in choices and kind == wanted_kind for wanted_kind, choices in wanted)


@given(SAMPLES, TAUS, st.sampled_from(["stop", "continue"]))
def test_laws_of_pairs(samples: list[Sample], tau: float, after_error: str) -> None:
    solved, pairs, dropped = run(samples, tau, after_error)
    assert len(pairs) + sum(dropped.values()) == sum(len(one.steps) for one in solved), (
        "every step is accounted for"
    )
    tokens = {(tuple(p.prompt_ids), tuple(p.chosen_ids), tuple(p.rejected_ids)) for p in pairs}
    assert len({pair.pair_id for pair in pairs}) == len(pairs) == len(tokens)
    by_id = {one.solution.solution_id: one for one in solved}
    for pair in pairs:
        origin = by_id[pair.solution_id]
        step = origin.steps[pair.step_index]
        assert pair.problem_id == origin.solution.problem_id
        assert tuple(pair.prompt_ids) == _q(origin, pair.step_index), "exactly the sampled tokens"
        assert pair.prompt == f"<{90 + int(pair.problem_id[1:])}><99>{pair.prefix}"
        assert pair.prefix == "".join(s.text for s in origin.steps[: pair.step_index])
        assert pair.messages == [{"role": "user", "content": origin.solution.problem}]
        assert pair.chosen.split() != pair.rejected.split() and pair.chosen_ids != pair.rejected_ids
        own, other = ("chosen", "rejected") if pair.kind == "correct_uncertain" else ("rejected", "chosen")
        assert getattr(pair, own) == step.text and getattr(pair, f"{own}_ids") == step.token_ids
        assert (getattr(pair, f"{own}_source"), getattr(pair, f"{other}_source")) == ("step", "candidate")
        for side in ("chosen", "rejected"):
            _check_side(pair, side, solved)
        if pair.kind == "correct_uncertain":
            assert pair.chosen_confidence is not None and pair.chosen_confidence <= tau
        if after_error == "stop":
            assert all(s.label != "incorrect" for s in origin.steps[: pair.step_index])


def _check_side(pair: Pair, side: str, solved: list[Solved]) -> None:
    """Some step after the very same tokens has this side's text, confidence, label and end."""
    for one in solved:
        for j, step in enumerate(one.steps):
            is_last = j == len(one.steps) - 1 and one.solution.finish_reason == "stop"
            same = (
                _q(one, j) == tuple(pair.prompt_ids)
                and step.text == getattr(pair, side)
                and step.token_ids == getattr(pair, f"{side}_ids")
                and step.confidence == getattr(pair, f"{side}_confidence")
                and is_last == getattr(pair, f"{side}_is_terminal")
                and (step.label == "correct") == (side == "chosen")
            )
            if same:
                return
    raise AssertionError(f"{side} is no step of the run")


@given(SAMPLES, TAUS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(samples: list[Sample], tau: float, random: Any) -> None:
    solved = [make(sample, index) for index, sample in enumerate(samples)]
    shuffled = random.sample(solved, len(solved))

    def made(some: list[Solved]) -> set[tuple[str, str]]:
        return {(p.pair_id, p.kind) for p in paired(some, caspo, Rules(tau))[0]}

    assert {pair_id for pair_id, _ in made(solved)} == {pair_id for pair_id, _ in made(shuffled)}


def test_steps_without_tokens_make_no_pair() -> None:
    solved = make(Sample(0, [("a\n", "correct", 0.5)], "stop"), 0)
    first = solved.steps[0]
    plain = replace(first, token_ids=[], signals=dict.fromkeys(first.signals), token_logprobs=[])
    bare = Solved(solved.solution, [plain])
    other = make(Sample(0, [("b\n", "incorrect", 0.5)], "stop"), 1)
    pairs, dropped = paired([bare, other], caspo, Rules(1.0))
    assert pairs == []
    assert dropped == {"no tokens": 1, "no correct step for the incorrect one": 1}


def test_a_cut_solution_does_not_end_where_it_stops() -> None:
    samples = [
        Sample(0, [("a\n", "correct", 0.5)], "length"),
        Sample(0, [("b\n", "incorrect", 0.2)], "stop"),
        Sample(0, [("c c\n", "incorrect", 0.5), ("d\n", "unknown", 0.5)], "stop"),
    ]
    _, pairs, _ = run(samples, 0.1, "stop")
    ends = {pair.rejected: (pair.chosen_is_terminal, pair.rejected_is_terminal) for pair in pairs}
    assert ends == {"b\n": (False, True), "c c\n": (False, False)}
