"""What a critic's reply says, and what all forms of replies have in common. Pure."""

import re
from dataclasses import dataclass

from stepconf.core.reasoning import after_thinking, divide

MAX_REASON = 500  # characters kept

# Where harmony's message ends; other models never write these.
_MESSAGE_ENDS = re.compile(r"<\|(?:return|end)\|>\s*$")


class BadReplyError(ValueError):
    """A reply that does not have the form that was asked for; the message says how."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one reply says of a solution.

    Args:
        first_error: index of the first wrong step; None where all steps are right.
        reasons: per step why, up to the first wrong step; steps without a reason have "".
    """

    first_error: int | None
    reasons: tuple[str, ...]


def opinion_of(first_error: int | None, n_steps: int, reason: str = "") -> Opinion:
    """An opinion that gives a reason for the wrong step alone."""
    if first_error is None:
        return Opinion(None, ("",) * n_steps)
    return Opinion(first_error, (*("",) * first_error, reason))


def without_thinking(reply: str) -> str:
    """The reply after the model's own thinking, stripped.

    Raises:
        BadReplyError: the reply ends inside the thinking.
    """
    parts = divide(reply)
    if parts and not parts.closed:
        raise BadReplyError("reply ends inside its thinking")
    return _MESSAGE_ENDS.sub("", after_thinking(reply, parts)).strip()


def shortened(prose: str) -> str:
    """The end of a text, where a critic says what it concludes, as a reason."""
    return valid(prose).strip()[-MAX_REASON:].strip()


def valid(text: str) -> str:
    """The text without lone surrogates, which can neither be sent nor stored."""
    return text.encode("utf-8", "replace").decode()
