"""THE PAGE TO READ FIRST: the stages of a run, in order.

    problems -> sample -> segment -> score -> verify -> write           stepconf generate
    solutions ------> segment -> score -> verify -> write               stepconf score FILE
    solutions ------> segment ----------> verify -> write               stepconf segment | verify FILE
    a run ------------------------------> verify -> write               stepconf verify RUN

A stage is a function from chunks to an iterator of chunks; the next one pulls. Sampling already yields every
token's scores, so `generate` never runs the model twice. Verification of one chunk runs while the next is
sampled; `Run.commit` makes a chunk part of the run, whole.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from stepconf.core.records import Problem, Solved
from stepconf.engines.base import Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.engines.guard import Failed, Guard
from stepconf.errors import StepconfError
from stepconf.problems.load import (
    ImportedSolution,
    ProblemOptions,
    SolutionOptions,
    load_problems,
    load_solutions,
)
from stepconf.recipe import Recipe, identity, with_policy_of
from stepconf.run.events import Tick
from stepconf.run.folders import located
from stepconf.run.meter import EngineClock, Meter
from stepconf.run.shards import Run
from stepconf.run.summary import summarise
from stepconf.run.tables import read_metadata, read_recipe, read_solved
from stepconf.stages.chunks import Chunk, T, pending
from stepconf.stages.judge import judge, open_verifiers, shares_engine
from stepconf.stages.models import Prompter, open_guarded
from stepconf.stages.solve import imported, sampled

# A tokenizer may have more tokens than its model has embeddings; on a GPU one such token ends the process.
_OUTSIDE = "token outside the model's vocabulary"


def generate(
    recipe: Recipe,
    out: Path,
    tick: Tick,
    engine_of: Callable[[], Guard] | None = None,
    repair: bool = False,
) -> dict[str, Any]:
    """Sample, segment, score and verify solutions of the recipe's problems into the run folder `out`.

    `engine_of` gives the recipe's model where the caller has it loaded, and keeps it. `repair` makes chunks
    with damaged shards anew, here and in the commands below.
    """
    loaded = load_problems(located(recipe.problems.source), ProblemOptions(**_source_options(recipe)))
    with Run(out, _command_identity("generate", recipe), repair) as run, Meter(run, tick) as meter:
        todo = list(pending(run, loaded.problems, recipe.chunk))
        meter("sample", -sum(len(chunk.items) for chunk in todo) * recipe.sampling.samples)
        if recipe.ray.address and engine_of is None:
            _drive_cluster("generate", run, recipe, meter, todo)
        elif todo:
            with nullcontext(engine_of()) if engine_of else closing(open_guarded(recipe)) as engine:
                run.metadata = metadata_of(engine, recipe)
                _drive(run, recipe, meter, todo, lambda c: sample(c, engine, recipe, meter), engine)
        return summarise(run, loaded.dropped)


def score(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Segment, score and verify given solutions with the recipe's model."""
    items, dropped = _given(recipe)
    with Run(out, _command_identity("score", recipe), repair) as run, Meter(run, tick) as meter:
        todo = list(pending(run, items, recipe.chunk))
        meter("score", -sum(len(chunk.items) for chunk in todo))
        if recipe.ray.address:
            _drive_cluster("score", run, recipe, meter, todo)
        elif todo:
            with closing(open_guarded(recipe)) as engine:
                run.metadata = metadata_of(engine, recipe)
                _drive(run, recipe, meter, todo, lambda c: teacher_force(c, engine, recipe, meter), engine)
        return summarise(run, dropped)


