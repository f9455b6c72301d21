"""Expression → exact value, or a ball so narrow that inequality is certain.

Rational arithmetic is exact. Roots, powers, logarithms and trigonometric functions are computed in balls of FLINT
(midpoint and rigorous radius, 256 bits): two balls that do not meet prove a difference. Every size is bounded
before the work is done.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import flint
from flint import acb, arb, fmpq

from stepconf.core.maths.tree import Binary, Call, Const, Node, Num, Unary, Var, walk

MAX_BITS = 8_000
MAX_FACTORIAL = 400
PRECISION = 256

Value: TypeAlias = Fraction | acb
IMAGINARY_UNIT = acb(0, 1)
Env: TypeAlias = Mapping[str, Value]


class UndecidableError(Exception):
    """The expression has no value that can be known here; the message says why."""


class TooLargeError(UndecidableError):
    """A power or factorial that no computer algebra system must be given."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the ambiguous parts of an expression are read."""

    percent_points: bool = False  # 20% is 20, not 1/5
    product_of_mixed: bool = False  # 2 1/2 is 1, not 5/2
    loose_implicit: bool = False  # 1/2x is (1/2)x
    tight_division: bool = False  # 1/2x in prose and 6/3 × 10^2 are 1/(2x) and 6/(3 × 10^2)
    pi: Fraction | None = None
    natural_log: bool = False
    percent_of_left: bool = False  # 50 + 20% is 60
    right_division: bool = False  # 2 / 1/4 is 8
    points_part_thousands: bool = False  # 1.500 is 1500
    radians: bool = False  # sin(30) is the sine of 30 radians; else it has no value
    degrees: bool = False  # 180 degrees are pi


PLAIN = Reading()


def evaluate(node: Node, env: Env, reading: Reading = PLAIN) -> Value:
    """The value of `node` with its variables taken from `env`.

    Raises:
        UndecidableError: a free variable, a division by zero, a number out of bounds or an unknown function.
    """
    with flint.ctx.workprec(PRECISION):
        return _value(node, env, reading)


def ball(value: Value) -> acb:
    """`value` as a ball, of the precision at work."""
    return acb(arb(fmpq(value.numerator, value.denominator))) if isinstance(value, Fraction) else value


def real(value: Value) -> arb | None:
    """`value` as a real ball; None where it is not real."""
    if isinstance(value, Fraction):
        return ball(value).real
    return value.real if value.imag.contains(0) and value.imag.rad() < arb("1e-30") else None


