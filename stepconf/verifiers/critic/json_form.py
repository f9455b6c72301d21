"""Form `json`: one JSON object with a verdict on every step. Pure."""

import json
import re
from typing import Any

from stepconf.verifiers.critic.replies import (
    MAX_REASON,
    BadReplyError,
    Opinion,
    valid,
    without_thinking,
)

REMINDER = (
    "Reply again with the JSON object alone, its steps numbered from 0 to {last}. Keep each reason short."
)

_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)
# An escape of JSON, or a lone backslash. \b and \f count as lone: nobody writes a backspace, but \frac and \beta.
_BACKSLASH = re.compile(r'\\(?:["\\/nrt]|u[0-9a-fA-F]{4})|\\')
_FIELDS = {"step", "verdict", "reason"}


def schema(n_steps: int) -> dict[str, Any]:
    """The reply to `n_steps` steps as JSON Schema."""
    properties = {
        "step": {"type": "integer"},
        "reason": {"type": "string"},
        "verdict": {"type": "string", "enum": ["correct", "incorrect"]},
    }
    entry = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    steps = {"type": "array", "items": entry, "minItems": n_steps, "maxItems": n_steps}
    return {
        "type": "object",
        "properties": {"steps": steps},
        "required": ["steps"],
        "additionalProperties": False,
    }


def parse(reply: str, n_steps: int) -> Opinion:
    """Read a reply: one JSON object, in a fence or between other text.

    Backslashes that JSON does not know, such as those of LaTeX, stand for themselves. What is said of steps after
    the first wrong one is not used.

    Raises:
        BadReplyError: there is no such object, or it has other keys, or another number or order of steps.
    """
    text = without_thinking(reply)
    if not text:
        raise BadReplyError("empty reply")
    data = _loaded(_object(text))
    if not isinstance(data, dict) or set(data) != {"steps"} or not isinstance(data["steps"], list):
        raise BadReplyError("reply is not an object with a list `steps`")
    if len(data["steps"]) != n_steps:
        raise BadReplyError(f"reply has {len(data['steps'])} steps, not {n_steps}")
    judged = [_judged(entry, index) for index, entry in enumerate(data["steps"])]
    wrong = next((index for index, (is_right, _) in enumerate(judged) if not is_right), None)
    return Opinion(wrong, tuple(reason for _, reason in judged[: None if wrong is None else wrong + 1]))


def _object(text: str) -> str:
    """The part of the text that can be the object: a single fenced block, or from its first to its last brace."""
    fenced = _FENCE.findall(text)
    if len(fenced) == 1:
        return str(fenced[0])
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end and not text.startswith("[") else text


def _loaded(text: str) -> Any:
    mended = _BACKSLASH.sub(lambda found: found[0] if len(found[0]) > 1 else r"\\", text)
    try:
        return json.loads(mended, object_pairs_hook=_unique, parse_constant=_refuse, strict=False)
    except RecursionError as error:
        raise BadReplyError("reply is nested too deep") from error
    except BadReplyError:
        raise
    except ValueError as error:
        raise BadReplyError("reply is not JSON") from error


def _judged(entry: Any, index: int) -> tuple[bool, str]:
    """Whether the step is right, and why."""
    if not isinstance(entry, dict) or not {"step", "verdict"} <= set(entry) <= _FIELDS:
        raise BadReplyError(f"entry {index} has other fields than step, reason, verdict")
    if type(entry["step"]) is not int or entry["step"] != index:
        raise BadReplyError(f"entry {index} is numbered {str(entry['step'])[:20]}")
    label, reason = entry["verdict"], entry.get("reason") or ""
    if label not in ("correct", "incorrect"):
        raise BadReplyError(f"entry {index} has the verdict {str(label)[:20]!r}")
    if not isinstance(reason, str):
        raise BadReplyError(f"entry {index} has a reason that is no text")
    return label == "correct", valid(reason)[:MAX_REASON]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise BadReplyError("reply has a key twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise BadReplyError(f"reply holds {constant}")
