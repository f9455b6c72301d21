"""The unit of work: some problems on their way through the stages, committed together or not at all."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stepconf.core.ids import content_id
from stepconf.core.records import Problem, Solved
from stepconf.errors import StepconfError
from stepconf.problems.load import ImportedSolution
from stepconf.run.damage import check_sizes
from stepconf.run.parts import chunks_of
from stepconf.run.shards import Run

Item = TypeVar("Item", Problem, ImportedSolution, str)
T = TypeVar("T", Problem, ImportedSolution, str, list[Solved])
WAVE_CHARS = 1 << 24  # of solutions: with their tokens half a gigabyte, as objects


@dataclass
class Chunk(Generic[T]):
    """Items in, solutions out. The items of a run that is verified again are the ids of its samples, each
    of which stands for the sample's branches too; a problem's solutions are an item while they are branched.

    drops: counts, by reason, solutions that could not be made.
    """

    name: str
    digest: str
    items: Sequence[T]
    solved: list[Solved] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the manifest keeps beside the shards."""
        return {
            "input": self.digest,
            "solutions": len(self.solved),
            "steps": sum(len(one.steps) for one in self.solved),
            "tokens": sum(one.solution.n_tokens for one in self.solved),
            "drops": dict(self.drops),
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
        }


def pending(run: Run, items: Sequence[Item], size: int) -> Iterator[Chunk[Item]]:
    """The chunks that the run does not hold yet.

    Raises:
        StepconfError: a chunk that it does hold was made from other items: the source has changed; or a shard
            is missing or truncated.
    """
    manifests = run.manifests()
    check_sizes(run.path, manifests)
    done = {name: digest for manifest in manifests for name, digest in chunks_of(manifest).items()}
    for index, start in enumerate(range(0, len(items), size)):
        part = items[start : start + size]
        name, digest = f"{index:05d}", content_id(*map(item_id, part))
        if name not in done:
            yield Chunk(name, digest, part)
        elif done[name] != digest:
            raise StepconfError(
                f"the input of chunk {name} in {run.path} has changed since it was made.",
                "Give another --out, or put the source back as it was.",
            )
        done.pop(name, None)
    if done:
        raise StepconfError(
            f"the source is shorter than when {run.path} was made: chunk {min(done)} has no input any more.",
            "Give another --out, or put the source back as it was.",
        )


def in_waves(chunks: Iterable[Chunk[T]]) -> Iterator[list[Chunk[T]]]:
    """Chunks with their solutions, so many at a time as may be in memory."""
    wave: list[Chunk[T]] = []
    size = 0
    for chunk in chunks:
        wave.append(chunk)
        size += sum(len(one.solution.text) for one in chunk.solved)
        if size >= WAVE_CHARS:
            yield wave
            wave, size = [], 0
    if wave:
        yield wave


def one_wave(waiting: deque[Chunk[T]], made: Sequence[Chunk[T]]) -> Iterator[Chunk[T]]:
    """Chunks off the front of `waiting`, as long as those in `made`, which grows, leave room in memory."""
    while waiting and sum(len(one.solution.text) for chunk in made for one in chunk.solved) < WAVE_CHARS:
        yield waiting.popleft()


def item_id(item: Problem | ImportedSolution | str) -> str:
    """The content hash of an item."""
    if isinstance(item, Problem):
        return item.problem_id
    if isinstance(item, str):
        return item
    return content_id(
        item.problem.problem_id, item.external_id, item.sample_index, item.text, *(item.steps or ())
    )
