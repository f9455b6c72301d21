"""Where a problem's solutions are branched, and what the branches say of their steps: pure.

A *node* is a place in a solution: before its step k, or at its end. Completions sampled there are branches. How many
of them reach the right answer is the node's value, estimated as in Math-Shepherd (arXiv 2312.08935). A right
completion shows that every step before its node could still be saved (the closure); so the first error of a wrong
solution is found by binary search, as in OmegaPRM (arXiv 2406.06592): the step after which no completion is right,
where before it some were.

All solutions of a problem share its start. Nodes with the same exact tokens before them are one.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stepconf.core.records import Label

Outcome = Literal["right", "wrong", "cut", "ungraded"]
Where = Literal["first-error", "uncertain", "all"]

TOO_HARD = "too hard for the policy"
LEAVES_LOST = "no completion of what it leaves is right"
UNGRADED = "too few completions can be graded"
AMONG = "the first error is among"


class Rules(NamedTuple):
    """How to branch.

    where: `first-error`, binary search in wrong and cut solutions; `uncertain`, at the least confident steps of right
        ones; `all`, at every node.
    n: completions of a node at most. wave: how many at a time, after which a node may be decided.
    uncertain_steps: nodes of a right solution at most, for `uncertain`.
    depth: 1 branches the samples, 2 their branches too.
    budget: tokens of a problem's branches, as a multiple of its samples'.
    """

    where: frozenset[Where]
    n: int = 8
    wave: int = 4
    uncertain_steps: int = 2
    depth: int = 1
    budget: float = 6.0


@dataclass(slots=True)
class Tally:
    """The completions known of a node: those sampled there, and the solutions that pass through it.

    asked, reached: how many were sampled there, and how many of those are right; at a problem's start its samples
    count. closed: no more can be sampled.
    """

    right: int = 0
    wrong: int = 0
    cut: int = 0
    ungraded: int = 0
    asked: int = 0
    reached: int = 0
    closed: bool = False

    @property
    def graded(self) -> int:
        """Completions whose answer was found right or wrong."""
        return self.right + self.wrong

    def add(self, outcome: Outcome) -> None:
        """One more completion."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    def is_lost(self, n: int) -> bool:
        """No completion is right, and at least half of `n` were graded."""
        return not self.right and 2 * self.graded >= n

    def __str__(self) -> str:
        more = [f"{k} {what}" for k, what in ((self.cut, "cut off"), (self.ungraded, "not comparable")) if k]
        return "; ".join([f"{self.right} of {self.graded} right", *more])


@dataclass(slots=True, eq=False)
class Trunk:
    """A solution whose nodes may be branched: a sample, or a branch.

    nodes: the exact tokens before each step and at the end, as ids: one more than steps.
    confidences: of its steps; None where unknown. n_tokens: of its steps. finished: it ended by itself.
    """

    outcome: Outcome
    finished: bool
    nodes: Sequence[str]
    confidences: Sequence[float | None]
    n_tokens: Sequence[int]
    is_branch: bool = False

    @property
    def n_steps(self) -> int:
        """Its own steps."""
        return len(self.confidences)


class Ask(NamedTuple):
    """`n` completions wanted of a trunk's node; `first` is how many were asked for there before."""

    trunk: Trunk
    node: int
    n: int
    first: int


class Judgement(NamedTuple):
    """What the completions say of a step. score: the share of right ones after it, where there are any."""

    label: Label
    score: float | None
    reason: str


