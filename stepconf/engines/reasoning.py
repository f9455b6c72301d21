"""How the thinking of a model is told from its answer: by its chat template and its prompts, or as the recipe says."""

from collections.abc import Sequence

from stepconf.core.reasoning import Thinking, closing_mark, family_in, opened_by
from stepconf.engines.tokenizer import Tokenizer

_PROMPT_END = 32  # tokens; no opening mark has more


class Reasoning:
    """The marks of a model's thinking.

    Args:
        tokenizer: of the model.
        named: the recipe's `reasoning`: one of `core.reasoning.NAMES`; auto goes by the chat template.
    """

    def __init__(self, tokenizer: Tokenizer, named: str) -> None:
        self._tokenizer = tokenizer
        self.family = family_in(tokenizer.chat_template) if named == "auto" else named

    def thinking(self, prompt_ids: Sequence[int]) -> Thinking:
        """How a completion of a prompt is divided: the prompt may have opened the thinking."""
        opened = opened_by(self._tokenizer.decode(prompt_ids[-_PROMPT_END:]), self.family)
        return Thinking(opened or self.family, bool(opened))

    def closing(self, family: str) -> tuple[list[int], str]:
        """The tokens that end a thinking, and their text."""
        text = closing_mark(family)
        return self._tokenizer.encode(text), text
