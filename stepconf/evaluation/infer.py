"""`stepconf infer`: questions in, answers with the confidence of every step out.

OUT             the answers, .jsonl or .parquet; written whole, at the end
OUT.part.jsonl  those so far (`part.py`), without the suffix of OUT; the same command goes on from there
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from stepconf.calibration.signals import lowest_on_the_way
from stepconf.core.ids import problem_id
from stepconf.core.prompts import INSTRUCTION, instruction_for
from stepconf.core.prune import tau_at
from stepconf.core.records import Problem, TokenScores
from stepconf.core.signals import CONFIDENCE
from stepconf.core.votes import Equal
from stepconf.engines.base import Engine, EngineCrashed
from stepconf.engines.guard import CRASHED
from stepconf.engines.reasoning import Reasoning
from stepconf.errors import StepconfError
from stepconf.evaluation.part import Part, decisive
from stepconf.inference.base import (
    GivenUp,
    Growth,
    Question,
    Result,
    Search,
    Setting,
    Spent,
    Strategy,
    failed,
    step_confidence,
)
from stepconf.inference.run import Clock, answer
from stepconf.inference.strategies import check_engine, search
from stepconf.kinds import STRATEGIES
from stepconf.problems.load import load_problems
from stepconf.recipe import PromptRecipe, Recipe
from stepconf.run.shards import write_rows
from stepconf.stages.models import Prompter, open_engine
from stepconf.stores.opening import located
from stepconf.stores.places import check_file_place
from stepconf.verifiers.final import compare, compare_here
from stepconf.workers.pool import Pool

Watch = Callable[[Growth], None]
OfStep = Callable[[TokenScores, int], float | None]
OfAnswer = Callable[[TokenScores], float | None]
COMPARING_S = 10.0  # of one question's answers
_DATA_FILE = re.compile(r"\S+\.(jsonl|ndjson|json|parquet)(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answered:
    """Results in the order of the questions, the same as plain rows, and where the time went."""

    results: list[Result]
    rows: list[dict[str, Any]]
    clock: Clock


def infer(
    recipe: Recipe, source: str, out: Path | None, watch: Watch, done: Callable[[Result, int], None]
) -> Answered:
    """Answer a question, or those of a file, by the recipe's strategy.

    Args:
        recipe: its model, prompt, sampling and `infer`.
        source: the question itself, or a file of them.
        out: where the answers are written, .jsonl or .parquet; None writes none.
        watch: called with every level of a tree.
        done: called with every result, and how many there will be.

    Raises:
        StepconfError: no usable question, a model that cannot be loaded, or a file name that says no format.
    """
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise StepconfError(f"{out} is neither .jsonl nor .parquet.", "Give --out answers.jsonl, say.")
    if out is not None:
        check_file_place(out)
    recipe = with_tau(recipe)
    problems = questions_of(source, recipe)
    strategy = recipe.infer.strategy
    with (
        closing(open_engine(recipe)) as engine,
        open_pool(recipe) as pool,
        Part(out, decisive(recipe) | {"strategy": strategy}) as part,
    ):
        kept, missing = part.divide(problems)
        for result in kept:
            done(result, len(problems))
        for result in answers(engine, pool, missing, strategy, recipe, part.clock, watch):
            part.keep(result)
            done(result, len(problems))
    results = [part.found[problem.problem_id] for problem in problems]
    rows = [row(result, one) for result, one in zip(results, problems, strict=True)]
    if out is not None:
        write_rows(out, rows)
    part.remove()
    return Answered(results, rows, part.clock)


def with_tau(recipe: Recipe) -> Recipe:
    """The recipe with tau's value, where it is a quantile over a run.

    Raises:
        StepconfError: the run is none, or holds no scored right solution; or C is of another confidence than the run's;
            or as `confidences`.
    """
    confidences(recipe)  # what is wrong with its file is said before a model is loaded
    given = recipe.infer
    if given.tau_quantile is None or given.tau_run is None:
        return recipe
    if recipe.confidence is not None:
        raise StepconfError(
            "infer.tau_quantile is a quantile of exp(-mean entropy), and a fitted confidence has another scale.",
            "Give --tau as a probability, or leave out confidence.",
        )
    lowest = lowest_on_the_way(Path(located(given.tau_run)), given.length_normalised)
    tau = tau_at(lowest.tolist(), given.tau_quantile)
    return recipe.model_copy(update={"infer": given.model_copy(update={"tau": tau})})


def questions_of(source: str, recipe: Recipe) -> list[Problem]:
    """The problems of a file, or the one that `source` itself is."""
    if not source.strip():  # Path("") is the current folder, which exists
        raise StepconfError("the question is empty.", "Type: stepconf infer 'What is 3 + 4?' --model demo")
    if _is_path(source) or _DATA_FILE.fullmatch(source):
        return load_problems(source, recipe.problems, require_gold=False).problems
    kind = recipe.problems.answer_type or "math"
    return [Problem(problem_id(source, None), source, None, kind, "typed", "")]


def _is_path(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # longer than a file's name can be
        return False


@contextmanager
def open_pool(recipe: Recipe) -> Iterator[Pool]:
    """Killable workers that compare answers; none starts before one is needed."""
    options = recipe.verify
    with Pool(options.workers, options.deadline_s, int(options.memory_gb * 2**30)) as pool:
        yield pool


def answers(
    engine: Engine,
    pool: Pool,
    problems: Iterable[Problem],
    strategy: str,
    recipe: Recipe,
    clock: Clock,
    watch: Watch = lambda growth: None,
    given_up: Callable[[GivenUp], None] = lambda branch: None,
) -> Iterator[Result]:
    """A result for each problem, as they come; its key is the problem's id.

    Raises:
        StepconfError: the confidence file is none, or of another model; the strategy goes by confidences, and the
            engine gives no scores.
    """
    check_engine(strategy, recipe.infer, engine.info)

    @cache
    def prompters(kind: str) -> list[Prompter]:
        return [Prompter(engine.tokenizer, prompt) for prompt in prompts_of(strategy, recipe.prompt, kind)]

    of_step, of_answer = confidences(recipe)
    setting = Setting(
        recipe.infer,
        recipe.sampling,
        recipe.segment.options,
        prompters("math")[0].stop,
        engine.info.max_model_len,
        lambda kind: equality(pool, kind),
        watch,
        confidence=of_step,
        answer_confidence=of_answer,
        given_up=given_up,
        reasoning=Reasoning(engine.tokenizer, recipe.reasoning),
    )

    def searches() -> Iterator[Search]:
        for problem in problems:
            prompts = tuple(prompter.ids(problem.text) for prompter in prompters(problem.answer_type))
            question = Question(problem.problem_id, problem.text, prompts, problem.answer_type)
            yield _or_crashed(search(strategy, question, setting), strategy, question)

    yield from answer(engine, searches(), clock)


def _or_crashed(asked: Search, strategy: str, question: Question) -> Search:
    """A failure where one of its requests crashes the engine, which lives."""
    try:
        return (yield from asked)
    except EngineCrashed as crash:
        return replace(failed(question, f"{CRASHED}: {crash.problem}", Spent()), strategy=strategy)


def confidences(recipe: Recipe) -> tuple[OfStep, OfAnswer]:
    """The confidence of a step and of an answer: as fitted in the recipe's file, else exp(-mean entropy).

    What the file does not have (it was fitted on too few answers, say) stays exp(-mean entropy).

    Raises:
        StepconfError: the file is none, or was fitted on another model.
    """
    if recipe.confidence is None:
        return step_confidence, CONFIDENCE.over
    from stepconf.calibration.fitted import load_confidence

    fitted = load_confidence(located(recipe.confidence), recipe.model, recipe.confidence_force)
    return (
        fitted.of_step if fitted.steps is not None else step_confidence,
        fitted.of_answer if fitted.answers is not None else CONFIDENCE.over,
    )


def prompts_of(strategy: str, prompt: PromptRecipe, kind: str) -> list[PromptRecipe]:
    """How a strategy puts a problem, with the standing instruction for that type of answer."""
    if prompt.instruction == INSTRUCTION:
        prompt = prompt.model_copy(update={"instruction": instruction_for(kind)})
    asked: Strategy = STRATEGIES.load(strategy)
    return asked.prompts(prompt, kind)


def equality(pool: Pool, kind: str) -> Equal:
    """Whether two answers of a type are the same, as the `final` verifier compares them; undecided is no.

    It remembers what it has compared: make one for each question. An engine may wait meanwhile, so it takes
    `COMPARING_S` in all, by the clocks of the workers; from then on only identical texts are the same. An answer
    over which a worker was ended is compared without workers.
    """
    seconds = 0.0
    ended_workers: set[str] = set()

    @cache
    def equal(a: str, b: str) -> bool:
        nonlocal seconds
        if a == b or seconds >= COMPARING_S:
            return a == b
        pair = (a, b, kind)
        outcome = compare(pool, [pair])[0] if ended_workers.isdisjoint((a, b)) else compare_here(pair)
        seconds += outcome.seconds
        if outcome.value is None:  # which of the two did it is not known
            ended_workers.update((a, b))
        return outcome.value is not None and outcome.value.same is True

    return equal


def row(result: Result, problem: Problem) -> dict[str, Any]:
    """A result as it is written: one object, the costs at its top level."""
    fields = asdict(result)
    spent: dict[str, Any] = fields.pop("spent")
    fields.pop("key")
    head: dict[str, Any] = {
        "problem_id": problem.problem_id,
        "external_id": problem.external_id,
        "gold_answer": problem.gold_answer,
    }
    return head | fields | spent
