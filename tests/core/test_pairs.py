"""CASPO's pairs against a second, literal reading of the rules, on random small runs."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.pairs.select import unique
from stepconf.core.pairs.steps import StepRule, caspo, step_outcomes
from stepconf.core.pairs.traces import Draft, Place, Side, Trace, to_bytes, to_pair
from stepconf.core.records import Label, Pair, Solution, Solved, TokenScores
from stepconf.core.steps import build_steps

# What a step may be: few enough that samples often share prefixes. " a" reads like "a"; c has other tokens.
PIECES = {"a\n": [1], " a \n": [2, 1], "b\n": [3], "c c\n": [4, 4], "d\n": [5]}


class Sample(NamedTuple):
    problem: int
    steps: list[tuple[str, Label, float]]
    finish: Literal["stop", "length"]


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.integers(0, 1),
        st.lists(
            st.tuples(
                st.sampled_from(sorted(PIECES)),
                st.sampled_from(["correct", "incorrect", "unknown"]),
                st.sampled_from([0.0, 0.2, 0.5, 0.5, 1.0]),
            ),
            min_size=1,
            max_size=3,
        ),
        st.sampled_from(["stop", "length"]),
    ),
    max_size=7,
)
TAUS = st.sampled_from([0.1, 0.5, 0.61, 0.9, 1.0])


def make(sample: Sample, index: int) -> Solved:
    """The sample as a solution with steps; entropies and log-probabilities differ by step and sample."""
    text = "".join(piece for piece, _, _ in sample.steps)
    ids = [t for piece, _, _ in sample.steps for t in PIECES[piece]]
    spans, starts, entropies, at = [], [], [], 0
    for piece, _, entropy in sample.steps:
        spans.append((at, at + len(piece)))
        starts += [at + i for i in range(len(PIECES[piece]))]
        entropies += [entropy] * len(PIECES[piece])
        at += len(piece)
    logprobs = [-h - 0.001 * index for h in entropies]
    scores = TokenScores(logprobs, entropies, [0.5] * len(ids))
    steps = build_steps(f"s{index}", f"p{sample.problem}", text, spans, ids, starts, scores)
    labelled = [replace(step, label=label) for step, (_, label, _) in zip(steps, sample.steps, strict=True)]
    values: dict[str, Any] = dict.fromkeys(Solution.__dataclass_fields__)
    values |= {
        "solution_id": f"s{index}",
        "problem_id": f"p{sample.problem}",
        "problem": f"problem {sample.problem}",
        "prompt_token_ids": [90 + sample.problem, 99],
        "text": text,
        "token_ids": ids,
        "finish_reason": sample.finish,
        "model": "m",
        "n_steps": len(steps),
        "extra": {},
    }
    return Solved(Solution(**values), labelled)


def trace_of(one: Solved) -> Trace:
    """What `stepconf.pairs.traces` reads of a solution."""
    solution = one.solution
    trace = Trace(
        solution_id=solution.solution_id,
        problem_id=solution.problem_id,
        problem=solution.problem,
        prompt_ids=to_bytes(solution.prompt_token_ids),
        text=solution.text,
        ids=to_bytes(solution.token_ids),
        finished=solution.finish_reason != "length",
        answer_correct=solution.answer_correct,
        confidence=solution.confidence,
        model=solution.model,
        gold_answer=solution.gold_answer,
        extra="{}",
        places=[],
        logprobs=array("f", [x for step in one.steps for x in step.token_logprobs]).tobytes(),
    )
    wrong = False
    for step in one.steps:
        n = len(step.token_ids)
        side = Side(
            text=step.text,
            ids=to_bytes(step.token_ids),
            label=step.label,
            confidence=step.confidence,
            mean_logprob=(step.logprob_sum or 0.0) / n if n else float("-inf"),
            is_terminal=step.step_index == step.n_steps - 1 and trace.finished,
            source="step",
            tie=step.step_id,
            reaches=trace.answer_correct,
        )
        references = tuple(v.reference for v in step.verdicts if v.reference)
        first = step.label == "incorrect" and not wrong
        place = Place(
            trace, step.step_index, step.char_start, step.token_start, wrong, first, side, references
        )
        trace.places.append(place)
        wrong = wrong or step.label == "incorrect"
    return trace


def encode(text: str) -> bytes:
    return to_bytes([1000 + ord(character) for character in text])


def paired(solved: list[Solved], rule: StepRule) -> tuple[list[Pair], Counter[str]]:
    dropped: Counter[str] = Counter()
    drafts = []
    for _, outcome in step_outcomes([trace_of(one) for one in solved], rule, {}):
        if isinstance(outcome, Draft):
            drafts.append(outcome)
        else:
            dropped[outcome] += 1
    kept = unique(drafts, dropped)
    return [to_pair(draft, lambda trace: f"<{trace.problem}>", 3) for draft in kept], dropped


def run(samples: list[Sample], tau: float, after_error: Any) -> tuple[list[Solved], list[Pair], Counter[str]]:
    solved = [make(sample, index) for index, sample in enumerate(samples)]
    return solved, *paired(solved, caspo(tau, after_error, encode))


class Wanted(NamedTuple):
    """What identifies a pair: its tokens."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def literal(solved: list[Solved], tau: float, after_error: str) -> Iterator[tuple[str, set[Wanted]]]:
    """Per step that makes a pair: its kind, and every pair that the rules allow for it.

    "correct and confident: skip; correct and uncertain: chosen s_j, rejected a competing candidate at q_j, not
    equal after normalisation and not verified correct, of the highest mean log-probability; incorrect: chosen
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
                fit = [(p, c) for p, c in candidates if c.label != "correct"]
            else:
                continue
            best = [c for p, c in fit if p == max(p for p, _ in fit)]
            own = tuple(step.token_ids)
            if best and step.label == "incorrect":
                yield "incorrect", {Wanted(q_j, tuple(c.token_ids), own) for c in best}
            elif best:
                yield "correct_uncertain", {Wanted(q_j, own, tuple(c.token_ids)) for c in best}


def _q(one: Solved, j: int) -> tuple[int, ...]:
    return (*one.solution.prompt_token_ids, *(t for s in one.steps[:j] for t in s.token_ids))


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
    assert len(pairs) + dropped.total() == sum(len(one.steps) for one in solved), (
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
        assert pair.prompt == f"<{origin.solution.problem}>{pair.prefix}"
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
        return {
            (p.pair_id, p.kind)
            for p in paired(some, caspo(tau, "stop", encode))[0]
            if p.kind == "incorrect" or p.kind == "correct_uncertain"
        }

    assert {pair_id for pair_id, _ in made(solved)} == {pair_id for pair_id, _ in made(shuffled)}


def test_steps_without_tokens_make_no_pair() -> None:
    solved = make(Sample(0, [("a\n", "correct", 0.5)], "stop"), 0)
    plain = replace(solved.steps[0], token_ids=[], confidence=None, logprob_sum=None, token_logprobs=[])
    bare = Solved(solved.solution, [plain])
    other = make(Sample(0, [("b\n", "incorrect", 0.5)], "stop"), 1)
    pairs, dropped = paired([bare, other], caspo(1.0, "stop", encode))
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
