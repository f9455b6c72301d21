"""What a relation that fails as arithmetic may mean instead."""

import re
from collections.abc import Sequence, Set
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.claims.shares import ends_a_phrase, is_amount
from stepconf.core.maths.numbers import SCALES
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Binary, Node, Num, Unary, walk
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
_DIGITS = re.compile(r"\b(?:last|units?|ones|tens) digits?")


def other_arithmetic(text: str) -> bool:
    """Whether a text speaks of residues, digits, other bases or clocks: there 5 + 4 may be 2."""
    return _OTHER_ARITHMETIC.search(text) is not None


def named_moduli(problem: str) -> list[int]:
    """The divisors that a problem names, ten where it asks for last digits."""
    tens = [10] if _DIGITS.search(problem) else []
    return [number for number in (*map(int, _MODULUS.findall(problem)), *tens) if number > 2]


def other_meaning(
    text: str, tokens: Sequence[Token], relation: Relation, numbers: Set[Fraction], moduli: Sequence[int]
) -> str:
    """Why a relation between numbers that fails need not be an error; "" where nothing speaks for that.

    Args:
        text: the step.
        tokens: of the step.
        relation: stated in it.
        numbers: that the problem and the steps before state.
        moduli: that the problem names.
    """
    left, right = relation.left, relation.right
    if any(isinstance(n, Binary) and n.op == "^^" for side in (left, right) for n in walk(side.node)):
        return "an exponent of several digits without braces"
    if other_arithmetic(text):
        return "other arithmetic than that of numbers"
    values = _values(left.node, right.node)
    if values and any((values[0] - values[1]) % n == 0 for n in moduli):
        return "holds for residues"
    named = {token.name.lower() for token in tokens[: left.start]} & SCALES.keys()
    if values and any(values[1] == values[0] * SCALES[scale] for scale in named):
        return "holds in a unit that was named before"
    stated = _values(_shared(left.node), right.node)
    if stated and stated[0] == stated[1]:
        return "a share of a sum that holds"
    match left.node, right.node:
        case Unary("pct", Num(hundredths)), Num(part) if hundredths:  # `10% = 0.55`, of 5.5
            if part * 100 / hundredths in numbers | {token.value for token in tokens[: left.start]}:
                return "a percentage of a number that was stated"
    if is_amount(tokens, relation):
        return "a share against an amount"
    if ends_a_phrase(tokens, left.start):
        return "a number that ends what words began"
    before = tokens[left.start - 1] if left.start else None
    if before is not None and before.kind == "open":
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


def _values(left: Node, right: Node) -> tuple[Fraction, Fraction] | None:
    """Both sides, where both are rational."""
    try:
        a, b = evaluate(left, {}), evaluate(right, {})
    except UndecidableError:
        return None
    return (a, b) if isinstance(a, Fraction) and isinstance(b, Fraction) else None


def _shared(node: Node) -> Node:
    """What `10% of 400 + 1580` takes a share of."""
    match node:
        case Binary("of", _, whole):
            return whole
        case Binary("+" | "-" as op, left, right):
            return Binary(op, _shared(left), right)
    return node


def _listed(tokens: Sequence[Token], left: Side, right: Side) -> bool:
    """Whether the sides are the last and the first of two lists: `1, 2, 3 = 1, 4/2, 9/3`."""
    beside = *tokens[max(0, left.start - 1) : left.start], *tokens[right.end : right.end + 1]
    return len(beside) == 2 and all(token.kind in ("comma", "dots") and token.math for token in beside)


def _converts(tokens: Sequence[Token], side: Side) -> bool:
    """Whether there is a fraction with different words above and below: `60 minutes / 1 hour`."""
    if not any(isinstance(n, Binary) and n.op == "/" for n in walk(side.node)):
        return False
    words = [t.name.lower().removesuffix("s") for t in tokens[side.start : side.end] if t.kind == "word"]
    return len(set(words)) > 1
