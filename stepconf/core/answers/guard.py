"""Answers that a computer algebra system must not be given: they would only cost a worker its life."""

import re

from stepconf.core.answers.compare import choose_sign
from stepconf.core.answers.evaluate import TooLargeError
from stepconf.core.answers.expression import Node, read
from stepconf.core.answers.notation import UnreadableError
from stepconf.core.answers.scalars import Scalar

MAX_ALGEBRA_CHARS = 2000  # what is longer is no answer
MAX_ALGEBRA_DEPTH = 30  # parsing time grows fast with it
_BRACKET = re.compile(r"[(){}\[\]]")


def unfit_for_algebra(answer: str) -> str:
    """Why a computer algebra system must not be given this answer; "" where it may. Linear in the text."""
    if len(answer) > MAX_ALGEBRA_CHARS:
        return f"answer of {len(answer)} characters"
    depth = deepest = 0
    for bracket in _BRACKET.findall(answer):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_ALGEBRA_DEPTH:
        return f"answer nested {deepest} deep"
    try:
        return "power or factorial too large" if any(map(_holds_tower, read(answer))) else ""
    except (UnreadableError, RecursionError):
        return ""


def _holds_tower(node: Node) -> bool:
    if node[0] in ("seq", "rel", "union", "matrix", "ratio", "unit"):
        parts = [part for row in node[1] for part in row] if node[0] == "matrix" else node[-1]
        return any(map(_holds_tower, [node[1]] if node[0] == "unit" else parts))
    if node[0] in ("text", "time"):
        return False
    try:
        Scalar(choose_sign(node, True), 0)
    except TooLargeError:
        return True
    except (UnreadableError, ArithmeticError):
        return False
    return False
