"""Claims that need nothing but the relation itself: between plain, complex, congruent or two-signed numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.claims.context import in_doubt
from stepconf.core.claims.facts import Fact
from stepconf.core.maths.decide import BALLS, RATIONALS
from stepconf.core.maths.rounding import relation_holds, show
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import (
    Node,
    Num,
    has_operation,
    has_sign_choice,
    is_compound,
    is_literal,
    walk,
    with_sign,
)
from stepconf.core.maths.values import IMAGINARY_UNIT, UndecidableError, evaluate
from stepconf.core.maths.vocabulary import DENIALS


@dataclass(frozen=True, slots=True)
class Claim:
    """Something stated in `step[start:end]`; `holds` is None where it cannot be decided, `by` names what decided."""

    start: int
    end: int
    text: str
    holds: bool | None
    reason: str
    by: str = ""


def claim_of(
    text: str, tokens: Sequence[Token], relation: Relation, holds: bool | None, reason: str, by: str
) -> Claim:
    """What `relation` states, with its place in `text`."""
    last = relation.right.end - 1
    while tokens[last].kind in ("break", "annot", "currency"):
        last -= 1
    start, end = tokens[relation.left.start].start, tokens[last].end
    return Claim(start, end, text[start:end].strip(), holds, reason, by)


def moved(claim: Claim, offset: int) -> Claim:
    """The claim `offset` characters further on."""
    return replace(claim, start=claim.start + offset, end=claim.end + offset)


def fact_claim(text: str, tokens: Sequence[Token], fact: Fact) -> Claim:
    """A statement about whole numbers as a claim: in doubt only a true one is decided."""
    start, end = tokens[fact.start].start, tokens[fact.end - 1].end
    doubted = not fact.holds and in_doubt(tokens, fact.start, fact.end, DENIALS - {"not"})
    return Claim(start, end, text[start:end], None if doubted else fact.holds, fact.reason, RATIONALS)


def both_signs(text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
    """`(5 ± sqrt(49)) / 4 = (5 ± 7) / 4`: the values of one side are those of the other."""
    sides = relation.left.node, relation.right.node
    if relation.name != "=" or not all(map(has_sign_choice, sides)):
        return None
    if in_doubt(tokens, relation.left.start, relation.right.end, DENIALS):
        return None
    left, right = ([with_sign(side, upper) for upper in (True, False)] for side in sides)
    holds = [
        [relation_holds("=", a, b).holds for a, b in zip(left, other, strict=True)]
        for other in (right, right[::-1])
    ]
    if any(all(pair) for pair in holds):
        return claim_of(text, tokens, relation, True, "", BALLS)
    single = all(sum(1 for n in walk(side) if getattr(n, "op", "") in ("pm", "mp")) == 1 for side in sides)
    if single and all(False in pair for pair in holds):
        return claim_of(text, tokens, relation, False, "the values differ", BALLS)
    return None


def congruence(text: str, tokens: Sequence[Token], relation: Relation, modulus: Node) -> Claim | None:
    """`17 = 2 (mod 5)` between whole numbers."""
    try:
        a, b, n = (evaluate(node, {}) for node in (relation.left.node, relation.right.node, modulus))
    except UndecidableError:
        return None
    if not (isinstance(a, Fraction) and isinstance(b, Fraction) and isinstance(n, Fraction)):
        return None
    if any(v.denominator != 1 for v in (a, b, n)) or n < 2:
        return None
    holds = (a - b) % n == 0
    reason = "" if holds else f"{show(a)} and {show(b)} differ modulo {n}"
    if not holds and in_doubt(tokens, relation.left.start, relation.right.end, DENIALS | {"or", "either"}):
        return None
    return claim_of(text, tokens, relation, holds, reason, RATIONALS)


def complex_equality(text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
    """An equality between complex numbers."""
    if relation.name != "=" or not (is_compound(relation.left.node) or relation.chained):
        return None
    outcome = relation_holds("=", relation.left.node, relation.right.node, {"i": IMAGINARY_UNIT})
    if not outcome.holds and in_doubt(tokens, relation.left.start, relation.right.end, DENIALS):
        return None
    return claim_of(text, tokens, relation, outcome.holds, outcome.reason, outcome.by)


def is_numeric_claim(relation: Relation, tokens: Sequence[Token]) -> bool:
    """Whether a relation between numbers states a computation, rather than naming or counting something."""
    left, right = relation.left, relation.right
    if relation.name in ("===", "!="):
        return False
    if relation.spelled:
        return not is_literal(left.node) and is_literal(right.node)
    if not is_literal(left.node):
        return True
    units = _units(tokens, left), _units(tokens, right)
    percent = is_literal(right.node) and "%" in {t.name for t in tokens[left.start : right.end]}
    if percent:
        return not units[0] and not units[1]
    if is_literal(right.node):
        # "-6 = 2, which cannot be": two numbers side by side compute nothing, unless one is in another base
        based = any(isinstance(side.node, Num) and "_" in side.node.name for side in (left, right))
        computes = relation.chained or has_operation(left.node) or based
        return computes and not units[0] and (not units[1] or relation.chained)
    if relation.chained:
        return True
    return tokens[left.start].math and not units[1]


def _units(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The words, singular and in lower case, that stand among the numbers of a side."""
    inside = tokens[side.start : side.end]
    return frozenset(t.name.lower().rstrip("s.") for t in inside if t.kind == "word")
