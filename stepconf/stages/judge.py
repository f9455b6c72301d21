"""The verification stage: every verifier over a chunk, then one label per step by the run's policy."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from stepconf.core.labels import label_steps
from stepconf.core.records import Solved, Verdict
from stepconf.engines.base import Engine
from stepconf.recipe import Recipe
from stepconf.run.events import Tick
from stepconf.run.meter import BusyClock
from stepconf.stages.chunks import Chunk, T
from stepconf.stages.models import open_engine
from stepconf.verifiers.base import Verifier
from stepconf.verifiers.pool import Pool, default_workers

_BESIDE = 4  # chunks


@contextmanager
def open_verifiers(
    recipe: Recipe, engine: Engine | None = None, tokenizer: str = ""
) -> Iterator[list[Verifier]]:
    """The verifiers that the recipe names, over one pool of killable workers.

    Args:
        recipe: the whole recipe: rollouts need its model and sampling.
        engine: the recipe's model, where it is loaded already; no other thread may use it meanwhile.
        tokenizer: digest of the tokenizer behind the tokens to be judged, if there are any.

    Raises:
        StepconfError: a model or endpoint cannot be reached.
    """
    options = recipe.verify
    with ExitStack() as stack:
        if engine is None and shares_engine(recipe):
            engine = stack.enter_context(closing(open_engine(recipe)))
        pool = stack.enter_context(Pool(options.workers, options.deadline_s, int(options.memory_gb * 2**30)))
        yield [_opened(name, recipe, engine, tokenizer, pool, stack) for name in options.verifiers]


def _opened(
    name: str, recipe: Recipe, engine: Engine | None, tokenizer: str, pool: Pool, stack: ExitStack
) -> Verifier:
    from stepconf.stages import model_verifiers

    if name == "critic":
        return model_verifiers.open_critic(recipe, engine, stack)
    if name == "prm":
        return model_verifiers.open_prm(recipe.verify.prm, stack)
    if name == "rollout":
        if engine is None:
            raise ValueError("rollout needs the engine that shares_engine() asks for")
        return model_verifiers.open_rollout(recipe, engine, pool, tokenizer)
    from stepconf.verifiers.final import FinalVerifier
    from stepconf.verifiers.symbolic import SymbolicVerifier

    return FinalVerifier(pool) if name == "final" else SymbolicVerifier(pool)


def shares_engine(recipe: Recipe) -> bool:
    """Whether a verifier runs the recipe's own model: sampling must then pause while it does."""
    critic, names = recipe.verify.critic, recipe.verify.verifiers
    own_critic = critic.base_url is None and critic.model in ("", recipe.model)
    return "rollout" in names or ("critic" in names and own_critic)


def judged_beside(recipe: Recipe) -> int:
    """How many chunks to judge at a time: while a few hard answers keep workers to their deadline, others want more.

    One, where a model verifies: it serves one caller at a time.
    """
    if not {"final", "symbolic"}.issuperset(recipe.verify.verifiers):
        return 1
    return min(_BESIDE, recipe.verify.workers or default_workers())


def judge(
    chunk: Chunk[T], verifiers: Sequence[Verifier], policy: str, tick: Tick, clock: BusyClock
) -> Chunk[T]:
    """Fill in the verdicts, labels and answer fields of a chunk's solutions; `clock` is that of all who judge."""
    clock.begin()
    spoken = [verifier.verify(chunk.solved) for verifier in verifiers]
    chunk.solved = [
        labelled(one, [[by[i][j] for by in spoken] for j in range(len(one.steps))], policy)
        for i, one in enumerate(chunk.solved)
    ]
    chunk.seconds["verify"] = clock.end()
    tick("verify", len(chunk.solved))
    return chunk


def labelled(one: Solved, spoken: Sequence[Sequence[Verdict | None]], policy: str) -> Solved:
    """A solution with new verdicts added (a verifier's older one gives way) and its steps labelled anew."""
    verdicts = [
        _merged(step.verdicts, [v for v in new if v is not None])
        for step, new in zip(one.steps, spoken, strict=True)
    ]
    labels = label_steps(verdicts, policy)
    steps = [
        replace(step, verdicts=said, label=label, label_source=source, is_first_error=first)
        for step, said, (label, source, first) in zip(one.steps, verdicts, labels, strict=True)
    ]
    final = next((v for v in verdicts[-1] if v.verifier == "final"), None) if verdicts else None
    correct = {"correct": True, "incorrect": False}.get(final.label) if final else None
    return Solved(replace(one.solution, answer_correct=correct), steps)


def _merged(old: Sequence[Verdict], new: Sequence[Verdict]) -> list[Verdict]:
    renewed = {verdict.verifier for verdict in new}
    return [v for v in old if v.verifier not in renewed] + list(new)
