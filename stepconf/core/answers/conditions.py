"""Equations and inequalities as answers: what they say of which variable, and the ranges they describe."""

from collections.abc import Sequence
from fractions import Fraction

from stepconf.core.maths.polynomials import Ring, is_constant, is_zero
from stepconf.core.maths.tree import (
    EXPRESSIONS,
    Binary,
    Const,
    Form,
    Listing,
    Node,
    Statement,
    Unary,
    Union,
    Var,
    nodes,
    variables,
)
from stepconf.core.maths.values import UndecidableError

EQUALS = {"=", "~"}
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
INFINITY, REALS = Const("infinity"), Const("reals")


def assigns(statement: Statement) -> bool:
    """ "x = ..." or "f(x) = ...": the left side only names what the right side is."""
    left = statement.sides[0]
    product = isinstance(left, Binary) and left.op == "implicit" and isinstance(left.left, Var)
    return set(statement.signs) <= EQUALS and (isinstance(left, Var | Listing) or product)


def given(statement: Statement) -> list[Form]:
    """What an equation gives as its value: its last side, and the last exact one before an approximation.

    The first side counts where it is no name: "2/3 ~ 0.667", but not "x ~ 0.667".
    """
    signs, sides = statement.signs, statement.sides
    exact = signs.index("~") if "~" in signs else len(signs)
    is_value = exact > 0 or letters(sides[0]) <= letters(sides[-1])
    return [sides[-1], sides[exact]] if is_value and exact < len(signs) else [sides[-1]]


def letters(form: Form) -> set[str]:
    """The names of the variables in a form."""
    return {node.name for node in nodes(form) if isinstance(node, Var)}


def turned(statement: Statement) -> Statement:
    """ "5 = x" as "x = 5"; other statements as they are."""
    sides = statement.sides
    named_last = len(sides) == 2 and isinstance(sides[1], Var) and not letters(sides[0])
    return Statement(statement.signs, sides[::-1]) if named_last else statement


def named(statement: Statement) -> Form:
    """What an assignment names; of "f(x)" the f."""
    left = statement.sides[0]
    return left.left if isinstance(left, Binary) else left


def variable_of(form: Form) -> str:
    """The one variable of a statement; "" where there is not one."""
    sides = form.sides if isinstance(form, Statement) else ()
    names = {name for side in sides if isinstance(side, EXPRESSIONS) for name in variables(side)}
    return names.pop() if len(names) == 1 else ""


def proportion(a: Sequence[Node], b: Sequence[Node]) -> Fraction | None:
    """(a0 - a1) / (b0 - b1) where that is one number."""
    ring = Ring()
    try:
        top, bottom = ring.difference(a[0], a[1]), ring.difference(b[0], b[1])
        if is_zero(bottom[0]) or is_zero(top[0]):
            return None
        p, q = top[0] * bottom[1], bottom[0] * top[1]
        ratio = Fraction(int(p.leading_coefficient()), int(q.leading_coefficient()))
        return ratio if is_zero(p * ratio.denominator - q * ratio.numerator) and not is_constant(p) else None
    except UndecidableError:
        return None


def as_ranges(form: Form) -> Form | None:
    """Inequalities as the interval, or the union of intervals, that they describe; None for other forms."""
    if isinstance(form, Listing) and form.brackets == "or":
        parts = [as_ranges(item) for item in form.items]
        found = tuple(part for part in parts if part is not None)
        return Union(found) if len(found) == len(parts) else None
    if form == REALS:
        return Listing("()", (Unary("neg", INFINITY), INFINITY))
    opening, closing = {"<": "(", "<=": "["}, {"<": ")", "<=": "]"}
    match form:
        case Union() | Listing("()" | "[)" | "(]" | "[]", _):
            return form
        case Statement(signs, sides) if set(signs) <= {">", ">="}:
            return as_ranges(Statement(tuple(TURNED[s] for s in signs[::-1]), sides[::-1]))
        case Statement(("<" | "<=" as sign, "<" | "<=" as other), (low, Var(), high)):
            return Listing(opening[sign] + closing[other], (low, high))
        case Statement(("<" | "<=" as sign,), (Var(), high)):
            return Listing("(" + closing[sign], (Unary("neg", INFINITY), high))
        case Statement(("<" | "<=" as sign,), (low, Var())):
            return Listing(opening[sign] + ")", (low, INFINITY))
    return None


def infinite(form: Form) -> int:
    """1 and -1 for the infinities, 0 for what is finite."""
    if isinstance(form, Unary) and form.op == "neg":
        return -infinite(form.arg)
    return int(form == INFINITY)
