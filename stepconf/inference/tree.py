"""Strategies over trees of steps: `cat` (algorithm 2 of arXiv 2605.07353) and `beam`."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import exp, log
from typing import Literal

from stepconf.core.prune import Branch, Level, Rules, can_win, prune_level, ranked
from stepconf.core.reasoning import divide, part_of
from stepconf.core.signals import ENTROPY_MEAN
from stepconf.engines.base import Completion
from stepconf.inference.base import (
    Ask,
    GivenUp,
    Growth,
    Question,
    Result,
    Sample,
    Search,
    Setting,
    Spent,
    StepScore,
    Strategy,
    failed,
    stream_seed,
    times,
)
from stepconf.inference.steps import Candidate, Path, Stepper, answer_after, marks_answer, thinks


@dataclass(frozen=True, slots=True)
class Node:
    """Where a branch stands: its tokens, its steps and, once it has one, its answer."""

    path: Path
    steps: tuple[Candidate, ...] = ()
    answer: str | None = None


# log of a confidence of 0: such a branch comes last, but C stays a number that can be compared.
_LEAST_LOG = -50.0

Twig = Branch[Node]
Grown = Generator[list[Ask], list[list[Completion]], list[Twig]]


def cat(question: Question, setting: Setting) -> Search:
    """Confidence-pruned search: K candidates for each branch, those below tau or beyond the top K are dropped.

    The tree ends when no branch is left, or when none can still beat the best completed one (a product of
    confidences only falls; not with `stop_early` off), or when the token budget is spent. With `expand_below`
    a branch gets its likeliest candidate (greedy), and K - 1 sampled ones only where that one is less confident:
    entropy says how sure the model was before it drew, not whether it then drew something unlikely. What
    `count_duplicates` adds is for the same reason: how many of the branch's candidates say the same.
    """
    infer = setting.infer
    rules = Rules(infer.k, infer.tau, infer.max_steps, infer.length_normalised)
    tree = Tree(question, setting)
    active, completed = [tree.root], list[Twig]()
    while active and tree.affordable():
        candidates = yield from tree.children(active, infer.k, infer.expand_below)
        level = prune_level(candidates, rules)
        completed += level.completed
        active = can_win(level.active, completed, rules) if infer.stop_early else level.active
        tree.count(level, _without(level.active, active))
        tree.tell(active, completed)
    tree.spent.out_of_tokens += len(active)
    return tree.result(completed)


def beam(question: Question, setting: Setting) -> Search:
    """Step-level beam: K candidates a level in all, of which the most confident go on; the completed keep a place.

    `beam_width` candidates each for K // beam_width beams.
    """
    infer = setting.infer
    width = min(infer.beam_width, infer.k)
    beams = max(1, infer.k // width)
    # Nothing falls below tau, and ranking is done here, the completed among the rest.
    rules = Rules(beams * width, 0.0, infer.max_steps, infer.length_normalised)
    tree = Tree(question, setting)
    kept = [tree.root]
    active = kept
    while active and tree.affordable():
        candidates = yield from tree.children(active, width, None)
        level = prune_level(candidates, rules)
        finished = [branch for branch in kept if branch.is_final] + level.completed
        survivors = ranked([*finished, *level.active], infer.length_normalised)
        kept = survivors[:beams]
        active = [branch for branch in kept if not branch.is_final]
        tree.count(level, survivors[beams:])
        tree.tell(active, [branch for branch in kept if branch.is_final])
    tree.spent.out_of_tokens += len(active)
    return tree.result([branch for branch in kept if branch.is_final])


CAT = Strategy(cat, "tree", by_confidence=True)
BEAM = Strategy(beam, "tree", by_confidence=True)


class Tree:
    """The tree of one question: samples the children of its branches and keeps its account."""

    def __init__(self, question: Question, setting: Setting) -> None:
        self.spent = Spent()
        self.root = Branch(Node(Path()), "")
        self._settled = 0
        self._question, self._setting = question, setting
        seed = stream_seed(setting.sampling.seed, question.text)
        self._stepper = Stepper(question.prompts[0], setting, self.spent, seed)

    def affordable(self) -> bool:
        """Whether the token budget allows another level."""
        budget = self._setting.infer.token_budget
        return budget is None or self.spent.tokens < budget

    def children(self, active: Sequence[Twig], k: int, expand_below: float | None) -> Grown:
        """The K candidates of each branch, in the order of their parents; the dead are counted and left out."""
        if expand_below is None:
            found = yield from self._stepper.steps([(branch.data.path, k) for branch in active])
        else:
            found = yield from self._stepper.steps([(branch.data.path, 1) for branch in active], greedy=True)
            # A candidate that adds nothing, or found no room, is no reason to stop looking.
            doubtful = [
                not row or (self._confidence(branch, row[0]) or 0.0) < expand_below
                for branch, row in zip(active, found, strict=True)
            ]
            more = yield from self._stepper.steps(
                [
                    (branch.data.path, k - 1 if doubt else 0)
                    for branch, doubt in zip(active, doubtful, strict=True)
                ]
            )
            found = [first + rest for first, rest in zip(found, more, strict=True)]
        self.spent.depth += 1
        return [
            child
            for parent, row in zip(active, found, strict=True)
            for child in self._weighed(parent, [self._child(parent, step) for step in row])
        ]

    def continued(self, wanted: Sequence[tuple[Twig, int]]) -> Grown:
        """One step more for each copy of a branch, of which there are n >= 1; the dead are counted and left out."""
        found = yield from self._stepper.steps([(branch.data.path, n) for branch, n in wanted])
        self.spent.depth += 1
        grown = [
            self._child(parent, step) for (parent, _), row in zip(wanted, found, strict=True) for step in row
        ]
        return [child for child in grown if child is not None]

    def _confidence(self, branch: Twig, step: Candidate) -> float | None:
        return self._setting.confidence(step.scores, len(branch.data.steps))

    def _closed(self, path: Path, step: Candidate) -> tuple[Path, Candidate]:
        """A path and its last step; with the closing mark at their end where the budget for thinking is used up.

        At once, not when the branch goes on: a step that was told as settled must not change any more.
        """
        if self._stepper.budget_left(path.text, len(path.token_ids)) != 0:
            return path, step
        closing = self._setting.closing(path.text, self._stepper.thinking)
        if closing is None:
            return path, step
        mark = "".join(closing.pieces)
        # Its scores stay those of the tokens that were drawn.
        step = replace(step, token_ids=step.token_ids + closing.token_ids, text=step.text + mark)
        return Path(path.token_ids + closing.token_ids, path.text + mark), step

    def _weighed(self, parent: Twig, children: Sequence[Twig | None]) -> list[Twig]:
        """The living children of a branch; with `count_duplicates` the last step's confidence times its share."""
        alive = [child for child in children if child is not None]
        if not self._setting.infer.count_duplicates:
            return alive
        alike = Counter(child.key for child in alive)
        logs = [log(alike[child.key] / len(children)) for child in alive]
        n_before = len(parent.log_confidences)
        return [
            replace(child, log_confidences=(*child.log_confidences[:-1], child.log_confidences[-1] + share))
            if len(child.log_confidences) > n_before
            else child
            for child, share in zip(alive, logs, strict=True)
        ]

    def _child(self, parent: Twig, step: Candidate) -> Twig | None:
        """The branch with one more step; None where it can neither go on nor gives an answer."""
        before, kind = parent.data, self._question.answer_type
        path = Path(before.path.token_ids + step.token_ids, before.path.text + step.text)
        thinking = self._stepper.thinking
        is_final = step.ending == "solution" or (
            marks_answer(step.text, kind, step.ending) and not thinks(path.text, thinking)
        )
        if not is_final and step.ending != "step":
            self.spent.context_full += step.ending == "context_full"
            self.spent.out_of_tokens += step.ending == "out_of_tokens"
            return None
        answer = answer_after(path.text, kind, step.ending, thinking) if is_final else None
        if is_final and answer is None:
            self.spent.no_answer += 1
            return None
        # A candidate without tokens says that its parent was the end: nothing is added to its confidence.
        if not step.token_ids:
            return Branch(
                Node(path, before.steps, answer), path.text.strip(), parent.log_confidences, is_final
            )
        if not is_final:
            path, step = self._closed(path, step)
        stated = self._confidence(parent, step)
        log_confidence = 0.0 if stated is None else max(log(stated), _LEAST_LOG) if stated > 0 else _LEAST_LOG
        logs = (*parent.log_confidences, log_confidence)
        return Branch(Node(path, (*before.steps, step), answer), path.text.strip(), logs, is_final)

    def count(self, level: Level[Node], overtaken: Sequence[Twig]) -> None:
        """Add a level to the account, and tell which of its branches are given up."""
        self.spent.merged += level.merged
        self.spent.below_tau += len(level.below_tau)
        self.spent.outranked += len(level.outranked)
        self.spent.too_long += len(level.too_long)
        self.spent.overtaken += len(overtaken)
        self._give_up("below_tau", level.below_tau)
        self._give_up("outranked", level.outranked)
        self._give_up("too_long", level.too_long)
        self._give_up("overtaken", [branch for branch in overtaken if not branch.is_final])

    def _give_up(
        self, reason: Literal["below_tau", "outranked", "too_long", "overtaken"], branches: Sequence[Twig]
    ) -> None:
        for branch in branches:
            c = exp(branch.log_cumulative(self._setting.infer.length_normalised))
            node = branch.data
            self._setting.given_up(
                GivenUp(self._question.key, reason, len(node.steps), c, node.path.token_ids)
            )

    def tell(self, active: Sequence[Twig], completed: Sequence[Twig]) -> None:
        """Show how the tree stands, and the steps that are settled: of the completed only the best can win."""
        self.show(active, completed)
        if self._setting.settled is not None:
            best = ranked(completed, self._setting.infer.length_normalised)[:1]
            self._settle([*active, *best], self._setting.settled)

    def show(self, active: Sequence[Twig], completed: Sequence[Twig]) -> None:
        """Show how the tree stands."""
        normalised = self._setting.infer.length_normalised
        best = max((b.log_cumulative(normalised) for b in (*active, *completed)), default=None)
        spent = self.spent
        self._setting.watch(
            Growth(
                self._question.key,
                spent.depth,
                len(active),
                len(completed),
                spent.pruned,
                None if best is None else exp(best),
                spent.tokens,
            )
        )

    def _settle(self, contenders: Sequence[Twig], report: Callable[[StepScore], None]) -> None:
        """Tell of the steps that all of these begin with, as far as they are new."""
        columns = zip(*(branch.data.steps for branch in contenders), strict=False)
        shared = sum(1 for _ in takewhile(lambda column: all(s is column[0] for s in column), columns))
        if shared > self._settled:
            for row in self._step_scores(contenders[0])[self._settled : shared]:
                report(row)
            self._settled = shared

    def result(self, completed: Sequence[Twig], chosen: Twig | None = None) -> Result:
        """The chosen one of the completed branches, by default that with the highest C; a failure without any."""
        question, normalised = self._question, self._setting.infer.length_normalised
        if not completed:
            failure = f"no completed branch: {self.spent.reasons() or 'none went on'}"
            return failed(question, failure, self.spent)
        best = chosen or ranked(completed, normalised)[0]
        return Result(
            question.key,
            question.text,
            best.data.answer,
            "",
            best.data.path.text,
            question.prompts[0],
            best.data.path.token_ids,
            self._step_scores(best),
            exp(best.log_cumulative(normalised)),
            [
                Sample(b.data.answer, exp(b.log_cumulative(normalised)), len(b.data.path.token_ids))
                for b in completed
            ],
            self.spent,
        )

    def _step_scores(self, branch: Twig) -> list[StepScore]:
        rows: list[StepScore] = []
        cumulative: float | None = None
        text, at = branch.data.path.text, 0
        parts = divide(text, self._stepper.thinking)
        for index, step in enumerate(branch.data.steps):
            stated = self._setting.confidence(step.scores, index)
            cumulative = times(cumulative, stated)
            part = part_of(text, (at, at + len(step.text)), parts)
            at += len(step.text)
            rows.append(
                StepScore(step.text, step.token_ids, ENTROPY_MEAN.over(step.scores), stated, cumulative, part)
            )
        return rows


def _without(branches: Sequence[Twig], kept: Sequence[Twig]) -> list[Twig]:
    same = {id(branch) for branch in kept}
    return [branch for branch in branches if id(branch) not in same]
