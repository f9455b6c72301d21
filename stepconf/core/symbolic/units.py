"""Units and remarks that stand between numbers and signs: what an expression is read over."""

from collections.abc import Sequence

from stepconf.core.symbolic.tokens import Token
from stepconf.core.symbolic.vocabulary import NOT_UNITS

MAX_WORDS = 6
_MAX_REMARK = 40  # tokens


def after_units(tokens: Sequence[Token], at: int, end: int, in_brackets: bool) -> int:
    """The index after "apples", "cm^2", "/hour", "per day", "(total riders)" that begin at `at`."""
    for _ in range(MAX_WORDS):
        after = _after_one(tokens, at, end, in_brackets)
        if after == at:
            return at
        at = after
    return at


def _after_one(tokens: Sequence[Token], at: int, end: int, in_brackets: bool) -> int:
    if at >= end:
        return at
    token = tokens[at]
    if is_unit(token):
        squared = at + 2 < end and tokens[at + 1].name == "^" and tokens[at + 2].kind == "num"
        return at + 3 if squared else at + 1
    if token.kind == "op" and at + 1 < end and is_unit(tokens[at + 1]):
        hyphen = token.name == "-" and not token.spaced and not tokens[at + 1].spaced
        hyphen = hyphen and tokens[at + 1].name.islower() and not in_brackets
        return at + 2 if token.name == "/" or hyphen else at
    if token.kind == "open" and token.name == "(" and token.spaced:
        return _after_remark(tokens, at, end)
    return at


def is_unit(token: Token) -> bool:
    """Whether `token` can be (part of) a unit after a number."""
    if token.kind not in ("word", "text"):
        return False
    if token.kind == "word" and token.name[0].isupper() and token.name[1:].islower():
        return False  # a capital begins a sentence or a name: "A = 5 Total = 7"
    return all(word.lower() not in NOT_UNITS for word in token.name.split()) and token.name != "of"


def _after_remark(tokens: Sequence[Token], at: int, end: int) -> int:
    """The index after a remark in brackets that begins at `at`; `at` if it may be part of the expression."""
    depth = words = 0
    for index in range(at, min(end, at + _MAX_REMARK)):
        token = tokens[index]
        if token.kind == "open":
            depth += 1
        elif token.kind == "close":
            depth -= 1
            if depth == 0:
                return index + 1 if words else at
        elif token.kind in ("op", "rel", "break", "frac", "pct") and token.name not in ("-", "/"):
            return at
        words += token.kind in ("word", "text")
    return at
