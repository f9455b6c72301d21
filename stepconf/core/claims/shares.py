"""A share that stands for an amount (`40% = 80`), and a number that ends what words began ("30 out of 120")."""

from collections.abc import Sequence
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Binary, Node, has_percent, is_literal, walk
from stepconf.core.maths.units import CONVERTIBLE
from stepconf.core.maths.values import UndecidableError, evaluate

_PREPOSITIONS = frozenset("by from in off per than to".split())
_MULTIPLES = frozenset("double half thrice triple twice".split())
_PARTS = frozenset("out half third thirds quarter quarters fourth fourths fifth fifths tenth tenths".split())
_APART = ("arrow", "break", "comma", "open", "rel")
_REACH = 4  # tokens before a preposition among which its first number stands


def is_amount(tokens: Sequence[Token], relation: Relation) -> bool:
    """Whether one side is a share, alone, and the other may be what it amounts to: `40% = 80`, `2/3 = 40 pages`.

    A bare number up to 1 is the share itself: `20% = 0.02` is an error.
    """
    left, right = relation.left, relation.right
    if relation.name not in ("=", "~"):
        return False
    if _is_share(left.node) and not _is_ratio(tokens, right):
        return True
    return _is_share(right.node) and is_literal(left.node) and not _is_ratio(tokens, left)


def _is_share(node: Node) -> bool:
    """Whether a side is one percentage or one proper fraction as written."""
    return is_literal(node) and (has_percent(node) or (isinstance(node, Binary) and node.op == "/"))


def _is_ratio(tokens: Sequence[Token], side: Side) -> bool:
    """Whether a side can only be a ratio: a percentage, or a number up to 1 in no unit and not taken of another."""
    if has_percent(side.node):
        return True
    inside, after = tokens[side.start : side.end], tokens[side.end : side.end + 1]
    if any(token.kind == "word" for token in inside) or any(t.name.lower() in CONVERTIBLE for t in after):
        return False
    if any(token.kind == "currency" for token in (*inside, *after)):
        return False
    if any(isinstance(n, Binary) and n.op in ("*", "implicit", "of") for n in walk(side.node)):
        return False
    try:
        value = evaluate(side.node, {})
    except UndecidableError:
        return False
    return isinstance(value, Fraction) and abs(value) <= 1


def ends_a_phrase(tokens: Sequence[Token], start: int) -> bool:
    """Whether the number at `start` is an operand of words before it: "60 decreased by 25%", "twice 4 + 2"."""
    before = [token.name.lower() for token in tokens[max(0, start - 2) : start]]
    if not before or tokens[start - 1].kind != "word":
        return False
    if before[-1] in _MULTIPLES or (before[-1] == "of" and before[0] in _PARTS):
        return True
    return before[-1] in _PREPOSITIONS and _has_number(tokens, start - 1)


def _has_number(tokens: Sequence[Token], end: int) -> bool:
    """Whether a number stands shortly before `tokens[end]`, in the same clause."""
    for token in reversed(tokens[max(0, end - _REACH) : end]):
        if token.kind in _APART:
            return False
        if token.kind in ("num", "vulgar"):
            return True
    return False
