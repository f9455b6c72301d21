"""Comparing answers without computer algebra."""

import re
from fractions import Fraction

_LITERAL = re.compile(r"[-+]?\d{1,60}(?:\.\d{0,60})?|[-+]?\.\d{1,60}")


def same_answer_cheap(gold: str, predicted: str, answer_type: str) -> bool | None:
    """True or False only where certain from the characters and exact arithmetic; None otherwise."""
    a, b = _bare(gold), _bare(predicted)
    if answer_type in ("choice", "yesno", "string"):
        return a.casefold().strip("()") == b.casefold().strip("()")
    if a == b:
        return True
    x, y = _number(a), _number(b)
    return x == y if x is not None and y is not None else None


def _bare(text: str) -> str:
    text = text.strip().strip("$").strip().rstrip(".")
    return re.sub(r"(?<=\d)(?:,|\\,|\{,\}|\\!,|,\\!)(?=\d{3}(?!\d))", "", text).lstrip("$").strip()


def _number(text: str) -> Fraction | None:
    return Fraction(text) if _LITERAL.fullmatch(text) else None
