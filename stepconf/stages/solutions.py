"""The stages that make solutions with their steps: sampled, scored, segmented, branched, or read from another run."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from stepconf.core.records import Problem, Solution, Solved
from stepconf.engines.base import Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.guard import Failed, Guard
from stepconf.engines.reasoning import Reasoning
from stepconf.errors import StepconfError
from stepconf.problems.load import ImportedSolution
from stepconf.recipe import Recipe
from stepconf.run.events import Tick
from stepconf.stages.branch import Brancher
from stepconf.stages.chunks import Chunk, T
from stepconf.stages.models import Prompter
from stepconf.stages.rows import imported, sampled, stream_seed
from stepconf.stages.stream import BRANCH, Made, Task, through

# A tokenizer may have more tokens than its model has embeddings; on a GPU one such token ends the process.
_OUTSIDE = "token outside the model's vocabulary"


def sample(
    chunks: Iterator[Chunk[Problem] | None],
    engine: Guard,
    recipe: Recipe,
    tick: Tick,
    brancher: Brancher | None = None,
) -> Iterator[Chunk[Problem]]:
    """Sample solutions and their branches: the requests of all chunks are one stream, so that the batch stays full.

    The samples of a problem are branched as soon as they are in; by another model, when those of its chunk are. A
    None among the chunks says, here and in `teacher_force`, that there is none to add now.
    """
    own_brancher = brancher if brancher and brancher.engine is engine else None
    prompter = Prompter(engine.tokenizer, recipe.prompt)
    reasoning = Reasoning(engine.tokenizer, recipe.reasoning)
    sampling = recipe.sampling

    def task(problem: Problem) -> Task[SampleRequest]:
        prompt_ids = prompter.ids(problem.text)
        room = engine.info.max_model_len - len(prompt_ids)
        refused = "prompt longer than the context" if room < 1 else _outside(prompt_ids, engine)
        if refused:
            tick("sample", sampling.samples)
            return _dropped(refused, sampling.samples)
        how = Sampling(sampling.temperature, min(sampling.max_tokens, room), sampling.top_p, prompter.stop)
        seed = stream_seed(sampling.seed, problem.problem_id)
        return solve(problem, SampleRequest("", prompt_ids, sampling.samples, seed, how))

    def solve(problem: Problem, request: SampleRequest) -> Task[SampleRequest]:
        (completions,) = yield [request]
        tick("sample", sampling.samples)
        if isinstance(completions, Failed):
            return Made(drops=Counter({completions.reason: sampling.samples}))
        thinking = reasoning.thinking(request.prompt_ids)
        made = _made(
            sampled(problem, request, index, completion, engine.info, recipe, thinking)
            for index, completion in enumerate(completions)
        )
        if own_brancher and made.solved:
            made.solved = yield from own_brancher.grow(made.solved)
        return made

    sampled_chunks = through(chunks, engine.sample_each, task, "sample")
    yield from sampled_chunks if own_brancher else branch(sampled_chunks, brancher)


def teacher_force(
    chunks: Iterator[Chunk[ImportedSolution] | None], engine: Guard, recipe: Recipe, tick: Tick
) -> Iterator[Chunk[ImportedSolution]]:
    """Score given solutions, as if the model had written them after the recipe's prompt."""
    prompter = Prompter(engine.tokenizer, recipe.prompt)

    def task(item: ImportedSolution) -> Task[ScoreRequest]:
        prompt_ids = prompter.ids(item.problem.text)
        plain = imported(item, recipe, engine.tokenizer, prompt_ids)
        refused = plain if isinstance(plain, str) else _unfit(plain.solution, engine)
        if refused or isinstance(plain, str):
            tick("score", 1)
            return _dropped(refused, 1)
        return score(item, ScoreRequest("", prompt_ids, plain.solution.token_ids))

    def score(item: ImportedSolution, request: ScoreRequest) -> Task[ScoreRequest]:
        (scores,) = yield [request]
        tick("score", 1)
        if isinstance(scores, Failed):
            return Made(drops=Counter({scores.reason: 1}))
        return _made([imported(item, recipe, engine.tokenizer, request.prefix_ids, scores, engine.info)])

    yield from through(chunks, engine.score_each, task, "score")


