"""The stages that make solutions with their steps: sampled, scored, segmented, or read from another run."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from stepconf.core.records import Problem, Solved
from stepconf.engines.base import Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.guard import Guard
from stepconf.errors import StepconfError
from stepconf.problems.load import ImportedSolution
from stepconf.recipe import Recipe
from stepconf.run.events import Tick
from stepconf.stages.chunks import Chunk, T
from stepconf.stages.models import Prompter
from stepconf.stages.solve import imported, sampled
from stepconf.stages.stream import through

# A tokenizer may have more tokens than its model has embeddings; on a GPU one such token ends the process.
_OUTSIDE = "token outside the model's vocabulary"


def sample(
    chunks: Iterator[Chunk[Problem] | None], engine: Guard, recipe: Recipe, tick: Tick
) -> Iterator[Chunk[Problem]]:
    """Sample solutions: the requests of all chunks are one stream, so that the engine's batch stays full.

    A None among the chunks says, here and in `teacher_force`, that there is none to add now; the stream may
    end behind it.
    """
    prompter = Prompter(engine.tokenizer, recipe.prompt)
    sampling = recipe.sampling

    def request(key: str, problem: Problem) -> SampleRequest | str:
        prompt_ids = prompter.ids(problem.text)
        room = engine.info.max_model_len - len(prompt_ids)
        if room < 1:
            return "prompt longer than the context"
        if max(prompt_ids, default=0) >= engine.info.vocabulary:
            return _OUTSIDE
        limit = min(sampling.max_tokens, room)
        how = Sampling(sampling.temperature, limit, sampling.top_p, prompter.stop)
        return SampleRequest(key, prompt_ids, sampling.samples, _seed(sampling.seed, problem), how)

    yield from through(chunks, engine.sample_each, request, "sample", sampling.samples, tick)


def teacher_force(
    chunks: Iterator[Chunk[ImportedSolution] | None], engine: Guard, recipe: Recipe, tick: Tick
) -> Iterator[Chunk[ImportedSolution]]:
    """Score given solutions, as if the model had written them after the recipe's prompt."""
    prompter = Prompter(engine.tokenizer, recipe.prompt)

    def request(key: str, item: ImportedSolution) -> ScoreRequest | str:
        one = imported(item, recipe, engine.tokenizer, prompter.ids(item.problem.text))
        if isinstance(one, str):
            return one
        length = len(one.solution.prompt_token_ids) + one.solution.n_tokens
        if length >= engine.info.max_model_len:
            return "solution longer than the context"
        if max(one.solution.prompt_token_ids + one.solution.token_ids, default=0) >= engine.info.vocabulary:
            return _OUTSIDE
        return ScoreRequest(key, one.solution.prompt_token_ids, one.solution.token_ids)

    yield from through(chunks, engine.score_each, request, "score", 1, tick)


def segmented(chunk: Chunk[T], engine: Guard, recipe: Recipe) -> Chunk[T]:
    """Divide what `sample` or `teacher_force` got for a chunk into steps."""
    started = time.perf_counter()
    for item, asked, result in chunk.answers:
        _add(chunk, _solved(item, asked, result, engine, recipe))
    chunk.answers = []
    chunk.seconds["segment"] = time.perf_counter() - started
    return chunk


def _solved(item: Any, asked: Any, result: Any, engine: Guard, recipe: Recipe) -> Iterator[Solved | str]:
    if isinstance(asked, ScoreRequest):
        yield imported(item, recipe, engine.tokenizer, asked.prefix_ids, result, engine.info)
        return
    for index, completion in enumerate(result):
        yield sampled(item, asked, index, completion, engine.info, recipe)


def _add(chunk: Chunk[T], made: Iterable[Solved | str]) -> None:
    for one in made:
        if isinstance(one, Solved):
            chunk.solved.append(one)
        else:
            chunk.drops[one] += 1


def divide(
    chunks: Iterator[Chunk[ImportedSolution]], recipe: Recipe, tick: Tick
) -> Iterator[Chunk[ImportedSolution]]:
    """Segment given solutions."""
    for chunk in chunks:
        started = time.perf_counter()
        _add(chunk, (imported(item, recipe) for item in chunk.items))
        chunk.seconds["segment"] = time.perf_counter() - started
        tick("segment", len(chunk.items))
        yield chunk


def reread(chunks: Iterator[Chunk[str]], solutions: Iterator[Solved], tick: Tick) -> Iterator[Chunk[str]]:
    """The solutions of another run, as they are: all of it in its order, of which the chunks hold some ids.

    Raises:
        StepconfError: they are not what they were when the ids were read.
    """
    for chunk in chunks:
        for wanted in chunk.items:
            found = next((one for one in solutions if one.solution.solution_id == wanted), None)
            if found is None:
                raise StepconfError("the run has changed while it was read.", "Type the same command again.")
            chunk.solved.append(found)
        tick("read", len(chunk.items))
        yield chunk


def metadata_of(engine: Engine, recipe: Recipe) -> dict[str, str]:
    """What goes into the schema metadata of every shard."""
    # The model as the user named it: what the engine loaded may be a path of this machine.
    facts = asdict(engine.info) | {"model": recipe.model, "tokenizer": engine.tokenizer.digest}
    return {name: str(value) for name, value in facts.items()}


def _seed(seed: int, problem: Problem) -> int:
    """A problem's own random stream: the same in every run, order and batch."""
    digest = blake2b(f"{seed}:{problem.problem_id}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")
