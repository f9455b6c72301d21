"""THE PAGE TO READ FIRST: the stages of a run, in order.

    problems -> sample -> segment -> branch -> verify -> write          stepconf generate
    solutions -> score -> segment -> branch -> verify -> write          stepconf score FILE
    solutions ----------> segment -> branch -> verify -> write          stepconf segment | verify FILE
    a run -------------------------> branch -> verify -> write          stepconf verify RUN

A stage (`stages/solutions.py`) is a function from chunks to an iterator of chunks; the next one pulls. Sampling already
yields every token's scores, so `generate` never runs the model twice. Branches (`stages/branch.py`) are completions
from the steps of solutions, in the same stream of the engine. While an engine makes a chunk, those before are
verified and written; `Run.commit` makes a chunk part of the run, whole.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from stepconf.calibration.fitted import confidence_digest, load_confidence
from stepconf.core.confidence import FittedConfidence
from stepconf.core.paths import families, first_steps
from stepconf.core.records import Solved
from stepconf.demo_model import check_model_of_run
from stepconf.engines.guard import Guard
from stepconf.errors import StepconfError
from stepconf.kinds import VERIFIERS, check_own
from stepconf.problems.load import ImportedSolution, load_problems, load_solutions
from stepconf.recipe import Recipe, identity, with_branches, with_policy_of
from stepconf.run.events import Tick
from stepconf.run.meter import BusyClock, Meter
from stepconf.run.shards import Run
from stepconf.run.summary import summarise
from stepconf.run.tables import read_ids, read_metadata, read_recipe, read_solved
from stepconf.stages.branch import Brancher, check_tokens, open_brancher
from stepconf.stages.chunks import Chunk, T, in_waves, one_wave, pending
from stepconf.stages.models import open_guarded
from stepconf.stages.solutions import branch, divide, metadata_of, reread, sample, teacher_force
from stepconf.stages.stream import overlapped
from stepconf.stages.verify import (
    n_chunks_at_once,
    open_pool,
    open_verifiers,
    shares_engine,
    verify_chunk,
    waits_for_engine,
)
from stepconf.stores.opening import located

Chunks = Iterator[Chunk[Any]]


@dataclass(frozen=True, slots=True)
class Sink:
    """Where chunks end: the run, its progress, and the confidence that is added to steps and solutions, if any."""

    run: Run
    meter: Meter
    fitted: FittedConfidence | None

    def commit(self, recipe: Recipe, chunk: Chunk[T]) -> None:
        """Make a verified chunk part of the run."""
        solved = list(self._with_confidence(chunk.solved))
        solutions = [one.solution for one in solved]
        steps = list(chain.from_iterable(one.steps for one in solved))
        facts = chunk.facts() | {"policy": recipe.verify.policy}
        self.run.commit(chunk.name, {"solutions": solutions, "steps": steps}, facts)
        chunk.solved = []  # the list of all chunks is kept to the end
        self.meter.committed(chunk.name, facts)

    def _with_confidence(self, solved: Sequence[Solved]) -> Iterator[Solved]:
        whole = (one.solution for one in solved)
        firsts = first_steps((one.solution_id, one.parent_solution_id, one.branch_step) for one in whole)
        for one in solved:
            yield self.fitted.on(one, firsts[one.solution.solution_id]) if self.fitted else one


def generate(
    recipe: Recipe,
    out: Path,
    tick: Tick,
    engine_of: Callable[[], Guard] | None = None,
    repair: bool = False,
) -> dict[str, Any]:
    """Sample, segment, score and verify solutions of the recipe's problems into the run folder `out`.

    `engine_of` gives the recipe's model where the caller has it loaded, and keeps it. `repair` makes chunks
    with damaged shards again, here and in the commands below.
    """
    check_own(VERIFIERS, recipe.verify.verifiers)
    # Branches can serve pairs alone: who asks for them may have problems without gold answers.
    loaded = load_problems(
        recipe.problems.source, recipe.problems, recipe.sampling.seed, not recipe.branch.where
    )
    has_gold = any(problem.gold_answer for problem in loaded.problems)
    fitted = _fitted(recipe)
    with Run(out, _command_identity("generate", recipe), repair) as run, Meter(run, tick) as meter:
        sink = Sink(run, meter, fitted)
        recipe = with_branches(recipe, "generate", has_gold)
        todo = list(pending(run, loaded.problems, recipe.chunk))
        meter("sample", -sum(len(chunk.items) for chunk in todo) * recipe.sampling.samples)
        if recipe.ray.address and engine_of is None:
            _drive_cluster("generate", sink, recipe, todo)
        else:

            def sampled(chunks: Chunks, engine: Guard, brancher: Brancher | None) -> Chunks:
                run.metadata = metadata_of(engine, recipe)
                return sample(chunks, engine, recipe, meter, brancher)

            own = partial(_kept, engine_of) if engine_of else partial(_opened, recipe)
            _drive(sink, recipe, todo, sampled, own, keeps_engine=engine_of is not None)
        return summarise(run, loaded.dropped)


def score(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Segment, score and verify given solutions with the recipe's model."""
    items, dropped = _given(recipe)
    fitted = _fitted(recipe)
    with Run(out, _command_identity("score", recipe), repair) as run, Meter(run, tick) as meter:
        sink = Sink(run, meter, fitted)
        recipe = with_branches(recipe, "score")
        todo = list(pending(run, items, recipe.chunk))
        meter("score", -sum(len(chunk.items) for chunk in todo))
        if recipe.ray.address:
            _drive_cluster("score", sink, recipe, todo)
        else:

            def scored(chunks: Chunks, engine: Guard, brancher: Brancher | None) -> Chunks:
                run.metadata = metadata_of(engine, recipe)
                return branch(teacher_force(chunks, engine, recipe, meter), brancher)

            _drive(sink, recipe, todo, scored, partial(_opened, recipe))
        return summarise(run, dropped)


