"""Signs that a problem defines anew: `a * b = 2a + 3b`, `a $ b`, `(a) x (b) = a^2 + b^2`, a box around a number."""

import re
from collections.abc import Sequence

from stepconf.core.maths.tokens import Token
from stepconf.core.maths.vocabulary import DEFINING

BOX = "\\boxed"
UNKNOWN_BOX = "\\Boxed"  # as long, and no command of the lexer
_STARS = frozenset({"*", "\\ast", "∗"})
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:[A-Za-z]|[0-9]+)\s*\}")  # around an operand, not "your answer"


def own_signs(tokens: Sequence[Token], problem: str, said: frozenset[str]) -> frozenset[str]:
    """How the signs are spelled that `problem` gives a meaning of its own.

    Args:
        tokens: of the problem.
        problem: its text.
        said: its words.
    """
    found: set[str] = set()
    bare = _without_brackets(tokens)
    for at, (before, sign, after) in enumerate(zip(bare, bare[1:], bare[2:], strict=False)):
        spelled = problem[sign.start : sign.end]
        between = before.kind == after.kind == "var" and before.math
        if spelled in _STARS and (between or said & DEFINING):
            found |= _STARS
        elif between and (sign.kind == "currency" or _defines(bare, at)):
            found.add(spelled)
    return frozenset(found | ({BOX} if _BOXED.search(problem) else set()))


def _without_brackets(tokens: Sequence[Token]) -> list[Token]:
    """Without the brackets that stand around one variable."""
    kinds = [token.kind for token in tokens]
    lone = [
        i
        for i, kind in enumerate(kinds)
        if kind == "var" and kinds[i - 1 : i + 2] == ["open", "var", "close"]
    ]
    return [token for i, token in enumerate(tokens) if i - 1 not in lone and i + 1 not in lone]


def _defines(tokens: Sequence[Token], at: int) -> bool:
    """Whether `a x b =`, with something of both `a` and `b` behind it, stands at `at`."""
    sign, equals = tokens[at + 1], tokens[at + 3 : at + 4]
    if not equals or equals[0].name != "=" or not (sign.name == "*" or (sign.name in "xX" and not sign.math)):
        return False
    end = next((i for i in range(at + 4, len(tokens)) if tokens[i].kind in ("break", "comma")), len(tokens))
    return {tokens[at].name, tokens[at + 2].name} <= {token.name for token in tokens[at + 4 : end]}
