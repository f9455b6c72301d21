r"""Form `index`: prose, then the index of the first wrong step, or -1, in a \boxed{}. Pure.

This is the protocol of ProcessBench (arXiv 2412.06559).
"""

import re

from stepconf.verifiers.critic.replies import (
    BadReplyError,
    Opinion,
    opinion_of,
    shortened,
    without_thinking,
)

REMINDER = (
    "Write the last line now, and nothing else. If no step is wrong, it is:\nFirst wrong step: \\boxed{{-1}}\n"
    "Otherwise put the number of the first wrong step, from 0 to {last}, in the box instead of -1."
)

_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_NUMBER = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*([-\u2212\u2013]?)\s*(\d{1,9})\s*\}?")
# The last line as the prompt asks for it, from models that leave the box out.
_LAST_LINE = re.compile(
    r"first wrong step\W{0,8}?(?:N\s*=\s*)?(none|[-\u2212\u2013]?\d{1,9})\W*$", re.IGNORECASE
)
_DECORATION = " \t\n$*`\u00a0"


def parse(reply: str, n_steps: int) -> Opinion:
    """Read a reply: its last box counts; without one, a last line `First wrong step: N` or `None`.

    Earlier boxes that hold no index of a step are quotes from the solution. One that does hold an index must hold
    that of the last box.

    Raises:
        BadReplyError: there is no box, it holds no index of a step, or two boxes differ.
    """
    text = without_thinking(reply)
    if not text:
        raise BadReplyError("empty reply")
    boxes = list(_BOX.finditer(text))
    found = boxes[-1] if boxes else _LAST_LINE.search(text)
    if found is None:
        raise BadReplyError("reply has no box")
    says_none = not boxes and found[1].casefold() == "none"
    value = -1 if says_none else _index(found[1])
    if value is None:
        held = found[1].strip()
        raise BadReplyError(f"the box holds {held[:40]!r}, not an index" if held else "the box is empty")
    if not -1 <= value < n_steps:
        raise BadReplyError(f"the box holds {value}, and the steps are 0 to {n_steps - 1}")
    for other in (_index(box[1]) for box in boxes[:-1]):
        if other is not None and other != value and -1 <= other < n_steps:
            raise BadReplyError(f"two boxes differ: {other} and {value}")
    return opinion_of(None if value == -1 else value, n_steps, shortened(text[: found.start()]))


def _index(content: str) -> int | None:
    found = _NUMBER.fullmatch(content.strip(_DECORATION))
    return None if found is None else int(found[2]) * (-1 if found[1] else 1)
