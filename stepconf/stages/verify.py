"""The verification stage: every verifier over a chunk, then one label per step by the run's policy."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from stepconf.core.labels import answer_by, label_steps, renewed, taken_back
from stepconf.core.paths import whole_paths
from stepconf.core.records import Solved, Verdict
from stepconf.engines.base import Engine
from stepconf.kinds import VERIFIERS
from stepconf.recipe import Recipe
from stepconf.run.events import Tick
from stepconf.run.meter import BusyClock
from stepconf.stages.chunks import Chunk, T
from stepconf.stages.models import open_engine
from stepconf.verifiers.base import OpenVerifier, Setup, Verifier
from stepconf.verifiers.critic.verifier import Tally
from stepconf.workers.pool import Pool, default_workers

_BESIDE = 4  # chunks


@contextmanager
def open_verifiers(recipe: Recipe, pool: Pool, engine: Engine | None = None) -> Iterator[list[OpenVerifier]]:
    """The verifiers that the recipe names; `rollout` is none of them: its verdicts come with the branches.

    Args:
        recipe: the whole recipe.
        pool: of killable workers.
        engine: the recipe's model, where it is loaded already; no other thread may use it meanwhile.

    Raises:
        StepconfError: one's own verifier is not there; a model or endpoint cannot be reached.
    """
    with ExitStack() as stack:
        if engine is None and shares_engine(recipe):
            engine = stack.enter_context(closing(open_engine(recipe)))
        setup = Setup(recipe, pool, engine, stack, open_engine)
        yield [
            _SamplesOnly(kind.open(setup)) if kind.runs_model else kind.open(setup)
            for kind in _kinds(recipe).values()
            if kind.open is not None
        ]


def open_pool(recipe: Recipe) -> Pool:
    """The killable workers that the recipe asks for."""
    options = recipe.verify
    return Pool(options.workers, options.deadline_s, int(options.memory_gb * 2**30))


def _kinds(recipe: Recipe) -> dict[str, Verifier]:
    return {name: VERIFIERS.load(name) for name in recipe.verify.verifiers}


def shares_engine(recipe: Recipe) -> bool:
    """Whether a verifier runs the recipe's own model: sampling must then pause while it does."""
    return any(kind.shares_engine(recipe) for kind in _kinds(recipe).values())


def waits_for_engine(recipe: Recipe) -> bool:
    """Whether a verifier's model is loaded only once the recipe's own is closed."""
    return any(kind.waits(recipe) for kind in _kinds(recipe).values())


def n_chunks_at_once(recipe: Recipe) -> int:
    """How many chunks to judge at a time: while a few hard answers keep workers to their deadline, others want more.

    One, where a model verifies: it serves one caller at a time.
    """
    if any(kind.runs_model for kind in _kinds(recipe).values()):
        return 1
    return min(_BESIDE, recipe.verify.workers or default_workers())


def verify_chunk(
    chunk: Chunk[T], verifiers: Sequence[OpenVerifier], policy: str, tick: Tick, clock: BusyClock
) -> Chunk[T]:
    """Fill in the verdicts, labels and answer fields of a chunk's solutions; `clock` is shared by all calls."""
    clock.begin()
    paths = whole_paths(chunk.solved)
    by_verifier = [_verdicts_of(verifier, chunk.solved, paths) for verifier in verifiers]
    labelled: dict[str, Solved] = {}
    ran = [verifier.name for verifier in verifiers]
    for i, one in enumerate(chunk.solved):
        verdicts = [[by[i][j] for by in by_verifier] for j in range(len(one.steps))]
        parent = labelled.get(one.solution.parent_solution_id or "")
        error_seen = parent is not None and _has_error(parent, one.solution.branch_step or 0)
        labelled[one.solution.solution_id] = label(one, verdicts, policy, error_seen, ran)
    chunk.solved = list(labelled.values())
    chunk.seconds["verify"] = clock.end()
    tick("verify", sum(one.solution.parent_solution_id is None for one in chunk.solved))
    return chunk


def _verdicts_of(
    verifier: OpenVerifier, solved: Sequence[Solved], paths: Sequence[Solved]
) -> list[list[Verdict | None]]:
    """A verifier's verdicts on the steps of each solution; a branch is judged with the path before it."""
    return [
        found[len(found) - len(one.steps) :]
        for one, found in zip(solved, verifier.verify(paths), strict=True)
    ]


class _SamplesOnly:
    """A verifier that says nothing of branches: they are many, and it runs a model."""

    def __init__(self, verifier: OpenVerifier) -> None:
        self._verifier, self.name, self.version = verifier, verifier.name, verifier.version
        self.tally: Tally | None = getattr(verifier, "tally", None)

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """As the verifier, on samples."""
        own = [one.solution.parent_solution_id is None for one in solved]
        found = iter(self._verifier.verify([one for one, is_own in zip(solved, own, strict=True) if is_own]))
        return [
            next(found) if is_own else [None] * len(one.steps)
            for one, is_own in zip(solved, own, strict=True)
        ]


def _has_error(parent: Solved, node: int) -> bool:
    """Whether an error comes before the parent's step `node`, in it or in what it branches from."""
    before = parent.steps[:node]
    return parent.steps[0].after_error or any(step.label == "incorrect" for step in before)


def label(
    one: Solved,
    new_verdicts: Sequence[Sequence[Verdict | None]],
    policy: str,
    error_seen: bool,
    ran: Sequence[str],
) -> Solved:
    """A solution with new verdicts added (older ones of those that `ran` give way) and its steps labelled again."""
    verdicts = [
        renewed(step.verdicts, [v for v in new if v is not None], ran)
        for step, new in zip(one.steps, new_verdicts, strict=True)
    ]
    labels = label_steps(verdicts, policy, error_seen, taken_back(one.steps))
    steps = [
        replace(
            step,
            verdicts=said,
            label=found.label,
            label_source=found.source,
            is_first_error=found.is_first_error,
            after_error=found.after_error,
        )
        for step, said, found in zip(one.steps, verdicts, labels, strict=True)
    ]
    correct = answer_by(verdicts[-1]) if verdicts else None
    return Solved(replace(one.solution, answer_correct=correct), steps)
