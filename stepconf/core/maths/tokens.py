"""What the lexer makes of a text: tokens with their places in it."""

import unicodedata
from dataclasses import dataclass
from fractions import Fraction

# Kinds: num var word op rel open close brace endbrace func frac binom sqrt const pct deg fact bar such comma
#        colon dots sub arrow break (a sentence, clause or row ends) annot (<<2*3=6>>) currency pmod choose
#        vulgar begin end amp other


@dataclass(frozen=True, slots=True)
class Token:
    """`text[start:end]` read as `kind`; `name` is its canonical spelling, `value` and `decimals` a number's.

    `math` says that it stands between TeX delimiters; `spaced` that white space or a delimiter stands
    before it. A subscript is part of a variable's name.
    """

    kind: str
    name: str
    start: int
    end: int
    math: bool
    spaced: bool
    value: Fraction = Fraction(0)
    decimals: int = 0


def is_glued(before: Token, token: Token) -> bool:
    """Whether `token` belongs to the name `before` it: `profit(10)`, `x1`; scripts without spaces part nothing."""
    named = before.kind == "var" or (before.kind == "word" and unicodedata.category(before.name[-1]) != "Lo")
    return named and not token.spaced and before.end == token.start