@dataclass(slots=True)
class Tree:
    """A problem's solutions and the tallies of their nodes.

    spent: tokens of the branches so far. room: tokens that they may have.
    """

    rules: Rules
    tallies: dict[str, Tally] = field(default_factory=dict)
    spent: int = 0
    room: float = 0.0

    def tally(self, trunk: Trunk, node: int) -> Tally:
        """The tally of a node; nothing comes after the end of a finished solution but its own answer."""
        if node == trunk.n_steps and trunk.finished:
            return Tally(**{trunk.outcome: 1}, closed=True)
        return self.tallies.setdefault(trunk.nodes[node], Tally())

    def is_lost(self, trunk: Trunk, node: int) -> bool:
        """Whether no completion after the node is right, as far as the rules ask for."""
        ends_here = trunk.finished and node == trunk.n_steps
        return self.tally(trunk, node).is_lost(2 if ends_here else self.rules.n)

    def add(self, trunk: Trunk) -> None:
        """One more completion of every node that the solution passes."""
        for node in trunk.nodes[: max(1, trunk.n_steps + (not trunk.finished))]:
            self.tallies.setdefault(node, Tally()).add(trunk.outcome)
        self.tallies[trunk.nodes[0]].reached += trunk.outcome == "right"


def grow(tree: Tree, samples: Sequence[Trunk]) -> Generator[list[Ask], list[list[Trunk]], None]:
    """Branch a problem's samples, round by round: yields what to sample, is sent the branches of each ask.

    An ask may be answered with fewer branches, or none: its node is then closed. The rounds depend on outcomes
    alone, never on the order in which an engine answers.
    """
    for trunk in samples:
        tree.add(trunk)
        tree.tally(trunk, 0).asked += 1
        tree.room += tree.rules.budget * sum(trunk.n_tokens)
    if samples and tree.rules.where & {"first-error", "all"}:
        yield from _rounds(tree, [_until_right(tree, samples[0], 0)])
    level: Sequence[Trunk] = samples
    for _ in range(tree.rules.depth):
        made: list[Trunk] = []
        for searches in (_label_searches, _rival_searches):  # labels have the budget first
            made += yield from _rounds(tree, [search for trunk in level for search in searches(tree, trunk)])
        level = made


def _rounds(
    tree: Tree, searches: list[Iterator[Ask]]
) -> Generator[list[Ask], list[list[Trunk]], list[Trunk]]:
    """Run searches side by side, each with an ask a round at most; returns the branches."""
    made: list[Trunk] = []
    while searches:
        asks: dict[str, Ask] = {}
        planned = 0
        for search in list(searches):
            ask = next(search, None)
            if ask is None:
                searches.remove(search)
                continue
            node = ask.trunk.nodes[ask.node]
            if node in asks:  # another search asks there; this one looks again when the answers are in
                continue
            like = ask.trunk.n_tokens[ask.node :] or ask.trunk.n_tokens  # as long as what they replace
            cost = ask.n * sum(like)
            if tree.spent + planned + cost > tree.room:
                tree.tally(ask.trunk, ask.node).closed = True
                searches.remove(search)
                continue
            planned += cost
            tree.tally(ask.trunk, ask.node).asked += ask.n
            asks[node] = ask
        if not asks:
            continue
        answers = yield list(asks.values())
        for ask, branches in zip(asks.values(), answers, strict=True):
            if len(branches) < ask.n:
                tree.tally(ask.trunk, ask.node).closed = True
            for branch in branches:
                tree.spent += sum(branch.n_tokens)
                tree.add(branch)
            made += branches
    return made


def _label_searches(tree: Tree, trunk: Trunk) -> Iterator[Iterator[Ask]]:
    """What says which steps of a solution are right."""
    where = tree.rules.where
    if "all" in where:
        for node in range(1, trunk.n_steps + (not trunk.finished)):
            yield _if_saved(tree, trunk, _until_reached(tree, trunk, node))
    elif "first-error" in where and trunk.outcome in ("wrong", "cut"):
        yield _if_saved(tree, trunk, _first_error(tree, trunk))


def _rival_searches(tree: Tree, trunk: Trunk) -> Iterator[Iterator[Ask]]:
    """What looks for wrong siblings of its uncertain steps."""
    if "uncertain" in tree.rules.where and trunk.outcome in ("right", "ungraded"):
        yield from (_until_wrong(tree, trunk, node) for node in _uncertain(trunk, tree.rules.uncertain_steps))


