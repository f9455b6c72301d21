"""`import stepconf` on a loaded model: sample and score with exact entropies, and answer questions.

With `model` a Hub id or a local folder:

>>> import stepconf
>>> with stepconf.load_engine(model, engine="transformers") as policy:
...     (two,) = stepconf.sample(policy, ["What is 3 + 4?"], n=2, max_tokens=8)
...     (scored,) = stepconf.score(policy, ["What is 3 + 4?"], ["3 + 4 = 7.\\n\\nThe answer is 7."])
...     (result,) = stepconf.infer(policy, ["What is 3 + 4?"], "greedy", {"sampling.max_tokens": 8})
>>> len(two), [step.text for step in scored.steps]
(2, ['3 + 4 = 7.\\n\\n', 'The answer is 7.'])
>>> len(scored.entropies) == len(scored.token_ids) and min(scored.entropies) >= 0
True
>>> result.strategy, result.spent.requests
('greedy', 1)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepconf.core.records import TokenScores
    from stepconf.engines.base import Engine
    from stepconf.inference.base import Result, StepScore
    from stepconf.recipe import Recipe
    from stepconf.stages.models import Prompter

__all__ = ["Model", "Scored", "infer", "load_engine", "sample", "score"]

Prompt = str | Sequence[int]  # a problem, which is put to the model as the recipe says, or exact token ids


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model, and how problems are put to it."""

    engine: "Engine"
    recipe: "Recipe"
    prompter: "Prompter"


@dataclass(frozen=True, slots=True)
class Scored:
    """A solution under a model. Lists of one length, an entry a token.

    `logprobs` in nats, <= 0; `entropies` exact, over the full vocabulary, in nats; `max_probs` in (0, 1]. `steps` have
    text, token_ids, entropy_mean, confidence and cumulative_confidence. `finish_reason`: "stop", "length", or
    "imported" of a text that was given.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    max_probs: list[float]
    steps: "list[StepScore]"
    finish_reason: str


@contextmanager
def load_engine(
    model: str, engine: str = "vllm", options: Mapping[str, Any] | None = None
) -> Iterator[Model]:
    """Load a model; it is closed at the end of the `with` block.

    Args:
        model: Hub id, local folder, or demo.
        engine: vllm, transformers, or module:name.
        options: recipe keys, e.g. {"engine.max_model_len": 2048, "prompt.style": "plain"}.

    Raises:
        StepconfError: the model cannot be loaded.
    """
    from contextlib import closing

    from stepconf.recipe import load_recipe
    from stepconf.stages.models import Prompter, open_engine

    recipe = load_recipe(None, {"model": model, "engine.name": engine, **(options or {})})
    with closing(open_engine(recipe)) as opened:
        yield Model(opened, recipe, Prompter(opened.tokenizer, recipe.prompt))


def sample(model: Model, problems: Sequence[Prompt], n: int = 1, **sampling: Any) -> list[list[Scored]]:
    """`n` solutions of each problem, in order.

    Args:
        model: as `load_engine` gives it.
        problems: texts, or exact token ids in front of the solution.
        n: how many.
        sampling: temperature, top_p, max_tokens, seed; what is not given is as in the model's recipe.

    Raises:
        StepconfError: an option is unknown or out of range, or a problem fills the context.
    """
    from stepconf.engines.base import SampleRequest, Sampling

    how = _sampling(model.recipe, sampling)
    requests = []
    for i, problem in enumerate(problems):
        ids = _ids(model, problem)
        limit = min(how.max_tokens, _room(model, ids))
        drawn = Sampling(how.temperature, limit, how.top_p, model.prompter.stop)
        requests.append(SampleRequest(str(i), ids, n, how.seed + i * n, drawn))
    found = {request.key: done for request, done in model.engine.sample(iter(requests))}
    return [
        [
            _scored("".join(one.pieces), one.token_ids, one.pieces, one.scores, one.finish_reason)
            for one in found[request.key]
        ]
        for request in requests
    ]


def score(model: Model, problems: Sequence[Prompt], solutions: Sequence[str]) -> list[Scored]:
    """Each solution as if the model had written it after its problem.

    Args:
        model: as `load_engine` gives it.
        problems: texts, or exact token ids in front of the solution.
        solutions: as many texts.

    Raises:
        StepconfError: a problem fills the context with its solution.
        ValueError: there are more of one than of the other.
    """
    from stepconf.engines.base import ScoreRequest

    requests = []
    for i, (problem, text) in enumerate(zip(problems, solutions, strict=True)):
        prompt, ids = _ids(model, problem), model.engine.tokenizer.encode(text)
        _room(model, prompt, len(ids))
        requests.append(ScoreRequest(str(i), prompt, ids))
    found = {request.key: scores for request, scores in model.engine.score(iter(requests))}
    pieces = [model.engine.tokenizer.pieces(request.token_ids) for request in requests]
    return [
        _scored(text, request.token_ids, own, found[request.key], "imported")
        for text, request, own in zip(solutions, requests, pieces, strict=True)
    ]


def infer(
    model: Model, questions: Sequence[str], strategy: str = "cat", options: Mapping[str, Any] | None = None
) -> "list[Result]":
    """The answer to each question, with the confidence of its steps and what it cost, in order.

    Args:
        model: as `load_engine` gives it.
        questions: texts; one that is asked twice is answered once.
        strategy: cat, greedy, self-consistency, adaptive or another one of `stepconf infer --help`, or module:name.
        options: recipe keys, e.g. {"infer.k": 10, "infer.tau": 0.01}.

    Raises:
        StepconfError: an option is unknown or out of range.
    """
    from stepconf.api.text import pool
    from stepconf.core.ids import problem_id
    from stepconf.core.records import Problem
    from stepconf.evaluation.infer import answers, with_tau
    from stepconf.inference.run import Clock
    from stepconf.recipe import with_options

    recipe = with_tau(with_options(model.recipe, {"infer.strategy": strategy, **(options or {})}))
    keys = [problem_id(question, None) for question in questions]
    asked = {
        key: Problem(key, question, None, "math", "typed", "")
        for key, question in zip(keys, questions, strict=True)
    }
    found = {
        result.key: result
        for result in answers(model.engine, pool(), asked.values(), strategy, recipe, Clock())
    }
    return [found[key] for key in keys]


def _sampling(recipe: "Recipe", given: Mapping[str, Any]) -> Any:
    from stepconf.recipe import with_options

    return with_options(recipe, {f"sampling.{name}": value for name, value in given.items()}).sampling


def _ids(model: Model, problem: Prompt) -> list[int]:
    return model.prompter.ids(problem) if isinstance(problem, str) else list(problem)


def _room(model: Model, prompt: list[int], needed: int = 1) -> int:
    """Tokens that fit after a prompt; raises StepconfError where those needed do not."""
    from stepconf.errors import StepconfError

    limit = model.engine.info.max_model_len
    if len(prompt) + needed > limit:
        raise StepconfError(
            f"{len(prompt)} tokens of a problem and {needed} after it exceed the model's context of {limit}.",
            "Leave it out, or raise engine.max_model_len.",
        )
    return limit - len(prompt)


def _scored(
    text: str, token_ids: list[int], pieces: list[str], scores: "TokenScores", finish_reason: str
) -> Scored:
    from stepconf.core.segment import segment
    from stepconf.inference.base import step_scores

    steps = step_scores(text, segment(text), token_ids, pieces, scores)
    return Scored(text, token_ids, scores.logprobs, scores.entropies, scores.max_probs, steps, finish_reason)
