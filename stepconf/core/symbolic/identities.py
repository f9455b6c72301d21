"""Are two expressions the same wherever both have a value? Asked at random points (Schwartz-Zippel).

Quotients of polynomials are evaluated modulo large primes, where nothing grows: two that differ at a point are
different, two that agree at every point are the same but for a chance of at most degree / prime each. What has
roots, powers or functions in it is evaluated at real points in interval arithmetic of 60 digits: intervals that
do not meet prove a difference, and expressions that meet within 30 digits at every point count as the same.
This knows nothing of the normal form in `polynomials.py` and serves as a check on it.
"""

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mpmath.ctx_iv import MPIntervalContext  # type: ignore[import-untyped]  # it ships no types

from stepconf.core.symbolic.evaluate import UndecidableError, evaluate
from stepconf.core.symbolic.nodes import Binary, Call, Const, Node, Num, Unary, Var, variables, walk

SEED = 1
POINTS = 6
TRIES = 16  # points at most, of which `POINTS` must lie where both sides have a value
MAX_DEGREE = 10_000  # of numerator and denominator; the chance of an error stays below 10^-14 a point
MAX_REAL_EXPONENT = 60
MAX_ANGLE = 1_000
PRIMES = (2**61 - 1, 2**89 - 1, 2**107 - 1)
_RATIONAL = frozenset({"+", "-", "*", "/", "implicit", "mixed", "of"})
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_SAME_DIGITS = 30
_IV: Any = MPIntervalContext()
_IV.dps = 60


def same_everywhere(left: Node, right: Node) -> bool | None:
    """Whether `left` and `right` are equal at random points of their common domain.

    True and False are certain but for the chance named above; None where they cannot be evaluated, agree at
    some points only (`sqrt(x^2)` and `x`), or differ in what depends on a convention (an angle's unit, the
    base of a logarithm).
    """
    names = sorted(variables(left) | variables(right))
    try:
        if _degree(left) + _degree(right) > MAX_DEGREE:
            return None
        return _same_residues(left, right, names)
    except UndecidableError:
        return _same_reals(left, right, names)


def _drawn(point: int, name: str, bits: int = 128) -> int:
    text = f"{SEED} {point} {name}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=bits // 8).digest(), "big")


def _same_residues(left: Node, right: Node, names: list[str]) -> bool | None:
    used = 0
    for point in range(TRIES):
        prime = PRIMES[point % len(PRIMES)]
        values = {name: _drawn(point, name) % prime for name in names}
        try:
            a, b = _residue(left, values, prime), _residue(right, values, prime)
        except ZeroDivisionError:
            continue  # outside the domain
        if a != b:
            return False
        used += 1
        if used == POINTS:
            return True
    return None


def _degree(node: Node) -> int:
    """A bound on the degrees of numerator and denominator of a quotient of polynomials.

    Raises:
        UndecidableError: it is none, or its degree exceeds `MAX_DEGREE`.
    """
    match node:
        case Num():
            return 0
        case Var():
            return 1
        case Unary("neg" | "pct", arg):
            return _degree(arg)
        case Unary("fact", arg) if not variables(arg):
            return 0
        case Binary("^", base, exponent):
            degree = _degree(base) * abs(_whole(exponent))
        case Binary(op, a, b) if op in _RATIONAL:
            degree = _degree(a) + _degree(b)
        case _:
            raise UndecidableError("no quotient of polynomials")
    if degree > MAX_DEGREE:
        raise UndecidableError("degree out of bounds")
    return degree


def _whole(exponent: Node) -> int:
    value = evaluate(exponent, {})
    if not isinstance(value, Fraction) or value.denominator != 1 or abs(value) > MAX_DEGREE:
        raise UndecidableError("no small whole exponent")
    return int(value)


def _residue(node: Node, point: Mapping[str, int], prime: int) -> int:
    """The value modulo `prime`. Raises ZeroDivisionError at a pole."""
    match node:
        case Num(value):
            return _quotient(value.numerator, value.denominator, prime)
        case Var(name):
            return point[name]
        case Unary("neg", arg):
            return -_residue(arg, point, prime) % prime
        case Unary("pct", arg):
            return _quotient(_residue(arg, point, prime), 100, prime)
        case Unary():
            return int(evaluate(node, {})) % prime
        case Binary("^", base, exponent):
            n, residue = _whole(exponent), _residue(base, point, prime)
            if residue == 0 and n <= 0:
                raise ZeroDivisionError
            return pow(residue, n, prime)
        case Binary(op, left, right):
            a, b = _residue(left, point, prime), _residue(right, point, prime)
            if op == "/":
                return _quotient(a, b, prime)
            return (a - b if op == "-" else a + b if op in ("+", "mixed") else a * b) % prime
    raise UndecidableError("no quotient of polynomials")


def _quotient(top: int, bottom: int, prime: int) -> int:
    if bottom % prime == 0:
        raise ZeroDivisionError
    return top * pow(bottom, -1, prime) % prime


