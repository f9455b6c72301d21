"""Branches of solutions: `core.branches` plans, the engine samples, the pool of workers compares answers.

One sampling serves labels and pairs: the branches after a step say what it is worth, and their first steps are the
siblings of the next. Every branch is kept as a solution of its own.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stepconf.core.branches import Ask, Judgement, Outcome, Rules, Tree, Trunk, grow, judge
from stepconf.core.ids import prefix_ids
from stepconf.core.labels import renewed
from stepconf.core.paths import on_path
from stepconf.core.reasoning import Thinking
from stepconf.core.records import Solution, Solved, Verdict
from stepconf.core.statements import STATES_NOTHING, states_something
from stepconf.engines.base import Completion, SampleRequest, Sampling
from stepconf.engines.guard import Failed, Guard
from stepconf.engines.reasoning import Reasoning
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe, with_trust
from stepconf.run.events import Tick
from stepconf.stages.models import Prompter, open_guarded
from stepconf.stages.rows import branched, stream_seed
from stepconf.verifiers.base import shown_model
from stepconf.verifiers.final import FinalVerifier
from stepconf.workers.pool import Pool

ROLLOUT = "rollout"
_TEMPERATURE = 0.7  # where solutions are sampled greedily: branches must differ


@dataclass(eq=False)
class _Row:
    """A solution in its tree, and what is said of it.

    path: it with the text of its path before its own, which is `before`. thinking: how the path is divided. answer: the
    verdict of `final`. verdicts: those of `rollout`.
    """

    solved: Solved
    path: Solution
    thinking: Thinking
    before: str = ""
    branches: list["_Row"] = field(default_factory=list)
    answer: Verdict | None = None
    verdicts: list[Verdict | None] = field(default_factory=list)


@contextmanager
def open_brancher(
    recipe: Recipe, engine: Guard | None, pool: Pool, tick: Tick
) -> Iterator["Brancher | None"]:
    """What branches solutions as the recipe says; None where it says nowhere.

    Args:
        recipe: with `branch.where` said.
        engine: the recipe's model, where it is loaded.
        pool: where answers are compared.
        tick: progress, in branches.

    Raises:
        StepconfError: the model cannot be loaded, or has another tokenizer than the run's.
    """
    if not recipe.branch.where:
        yield None
        return
    with ExitStack() as stack:
        writer, own = _writer(recipe), engine
        if own is None or writer is not recipe:
            own = stack.enter_context(closing(open_guarded(writer)))
        if engine is not None and engine.tokenizer.digest != own.tokenizer.digest:
            raise StepconfError(
                f"branch.model {writer.model!r} has another tokenizer than the run's model.",
                "Choose a model of the same family, or leave branch.model out.",
            )
        yield Brancher(writer, own, pool, tick)


def _writer(recipe: Recipe) -> Recipe:
    """The recipe with the model that writes the branches in the place of its own; never with code of its own."""
    branch = recipe.branch
    if branch.model in ("", recipe.model):
        return recipe
    other = {"model": branch.model, "model_revision": branch.revision}
    return with_trust(recipe.model_copy(update=other), False)


def check_tokens(metadata: dict[str, str], brancher: "Brancher | None") -> None:
    """Raise StepconfError where the tokens of a run with this metadata are not those of the model that branches."""
    if brancher is None:
        return
    if "tokenizer" not in metadata:
        raise StepconfError(
            "the run has no tokens, and branches are sampled from exact tokens.",
            "Branch the file that it was made of: stepconf verify FILE --branch first-error --model MODEL ...",
        )
    if metadata["tokenizer"] != brancher.engine.tokenizer.digest:
        raise StepconfError(
            f"the solutions' tokens are not those of {brancher.model!r}: the tokenizers differ.",
            "Name the model that made the run, or one of its family.",
        )


class Brancher:
    """Branches the solutions of one problem at a time, and gives their steps the verdicts of `rollout`.

    Args:
        recipe: whose model writes the branches, with `branch.where` said.
        engine: that runs it.
        pool: where answers are compared.
        tick: progress, in branches.
    """

    def __init__(self, recipe: Recipe, engine: Guard, pool: Pool, tick: Tick) -> None:
        options = recipe.branch
        self.engine, self.model = engine, recipe.model
        self._recipe, self._info, self._tick = recipe, engine.info, tick
        self._stop = Prompter(engine.tokenizer, recipe.prompt).stop
        self._reasoning = Reasoning(engine.tokenizer, recipe.reasoning)
        self._final = FinalVerifier(pool)
        self._rules = Rules(
            frozenset(options.where or ()),
            options.n,
            options.wave,
            options.uncertain_steps,
            options.depth,
            options.budget or float("inf"),
        )
        self.version = f"2+{shown_model(recipe.model)}+n{options.n}"

    def grow(
        self, samples: Sequence[Solved], are_all: bool = True
    ) -> Generator[list[SampleRequest], list[Any], list[Solved]]:
        """A task of `stages.stream`: the samples of a problem, each with its branches after it, judged.

        Args:
            samples: of one problem.
            are_all: whether it has no others. Others may be branched at the same nodes elsewhere, so that each
                sample then draws from streams of its own.
        """
        tree = Tree(self._rules)
        rows = [_Row(one, one.solution, self._thinking(one.solution)) for one in samples]
        tokenised = [row for row in rows if row.solved.solution.token_ids]
        of = dict(zip(self._trunks(tokenised), tokenised, strict=True))
        rounds = grow(tree, list(of))
        asks = next(rounds, None)
        while asks is not None:
            made = yield from self._round(asks, of, are_all)
            try:
                asks = rounds.send(made)
            except StopIteration:
                asks = None
        for trunk, row in of.items():
            row.verdicts = self._verdicts(tree, trunk, row)
        return [one for row in rows for one in _in_order(row)]

    def _round(
        self, asks: Sequence[Ask], of: dict[Trunk, _Row], are_all: bool
    ) -> Generator[list[SampleRequest], list[Any], list[list[Trunk]]]:
        """The branches of each ask; they join `of`."""
        requests = {ask: self._request(of[ask.trunk].solved, ask, are_all) for ask in asks}
        wanted = [request for request in requests.values() if request is not None]
        n = sum(request.n for request in wanted)
        if n:
            self._tick("branch", -n)
        answers = iter((yield wanted))
        if n:
            self._tick("branch", n)
        rows = {
            ask: self._rows(of[ask.trunk], ask, request, next(answers)) if request else []
            for ask, request in requests.items()
        }
        trunks = iter(self._trunks([row for own in rows.values() for row in own]))
        made = []
        for own in rows.values():
            made.append([next(trunks) for _ in own])
            of |= zip(made[-1], own, strict=True)
        return made

    def _thinking(self, sample: Solution) -> Thinking:
        """As the sample itself was divided: only marks in its text divide an imported one."""
        if sample.finish_reason == "imported":
            return Thinking(self._recipe.reasoning)
        return self._reasoning.thinking(sample.prompt_token_ids)

    def _request(self, parent: Solved, ask: Ask, are_all: bool) -> SampleRequest | None:
        """The request for completions of a node; None where the model cannot go on from there."""
        solution = parent.solution
        end = parent.steps[ask.node].token_start if ask.node < len(parent.steps) else solution.n_tokens
        ids = solution.prompt_token_ids + solution.token_ids[:end]
        room = self._info.max_model_len - len(ids)
        if room < 1 or max(ids, default=0) >= self._info.vocabulary:
            return None
        sampling, own = self._recipe.sampling, self._recipe.branch
        temperature = own.temperature or sampling.temperature or _TEMPERATURE
        limit = min(room, own.max_tokens or sampling.max_tokens)
        node = ask.trunk.nodes[ask.node]
        seed = stream_seed(sampling.seed, node if are_all else f"{node}/{solution.solution_id}") + ask.first
        return SampleRequest("", ids, ask.n, seed, Sampling(temperature, limit, sampling.top_p, self._stop))

    def _rows(
        self, parent: _Row, ask: Ask, request: SampleRequest, completions: list[Completion] | Failed
    ) -> list[_Row]:
        if isinstance(completions, Failed):
            return []
        before = parent.before + "".join(step.text for step in parent.solved.steps[: ask.node])
        solved = [
            branched(
                parent.solved,
                before,
                ask.node,
                replace(request, seed=request.seed + i),
                ask.first + i,
                one,
                self._info,
                self._recipe,
                parent.thinking,
            )
            for i, one in enumerate(completions)
        ]
        made = [
            _Row(one, on_path(parent.path, before, one.solution), parent.thinking, before) for one in solved
        ]
        parent.branches += made
        return made

    def _trunks(self, rows: Sequence[_Row]) -> list[Trunk]:
        """What is known of solutions, their answers compared with the gold ones."""
        verdicts = self._final.answers([row.path for row in rows])
        for row, verdict in zip(rows, verdicts, strict=True):
            row.answer = verdict
        return [_trunk(row) for row in rows]

    def _verdicts(self, tree: Tree, trunk: Trunk, row: _Row) -> list[Verdict | None]:
        if not (row.solved.solution.gold_answer or "").strip():
            return [Verdict(ROLLOUT, self.version, "unknown", None, "no gold answer")] * trunk.n_steps
        return [
            found and self._verdict(found, step.text)
            for found, step in zip(judge(tree, trunk), row.solved.steps, strict=True)
        ]

    def _verdict(self, found: Judgement, step: str) -> Verdict:
        if found.label != "incorrect" and not states_something(step):
            return Verdict(ROLLOUT, self.version, "unknown", found.score, STATES_NOTHING)
        return Verdict(ROLLOUT, self.version, found.label, found.score, found.reason)


def _trunk(row: _Row) -> Trunk:
    solution, steps = row.solved.solution, row.solved.steps
    prompt = len(solution.prompt_token_ids)
    ends = [prompt + step.token_start for step in steps] + [prompt + (solution.n_tokens if steps else 0)]
    cut = solution.is_cut
    outcomes: dict[str, Outcome] = {"correct": "right", "incorrect": "wrong"}
    return Trunk(
        outcome=outcomes.get(row.answer.label if row.answer else "", "cut" if cut else "ungraded"),
        finished=not cut,
        nodes=prefix_ids(solution.prompt_token_ids + solution.token_ids, ends),
        confidences=[step.confidence for step in steps],
        n_tokens=[step.token_end - step.token_start for step in steps],
        is_branch=solution.parent_solution_id is not None,
    )


def _in_order(row: _Row) -> Iterator[Solved]:
    """A solution and its branches with their verdicts, parents first; a completion that adds no text is no row."""
    if row.solved.steps:
        yield _with_verdicts(row)
        for branch in sorted(row.branches, key=lambda one: one.solved.solution.branch_step or 0):
            yield from _in_order(branch)


def _with_verdicts(row: _Row) -> Solved:
    steps = list(row.solved.steps)
    for index, verdict in enumerate(row.verdicts):
        said = renewed(steps[index].verdicts, [verdict] if verdict else [], [ROLLOUT])
        steps[index] = replace(steps[index], verdicts=said)
    if row.answer:
        steps[-1] = replace(steps[-1], verdicts=renewed(steps[-1].verdicts, [row.answer], ()))
    return Solved(row.solved.solution, steps)