def divide(
    chunks: Iterator[Chunk[ImportedSolution]], recipe: Recipe, tick: Tick, engine: Guard | None = None
) -> Iterator[Chunk[ImportedSolution]]:
    """Segment given solutions; with an engine, give them its tokens too, so that they can be branched."""
    prompter = Prompter(engine.tokenizer, recipe.prompt) if engine else None

    def one(item: ImportedSolution) -> Solved | str:
        if engine is None or prompter is None:
            return imported(item, recipe)
        return imported(item, recipe, engine.tokenizer, prompter.ids(item.problem.text))

    for chunk in chunks:
        started = time.perf_counter()
        made = _made(map(one, chunk.items))
        chunk.solved, chunk.drops = made.solved, made.drops
        chunk.seconds["segment"] = time.perf_counter() - started
        tick("segment", len(chunk.items))
        yield chunk


def reread(chunks: Iterator[Chunk[str]], samples: Iterator[list[Solved]], tick: Tick) -> Iterator[Chunk[str]]:
    """The solutions of another run, as they are: all of it in its order, of which the chunks hold some ids.

    An id is that of a sample, and stands for its branches too. `samples`: each with its branches; no more of them is
    taken than the chunks need.

    Raises:
        StepconfError: they are not what they were when the ids were read.
    """
    for chunk in chunks:
        for wanted in chunk.items:
            family = next((one for one in samples if one[0].solution.solution_id == wanted), None)
            if family is None:
                raise StepconfError("the run has changed while it was read.", "Type the same command again.")
            chunk.solved += family
        tick("read", len(chunk.items))
        yield chunk


def branch(chunks: Iterator[Chunk[T]], brancher: Brancher | None) -> Iterator[Chunk[T]]:
    """Branch the solutions of chunks, those of one problem together; a problem that has branches keeps them."""
    if brancher is None:
        yield from chunks
        return
    for chunk in chunks:
        problems: dict[str, list[Solved]] = {}
        for one in chunk.solved:
            problems.setdefault(one.solution.problem_id, []).append(one)
        groups: Chunk[list[Solved]] = Chunk(chunk.name, chunk.digest, list(problems.values()))
        for grown in through(
            iter([groups]), brancher.engine.sample_each, partial(_grown, brancher=brancher), BRANCH
        ):
            chunk.solved = grown.solved
            chunk.seconds |= {key: chunk.seconds.get(key, 0.0) + s for key, s in grown.seconds.items()}
        yield chunk


def _grown(solved: list[Solved], brancher: Brancher) -> Task[SampleRequest]:
    if any(one.solution.parent_solution_id for one in solved):
        return Made(solved)
    return Made((yield from brancher.grow(solved, are_all=False)))


def _made(found: Iterable[Solved | str]) -> Made:
    made = Made()
    for one in found:
        if isinstance(one, Solved):
            made.solved.append(one)
        else:
            made.drops[one] += 1
    return made


def _dropped(reason: str, n: int) -> Task[Any]:
    """A task without requests."""
    return Made(drops=Counter({reason: n}))
    yield []


def _outside(ids: Sequence[int], engine: Guard) -> str:
    return _OUTSIDE if max(ids, default=0) >= engine.info.vocabulary else ""


def _unfit(solution: Solution, engine: Guard) -> str:
    """Why the engine cannot score it; empty where it can."""
    if len(solution.prompt_token_ids) + solution.n_tokens >= engine.info.max_model_len:
        return "solution longer than the context"
    return _outside(solution.prompt_token_ids + solution.token_ids, engine)


def metadata_of(engine: Engine, recipe: Recipe) -> dict[str, str]:
    """What goes into the schema metadata of every shard."""
    # The model as the user named it: what the engine loaded may be a path of this machine.
    facts = asdict(engine.info) | {"model": recipe.model, "tokenizer": engine.tokenizer.digest}
    return {name: str(value) for name, value in facts.items()}
