"""Form `step`: a question about one step; the last line of the reply says `correct` or `incorrect`. Pure."""

import re

from stepconf.verifiers.critic.replies import (
    BadReplyError,
    Opinion,
    opinion_of,
    shortened,
    without_thinking,
)

LEAD = "Verdict:"  # how the last line begins, as the prompt asks for it
WORDS = ("correct", "incorrect")

REMINDER = "Write the last line now, and nothing else: Verdict: correct, or Verdict: incorrect"

_MARKUP = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{|[*_`\"'$#>{}.!]")
_VERDICT = re.compile(
    r"(?:[^:\uff1a]{0,40}[:\uff1a]\s*)?(?:(?:the|this)\s+(?:last\s+)?step(?:\s+\d+)?\s+is\s+)?(in)?correct",
    re.IGNORECASE,
)


def parse(reply: str, n_steps: int) -> Opinion:
    """Read a reply about the last of `n_steps` steps.

    Raises:
        BadReplyError: its last line is not a verdict.
    """
    text = without_thinking(reply)
    if not text:
        raise BadReplyError("empty reply")
    prose, _, line = text.rpartition("\n")
    found = _VERDICT.fullmatch(_MARKUP.sub("", line).strip())
    if found is None:
        raise BadReplyError(f"the last line is {line.strip()[:40]!r}, not a verdict")
    reason = shortened(prose)
    if found[1]:
        return opinion_of(n_steps - 1, n_steps, reason)
    return Opinion(None, (*("",) * (n_steps - 1), reason))
