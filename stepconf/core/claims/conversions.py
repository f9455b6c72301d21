"""A number in one unit against the same amount in another, and times of day."""

from collections.abc import Sequence, Set
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.claims.equations import measures, money
from stepconf.core.maths.notation import CURRENCIES
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import is_literal
from stepconf.core.maths.units import measure_of, sizes_of
from stepconf.core.maths.values import UndecidableError, evaluate

# What people count that the table of units has not, or has as an average: 2 years are 730 days.
_COUNTED = {
    "year": (52, 360, 365, 366),
    "month": (4, 28, 29, 30, 31),
    "dozen": (12,),
    "decade": (10,),
    "century": (100,),
    "gallon": (4, 8, 16, 128),
    "quart": (2, 4, 32),
    "pint": (2, 16),
    "cup": (8, 16, 48),
    "tablespoon": (3,),
}


def tells_time(tokens: Sequence[Token], side: Side) -> bool:
    """Whether a time of day stands in a side: `11 AM`, `2 p.m.`"""
    inside = tokens[side.start : side.end + 3]
    if any(t.kind == "word" and t.name.lower() in ("am", "pm") for t in inside[: side.end + 1 - side.start]):
        return True
    dotted = ["".join(token.name for token in inside[i : i + 3]).lower() for i in range(len(inside) - 2)]
    return any(half in ("a.m", "p.m") for half in dotted)


def is_converted(tokens: Sequence[Token], relation: Relation) -> bool:
    """Whether only one side is in a unit, or in several, and the other may be the same amount in another unit.

    `120 = 2 hours`; but of two numbers as written any unit may make the difference: `24 = 2 boxes`.
    """
    left, right = relation.left, relation.right
    units = [_unit(tokens, side) for side in (left, right)]
    if relation.name not in ("=", "~") or bool(units[0]) == bool(units[1]):
        return False
    if any(_mixes(measures(tokens, side)) for side in (left, right)):
        return True  # 2 feet + 3 inches = 27
    if relation.chained and is_literal(left.node) and is_literal(right.node):
        return True
    try:
        values = [evaluate(side.node, {}) for side in (left, right)]
    except UndecidableError:
        return False
    a, b = values if units[1] else values[::-1]
    if not (isinstance(a, Fraction) and isinstance(b, Fraction) and a and b):
        return False
    return any(a / b in _ratios(unit) for unit in units[0] or units[1])


def _mixes(units: Set[str]) -> bool:
    """Whether two of some units measure the same."""
    dimensions = [found.dimension for unit in units if (found := measure_of(unit))]
    return len(set(dimensions)) < len(dimensions)


def _unit(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The words of a side, in the singular, with a unit right after it and the name of its currency."""
    words = {
        t.name.lower().strip(".,").removesuffix("s")
        for t in tokens[side.start : side.end]
        if t.kind == "word"
    }
    return frozenset(words) | measures(tokens, side) | money(tokens, side)


def _ratios(unit: str) -> frozenset[Fraction]:
    """How many of another unit one `unit` may be; of money only its hundredth is meant without a word."""
    own = measure_of(unit)
    counted = frozenset(Fraction(number) for number in _COUNTED.get(unit, ()))
    if unit in CURRENCIES.values():
        return frozenset({Fraction(100)})
    if own is None or not own.size:
        return counted
    if own.dimension == (("dollar", 1),):
        return frozenset({Fraction(1, 100)})
    return counted | {own.size / size for size in sizes_of(own.dimension) if size != own.size}
