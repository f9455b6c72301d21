"""Branching against a policy whose every prefix is known to be saved or lost, and its judgements against its laws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.branches import (
    LEAVES_LOST,
    TOO_HARD,
    UNGRADED,
    Ask,
    Outcome,
    Rules,
    Tally,
    Tree,
    Trunk,
    grow,
    judge,
)

STEP_TOKENS = 10


@dataclass
class Policy:
    """Solutions of `n_steps` steps. A sample goes wrong at a step of its own, or nowhere; nothing repairs an error.

    right: how often a completion of a saved prefix is right.
    """

    right: float = 1.0
    n_steps: int = 8
    cut: float = 0.0
    random: Random = field(default_factory=lambda: Random(7))
    count: int = 0

    def sample(self, error: int | None, outcome: Outcome | None = None) -> Trunk:
        return self.trunk([], error, outcome)

    def branch(self, ask: Ask) -> list[Trunk]:
        made = []
        for _ in range(ask.n):
            before = list(ask.trunk.nodes[: ask.node + 1])
            lost = any(node.endswith("x") for node in before)
            goes_wrong = self.random.random() >= self.right
            error = ask.node if goes_wrong else None
            outcome: Outcome | None = "cut" if self.random.random() < self.cut else None
            made.append(self.trunk(before, error, outcome, lost, ask.trunk.n_steps))
        return made

    def trunk(
        self,
        before: list[str],
        error: int | None,
        outcome: Outcome | None,
        lost: bool = False,
        n_steps: int | None = None,
    ) -> Trunk:
        self.count += 1
        start = max(len(before) - 1, 0)
        nodes = before[-1:] or ["start"]
        for step in range(start, n_steps or self.n_steps):
            lost = lost or step == error
            nodes.append(f"{self.count}.{step}{'x' if lost else ''}")
        n = len(nodes) - 1
        how: Outcome = outcome or ("wrong" if lost else "right")
        return Trunk(how, how != "cut", nodes, [0.5] * n, [STEP_TOKENS] * n, bool(before))


def grown(
    policy: Policy, samples: Sequence[Trunk], rules: Rules
) -> tuple[Tree, list[tuple[Ask, list[Trunk]]]]:
    tree, log = Tree(rules), []
    rounds = grow(tree, samples)
    try:
        asks = next(rounds)
        while True:
            made = [policy.branch(ask) for ask in asks]
            log += zip(asks, made, strict=True)
            asks = rounds.send(made)
    except StopIteration:
        return tree, log


FIRST_ERROR, ALL = frozenset({"first-error"}), frozenset({"all"})
MUCH = 1e9


def labels(tree: Tree, trunk: Trunk) -> list[str | None]:
    return [found and found.label for found in judge(tree, trunk)]


@pytest.mark.parametrize("where", [FIRST_ERROR, ALL])
@given(error=st.integers(0, 11), n_steps=st.integers(1, 12))
def test_the_first_error_is_found_where_right_completions_never_fail(
    where: frozenset[str], error: int, n_steps: int
) -> None:
    error %= n_steps
    policy = Policy(n_steps=n_steps)
    right, wrong = policy.sample(None), policy.sample(error)
    tree, log = grown(policy, [right, wrong], Rules(where, budget=MUCH))  # type: ignore[arg-type]
    found = labels(tree, wrong)
    assert found == ["correct"] * error + ["incorrect"] + [None] * (n_steps - error - 1)
    assert labels(tree, right) == ["correct"] * n_steps
    if where == FIRST_ERROR:
        assert len({ask.trunk.nodes[ask.node] for ask, _ in log}) <= max(1, n_steps - 1).bit_length()
        assert all(ask.trunk is wrong for ask, _ in log)
    else:
        asked = {ask.trunk.nodes[ask.node] for ask, _ in log}
        assert asked == {*right.nodes[1:-1], *wrong.nodes[1:-1]}, "a right end alone is weak evidence"


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=5),
    st.sampled_from(["first-error", "uncertain", "all"]),
    st.integers(1, 8),
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.floats(0.5, 10),
    st.integers(1, 2),
    st.integers(0, 2**32),
)
def test_laws(
    errors: list[int | None],
    where: str,
    n: int,
    wave: int,
    right: float,
    cut: float,
    budget: float,
    depth: int,
    seed: int,
) -> None:
    policy = Policy(right, 6, cut, Random(seed))
    samples = [policy.sample(error) for error in errors]
    rules = Rules(frozenset({where}), n, wave, 2, depth, budget)  # type: ignore[arg-type]
    tree, log = grown(policy, samples, rules)
    asked: dict[str, int] = {}
    for ask, made in log:
        node = ask.trunk.nodes[ask.node]
        first = len(samples) if node == "start" else 0
        assert ask.first == first + asked.get(node, 0), "each completion has a number of its own"
        asked[node] = asked.get(node, 0) + ask.n
        assert 1 <= ask.n <= wave and first + asked[node] <= n
        assert all(branch.nodes[0] == node for branch in made)
    # No completion of this policy is longer than what it replaces, which is what a budget goes by.
    tokens = sum(sum(branch.n_tokens) for _, made in log for branch in made)
    assert tokens <= budget * sum(sum(trunk.n_tokens) for trunk in samples)
    for trunk in [*samples, *(branch for _, made in log for branch in made)]:
        found = judge(tree, trunk)
        assert len(found) == trunk.n_steps
        said = [one.label if one else None for one in found]
        assert said.count("incorrect") <= 1
        if "incorrect" in said:
            at = said.index("incorrect")
            assert set(said[:at]) <= {"correct"} and set(said[at + 1 :]) <= {None}
            assert trunk.outcome != "right"
        for step, one in enumerate(found):
            if one and one.label == "correct":
                assert not trunk.nodes[step + 1].endswith("x"), "a lost prefix is never called saved"
            assert one is None or one.score is None or 0 <= one.score <= 1
        if trunk.outcome == "right":
            assert set(said) <= {"correct"}


def test_a_problem_without_a_right_completion_is_too_hard() -> None:
    policy = Policy(right=0.0)
    samples = [policy.sample(3) for _ in range(4)]
    tree, log = grown(policy, samples, Rules(FIRST_ERROR, budget=MUCH))
    assert [(ask.node, ask.n) for ask, _ in log] == [(0, 4)], (
        "the samples count: half of n is left to ask for"
    )
    assert {one and one.reason for one in judge(tree, samples[0])} == {TOO_HARD}
    assert {one and one.reason for one in judge(tree, log[0][1][0])} == {LEAVES_LOST}
    assert set(labels(tree, samples[0])) == {"unknown"}


def test_a_right_sample_makes_a_problem_solvable_and_asks_nothing_at_the_start() -> None:
    policy = Policy()
    _, log = grown(policy, [policy.sample(5), policy.sample(None)], Rules(FIRST_ERROR, budget=MUCH))
    assert all(ask.node > 0 for ask, _ in log)


def test_without_gold_answers_nothing_is_decided_and_one_wave_makes_siblings() -> None:
    policy = Policy()
    sample = policy.sample(None, "ungraded")
    rules = Rules(frozenset({"uncertain"}), n=8, wave=3)
    tree = Tree(rules)
    rounds = grow(tree, [sample])
    asks = next(rounds)
    assert [(ask.node, ask.n) for ask in asks] == [(1, 3)], (
        "a step with a sibling at the start has one already"
    )
    with pytest.raises(StopIteration):
        rounds.send([[policy.trunk(list(sample.nodes[:2]), None, "ungraded") for _ in range(3)]])
    assert {one and (one.label, one.reason) for one in judge(tree, sample)} == {("unknown", UNGRADED)}


def test_uncertain_asks_at_the_least_confident_steps_until_a_rival_fails() -> None:
    policy = Policy(right=0.5, n_steps=5)
    sample = policy.sample(None)
    sample.confidences = [0.9, 0.2, 0.8, 0.3, 0.1]  # type: ignore[misc]  # the last step gives the answer
    _, log = grown(policy, [sample], Rules(frozenset({"uncertain"}), n=8, wave=1, budget=MUCH))
    assert {ask.node for ask, _ in log} == {1, 3}
    for node in (1, 3):
        made = [branch for ask, branches in log for branch in branches if ask.node == node]
        outcomes = [branch.outcome for branch in made]
        assert outcomes.index("wrong") == len(outcomes) - 1 or len(outcomes) == 8


def test_a_cut_solution_is_continued_first() -> None:
    policy = Policy(n_steps=4)
    right, cut = policy.sample(None), policy.sample(None, "cut")
    tree, log = grown(policy, [right, cut], Rules(FIRST_ERROR, budget=MUCH))
    assert [(ask.trunk is cut, ask.node) for ask, _ in log] == [(True, 4)]
    assert labels(tree, cut) == ["correct"] * 4


def test_a_node_that_cannot_be_continued_is_left_open() -> None:
    policy = Policy(n_steps=4)
    right, wrong = policy.sample(None), policy.sample(2)
    tree = Tree(Rules(FIRST_ERROR, budget=MUCH))
    rounds = grow(tree, [right, wrong])
    asks = next(rounds)
    assert [ask.node for ask in asks] == [2]
    with pytest.raises(StopIteration):
        rounds.send([[]])
    reasons = {one and one.reason for one in judge(tree, wrong)}
    assert reasons == {"the first error is among steps 0 to 3"}


def test_completions_that_are_all_cut_decide_nothing() -> None:
    policy = Policy(n_steps=4, cut=1.0)
    right, wrong = policy.sample(None), policy.sample(2)
    tree, log = grown(policy, [right, wrong], Rules(FIRST_ERROR, budget=MUCH))
    assert sum(ask.n for ask, _ in log) == 8, "the middle is asked for in full, and then left open"
    assert {one and one.reason for one in judge(tree, wrong)} == {"the first error is among steps 0 to 3"}
    alone = policy.sample(2)
    tree, _ = grown(policy, [alone], Rules(FIRST_ERROR, budget=MUCH))
    assert {one and (one.label, one.reason) for one in judge(tree, alone)} == {("unknown", UNGRADED)}


def test_the_budget_stops_it() -> None:
    policy = Policy(right=0.5)
    samples = [policy.sample(None), policy.sample(7), policy.sample(6)]
    rules = Rules(frozenset({"first-error", "uncertain"}), budget=0.5)
    _, log = grown(policy, samples, rules)
    planned = sum(ask.n * sum(ask.trunk.n_tokens[ask.node :]) for ask, _ in log)
    assert planned <= 0.5 * 3 * 8 * STEP_TOKENS


@pytest.mark.parametrize(("budget", "has_rivals"), [(2.0, False), (MUCH, True)])
def test_labels_have_the_budget_first(budget: float, has_rivals: bool) -> None:
    policy = Policy(right=0.5)
    samples = [policy.sample(None), policy.sample(6)]
    rules = Rules(frozenset({"first-error", "uncertain"}), budget=budget)
    tree, log = grown(policy, samples, rules)
    for_labels = [ask.trunk is samples[1] for ask, _ in log]
    assert for_labels == sorted(for_labels, reverse=True) and for_labels[0]
    assert all(for_labels) != has_rivals
    assert labels(tree, samples[1]) == ["correct"] * 6 + ["incorrect", None]


def test_tallies_say_what_they_count() -> None:
    tally = Tally()
    for outcome in ("right", "wrong", "wrong", "cut", "ungraded"):
        tally.add(outcome)  # type: ignore[arg-type]
    assert str(tally) == "1 of 3 right; 1 cut off; 1 not comparable"
    assert not tally.is_lost(2) and Tally(wrong=4).is_lost(8) and not Tally(wrong=3).is_lost(8)