def segment(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Segment and verify given solutions; no model, so no tokens (`--verify ''` only segments)."""
    items, dropped = _given(recipe)
    with Run(out, _command_identity("segment", recipe), repair) as run, Meter(run, tick) as meter:
        todo = list(pending(run, items, recipe.chunk))
        meter("segment", -sum(len(chunk.items) for chunk in todo))
        if recipe.ray.address:
            _drive_cluster("segment", run, recipe, meter, todo)
        else:
            _drive(run, recipe, meter, todo, lambda c: divide(c, recipe, meter))
        return summarise(run, dropped)


def verify(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Verify the solutions of a file or of a run; a run keeps its tokens, scores and other verdicts."""
    source = Path(located(recipe.problems.source))
    if not (source / "recipe.yaml").exists():
        return segment(recipe, out, tick, repair)
    items = [one for _, part in read_solved(source) for one in part][: recipe.problems.limit]
    if not recipe.model and shares_engine(recipe):
        recipe = with_policy_of(recipe, read_recipe(source))
    with Run(out, _command_identity("verify", recipe), repair) as run, Meter(run, tick) as meter:
        todo = list(pending(run, items, recipe.chunk))
        meter("read", -sum(len(chunk.items) for chunk in todo))
        run.metadata = read_metadata(source)
        if recipe.ray.address:
            _drive_cluster("verify", run, recipe, meter, todo)
        else:
            _drive(run, recipe, meter, todo, lambda c: reread(c, meter))
        return summarise(run, Counter())


def _drive(
    run: Run,
    recipe: Recipe,
    meter: Meter,
    todo: Sequence[Chunk[T]],
    stage: Callable[[Iterator[Chunk[T]]], Iterator[Chunk[T]]],
    engine: Engine | None = None,
) -> None:
    """The end of every pipeline: make the chunks, verify them, write them.

    An engine serves one caller at a time: where a verifier runs the model that also makes the chunks, they
    are made one by one and nothing overlaps.
    """
    if not todo:
        return
    meter.begin(len(todo))
    with open_verifiers(recipe, engine, run.metadata.get("tokenizer", "")) as verifiers:

        def verified(chunk: Chunk[T]) -> Chunk[T]:
            return judge(chunk, verifiers, recipe.verify.policy, meter)

        if engine is not None and shares_engine(recipe):
            done: Iterator[Chunk[T]] = (verified(chunk) for one in todo for chunk in stage(iter([one])))
        else:
            done = overlapped(stage(iter(todo)), verified)
        for chunk in done:
            _commit(run, recipe, meter, chunk)


def _drive_cluster(
    command: Literal["generate", "score", "segment", "verify"],
    run: Run,
    recipe: Recipe,
    meter: Meter,
    todo: Sequence[Chunk[T]],
) -> None:
    """As `_drive`, with all but the writing done by actors of a Ray cluster."""
    if not todo:
        return
    from stepconf.stages.cluster import on_cluster

    stage = {"generate": "sample", "score": "score", "segment": "segment", "verify": "read"}[command]
    weights = {chunk.name: len(chunk.items) for chunk in todo}
    before = run.metadata
    with closing(on_cluster(todo, command, recipe, before.get("tokenizer", ""))) as parcels:
        meter.begin(len(todo))
        for parcel in parcels:
            run.metadata = before | parcel.metadata
            weight = recipe.sampling.samples if command == "generate" else 1
            meter(stage, weights[parcel.chunk.name] * weight)
            meter("verify", len(parcel.chunk.solved))
            _commit(run, recipe, meter, parcel.chunk)


def _commit(run: Run, recipe: Recipe, meter: Meter, chunk: Chunk[T]) -> None:
    solutions = [one.solution for one in chunk.solved]
    steps = list(chain.from_iterable(one.steps for one in chunk.solved))
    facts = chunk.facts() | {"policy": recipe.verify.policy}
    run.commit(chunk.name, {"solutions": solutions, "steps": steps}, facts)
    meter.committed(chunk.name, facts)


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

    def solve(chunk: Chunk[Problem], index: int, asked: SampleRequest, completions: Any) -> None:
        problem = chunk.items[index]
        for i, completion in enumerate(completions):
            one = sampled(problem, asked, i, completion, engine.info, recipe)
            chunk.solved += [one] if isinstance(one, Solved) else []
            chunk.drops.update([one] if isinstance(one, str) else [])

    yield from _through(chunks, engine.sample_each, request, solve, "sample", sampling.samples, tick)


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

    def solve(chunk: Chunk[ImportedSolution], index: int, asked: ScoreRequest, scores: Any) -> None:
        item = chunk.items[index]
        one = imported(item, recipe, engine.tokenizer, asked.prefix_ids, scores, engine.info)
        chunk.solved += [one] if isinstance(one, Solved) else []

    yield from _through(chunks, engine.score_each, request, solve, "score", 1, tick)


def divide(
    chunks: Iterator[Chunk[ImportedSolution]], recipe: Recipe, tick: Tick
) -> Iterator[Chunk[ImportedSolution]]:
    """Segment given solutions."""
    for chunk in chunks:
        started = time.perf_counter()
        for item in chunk.items:
            one = imported(item, recipe)
            chunk.solved += [one] if isinstance(one, Solved) else []
            chunk.drops.update([one] if isinstance(one, str) else [])
        chunk.seconds["segment"] = time.perf_counter() - started
        tick("segment", len(chunk.items))
        yield chunk


def reread(chunks: Iterator[Chunk[Solved]], tick: Tick) -> Iterator[Chunk[Solved]]:
    """The solutions of another run, as they are."""
    for chunk in chunks:
        chunk.solved = list(chunk.items)
        tick("read", len(chunk.items))
        yield chunk


def overlapped(chunks: Iterable[Chunk[T]], work: Callable[[Chunk[T]], Chunk[T]]) -> Iterator[Chunk[T]]:
    """`work` on each chunk in a thread of its own, while the next chunk is being made.

    Chunks made before an interrupt, or before the making failed, are still worked on and yielded.
    """
    interrupt: KeyboardInterrupt | StepconfError | None = None
    with ThreadPoolExecutor(1) as thread:
        waiting: list[Future[Chunk[T]]] = []
        try:
            for chunk in chunks:
                waiting.append(thread.submit(work, chunk))
                while waiting and (waiting[0].done() or len(waiting) > 2):
                    done = waiting[0].result()
                    del waiting[0]
                    yield done
        except (KeyboardInterrupt, StepconfError) as error:
            interrupt = error
        for future in waiting:
            yield future.result()
    if interrupt:
        raise interrupt


def _through(
    chunks: Iterator[Chunk[T] | None],
    run_engine: Callable[[Iterator[Any]], Iterator[tuple[Any, Any]]],
    request: Callable[[str, T], Any],
    solve: Callable[[Chunk[T], int, Any, Any], None],
    stage: str,
    weight: int,
    tick: Tick,
) -> Iterator[Chunk[T]]:
    """Stream every chunk's requests through the engine; yield each chunk when its last result is in.

    Results come in any order; within a chunk they are put back into the order of its items, so that what is
    written depends on the requests alone. `weight` is how many solutions a request stands for.
    """
    where: dict[str, tuple[Chunk[T], int]] = {}
    results: dict[str, dict[int, tuple[Any, Any]]] = {}
    missing: dict[str, int] = {}
    ready: list[Chunk[T]] = []

    def requests() -> Iterator[Any]:
        for chunk in chunks:
            if chunk is None and ready:
                return  # they come out when the engine has run out; the caller begins anew
            if chunk is None:
                yield None
                continue
            made = [request(f"{chunk.name}/{i}", item) for i, item in enumerate(chunk.items)]
            refused = [reason for reason in made if isinstance(reason, str)]
            for reason in refused:
                chunk.drops[reason] += weight
            tick(stage, weight * len(refused))
            results[chunk.name], missing[chunk.name] = {}, len(made) - len(refused)
            if not missing[chunk.name]:
                ready.append(chunk)
            for index, one in enumerate(made):
                if not isinstance(one, str):
                    where[one.key] = (chunk, index)
                    yield one

    clock = EngineClock()
    started = time.perf_counter()
    for asked, result in clock.taking(run_engine(clock.feeding(requests()))):
        chunk, index = where.pop(asked.key)
        results[chunk.name][index] = (asked, result)
        missing[chunk.name] -= 1
        tick(stage, weight)
        if not missing[chunk.name]:
            for i, (original, found) in sorted(results.pop(chunk.name).items()):
                if isinstance(found, Failed):
                    chunk.drops[found.reason] += weight
                else:
                    solve(chunk, i, original, found)
            now = time.perf_counter()
            chunk.seconds |= {stage: now - started, "idle": clock.lap()}
            started = now
            yield chunk
        yield from (ready.pop() for _ in range(len(ready)))
    yield from ready


def _seed(seed: int, problem: Problem) -> int:
    """A problem's own random stream: the same in every run, order and batch."""
    digest = blake2b(f"{seed}:{problem.problem_id}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def _given(recipe: Recipe) -> tuple[Sequence[ImportedSolution], Counter[str]]:
    source = recipe.problems
    options: dict[str, Any] = _source_options(recipe)
    options |= {"solution_column": source.solution_column, "steps_column": source.steps_column}
    loaded = load_solutions(located(source.source), SolutionOptions(**options))
    return loaded.rows, loaded.dropped


def _source_options(recipe: Recipe) -> dict[str, Any]:
    names = ("split", "problem_column", "answer_column", "id_column", "answer_type", "limit")
    return {name: getattr(recipe.problems, name) for name in names} | {"seed": recipe.sampling.seed}


def _command_identity(command: str, recipe: Recipe) -> dict[str, Any]:
    return {"command": command, **identity(recipe)}


def metadata_of(engine: Engine, recipe: Recipe) -> dict[str, str]:
    """What goes into the schema metadata of every shard."""
    # The model as the user named it: what the engine loaded may be a path of this machine.
    facts = asdict(engine.info) | {"model": recipe.model, "tokenizer": engine.tokenizer.digest}
    return {name: str(value) for name, value in facts.items()}
