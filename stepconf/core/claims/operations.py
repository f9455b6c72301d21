"""Signs that a problem redefines: `a * b = 2a + 3b`, `a $ b`, `(a) x (b) = a^2 + b^2`, a box around a number."""

import re
from collections.abc import Sequence

from stepconf.core.maths.tokens import Token

BOX = "\\boxed"
UNKNOWN_BOX = "\\Boxed"  # as long, and no command of the lexer
_SIGNS = frozenset({"*", "\\ast", "∗", "x", "$", "\\$"})
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:[A-Za-z]|[0-9]+)\s*\}")  # around an operand, not "your answer"


def own_signs(tokens: Sequence[Token], problem: str) -> frozenset[str]:
    """How the signs are spelled that stand between two letters in `problem`, whose `tokens` these are."""
    bare = [token for token in tokens if token.kind not in ("open", "close")]
    found = {
        problem[sign.start : sign.end]
        for before, sign, after in zip(bare, bare[1:], bare[2:], strict=False)
        if before.kind == after.kind == "var" and before.math and not (sign.kind == "var" and sign.math)
    }
    return frozenset(found & _SIGNS | ({BOX} if _BOXED.search(problem) else set()))
