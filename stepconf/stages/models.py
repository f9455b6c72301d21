"""From the recipe to a loaded engine and to token ids of prompts."""

from collections.abc import Sequence

from stepconf.core.prompts import PLAIN_STOP, chat_messages, plain_prompt
from stepconf.demo_model import resolve_model
from stepconf.engines.base import Engine, EngineClass
from stepconf.engines.guard import Guard
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.kinds import ENGINES
from stepconf.recipe import PromptRecipe, Recipe
from stepconf.run.events import warn


def open_engine(recipe: Recipe) -> Engine:
    """Load the recipe's model in its engine.

    Raises:
        StepconfError: no model is named, it cannot be loaded, or the engine is not installed or does not fit.
    """
    if not recipe.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    kind: EngineClass = ENGINES.load(recipe.engine.name)
    return kind.open(resolve_model(recipe.model), recipe)


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
            return self._tokenizer.encode_chat(messages, recipe.chat_template_kwargs)
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
        template_kwargs = self._prompt.chat_template_kwargs
        return self._tokenizer.encode_chat([*own, *head, *turns, question], template_kwargs)
