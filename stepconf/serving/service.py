"""Answers conversations over one engine, whose thread is shared by the questions of all clients."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from stepconf.engines.base import Completion, Engine
from stepconf.engines.reasoning import Reasoning
from stepconf.errors import StepconfError
from stepconf.evaluation.infer import confidences, equality, prompts_of
from stepconf.inference.base import Ask, Question, Result, Search, Setting, Spent, StepScore, failed
from stepconf.inference.live import Live
from stepconf.inference.strategies import check_engine, search
from stepconf.recipe import Recipe
from stepconf.serving.chat import Asked
from stepconf.stages.models import Prompter
from stepconf.workers.pool import Pool

Completions = tuple[Completion, ...]
Event = Literal["started"] | StepScore | Result | Completions | Exception


class Service:
    """Answers conversations over one engine, any number at a time.

    Raises:
        StepconfError: the recipe asks for a chat and the model has no chat template, or its confidence file is none
            or of another model.
    """

    def __init__(self, engine: Engine, pool: Pool, recipe: Recipe) -> None:
        self.live = Live(engine)
        self.info, self.digest = engine.info, engine.tokenizer.digest
        self._engine, self._pool, self._recipe = engine, pool, recipe
        self._of_step, self._of_answer = confidences(recipe)
        self._reasoning = Reasoning(engine.tokenizer, recipe.reasoning)
        Prompter(engine.tokenizer, recipe.prompt)

    def run(self, ended: Callable[[], None]) -> None:
        """Answer until `live.stop`; `ended` is called at the end."""
        self.live.run()
        with suppress(RuntimeError):  # the server has ended before
            ended()

    def ask(self, key: str, asked: Asked, tell: Callable[[Event], None]) -> None:
        """Answer a request.

        Args:
            key: its own.
            asked: what is asked, and how.
            tell: called in the engine's thread: that the request has "started", of each step once it is
                certain, and last of the result or of what went wrong.
        """
        self.live.submit(key, lambda: self._begin(key, asked, tell), tell)

    def complete(self, key: str, ask: Ask, tell: Callable[[Event], None]) -> None:
        """Draw raw completions, which `tell` is given; otherwise as `ask`."""

        def done(event: Result | Exception) -> None:
            if isinstance(event, Exception):
                tell(event)

        self.live.submit(key, lambda: _drawn(key, ask, tell), done)

    def _begin(self, key: str, asked: Asked, tell: Callable[[Event], None]) -> Search:
        strategy = asked.infer.strategy
        check_engine(strategy, asked.infer, self.info)
        prompters = [
            Prompter(self._engine.tokenizer, how)
            for how in prompts_of(strategy, asked.prompt, asked.answer_type)
        ]
        prompts = tuple(prompter.conversation_ids(asked.messages) for prompter in prompters)
        if (length := min(map(len, prompts))) >= self.info.max_model_len:
            raise StepconfError(
                f"the prompt has {length} tokens, and the model's context is {self.info.max_model_len}.",
                "Shorten the conversation.",
            )
        setting = Setting(
            asked.infer,
            asked.sampling,
            self._recipe.segment.options,
            prompters[0].stop + asked.stop,
            self.info.max_model_len,
            lambda kind: equality(self._pool, kind),
            settled=tell if asked.stream else None,
            confidence=self._of_step,
            answer_confidence=self._of_answer,
            reasoning=self._reasoning,
        )
        tell("started")
        question = Question(key, asked.messages[-1]["content"], prompts, asked.answer_type)
        return search(strategy, question, setting)


def _drawn(key: str, ask: Ask, tell: Callable[[Event], None]) -> Search:
    (found,) = yield [ask]
    tell(tuple(found))
    return failed(Question(key, "", (ask.prefix_ids,)), "", Spent())
