"""How a model's thinking is divided from its answer: by its chat template and its prompts, or as the recipe says."""

from collections.abc import Sequence
from dataclasses import fields
from math import nan

from stepconf.core.reasoning import Thinking, closing_mark, family_in, opened_by
from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion
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

    def closing(self, family: str) -> Completion:
        """What ends a thinking from outside: tokens that the model did not draw."""
        ids = self._tokenizer.encode(closing_mark(family))
        not_drawn = TokenScores(*[[nan] * len(ids) for _ in fields(TokenScores)])
        return Completion(ids, self._tokenizer.pieces(ids), not_drawn, "length")
