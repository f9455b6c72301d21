"""rStar-Math's and CGPO's pairs, and CASPO's of branches, against literal readings on random runs with branches."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.pairs import reasons
from stepconf.core.pairs.frames import Rules
from stepconf.core.pairs.outcomes import cgpo, rstar
from stepconf.core.pairs.solutions import dpo_vp, pcpo
from stepconf.core.pairs.steps import caspo
from stepconf.core.records import Pair, Solved
from tests.made_pairs import BRANCHES, SAMPLES, Branch, Sample, make, make_all, paired, path_tokens, read

Prefix = tuple[str, tuple[int, ...]]


class Child(NamedTuple):
    """The answers of the completions after a step, None where not known."""

    reads: tuple[str, ...]
    answers: list[bool | None]

    @property
    def share(self) -> Fraction | None:
        graded = [answer for answer in self.answers if answer is not None]
        return Fraction(sum(graded), len(graded)) if graded else None


def children_of(solved: Sequence[Solved]) -> dict[Prefix, list[Child]]:
    """What follows each prefix: all rows with the step there, and all branches that leave right after it."""
    found: dict[Prefix, dict[tuple[str, ...], set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in solved:
        for j, step in enumerate(one.steps):
            child = found[one.solution.problem_id, path_tokens(one, j)][tuple(step.text.split())]
            child.add(one.solution.solution_id)
            after = (*path_tokens(one, j), *step.token_ids)
            child.update(
                other.solution.solution_id
                for other in solved
                if other.solution.parent_solution_id is not None
                and other.solution.problem_id == one.solution.problem_id
                and tuple(other.solution.prompt_token_ids) == after
            )
    answers = {one.solution.solution_id: one.solution.answer_correct for one in solved}
    return {
        prefix: [Child(reads, [answers[one] for one in sorted(rows)]) for reads, rows in own.items()]
        for prefix, own in found.items()
    }


class Wanted(NamedTuple):
    """How the sides of a pair may read."""

    prefix: Prefix
    chosen: frozenset[tuple[str, ...]]
    rejected: frozenset[tuple[str, ...]]

    def allows(self, pair: Pair) -> bool:
        return (
            self.prefix == (pair.problem_id, tuple(pair.prompt_ids))
            and tuple(pair.chosen.split()) in self.chosen
            and tuple(pair.rejected.split()) in self.rejected
        )


def literal_rstar(solved: Sequence[Solved], margin: float) -> list[Wanted]:
    wanted = []
    for prefix, own in children_of(solved).items():
        shares = {child.reads: child.share for child in own if child.share is not None}
        if len(shares) > 1 and max(shares.values()) - min(shares.values()) >= Fraction(margin):
            ends = (
                frozenset(reads for reads, share in shares.items() if share == end)
                for end in (max(shares.values()), min(shares.values()))
            )
            wanted.append(Wanted(prefix, *ends))
    return wanted


@given(SAMPLES, BRANCHES, st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=200)
def test_rstar_pairs_the_best_with_the_worst(
    samples: list[Sample], branches: list[Branch], margin: float
) -> None:
    solved = make_all(samples, branches)
    pairs, dropped = paired(solved, rstar, Rules(margin=margin))
    wanted = literal_rstar(solved, margin)
    assert len(pairs) == len(wanted) and len(pairs) + sum(dropped.values()) == len(children_of(solved))
    for one in wanted:
        (pair,) = (pair for pair in pairs if one.allows(pair))
        assert pair.kind == "outcome" and (pair.chosen_source, pair.rejected_source) == ("step", "candidate")
    check_rows(pairs, solved)


def test_two_thirds_and_a_sixth_are_half_apart() -> None:
    """In floating point they are not."""
    samples = [Sample(0, [("a\n", "correct", 0.2)], "stop", answer) for answer in (True, True, False)]
    samples += [Sample(0, [("b\n", "correct", 0.2)], "stop", i == 0) for i in range(6)]
    pairs, dropped = paired(make_all(samples), rstar)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("a\n", "b\n")] and not dropped


def literal_cgpo(solved: Sequence[Solved]) -> dict[str, Wanted]:
    """By root: "at the step of least confidence that has a sibling of the other outcome, right against wrong"."""
    children, wanted = children_of(solved), {}
    for one in solved:
        own = one.solution
        if own.parent_solution_id is not None and tuple(own.prompt_token_ids) != (
            90 + int(own.problem_id[1:]),
            99,
        ):
            continue
        points = []
        for j, step in enumerate(one.steps):
            here = [
                child
                for child in children[own.problem_id, path_tokens(one, j)]
                if child.share not in (None, Fraction(1, 2))
            ]
            mine = [child for child in here if child.reads == tuple(step.text.split())]
            others = [child for child in here if mine and (child.share > 0.5) != (mine[0].share > 0.5)]  # type: ignore[operator]  # none is None
            if others:
                right = mine[0].share > 0.5  # type: ignore[operator]  # as above
                end = (min if right else max)(child.share for child in others)  # type: ignore[type-var]  # as above
                other = frozenset(child.reads for child in others if child.share == end)
                sides = (frozenset({mine[0].reads}), other)
                points.append((step.confidence, j, sides if right else sides[::-1]))
        if points:
            _, j, sides = min(points)
            wanted[own.solution_id] = Wanted((own.problem_id, path_tokens(one, j)), *sides)
    return wanted


@given(SAMPLES, BRANCHES)
@settings(max_examples=200)
def test_cgpo_pairs_where_a_solution_is_least_sure(samples: list[Sample], branches: list[Branch]) -> None:
    solved = make_all(samples, branches)
    pairs, dropped = paired(solved, cgpo)
    wanted = literal_cgpo(solved)
    n_roots = sum(read(solved).solutions["is_root"])
    assert len(pairs) + sum(dropped.values()) == n_roots
    assert dropped.get(reasons.SAME_OUTCOME, 0) == n_roots - len(wanted)
    assert all(any(one.allows(pair) for pair in pairs) for one in wanted.values())
    for pair in pairs:
        assert wanted[pair.solution_id].allows(pair) and pair.kind == "outcome"
        assert {pair.chosen_source, pair.rejected_source} == {"step", "candidate"}
    check_rows(pairs, solved)


@given(SAMPLES, BRANCHES, st.sampled_from([0.1, 0.61, 1.0]))
@settings(max_examples=200)
def test_steps_of_branches_are_siblings_of_their_parents_steps(
    samples: list[Sample], branches: list[Branch], tau: float
) -> None:
    solved = make_all(samples, branches)
    pairs, dropped = paired(solved, caspo, Rules(tau))
    assert len(pairs) + sum(dropped.values()) == sum(len(one.steps) for one in solved)
    steps = {
        (one.solution.problem_id, path_tokens(one, j)): [] for one in solved for j in range(len(one.steps))
    }
    for one in solved:
        for j, step in enumerate(one.steps):
            steps[one.solution.problem_id, path_tokens(one, j)].append(step)
    for one in solved:
        for j, step in enumerate(one.steps):
            siblings = steps[one.solution.problem_id, path_tokens(one, j)]
            correct = {tuple(s.text.split()) for s in siblings if s.label == "correct"}
            reads = {tuple(s.text.split()) for s in siblings}
            if step.after_error:
                expected = False
            elif step.label == "incorrect":
                expected = bool(correct - {tuple(step.text.split())})
            else:
                expected = step.label == "correct" and step.confidence <= tau and bool(reads - correct)  # type: ignore[operator]  # it is scored
            own = (list(path_tokens(one, j)), step.token_ids)
            made = [p for p in pairs if p.problem_id == one.solution.problem_id and own in (
                (p.prompt_ids, p.chosen_ids), (p.prompt_ids, p.rejected_ids))]  # fmt: skip
            assert made or not expected
    check_rows(pairs, solved)


def check_rows(pairs: Sequence[Pair], solved: Sequence[Solved]) -> None:
    """Prompt, prefix and messages are those of the whole path of the row that gave rise to the pair."""
    by_id = {one.solution.solution_id: one for one in solved}
    for pair in pairs:
        origin = by_id[pair.solution_id]
        assert tuple(pair.prompt_ids) == path_tokens(origin, pair.step_index)
        text = "".join(step.text for step in origin.steps[: pair.step_index])
        row = origin.solution
        while row.parent_solution_id is not None:
            parent = by_id[row.parent_solution_id]
            text = "".join(step.text for step in parent.steps[: row.branch_step]) + text
            row = parent.solution
        assert pair.prefix == text
        assert pair.prompt == f"<{row.prompt_token_ids[0]}><99>{text}"
        assert pair.messages == [{"role": "user", "content": row.problem}] and pair.round == 3


@given(SAMPLES, BRANCHES)
def test_branches_are_no_solutions_of_their_own(samples: list[Sample], branches: list[Branch]) -> None:
    """But for those that leave at the bare prompt; every row is a side or counted."""
    solved = make_all(samples, branches)
    whole = [
        one
        for one in solved
        if tuple(one.solution.prompt_token_ids) == (90 + int(one.solution.problem_id[1:]), 99)
    ]
    for strategy in (dpo_vp, pcpo):
        pairs, dropped = paired(solved, strategy)
        assert dropped.get(reasons.BRANCH, 0) == len(solved) - len(whole)
        free = [
            Solved(replace(one.solution, parent_solution_id=None, branch_step=None), one.steps)
            for one in whole
        ]
        assert pairs == paired(free, strategy)[0]
        sides = {(p.problem_id, tuple(ids)) for p in pairs for ids in (p.chosen_ids, p.rejected_ids)}
        assert len(sides) + sum(dropped.values()) == len(solved)
        assert all(p.prefix == "" and p.chosen_source == p.rejected_source == "solution" for p in pairs)


def test_a_branch_of_a_solution_that_was_cut_goes_on_from_its_last_step() -> None:
    root = Sample(0, [("a\n", "correct", 0.2)], "length", None)
    other = Sample(0, [("b\n", "correct", 0.2)], "stop", False)
    branches = [Branch(0, 1, [("d\n", "correct", 0.2)], True)]
    (pair,), _ = paired(make_all([root, other], branches), rstar)
    assert (pair.chosen, pair.rejected) == ("a\n", "b\n"), "its completion is right"
    assert not pair.chosen_is_terminal and pair.rejected_is_terminal


def test_what_a_stronger_model_wrote_is_said() -> None:
    wrong = make(Sample(0, [("b\n", "incorrect", 0.2)], "stop", False), 0)
    right = make(Sample(0, [("a\n", "correct", 0.2)], "stop", True), 1)
    written = Solved(
        replace(right.solution, model="stronger", parent_solution_id="s0", branch_step=0), right.steps
    )
    for strategy, kind in ((caspo, "incorrect"), (rstar, "outcome")):
        (pair,), _ = paired([wrong, written], strategy, Rules(0.1))
        assert pair.kind == kind and (pair.chosen_source, pair.chosen) == ("completer", "a\n")
        assert pair.rejected_source == ("step" if strategy is caspo else "candidate")


def test_a_branch_of_another_branch() -> None:
    steps: list[Any] = [("a\n", "correct", 0.2), ("b\n", "correct", 0.2)]
    solved = make_all(
        [Sample(0, steps, "stop", False)],
        [
            Branch(0, 1, [("d\n", "correct", 0.2), ("a\n", "correct", 0.2)], False),
            Branch(1, 1, [("c c\n", "correct", 0.2)], True),
        ],
    )
    pairs, _ = paired(solved, rstar)
    assert {(p.prefix, p.chosen, p.rejected) for p in pairs} == {("a\nd\n", "c c\n", "a\n")} | {
        ("a\n", "d\n", "b\n")
    }  # of d: one completion right of two
