"""From the recipe to a loaded engine and to token ids of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepconf.core.prompts import PLAIN_STOP, chat_messages, plain_prompt
from stepconf.demo_model import resolve_model
from stepconf.engines.base import Engine
from stepconf.engines.guard import Guard
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.recipe import PromptRecipe, Recipe
from stepconf.run.events import warn

if TYPE_CHECKING:
    from stepconf.engines.transformers import TransformersEngine


def open_engine(recipe: Recipe) -> Engine:
    """Load the recipe's model in its engine.

    Raises:
        StepconfError: no model is named, it cannot be loaded, or the engine is not installed or does not fit.
    """
    model, options = _resolved(recipe), recipe.engine
    if options.name == "transformers":
        return open_transformers(recipe)
    from stepconf.engines.vllm import VllmEngine

    return VllmEngine(
        model,
        revision=recipe.model_revision,
        dtype=options.dtype,
        seed=recipe.sampling.seed,
        max_model_len=options.max_model_len,
        tensor_parallel=options.tensor_parallel,
        trust_remote_code=options.trust_remote_code,
        options=options.options,
    )


def open_transformers(recipe: Recipe) -> "TransformersEngine":
    """Load the recipe's model in the reference engine, whichever engine the recipe names; raises as above."""
    model = _resolved(recipe)
    try:
        from stepconf.engines.transformers import TransformersEngine
    except ImportError as error:
        raise StepconfError(
            f"the transformers engine needs torch, which cannot be imported: {error}",
            "Type: make environment in a checkout, or pip install torch",
        ) from error
    return TransformersEngine(
        model,
        revision=recipe.model_revision,
        dtype=recipe.engine.dtype,
        max_model_len=recipe.engine.max_model_len,
        trust_remote_code=recipe.engine.trust_remote_code,
    )


def _resolved(recipe: Recipe) -> str:
    if not recipe.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    return resolve_model(recipe.model)


def shown_model(model: str) -> str:
    """A model's name in a version: a path of this machine means nothing elsewhere."""
    return Path(model).name if Path(model).is_dir() else model


def open_guarded(recipe: Recipe) -> Guard:
    """As `open_engine`, but of a kind that goes on after a crash."""
    return Guard(lambda: open_engine(recipe), lambda sentence: warn("engine crashed", sentence))


class Prompter:
    """Puts problems to a model as exact token ids, the way the recipe says.

    Raises:
        StepconfError: the recipe asks for a chat and the model has no chat template.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: PromptRecipe) -> None:
        if prompt.style == "chat" and not tokenizer.has_chat_template:
            raise StepconfError(
                "prompt.style is chat, and the model has no chat template.", "Type: --set prompt.style=plain"
            )
        self._tokenizer, self._prompt = tokenizer, prompt
        self._chat = prompt.style == "chat" or (prompt.style == "auto" and tokenizer.has_chat_template)
        self._shots = [(shot.problem, shot.solution) for shot in prompt.shots]
        self.stop = tuple(prompt.stop) or (() if self._chat else (PLAIN_STOP,))

    def ids(self, problem: str) -> list[int]:
        """Token ids of everything before the solution."""
        recipe = self._prompt
        if self._chat:
            messages = chat_messages(problem, recipe.instruction, recipe.system, self._shots)
            return self._tokenizer.encode_chat(messages)
        return self._tokenizer.encode_prompt(plain_prompt(problem, recipe.instruction, self._shots))

    def conversation_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of everything before the answer to a conversation, whose last message is the problem.

        Raises:
            StepconfError: there is more than the problem, and the model has no chat template.
        """
        *before, last = messages
        if not self._chat:
            if before:
                raise StepconfError(
                    f"there are {len(messages)} messages, and the model has no chat template for them.",
                    "Send the question as one user message.",
                )
            return self.ids(last["content"])
        own = [message for message in before if message["role"] == "system"]
        turns = [message for message in before if message["role"] != "system"]
        system = "" if own else self._prompt.system
        *head, question = chat_messages(last["content"], self._prompt.instruction, system, self._shots)
        return self._tokenizer.encode_chat([*own, *head, *turns, question])