def segment(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Segment and verify given solutions; no model, so no tokens, unless they are branched."""
    items, dropped = _given(recipe)
    fitted = _fitted(recipe)
    with Run(out, _command_identity("segment", recipe), repair) as run, Meter(run, tick) as meter:
        sink = Sink(run, meter, fitted)
        recipe = with_branches(recipe, "segment")
        todo = list(pending(run, items, recipe.chunk))
        meter("segment", -sum(len(chunk.items) for chunk in todo))
        if recipe.ray.address:
            _drive_cluster("segment", sink, recipe, todo)
        else:

            def divided(chunks: Chunks, _: None, brancher: Brancher | None) -> Chunks:
                engine = brancher.engine if brancher else None
                if engine:
                    run.metadata = metadata_of(engine, recipe)
                return branch(divide(chunks, recipe, meter, engine), brancher)

            _drive(sink, recipe, todo, divided)
        return summarise(run, dropped)


def verify(recipe: Recipe, out: Path, tick: Tick, repair: bool = False) -> dict[str, Any]:
    """Verify the solutions of a file or of a run; a run keeps its tokens, scores and other verdicts."""
    check_own(VERIFIERS, recipe.verify.verifiers)
    source = Path(located(recipe.problems.source))
    if not (source / "recipe.yaml").exists():
        return segment(recipe, out, tick, repair)
    ids = read_ids(source)[: recipe.problems.limit]
    branches = with_branches(recipe, "verify").branch.where
    if not recipe.model and (branches or shares_engine(recipe)):
        recipe = with_policy_of(recipe, read_recipe(source))
        check_model_of_run(recipe.model, f"Where you trust it: --model {recipe.model}")
    fitted = _fitted(recipe, read_metadata(source).get("model", ""))
    if branches and fitted is None and (confidence := read_recipe(source).get("confidence")):
        raise StepconfError(
            f"the steps of {source} have a fitted confidence, and those of new branches would have none.",
            f"Add --set confidence={confidence}",
        )
    with Run(out, _command_identity("verify", recipe), repair) as run, Meter(run, tick) as meter:
        sink = Sink(run, meter, fitted)
        recipe = with_branches(recipe, "verify")
        todo = list(pending(run, ids, recipe.chunk))
        meter("read", -sum(len(chunk.items) for chunk in todo))
        run.metadata = read_metadata(source)
        samples = families(chain.from_iterable(part for _, part in read_solved(source)))
        if recipe.ray.address:
            read = reread(iter(todo), samples, lambda stage, n: None)
            _drive_cluster("verify", sink, recipe, todo, in_waves(read))
        else:

            def read_again(chunks: Chunks, _: None, brancher: Brancher | None) -> Chunks:
                check_tokens(run.metadata, brancher)
                return branch(reread(chunks, samples, meter), brancher)

            _drive(sink, recipe, todo, read_again)
        return summarise(run, Counter())


def _opened(recipe: Recipe) -> AbstractContextManager[Guard]:
    return closing(open_guarded(recipe))


def _kept(engine_of: Callable[[], Guard]) -> AbstractContextManager[Guard]:
    return nullcontext(engine_of())


def _drive(
    sink: Sink,
    recipe: Recipe,
    todo: Sequence[Chunk[Any]],
    stage: Callable[[Chunks, Any, Brancher | None], Chunks],
    own: Callable[[], AbstractContextManager[Guard | None]] = nullcontext,
    keeps_engine: bool = False,
) -> None:
    """The end of every pipeline: make the chunks, branch, verify and write them.

    An engine serves one caller at a time: where a critic runs the model that also makes the chunks, they are made
    one by one and nothing overlaps. A critic that waits for memory has it once the engine is closed.

    Args:
        sink: writes them.
        recipe: with `branch` said.
        todo: chunks to make.
        stage: makes them, given the engine, if any, and what branches.
        own: opens the recipe's model; by default the stage needs none.
        keeps_engine: the caller has it open, and it stays open.
    """
    if not todo:
        return
    has_model = own is not nullcontext or bool(recipe.branch.where)
    if has_model and not keeps_engine and waits_for_engine(recipe):
        _drive_in_turns(sink, recipe, todo, stage, own)
        return
    with own() as engine:
        sink.meter.begin(len(todo))
        clock = BusyClock()
        with (
            open_pool(recipe) as pool,
            open_brancher(recipe, engine, pool, sink.meter) as brancher,
            open_verifiers(recipe, pool, engine) as verifiers,
        ):

            def work(chunk: Chunk[Any]) -> None:
                verify_chunk(chunk, verifiers, recipe.verify.policy, sink.meter, clock)

            def finish(chunk: Chunk[Any]) -> None:
                sink.commit(recipe, chunk)

            if engine is not None and shares_engine(recipe):
                for chunk in chain.from_iterable(stage(iter([one]), engine, brancher) for one in todo):
                    work(chunk)
                    finish(chunk)
            else:
                overlapped(stage(iter(todo), engine, brancher), work, finish, n_chunks_at_once(recipe))


def _drive_in_turns(
    sink: Sink,
    recipe: Recipe,
    todo: Sequence[Chunk[Any]],
    stage: Callable[[Chunks, Any, Brancher | None], Chunks],
    own: Callable[[], AbstractContextManager[Guard | None]],
) -> None:
    """As `_drive`, with one model in memory at a time: chunks are made, in waves, before the verifiers are opened.

    A wave is as many chunks as may be in memory. What was made before an interrupt is still verified and written.
    """
    waiting, clock = deque(todo), BusyClock()
    sink.meter.begin(len(todo))
    interrupt: KeyboardInterrupt | StepconfError | None = None
    while waiting and not interrupt:
        made: list[Chunk[Any]] = []
        with (
            own() as engine,
            open_pool(recipe) as pool,
            open_brancher(recipe, engine, pool, sink.meter) as brancher,
        ):
            try:
                for chunk in stage(one_wave(waiting, made), engine, brancher):
                    made.append(chunk)  # noqa: PERF402  one_wave looks at it meanwhile
            except (KeyboardInterrupt, StepconfError) as error:
                interrupt = error
        if made:
            with open_pool(recipe) as pool, open_verifiers(recipe, pool) as verifiers:
                for chunk in made:
                    verify_chunk(chunk, verifiers, recipe.verify.policy, sink.meter, clock)
                    sink.commit(recipe, chunk)
    if interrupt:
        raise interrupt


def _drive_cluster(
    command: Literal["generate", "score", "segment", "verify"],
    sink: Sink,
    recipe: Recipe,
    todo: Sequence[Chunk[T]],
    waves: Iterable[Sequence[Chunk[T]]] | None = None,
) -> None:
    """As `_drive`, with all but the writing done by actors of a Ray cluster. `waves`: as `on_cluster` takes them."""
    if not todo:
        return
    from stepconf.stages.cluster import on_cluster

    stage = {"generate": "sample", "score": "score", "segment": "segment", "verify": "read"}[command]
    weights = {chunk.name: len(chunk.items) for chunk in todo}
    before = sink.run.metadata
    with closing(on_cluster(waves or [todo], command, recipe, before.get("tokenizer", ""))) as parcels:
        sink.meter.begin(len(todo))
        for parcel in parcels:
            sink.run.metadata = before | parcel.metadata
            weight = recipe.sampling.samples if command == "generate" else 1
            sink.meter(stage, weights[parcel.chunk.name] * weight)
            sink.meter("verify", sum(one.solution.parent_solution_id is None for one in parcel.chunk.solved))
            sink.commit(recipe, parcel.chunk)


def _given(recipe: Recipe) -> tuple[Sequence[ImportedSolution], Counter[str]]:
    check_own(VERIFIERS, recipe.verify.verifiers)
    loaded = load_solutions(recipe.problems.source, recipe.problems, recipe.sampling.seed)
    return loaded.rows, loaded.dropped


def _fitted(recipe: Recipe, model: str = "") -> FittedConfidence | None:
    """The recipe's fitted confidence, for tokens of its model or, where it names none, of `model`."""
    if recipe.confidence is None:
        return None
    return load_confidence(located(recipe.confidence), recipe.model or model, recipe.confidence_force)


def _command_identity(command: str, recipe: Recipe) -> dict[str, Any]:
    """What a run of the command contains; raises StepconfError where its labels would have noise."""
    if recipe.verify.noise:
        raise StepconfError(
            f"verify.noise={recipe.verify.noise} is for runs that are there.",
            "Leave it out, then type: stepconf relabel RUN --noise RATE",
        )
    return {"command": command, **identity(recipe), **confidence_digest(recipe)}
