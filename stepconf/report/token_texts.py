"""The text of each token, from the tokenizer that made it. Without it the page shows ids and values."""

from typing import Any

from stepconf.errors import StepconfError


class TokenTexts:
    """Finds where tokens start in a text.

    Args:
        model: the run's model, as its recipe names it.
        revision: its Hub revision.
        digest: what the run says of the tokenizer; another one would show wrong texts.

    `why_not` says why texts are not known; None where they are.
    """

    def __init__(self, model: str, revision: str | None, digest: str) -> None:
        self._tokenizer: Any = None
        self.why_not: str | None = None
        try:
            self._tokenizer = _opened(model, revision, digest)
        except StepconfError as error:
            self.why_not = error.problem
        except ImportError as error:  # the demo model is converted with torch
            self.why_not = f"the tokenizer cannot be loaded: {error}"

    def starts(self, text: str, token_ids: list[int]) -> list[int] | None:
        """The character at which each token starts; None where the tokens do not make up the text."""
        from stepconf.engines.tokenizer import starts_of

        if self._tokenizer is None or not token_ids:
            return None
        pieces = self._tokenizer.pieces(token_ids)
        if "".join(pieces) == text:
            return starts_of(pieces)
        # A given solution was encoded, and decoding may add or drop a space.
        ids, starts = self._tokenizer.encode_with_starts(text)
        return list(starts) if ids == token_ids else None


def _opened(model: str, revision: str | None, digest: str) -> Any:
    if not model:
        raise StepconfError("no model is named in the run.")
    from stepconf.demo_model import check_model_of_run, resolve_model
    from stepconf.engines.tokenizer import Tokenizer

    check_model_of_run(model)
    tokenizer = Tokenizer(resolve_model(model), revision, digest)
    if digest and tokenizer.digest != digest:
        raise StepconfError(f"the tokenizer of {model} is not the one that the run was made with.")
    return tokenizer


def token_notes(texts: TokenTexts) -> list[str]:
    """That the page has token ids in the place of their texts, where it has."""
    if texts.why_not is None:
        return []
    return [f"Tokens are shown as ids with their values, beside the text: {texts.why_not}"]