def _same_reals(left: Node, right: Node, names: list[str]) -> bool | None:
    agreed = differed = 0
    for point in range(TRIES):
        # Every other point has only positive values: there roots and logarithms are defined.
        values = {name: _real(point, name, positive=point % 2 == 0) for name in names}
        try:
            gap = _interval(left, values) - _interval(right, values)
        except UndecidableError:
            continue
        if 0 not in gap:
            differed += 1
        elif gap.delta < _IV.mpf(10) ** -_SAME_DIGITS:
            agreed += 1
        if agreed and differed:
            return None
        if agreed == POINTS:
            return True
    certain = differed >= POINTS and not any(_conventional(side) for side in (left, right))
    return False if certain else None


def _real(point: int, name: str, positive: bool) -> Any:
    """A number in [0.1, 3.1], or its negative."""
    drawn = _drawn(point, name)
    size = _IV.mpf(drawn >> 1) / 2**127 * 3 + _IV.mpf(1) / 10
    return size if positive or drawn & 1 else -size


def _conventional(node: Node) -> bool:
    return any(isinstance(n, Call) and n.name not in ("sqrt", "root") for n in walk(node))


def _interval(node: Node, point: Mapping[str, Any]) -> Any:
    """An interval that holds the real value of `node`.

    Raises:
        UndecidableError: it has no real value at the point, or one that is out of bounds.
    """
    match node:
        case Num(value):
            return _rational(value)
        case Var(name):
            return point[name]
        case Const(name):
            return _IV.pi + 0 if name == "pi" else _IV.e + 0
        case Unary("neg", arg):
            return -_interval(arg, point)
        case Unary("pct", arg):
            return _interval(arg, point) / 100
        case Unary("abs", arg):
            return abs(_interval(arg, point))
        case Unary(op):
            if op == "deg" or variables(node):
                raise UndecidableError(f"{op} at a real point")
            return _rational(evaluate(node, {}))
        case Binary("^", base, exponent):
            return _power(base, exponent, point)
        case Binary(op, left, right) if op in _RATIONAL:
            a, b = _interval(left, point), _interval(right, point)
            if op == "/":
                return _divided(a, b)
            return a - b if op == "-" else a + b if op in ("+", "mixed") else a * b
        case Call(name, args):
            return _call(name, args, point)
    raise UndecidableError("no real function")


def _rational(value: Any) -> Any:
    if not isinstance(value, Fraction):
        raise UndecidableError("an irrational constant")
    return _IV.mpf(value.numerator) / value.denominator


def _divided(a: Any, b: Any) -> Any:
    if 0 in b:
        raise UndecidableError("division by zero")
    return a / b


def _power(base: Node, exponent: Node, point: Mapping[str, Any]) -> Any:
    value = _interval(base, point)
    try:
        n = _whole(exponent)
    except UndecidableError:
        return _exp(_interval(exponent, point) * _log(value))
    if n < 0 and isinstance(base, Call) and base.name in _TRIGONOMETRIC:
        raise UndecidableError("an inverse function or a reciprocal")
    if abs(n) > MAX_REAL_EXPONENT or (n <= 0 and 0 in value):
        raise UndecidableError("power out of bounds")
    return value**n


def _exp(value: Any) -> Any:
    if not -200 < value < 200:
        raise UndecidableError("power out of bounds")
    return _IV.exp(value)


def _log(value: Any) -> Any:
    if not value > 0:
        raise UndecidableError("logarithm of what is not positive")
    return _IV.log(value)


def _call(name: str, args: tuple[Node, ...], point: Mapping[str, Any]) -> Any:
    if name in _TRIGONOMETRIC:
        return _trigonometric(name, args[0], point)
    values = [_interval(arg, point) for arg in args]
    match name, values:
        case "sqrt", [value]:
            if not value >= 0:
                raise UndecidableError("root of what is negative")
            return _IV.sqrt(value)
        case "root", [value, _]:
            degree = _whole(args[1])
            if not 2 <= degree <= MAX_REAL_EXPONENT:
                raise UndecidableError("root of an unusual degree")
            odd_of_negative = degree % 2 and value < 0
            root = _exp(_log(-value if odd_of_negative else value) / degree)
            return -root if odd_of_negative else root
        case "exp", [value]:
            return _exp(value)
        case "ln", [value]:
            return _log(value)
        case "log" | "lg", [value]:
            return _log(value) / _IV.log(10)
        case "log", [value, base]:
            return _divided(_log(value), _log(base))
    raise UndecidableError(f"function {name}")


def _trigonometric(name: str, node: Node, point: Mapping[str, Any]) -> Any:
    if not variables(node) and not any(isinstance(n, Const) for n in walk(node)):
        raise UndecidableError("an angle without its unit")
    angle = _interval(node, point)
    if not -MAX_ANGLE < angle < MAX_ANGLE:
        raise UndecidableError("an angle out of bounds")
    sine, cosine = _IV.sin(angle), _IV.cos(angle)
    one = _IV.mpf(1)
    top, bottom = {
        "sin": (sine, one), "cos": (cosine, one), "tan": (sine, cosine),
        "cot": (cosine, sine), "sec": (one, cosine), "csc": (one, sine),
    }[name]  # fmt: skip
    return _divided(top, bottom)
