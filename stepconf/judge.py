"""The verification stage: every verifier over a chunk, then one label per step by the run's policy."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from stepconf.chunks import Chunk, T, Tick
from stepconf.core.labels import POLICIES, label_steps
from stepconf.core.records import Solved, Verdict
from stepconf.errors import StepconfError
from stepconf.recipe import VERIFIERS, VerifyRecipe
from stepconf.verifiers.base import Verifier
from stepconf.verifiers.pool import Pool


@contextmanager
def open_verifiers(recipe: VerifyRecipe) -> Iterator[list[Verifier]]:
    """The verifiers that the recipe names, over one pool of killable workers.

    Raises:
        StepconfError: a verifier or the label policy is unknown.
    """
    from stepconf.verifiers.final import FinalVerifier
    from stepconf.verifiers.symbolic import SymbolicVerifier

    kinds: dict[str, Callable[[Pool], Verifier]] = {"final": FinalVerifier, "symbolic": SymbolicVerifier}
    if unknown := [name for name in recipe.verifiers if name not in kinds]:
        raise StepconfError(f"unknown verifier {unknown[0]!r}.", f"Choose from: {', '.join(VERIFIERS)}.")
    if recipe.policy not in POLICIES:
        raise StepconfError(
            f"unknown label policy {recipe.policy!r}.", f"Choose from: {', '.join(POLICIES)}."
        )
    memory_bytes = int(recipe.memory_gb * 2**30)
    with Pool(recipe.workers, recipe.deadline_s, memory_bytes) as pool:
        yield [kinds[name](pool) for name in recipe.verifiers]


def judge(chunk: Chunk[T], verifiers: Sequence[Verifier], policy: str, tick: Tick) -> Chunk[T]:
    """Fill in the verdicts, labels and answer fields of a chunk's solutions."""
    started = time.perf_counter()
    spoken = [verifier.verify(chunk.solved) for verifier in verifiers]
    chunk.solved = [
        labelled(one, [[by[i][j] for by in spoken] for j in range(len(one.steps))], policy)
        for i, one in enumerate(chunk.solved)
    ]
    chunk.seconds["verify"] = time.perf_counter() - started
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
