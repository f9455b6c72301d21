"""What a critic is asked, and how its reply is read. Pure: texts in, texts and verdicts out.

The solution is hostile text. Its markers carry a key hashed from problem and solution, which the solution
cannot contain, so it cannot close its own part or open another; control tokens of chat templates are broken
up by a space. What this does not stop: a solution that *persuades* the model. A critic's word is an opinion;
`stepconf audit` measures it, `symbolic` and `final` do not read prose.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Literal

from stepconf.core.ids import content_id
from stepconf.errors import StepconfError

MAX_REASON = 500  # characters kept
MAX_REFERENCE = 8000  # a longer one is not a step
FIELDS = ("key", "problem", "steps", "n_steps", "last_step")
# <|im_end|> (or with full-width bars), </s>, <start_of_turn>, [INST]: a space behind the bracket unmakes it.
_CONTROL = re.compile(r"<(?=[|\uff5c/!]?[A-Za-z_|\uff5c])|\[(?=/?[A-Z_]{3,}\])")
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a critic says of one step."""

    label: Literal["correct", "incorrect"]
    reason: str
    reference: str | None


class BadReplyError(ValueError):
    """A reply that is not of the asked form; the message says how."""


def check_prompt(prompt: str) -> None:
    """Raise StepconfError where a prompt file lacks a field, or has one that nobody fills."""
    template = Template(prompt)
    found = set(template.get_identifiers()) if template.is_valid() else set()
    if not {"key", "problem", "steps", "n_steps"} <= found <= set(FIELDS):
        raise StepconfError(
            f"the critic's prompt has the fields {sorted(found)}.",
            "It needs $key, $problem, $steps and $n_steps, may have $last_step, and writes a dollar as $$.",
        )


def render(prompt: str, problem: str, steps: Sequence[str]) -> str:
    """The prompt with problem and steps filled in, each between marker lines that carry the key."""
    key = content_id(problem, *steps)[:12]
    parts = [
        f"===== step {i} {key} =====\n{defused(text)}\n===== end {key} =====" for i, text in enumerate(steps)
    ]
    return Template(prompt).substitute(
        key=key,
        problem=defused(problem),
        steps="\n".join(parts),
        n_steps=len(steps),
        last_step=len(steps) - 1,
    )


def defused(text: str) -> str:
    """The text without anything that a tokenizer would read as a control token, and valid Unicode."""
    return _CONTROL.sub(lambda found: found[0] + " ", _valid(text)).strip()


def reply_schema(n_steps: int) -> dict[str, Any]:
    """The reply as JSON Schema, for endpoints that can be held to one."""
    properties = {
        "step": {"type": "integer"},
        "verdict": {"type": "string", "enum": ["correct", "incorrect"]},
        "reason": {"type": "string"},
        "reference": {"type": ["string", "null"]},
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


def parse_reply(reply: str, n_steps: int) -> list[Judgement]:
    """Read a reply: one JSON object, maybe after a part that ends in `</think>`, maybe in a fence, no more.

    Raises:
        BadReplyError: it is anything else: other keys, another number or order of steps, text around it.
    """
    text = reply.strip()
    if not text.startswith(("{", "`")):
        text = text.rpartition("</think>")[2].strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise BadReplyError("reply is nested too deep") from error
    except BadReplyError:
        raise
    except ValueError as error:
        raise BadReplyError("reply is not JSON" if text else "empty reply") from error
    if not isinstance(data, dict) or set(data) != {"steps"} or not isinstance(data["steps"], list):
        raise BadReplyError("reply is not an object with a list `steps`")
    if len(data["steps"]) != n_steps:
        raise BadReplyError(f"reply has {len(data['steps'])} steps, not {n_steps}")
    return [_judgement(entry, index) for index, entry in enumerate(data["steps"])]


def _judgement(entry: Any, index: int) -> Judgement:
    if not isinstance(entry, dict) or not {"step", "verdict"} <= set(entry) <= {
        "step",
        "verdict",
        "reason",
        "reference",
    }:
        raise BadReplyError(f"entry {index} has other fields than step, verdict, reason, reference")
    if type(entry["step"]) is not int or entry["step"] != index:
        raise BadReplyError(f"entry {index} is numbered {str(entry['step'])[:20]}")
    label, reason, reference = entry["verdict"], entry.get("reason") or "", entry.get("reference")
    if label not in ("correct", "incorrect"):
        raise BadReplyError(f"entry {index} has the verdict {str(label)[:20]!r}")
    if not isinstance(reason, str) or not (reference is None or isinstance(reference, str)):
        raise BadReplyError(f"entry {index} has a reason or a reference that is no text")
    return Judgement(
        label, _valid(reason)[:MAX_REASON], _reference(reference) if label == "incorrect" else None
    )


def _reference(text: str | None) -> str | None:
    return _valid(text) if text and text.strip() and len(text) <= MAX_REFERENCE else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise BadReplyError("reply has a key twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise BadReplyError(f"reply holds {constant}")


def _valid(text: str) -> str:
    """Lone surrogates cannot be sent or stored."""
    return text.encode("utf-8", "replace").decode()
