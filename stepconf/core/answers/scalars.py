"""Comparing two answers that are each one value, or one expression in variables."""

import math
from fractions import Fraction

from stepconf.core.answers.evaluate import (
    POINTS,
    POSITIVE_POINTS,
    Evaluation,
    TooLargeError,
    Value,
    to_complex,
)
from stepconf.core.answers.expression import Node
from stepconf.core.answers.units import scale

DECIMAL_TOLERANCE = 1.000001e-6  # 0.666666 and 0.666667 are both 2/3


def all_of(verdicts: list[bool | None]) -> bool | None:
    """Three-valued "and"."""
    return False if False in verdicts else None if None in verdicts else True


def any_of(verdicts: list[bool | None]) -> bool | None:
    """Three-valued "or"."""
    return True if True in verdicts else None if None in verdicts else False


class Scalar:
    """A value at one point, with what was peeled off it: "%", "deg", a unit, or a base."""

    def __init__(self, node: Node, point: int) -> None:
        self.kind = ""
        while node[0] in ("percent", "deg", "unit", "base"):
            self.kind = node[2] if node[0] == "unit" else f"base {node[2]}" if node[0] == "base" else node[0]
            node = ("num", Fraction(node[1]), False) if node[0] == "base" else node[1]
        if node[0] == "ratio" and len(node[1]) == 2:
            node = ("div", *node[1])
        self.node = node
        evaluation = Evaluation(point)
        self.result: Value = evaluation.value(node)
        self.names, self.decimal, self.scale = evaluation.names, evaluation.decimal, evaluation.scale


def same_scalar(a: Node, b: Node) -> bool | None:
    """Whether two trees have the same value, at every sample point if they have variables.

    Raises what `Evaluation.value` raises.
    """
    if a[0] == b[0] == "ratio" and len(a[1]) == len(b[1]) > 2:
        first = [("div", part, a[1][0]) for part in a[1]], [("div", part, b[1][0]) for part in b[1]]
        return all_of([same_scalar(x, y) for x, y in zip(*first, strict=True)])
    huge = [_is_huge(node) for node in (a, b)]
    if any(huge):
        if all(huge):
            raise TooLargeError
        small = Scalar(b if huge[0] else a, 0)
        return False if not small.names else None
    verdicts: list[bool | None] = []
    for point in range(POINTS):
        left, right = Scalar(a, point), Scalar(b, point)
        if left.names != right.names:
            # 5m and 5: a variable, or a unit without its space?
            return None if not left.names or not right.names else _same_values(left, right)
        verdicts.append(_same_values(left, right))
        if not left.names or verdicts[-1] is not True:
            break
    if len(verdicts) > POSITIVE_POINTS and verdicts[-1] is not True:
        return None  # the same for positive values only: the domain decides
    return verdicts[-1]


def _is_huge(node: Node) -> bool:
    """Whether the tree is, up to its sign, a power or factorial that is provably astronomic."""
    while node[0] == "neg":
        node = node[1]
    if node[0] not in ("pow", "fact"):
        return False
    try:
        Scalar(node, 0)
    except TooLargeError:
        if node[0] == "fact":
            return True
        base = Scalar(node[1], 0)
        exponent = node[2]
        return (
            not base.names
            and isinstance(base.result, Fraction)
            and base.result >= 2
            and _is_positive(exponent)
        )
    return False


def _is_positive(exponent: Node) -> bool:
    if _is_huge(exponent) and exponent[0] != "neg":
        return True
    value = Scalar(exponent, 0).result
    return isinstance(value, Fraction) and value > 0


def _same_values(a: Scalar, b: Scalar) -> bool | None:
    kinds = {a.kind, b.kind}
    decimal = a.decimal or b.decimal
    if len(kinds) == 1 or not kinds & {"percent", "deg"}:
        return _same_with_units(a, b, decimal)
    if "percent" in kinds:
        per_cent, other = (a, b) if a.kind == "percent" else (b, a)
        readings = [close(per_cent.result, other.result, decimal)]
        readings.append(close(per_cent.result / 100, other.result, decimal))
        return any_of(readings)
    plain = close(a.result, b.result, decimal)
    turned = math.pi / 180
    left, right = (s.result * turned if s.kind == "deg" else s.result for s in (a, b))
    return True if plain else close(left, right, decimal)


def _same_with_units(a: Scalar, b: Scalar, decimal: bool) -> bool | None:
    sizes = scale(a.kind), scale(b.kind)
    if a.kind.startswith("base ") and b.kind.startswith("base ") and a.kind != b.kind:
        return None
    if sizes[0] and sizes[1] and sizes[0][0] == sizes[1][0] and sizes[0][1] != sizes[1][1]:
        return close(to_complex(a.result) * sizes[0][1], to_complex(b.result) * sizes[1][1], decimal)
    return close(a.result, b.result, decimal, max(a.scale, b.scale))


def close(a: Value, b: Value, decimal: bool, met: float = 0.0) -> bool | None:
    """Whether two values are equal; None where cancellation has eaten the digits that would tell.

    Args:
        decimal: whether a decimal fraction is involved, which may be rounded.
        met: the largest magnitude on the way to the values.
    """
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        tolerance = Fraction(DECIMAL_TOLERANCE) * min(Fraction(1), max(abs(a), abs(b)))
        return a == b or (decimal and abs(a - b) <= tolerance)
    x, y = to_complex(a), to_complex(b)
    size, gap = max(abs(x), abs(y)), abs(x - y)
    if decimal and gap <= DECIMAL_TOLERANCE * min(1.0, size):
        return True
    if gap <= 1e-11 * size:
        return True if met <= 1e3 * size else None
    return False if gap > 1e-9 * size and gap > 1e-11 * max(met, size) else None
