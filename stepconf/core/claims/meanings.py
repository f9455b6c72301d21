"""What a relation that fails as arithmetic may mean instead."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.maths.numbers import in_base
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Binary, Node, Num, Unary, substitute, walk
from stepconf.core.maths.values import UndecidableError, evaluate

_OTHER_ARITHMETIC = re.compile(
    r"""\bbase[- ]?(?:[0-9]+\b|\$[0-9b]+\$|\$\\boxed\{[0-9]+\}|b\b)
    | \bbase[- ](?:two|three|four|five|six|seven|eight|nine|twelve|sixteen)\b
    | \bmod(?:ulo|ulus)?\b | \\[pb]?mod\b | \bcongruen | \bXOR\b | \bboolean\b | \bbinary\b | \boctal\b
    | \bhexadecimal\b | \bclock | \bparit(?:y|ies)\b | \bo'clock\b | \bZ_ | \\mathbb\{Z\}_
    | \b(?:last|units?|ones|tens)\ (?:two\ |three\ )?digits?\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_RANGE = re.compile(r"[0-9]+[-–][0-9]+(?![0-9.])\s*=")
_HYPHENATED = re.compile(r"[0-9]+(?:[-–][0-9]+){2,}(?![0-9])")
_MODULUS = re.compile(r"(?:\bmod(?:ulo)?|\\[pb]?mod\s*\{?|\bdivided by)\s*\$?\s*([0-9]{1,4})")
_BASE = re.compile(r"(?:\bbase[- ]?\$?|[0-9]_\{?)\s*([0-9]{1,2})\b")
_DIGITS = re.compile(r"\b(?:last|units?|ones|tens) digits?")


def other_arithmetic(text: str) -> bool:
    """Whether a text speaks of residues, digits, other bases or clocks: there 5 + 4 may be 2."""
    return _OTHER_ARITHMETIC.search(text) is not None


@dataclass(frozen=True, slots=True)
class Numerals:
    """The numbers of a problem, and what they may stand for: residues of `moduli`, numerals in `bases`."""

    numbers: frozenset[Fraction]
    moduli: tuple[int, ...]
    bases: tuple[int, ...]


def numerals(problem: str, tokens: Sequence[Token]) -> Numerals:
    """The numbers of a problem; the divisors that it names, ten where it asks for last digits; its bases."""
    moduli = {int(number) for number in _MODULUS.findall(problem)} | (
        {10} if _DIGITS.search(problem) else set()
    )
    bases = {int(number) for number in _BASE.findall(problem)}
    numbers = frozenset(token.value for token in tokens if token.kind == "num")
    return Numerals(numbers, tuple(n for n in moduli if n > 2), tuple(b for b in bases if 2 <= b <= 9))


def other_meaning(text: str, tokens: Sequence[Token], relation: Relation, said: Numerals) -> str:
    """Why a relation between numbers that fails need not be an error; "" where nothing speaks for that.

    Args:
        text: the step.
        tokens: of the step.
        relation: stated in it.
        said: by the problem, of its numbers.
    """
    left, right = relation.left, relation.right
    if any(isinstance(n, Binary) and n.op == "^^" for side in (left, right) for n in walk(side.node)):
        return "an exponent of several digits without braces"
    if other_arithmetic(text):
        return "other arithmetic than that of numbers"
    if _as_numerals(relation, said):
        return "holds for residues, or in another base"
    if _is_part(relation, said.numbers | {t.value for t in tokens[: left.start] if t.kind == "num"}):
        return "a percentage of a number that was stated"
    before = tokens[left.start - 1] if left.start else None
    if before is not None and before.kind == "open" and before.name != "{" and not _closes(tokens, right):
        return "inside a bracket that stays open"
    if _listed(tokens, left, right):
        return "one of a list"
    if _converts(tokens, left) or _converts(tokens, right):
        return "units on both sides of a fraction"
    if before is not None and before.kind == "word" and _RANGE.match(text[tokens[left.start].start :]):
        return "a range"
    spans = (text[tokens[side.start].start : tokens[side.end - 1].end] for side in (left, right))
    if all(_HYPHENATED.match(span) for span in spans):
        return "numbers joined by hyphens"
    return ""


def _as_numerals(relation: Relation, said: Numerals) -> bool:
    """Whether the relation holds for residues, or with the numbers of both sides, or of the right one, in a base."""
    sides = relation.left.node, relation.right.node
    try:
        a, b = (evaluate(side, {}) for side in sides)
        if not (isinstance(a, Fraction) and isinstance(b, Fraction) and a.denominator == b.denominator == 1):
            return False
        if any((a - b) % n == 0 for n in said.moduli):
            return True
        rebased = [[evaluate(_rebased(side, base), {}) for side in sides] for base in said.bases]
    except UndecidableError:
        return False
    return any(right in (a, left) for left, right in rebased)


def _is_part(relation: Relation, numbers: frozenset[Fraction]) -> bool:
    """Whether `10% = 0.55` leaves out what it is a part of: one of `numbers`, 5.5."""
    match relation.left.node, relation.right.node:
        case Unary("pct", Num(hundredths)), Num(part) if hundredths:
            return part * 100 / hundredths in numbers
    return False


def _rebased(node: Node, base: int) -> Node:
    for number in {n for n in walk(node) if isinstance(n, Num)}:
        value = in_base(number.name, str(base))
        node = node if value is None else substitute(node, number, Num(value))
    return node


def _closes(tokens: Sequence[Token], right: Side) -> bool:
    return any(token.kind == "close" for token in tokens[right.end : right.end + 3])


def _listed(tokens: Sequence[Token], left: Side, right: Side) -> bool:
    """Whether the sides are the last and the first of two lists: `1, 2, 3 = 1, 4/2, 9/3`."""
    before = tokens[left.start - 1] if left.start else None
    after = tokens[right.end] if right.end < len(tokens) else None
    listed = (
        before is not None and before.kind in ("comma", "dots") and before.math and tokens[left.start].math
    )
    return listed and after is not None and after.kind in ("comma", "dots") and after.math


def _converts(tokens: Sequence[Token], side: Side) -> bool:
    """Whether there is a fraction with different words above and below: `60 minutes / 1 hour`."""
    if not any(isinstance(n, Binary) and n.op == "/" and isinstance(n.right, Num) for n in walk(side.node)):
        return False
    words = [t.name.lower().removesuffix("s") for t in tokens[side.start : side.end] if t.kind == "word"]
    return len(set(words)) > 1 and "per" not in words
