"""The texts of process reward models: rendered, freed of special tokens, and encoded with the places to read."""

from bisect import bisect_right
from typing import Any, cast

from stepconf.errors import StepconfError

NO_CODE_HINT = "A reward model's own code never runs: give one whose body transformers or vLLM knows."


class RewardText:
    """The tokenizer of a process reward model.

    Args:
        model: local folder or Hub id.
        revision: Hub revision.

    Raises:
        OSError, ValueError: there is no such tokenizer.
    """

    def __init__(self, model: str, revision: str | None) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        special = {*self.tokenizer.get_added_vocab(), *self.tokenizer.all_special_tokens}
        self._special = sorted(special, key=len, reverse=True)

    def template(self, messages: list[dict[str, str]], answer_next: bool) -> str:
        """A conversation as text, by the model's chat template."""
        if not self.tokenizer.chat_template:
            raise StepconfError(
                "the reward model has no chat template, which its form needs.",
                "Choose another form: --set verify.prm.form=math-shepherd",
            )
        return cast(
            str,
            self.tokenizer.apply_chat_template(messages, add_generation_prompt=answer_next, tokenize=False),
        )

    def clean(self, text: str) -> str:
        """The text without special tokens (which hostile text may spell) and lone surrogates."""
        text = text.encode("utf-8", "replace").decode()
        while any(token in text for token in self._special):  # again: taking one out may make another
            for token in self._special:
                text = text.replace(token, "")
        return text

    def encoded(self, text: str, marks: list[int]) -> tuple[list[int], list[int]]:
        """Token ids, and the position to read for each mark."""
        # A rendered template holds its special tokens already; plain text gets those the model expects.
        plain = not (self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        out = self.tokenizer(text, add_special_tokens=plain, return_offsets_mapping=True, verbose=False)
        # Special tokens that were added have no place in the text.
        real = [(start, i) for i, (start, end) in enumerate(out["offset_mapping"]) if end > start]
        starts = [start for start, _ in real]
        return out["input_ids"], [real[bisect_right(starts, mark - 1) - 1][1] for mark in marks]