def _if_saved(tree: Tree, trunk: Trunk, search: Iterator[Ask]) -> Iterator[Ask]:
    """A search, unless the problem is too hard, or the branch leaves after an error."""
    if tree.tally(trunk, 0).right:
        yield from search


def _first_error(tree: Tree, trunk: Trunk) -> Iterator[Ask]:
    """Binary search between the last node after which a completion is known to be right and the end."""
    yield from _until_right(tree, trunk, trunk.n_steps)
    low = max(node for node in range(trunk.n_steps + 1) if tree.tally(trunk, node).right)
    high = trunk.n_steps
    if low < high and not tree.is_lost(trunk, high):
        return
    while high - low > 1:
        middle = (low + high) // 2
        yield from _until_right(tree, trunk, middle)
        if tree.tally(trunk, middle).right:
            low = middle
        elif tree.is_lost(trunk, middle):
            high = middle
        else:
            return


def _until_right(tree: Tree, trunk: Trunk, node: int) -> Iterator[Ask]:
    return _waves(tree, trunk, node, lambda tally: tally.right > 0)


def _until_reached(tree: Tree, trunk: Trunk, node: int) -> Iterator[Ask]:
    """Until a completion sampled there is right: a solution's own end is no independent evidence."""
    return _waves(tree, trunk, node, lambda tally: tally.reached > 0)


def _until_wrong(tree: Tree, trunk: Trunk, node: int) -> Iterator[Ask]:
    """Until there is a rival that fails; one wave where nothing can be graded."""
    return _waves(tree, trunk, node, lambda tally: tally.wrong > 0 or (tally.asked > 0 and not tally.graded))


def _waves(tree: Tree, trunk: Trunk, node: int, is_enough: Callable[[Tally], bool]) -> Iterator[Ask]:
    rules = tree.rules
    while True:
        tally = tree.tally(trunk, node)
        if tally.closed or tally.asked >= rules.n or is_enough(tally):
            return
        yield Ask(trunk, node, min(rules.wave, rules.n - tally.asked), tally.asked)


def _uncertain(trunk: Trunk, most: int) -> list[int]:
    """The steps of least confidence; the last one, which gives the answer, only where there is no other."""
    known = [
        (c, step) for step, c in enumerate(trunk.confidences[: max(1, trunk.n_steps - 1)]) if c is not None
    ]
    return [step for _, step in sorted(known)[:most]]


def judge(tree: Tree, trunk: Trunk) -> list[Judgement | None]:
    """What the completions say of each step of a solution; None after its first error.

    Steps before a node after which a completion is right are `correct`. The step after the last such node is
    `incorrect` if no completion after it is right. Where the problem's start has no right completion at all, the
    policy cannot judge: every step is `unknown`.
    """
    tallies = [tree.tally(trunk, node) for node in range(trunk.n_steps + 1)]
    right = [node for node, tally in enumerate(tallies) if tally.right]
    if not right:
        reason = LEAVES_LOST if trunk.is_branch else TOO_HARD
        reason = reason if tree.is_lost(trunk, 0) else UNGRADED
        return [Judgement("unknown", None, reason)] * trunk.n_steps
    saved = right[-1]
    lost = next((n for n in range(saved + 1, trunk.n_steps + 1) if tree.is_lost(trunk, n)), None)
    found: list[Judgement | None] = []
    for step, tally in enumerate(tallies[1:]):
        score = tally.right / tally.graded if tally.graded else None
        if step < saved:
            found.append(Judgement("correct", score if tally.right else None, _reason(tally, saved)))
        elif step + 1 == lost == saved + 1:
            found.append(Judgement("incorrect", score, str(tally)))
        elif lost is None:
            found.append(Judgement("unknown", score, "no completion after it decides"))
        elif step < lost:
            found.append(Judgement("unknown", score, f"{AMONG} steps {saved} to {lost - 1}"))
        else:
            found.append(None)
    return found


def _reason(tally: Tally, saved: int) -> str:
    return str(tally) if tally.right else f"a completion after step {saved - 1} is right"
