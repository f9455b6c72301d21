"""`stepconf serve`: the strategies behind an OpenAI-compatible endpoint, all requests over one engine.

The engine runs in a thread of its own, where questions of all clients share one stream (inference/live.py).
app.py speaks HTTP, chat.py has the wire format.
"""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Literal, NoReturn

from stepconf.core.segment import SegmentOptions
from stepconf.engines.base import Engine
from stepconf.errors import StepconfError
from stepconf.evaluation.infer import equality, open_pool, prompts_of, with_tau
from stepconf.inference.base import Question, Result, Search, Setting, StepScore
from stepconf.inference.live import Live
from stepconf.inference.strategies import search
from stepconf.recipe import Recipe
from stepconf.serving.access import access_of, read_key
from stepconf.serving.chat import Asked
from stepconf.stages.models import Prompter, open_engine
from stepconf.workers.pool import Pool

if TYPE_CHECKING:
    from stepconf.serving.app import App

Event = Literal["started"] | StepScore | Result | Exception
_ENGINE_ENDS_S = 10.0


def serve(recipe: Recipe, ready: Callable[[str, str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; those under way may finish within `serve.grace_s`.

    Args:
        recipe: its model, prompt and sampling, `infer` for what a request leaves open, and `serve`.
        ready: told of the address and the model's name once clients can come.

    Raises:
        StepconfError: the address cannot be had, or not without a key; the model cannot be loaded, or its engine
            failed.
    """
    try:
        from stepconf.serving.app import App, bind
    except ImportError as error:
        raise StepconfError(
            f"the server needs fastapi and uvicorn: {error}", "Type: pip install 'stepconf[serve]'"
        ) from error
    recipe, key = with_tau(recipe), read_key(recipe.serve.api_key_env)
    # Until the server listens to signals itself, one must still end the engine's processes.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with closing(bind(recipe.serve.host, recipe.serve.port)) as address:
            access = access_of(recipe.serve, address.getsockname()[0], key)
            with closing(open_engine(recipe)) as engine, open_pool(recipe) as pool:
                service = Service(engine, pool, recipe)
                app = App(service, recipe, served_name(recipe.model), access)
                _run(service, app, address, ready)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(service: "Service", app: "App", address: socket, ready: Callable[[str, str], None]) -> None:
    thread = threading.Thread(target=service.run, args=(app.end,), daemon=True, name="engine")
    thread.start()
    try:
        app.run(address, ready)
    finally:
        service.live.stop()
        thread.join(_ENGINE_ENDS_S)
    # An interrupt from the keyboard reaches the engine's processes too: that is no fault.
    if service.live.fault is not None and not app.signalled:
        raise service.live.fault


class Service:
    """Answers conversations over one engine, any number at a time.

    Raises:
        StepconfError: the recipe asks for a chat and the model has no chat template.
    """

    def __init__(self, engine: Engine, pool: Pool, recipe: Recipe) -> None:
        self.live = Live(engine)
        self.context = engine.info.max_model_len
        self._engine, self._pool, self._recipe = engine, pool, recipe
        Prompter(engine.tokenizer, recipe.prompt)

    def run(self, ended: Callable[[], None]) -> None:
        """Answer until `live.stop`; `ended` is told of the end."""
        self.live.run()
        with suppress(RuntimeError):  # the server has ended before
            ended()

    def ask(self, key: str, asked: Asked, tell: Callable[[Event], None]) -> None:
        """Answer a request.

        Args:
            key: its own.
            asked: what is asked, and how.
            tell: told, in the engine's thread, that the request has "started", of each step once it is
                certain, and last of the result or of what went wrong.
        """
        self.live.submit(key, lambda: self._begin(key, asked, tell), tell)

    def _begin(self, key: str, asked: Asked, tell: Callable[[Event], None]) -> Search:
        strategy, options = asked.infer.strategy, self._recipe.segment
        prompters = [
            Prompter(self._engine.tokenizer, how)
            for how in prompts_of(strategy, asked.prompt, asked.answer_type)
        ]
        prompts = tuple(prompter.conversation_ids(asked.messages) for prompter in prompters)
        if (length := min(map(len, prompts))) >= self.context:
            raise StepconfError(
                f"the prompt has {length} tokens, and the model's context is {self.context}.",
                "Shorten the conversation.",
            )
        setting = Setting(
            asked.infer,
            asked.sampling,
            SegmentOptions(options.mode, options.min_chars, options.max_chars),
            prompters[0].stop + asked.stop,
            self.context,
            lambda kind: equality(self._pool, kind),
            settled=tell if asked.stream else None,
        )
        tell("started")
        question = Question(key, asked.messages[-1]["content"], prompts, asked.answer_type)
        return search(strategy, question, setting)


def served_name(model: str) -> str:
    """What clients call the model: its name, and of a local folder the last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
