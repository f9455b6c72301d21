"""Expression → exact value, or an enclosure so narrow that inequality is certain.

Rational arithmetic is exact. Roots, powers, logarithms and trigonometric functions are computed to 60 digits
in complex numbers; two such values that differ in the first 40 are different. Every size is bounded before
the work is done.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

import mpmath  # type: ignore[import-untyped]  # it ships no types

from stepconf.core.symbolic.nodes import Binary, Call, Const, Node, Num, Unary, Var, walk

MAX_BITS = 8_000
MAX_FACTORIAL = 400
_REAL = mpmath.MPContext()
_REAL.dps = 60

Value: TypeAlias = Fraction | Any  # Any: an mpmath number of the context above


class UndecidableError(Exception):
    """The expression has no value that can be known here; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the ambiguous parts of an expression are read."""

    percent_points: bool = False  # 20% is 20, not 1/5
    product_of_mixed: bool = False  # 2 1/2 is 1, not 5/2
    loose_implicit: bool = False  # 1/2x is (1/2)x
    pi: Fraction | None = None
    natural_log: bool = False
    right_division: bool = False  # 2 / 1/4 is 8
    percent_of_left: bool = False  # 50 + 20% is 60


PLAIN = Reading()
Env: TypeAlias = Mapping[str, Value]


def evaluate(node: Node, env: Env, reading: Reading = PLAIN) -> Value:
    """The value of `node` with its variables taken from `env`.

    Raises:
        UndecidableError: a free variable, a division by zero, a number out of bounds or an unknown function.
    """
    match node:
        case Num(value):
            return value
        case Var(name):
            if name in env:
                return env[name]
            raise UndecidableError(f"free variable {name}")
        case Const(name):
            if name == "pi":
                return reading.pi if reading.pi is not None else +_REAL.pi
            return +_REAL.e
        case Unary(op, arg):
            return _unary(op, arg, env, reading)
        case Binary(op, left, right):
            return _binary(op, left, right, env, reading)
        case Call(name, args):
            return _call(name, [evaluate(arg, env, reading) for arg in args], args, reading)


IMAGINARY_UNIT: Value = _REAL.mpc(0, 1)


def as_real(value: Value) -> Any:
    """`value` as a number of the 60-digit context."""
    if isinstance(value, Fraction):
        return _REAL.mpf(value.numerator) / value.denominator
    return value


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise UndecidableError("number out of bounds")
    return value


def _unary(op: str, arg: Node, env: Env, reading: Reading) -> Value:
    value = evaluate(arg, env, reading)
    if op in ("pm", "mp"):
        raise UndecidableError("a choice of signs")
    match op:
        case "neg":
            return -value
        case "pct":
            return value if reading.percent_points else value / 100
        case "deg":
            return value
        case "abs":
            return abs(value)
        case "fact":
            if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
                raise UndecidableError("factorial out of bounds")
            return Fraction(math.factorial(int(value)))
    if not isinstance(value, Fraction):
        raise UndecidableError("rounding of an irrational value")
    return Fraction(math.floor(value) if op == "floor" else math.ceil(value))


def _binary(op: str, left: Node, right: Node, env: Env, reading: Reading) -> Value:
    if op == "/" and reading.loose_implicit and isinstance(right, Binary) and right.op == "implicit":
        return _apply("*", _binary("/", left, right.left, env, reading), evaluate(right.right, env, reading))
    if op == "/" and reading.right_division and isinstance(left, Binary) and left.op == "/":
        below = _binary("/", left.right, right, env, replace(reading, right_division=False))
        return _apply("/", evaluate(left.left, env, reading), below)
    a = evaluate(left, env, reading)
    if op in "+-" and reading.percent_of_left and isinstance(right, Unary) and right.op == "pct":
        return _apply(op, a, _apply("*", a, evaluate(right, env, reading)))
    b = evaluate(right, env, reading)
    if op == "of":
        return a / 100 * b if reading.percent_points and isinstance(left, Unary) else _apply("*", a, b)
    if op == "mixed":
        return _apply("*" if reading.product_of_mixed else "+", a, b)
    return _apply("*" if op == "implicit" else op, a, b)


def _apply(op: str, a: Value, b: Value) -> Value:
    exact = isinstance(a, Fraction) and isinstance(b, Fraction)
    if op == "^":
        return _power(a, b)
    if op in ("pm", "mp"):
        raise UndecidableError("a choice of signs")
    if op == "mod":
        if not exact or b == 0:
            raise UndecidableError("remainder of what is not rational")
        return a % b
    if op == "/" and b == 0:
        raise UndecidableError("division by zero")
    if not exact:
        a, b = as_real(a), as_real(b)
    result = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[op]()
    return _bounded(result) if exact else _finite(result)


def _finite(value: Any) -> Any:
    if not _REAL.isfinite(value) or _REAL.mag(value) > MAX_BITS:
        raise UndecidableError("number out of bounds")
    return value


def _power(a: Value, b: Value) -> Value:
    if isinstance(b, Fraction) and b.denominator == 1:
        exponent = int(b)
        if isinstance(a, Fraction):
            size = max(a.numerator.bit_length(), a.denominator.bit_length())
            if abs(exponent) * max(size - 1, 1) > MAX_BITS and abs(a) not in (0, 1):
                raise UndecidableError("power out of bounds")
            if a == 0 and exponent <= 0:
                raise UndecidableError("power of zero")
            return a ** (exponent % 2 if abs(a) == 1 else exponent)
        if abs(exponent) > 1000:
            raise UndecidableError("power out of bounds")
        if a == 0:
            raise UndecidableError("power of zero")
        return _finite(a**exponent)
    base, power = as_real(a), as_real(b)
    if base == 0:
        raise UndecidableError("power of zero")
    if not isinstance(base, _REAL.mpf) or base < 0:
        raise UndecidableError("a root with several values")
    if abs(_REAL.mag(power)) > 12 or abs(power * _REAL.log(base)) > MAX_BITS:
        raise UndecidableError("power out of bounds")
    return _finite(base**power)


def _call(name: str, values: list[Value], nodes: tuple[Node, ...], reading: Reading) -> Value:
    if name in ("gcd", "lcm", "binom"):
        return _integers(name, values)
    if name in ("max", "min"):
        if any(not isinstance(v, Fraction) for v in values):
            raise UndecidableError(f"{name} of irrational values")
        return max(values) if name == "max" else min(values)
    if name in ("sqrt", "root"):
        return _root(values)
    if name in ("sin", "cos", "tan", "cot", "sec", "csc"):
        return _trigonometric(name, values[0], nodes[0])
    if name in ("log", "ln", "lg"):
        return _logarithm(name, values, reading)
    if name == "exp":
        return _power(+_REAL.e, values[0])
    raise UndecidableError(f"function {name}")


def _integers(name: str, values: list[Value]) -> Fraction:
    if any(not isinstance(v, Fraction) or v.denominator != 1 or abs(v) > 10**30 for v in values):
        raise UndecidableError(f"{name} of what is not an integer")
    integers = [int(v) for v in values]
    if name == "binom":
        n, k = integers
        if not 0 <= n <= 2_000 or k < 0:
            raise UndecidableError("binomial out of bounds")
        return _bounded(Fraction(math.comb(n, k)))
    return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))


def _root(values: list[Value]) -> Value:
    degree = values[1] if len(values) > 1 else Fraction(2)
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 2 <= degree <= 100:
        raise UndecidableError("root of an unusual degree")
    value, n = values[0], int(degree)
    if isinstance(value, Fraction):
        if value < 0 and n % 2:
            return -_root([-value, degree])
        top, bottom = _exact_root(abs(value.numerator), n), _exact_root(value.denominator, n)
        if value >= 0 and top is not None and bottom is not None:
            return Fraction(top, bottom)
    real = as_real(value)
    if isinstance(real, _REAL.mpf) and real < 0 and n != 2:
        raise UndecidableError("a root with several values")
    return _finite(_REAL.sqrt(real) if n == 2 else _REAL.root(real, n))


def _exact_root(value: int, n: int) -> int | None:
    if n == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    low, high = 0, 1 << (value.bit_length() // n + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**n <= value else (low, middle - 1)
    return low if low**n == value else None


def _trigonometric(name: str, value: Value, node: Node) -> Value:
    degrees = any(isinstance(n, Unary) and n.op == "deg" for n in walk(node))
    if not degrees and isinstance(value, Fraction) and value != 0:
        raise UndecidableError("an angle without its unit")
    angle = as_real(value) * (_REAL.pi / 180 if degrees else 1)
    if not isinstance(angle, _REAL.mpf) or abs(angle) > 10**6:
        raise UndecidableError("an angle out of bounds")
    sine, cosine = _REAL.sin(angle), _REAL.cos(angle)
    top, bottom = {
        "sin": (sine, 1), "cos": (cosine, 1), "tan": (sine, cosine),
        "cot": (cosine, sine), "sec": (1, cosine), "csc": (1, sine),
    }[name]  # fmt: skip
    if abs(bottom) < _REAL.mpf(10) ** -40:
        raise UndecidableError("a pole of a trigonometric function")
    return top / bottom


def _logarithm(name: str, values: list[Value], reading: Reading) -> Value:
    argument = as_real(values[0])
    if not isinstance(argument, _REAL.mpf) or argument <= 0:
        raise UndecidableError("logarithm of what is not positive")
    if len(values) == 1:
        natural = name == "ln" or (name == "log" and reading.natural_log)
        return _REAL.log(argument) / (1 if natural else _REAL.log(10))
    base = as_real(values[1])
    if base <= 0 or base == 1:
        raise UndecidableError("logarithm to an impossible base")
    return _REAL.log(argument) / _REAL.log(base)