def differ(a: Value, b: Value) -> bool | None:
    """Whether two values are different: None where balls meet that are too wide to tell."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a != b
    with flint.ctx.workprec(PRECISION):
        gap = ball(a) - ball(b)
        if not gap.contains(0):
            return True
        scale = 1 + abs(ball(a)).abs_upper()
        return False if abs(gap).abs_upper() < scale * arb("1e-35") else None


def _value(node: Node, env: Env, reading: Reading) -> Value:
    match node:
        case Num(value, decimals):
            whole = reading.points_part_thousands and decimals == 3
            return value * 1000 if whole else value
        case Var(name):
            if name in env:
                return env[name]
            raise UndecidableError(f"free variable {name}")
        case Const("pi"):
            return reading.pi if reading.pi is not None else acb.pi()
        case Const("e"):
            return acb(1).exp()
        case Const(name):
            raise UndecidableError(f"{name} is no number")
        case Unary(op, arg):
            return _unary(op, _value(arg, env, reading), reading)
        case Binary(op, left, right):
            return _binary(op, left, right, env, reading)
        case Call(name, args):
            return _call(name, [_value(arg, env, reading) for arg in args], args, reading)


def bounded(value: Fraction) -> Fraction:
    """The value itself.

    Raises:
        TooLargeError: it has outgrown exact arithmetic.
    """
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooLargeError("number out of bounds")
    return value


def _finite(value: acb) -> acb:
    if not value.is_finite() or not abs(value).abs_upper() < arb(2) ** MAX_BITS:
        raise UndecidableError("number out of bounds")
    return value


def _unary(op: str, value: Value, reading: Reading) -> Value:
    match op:
        case "neg":
            return -value
        case "pct":
            return value if reading.percent_points else value / 100
        case "deg":
            return ball(value) * acb.pi() / 180 if reading.degrees else value
        case "abs":
            return abs(value) if isinstance(value, Fraction) else acb(abs(value))
        case "fact":
            if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
                raise UndecidableError("factorial out of bounds")
            if value > MAX_FACTORIAL:
                raise TooLargeError("factorial out of bounds")
            return Fraction(math.factorial(int(value)))
    if op not in ("floor", "ceil"):
        raise UndecidableError("a choice of signs")
    if not isinstance(value, Fraction):
        raise UndecidableError("rounding of an irrational value")
    return Fraction(math.floor(value) if op == "floor" else math.ceil(value))


def _binary(op: str, left: Node, right: Node, env: Env, reading: Reading) -> Value:
    match op, left, right:
        case "/", _, Binary("implicit", below, rest) if reading.loose_implicit:
            return _apply("*", _binary("/", left, below, env, reading), _value(rest, env, reading))
        case "loose", Binary("/", above, below), _ if reading.tight_division:
            return _binary("/", above, Binary("*", below, right), env, reading)
        case "/", Binary("/", above, below), _ if reading.right_division:
            return _apply("/", _value(above, env, reading), _binary("/", below, right, env, PLAIN))
        case "^", Call(name), Unary() if name in ANGLED:
            raise UndecidableError("an inverse function or a reciprocal")
    a = _value(left, env, reading)
    if op in "+-" and reading.percent_of_left and isinstance(right, Unary) and right.op == "pct":
        return _apply(op, a, _apply("*", a, _value(right, env, reading)))
    b = _value(right, env, reading)
    if op == "of":
        return _apply("*", a / 100 if reading.percent_points else a, b)
    if op == "mixed":
        return _apply("*" if reading.product_of_mixed else "+", a, b)
    return _apply({"implicit": "*", "loose": "*", "^^": "^"}.get(op, op), a, b)


def _apply(op: str, a: Value, b: Value) -> Value:
    if op == "^":
        return power(a, b)
    if op in ("pm", "mp"):
        raise UndecidableError("a choice of signs")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if op in ("/", "mod") and b == 0:
            raise UndecidableError("division by zero")
        operation: Callable[[Fraction, Fraction], Fraction] = {
            "+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__,
            "mod": Fraction.__mod__,
        }[op]  # fmt: skip
        return bounded(operation(a, b))
    if op == "mod":
        raise UndecidableError("remainder of what is not rational")
    x, y = ball(a), ball(b)
    if op == "/" and y.contains(0):
        raise UndecidableError("division by zero")
    return _finite(x + y if op == "+" else x - y if op == "-" else x * y if op == "*" else x / y)


def power(a: Value, b: Value) -> Value:
    """`a ** b`: exact where both are rational and the result is, the real root of a negative number if it has one."""
    if isinstance(b, Fraction) and b.denominator == 1:
        return _whole_power(a, int(b))
    if isinstance(b, Fraction) and isinstance(a, Fraction) and b.denominator <= 100:
        root = _root(a, b.denominator)
        return _whole_power(root, b.numerator)
    base, exponent = ball(a), ball(b)
    if base.contains(0):
        raise UndecidableError("power of zero")
    magnitude = exponent * base.log()
    if not abs(magnitude).abs_upper() < arb(MAX_BITS):
        raise TooLargeError("power out of bounds")
    if not (base.imag.contains(0) and base.real > 0):
        raise UndecidableError("a root with several values")
    return _finite(magnitude.exp())


def _whole_power(a: Value, exponent: int) -> Value:
    if isinstance(a, Fraction):
        size = max(a.numerator.bit_length(), a.denominator.bit_length())
        if abs(a) not in (0, 1) and abs(exponent) * max(size - 1, 1) > MAX_BITS:
            raise TooLargeError("power out of bounds")
        if a == 0 and exponent <= 0:
            raise UndecidableError("power of zero")
        return Fraction(a ** (exponent % 2 if abs(a) == 1 else exponent))
    if abs(exponent) > 1000:
        raise TooLargeError("power out of bounds")
    if a.contains(0) and exponent <= 0:
        raise UndecidableError("power of zero")
    return _finite(a**exponent)


def _root(value: Value, degree: int) -> Value:
    """The root of a real number as school has it: real where there is a real one; of -4 the square root is 2i."""
    if not 2 <= degree <= 100:
        raise UndecidableError("root of an unusual degree")
    if isinstance(value, Fraction):
        if value < 0 and degree % 2:
            return -_root(-value, degree)
        top, bottom = exact_root(abs(value.numerator), degree), exact_root(value.denominator, degree)
        if value >= 0 and top is not None and bottom is not None:
            return Fraction(top, bottom)
    x = ball(value)
    if degree % 2 and real(value) is not None and x.real < 0:
        return -_finite((-x).root(degree))
    if degree != 2 and not x.real > 0:
        raise UndecidableError("a root with several values")
    return _finite(x.sqrt() if degree == 2 else x.root(degree))


def exact_root(value: int, degree: int) -> int | None:
    """The whole root of a whole number that is not negative, if it has one."""
    root = int(flint.fmpz(value).root(degree)) if value else 0
    return root if root**degree == value else None


def _call(name: str, values: list[Value], nodes: tuple[Node, ...], reading: Reading) -> Value:
    if name in ("gcd", "lcm", "binom"):
        return _integers(name, values)
    exact = [v for v in values if isinstance(v, Fraction)]
    if name in ("max", "min") and len(exact) == len(values):
        return max(exact) if name == "max" else min(exact)
    if name in ("sqrt", "root"):
        degree = values[1] if len(values) > 1 else Fraction(2)
        if not isinstance(degree, Fraction) or degree.denominator != 1:
            raise UndecidableError("root of an unusual degree")
        return _root(values[0], int(degree))
    if name in ("log", "ln", "lg"):
        return _logarithm(name, values, reading)
    if name == "exp":
        return power(acb(1).exp(), values[0])
    if name not in _FUNCTIONS or len(values) > 1:
        raise UndecidableError(f"function {name}")
    return _function(name, values[0], nodes[0], reading)


def _integers(name: str, values: list[Value]) -> Fraction:
    integers = [int(v) for v in values if isinstance(v, Fraction) and v.denominator == 1 and abs(v) <= 10**30]
    if len(integers) < len(values):
        raise UndecidableError(f"{name} of what is not an integer")
    if name == "binom":
        n, k = integers
        if not 0 <= n <= 2_000 or k < 0:
            raise TooLargeError("binomial out of bounds")
        return bounded(Fraction(math.comb(n, k)))
    return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))


_FUNCTIONS: dict[str, Callable[[acb], acb]] = {
    "sin": acb.sin, "cos": acb.cos, "tan": acb.tan, "cot": acb.cot, "sec": acb.sec, "csc": acb.csc,
    "sinh": acb.sinh, "cosh": acb.cosh, "tanh": acb.tanh,
    "arcsin": acb.asin, "arccos": acb.acos, "arctan": acb.atan,
}  # fmt: skip
ANGLED = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})


def _function(name: str, value: Value, node: Node, reading: Reading) -> Value:
    angle = ball(value)
    if name in ANGLED:
        degrees = any(isinstance(n, Unary) and n.op == "deg" for n in walk(node))
        unsaid = not degrees and not any(isinstance(n, Const | Var) for n in walk(node))
        if unsaid and not reading.radians and value != 0:
            raise UndecidableError("an angle without its unit")
        angle = angle * acb.pi() / 180 if degrees and not reading.degrees else angle
        if not abs(angle).abs_upper() < 10**6:
            raise UndecidableError("an angle out of bounds")
    return _finite(_FUNCTIONS[name](angle))


def _logarithm(name: str, values: list[Value], reading: Reading) -> Value:
    def of(value: Value) -> acb:
        number = real(value)
        if number is None or not number > 0:
            raise UndecidableError("logarithm of what is not positive")
        return ball(value).log()

    if len(values) == 1:
        natural = name == "ln" or (name == "log" and reading.natural_log)
        return of(values[0]) / (1 if natural else of(Fraction(10)))
    base = of(values[1])
    if base.contains(0):
        raise UndecidableError("logarithm to an impossible base")
    return of(values[0]) / base
