"""Values of answer trees: exact where the arithmetic is rational, floats of a known scale elsewhere."""

import cmath
import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from stepconf.core.answers.expression import Node
from stepconf.core.answers.notation import UnreadableError

Value = Fraction | complex

MAX_BITS = 4096  # of an exact integer; beyond it a power or factorial is `TooLargeError`
POINTS = 4  # at which expressions with variables are compared
POSITIVE_POINTS = 2  # the first ones, where all variables are positive


class TooLargeError(Exception):
    """A power or factorial beyond `MAX_BITS`: a tower, which must not reach a computer algebra system."""


class Evaluation:
    """The value of a tree at one point; `scale` is the largest magnitude met while floats were in use."""

    def __init__(self, point: int) -> None:
        self.point = point
        self.scale = 0.0
        self.names: set[str] = set()
        self.decimal = False

    def value(self, node: Node) -> Value:
        """Raises `UnreadableError` where the tree has no value, `TooLargeError`, or `ArithmeticError`."""
        try:
            result = self._value(node)
        except ValueError as error:  # what cmath says at a pole
            raise ArithmeticError(str(error)) from error
        if isinstance(result, complex):
            if cmath.isnan(result) or cmath.isinf(result):
                raise ArithmeticError("not finite")
            self.scale = max(self.scale, abs(result))
        return result

    def _value(self, node: Node) -> Value:
        kind = node[0]
        if kind == "num":
            self.decimal |= node[2]
            return bounded(node[1])
        if kind == "name":
            return self._name(node[1])
        if kind == "neg":
            return -self.value(node[1])
        if kind in ("add", "mul"):
            a, b = self.value(node[1]), self.value(node[2])
            if isinstance(a, Fraction) and isinstance(b, Fraction):
                return bounded(a + b if kind == "add" else a * b)
            return to_complex(a) + to_complex(b) if kind == "add" else to_complex(a) * to_complex(b)
        if kind == "div":
            a, b = self.value(node[1]), self.value(node[2])
            if isinstance(a, Fraction) and isinstance(b, Fraction):
                return bounded(a / b)
            return to_complex(a) / to_complex(b)
        if kind == "pow":
            return power(self.value(node[1]), self.value(node[2]))
        if kind == "percent":
            return self.value(node[1]) / 100
        if kind == "deg":
            return to_complex(self.value(node[1])) * math.pi / 180
        if kind == "fact":
            return factorial(self.value(node[1]))
        if kind == "call":
            return call(node[1], [self.value(part) for part in node[2:]])
        raise UnreadableError(kind)

    def _name(self, name: str) -> Value:
        if name == "\\pi":
            return complex(math.pi)
        if name == "e":
            return complex(math.e)
        if name == "i":
            return 1j
        if name in ("\\infty", "\\emptyset", "\\varnothing"):
            raise UnreadableError(name)
        self.names.add(name)
        return sample(name, self.point)


@lru_cache(maxsize=1024)
def sample(name: str, point: int) -> Fraction:
    """The value of a variable at a point: fixed, of size 0.3 to 2.7, negative at some later points."""
    digest = hashlib.blake2b(f"{name}#{point}".encode(errors="replace"), digest_size=8).digest()
    number = int.from_bytes(digest)
    size = Fraction(30 + (number >> 1) % 240, 97)
    return -size if point >= POSITIVE_POINTS and number % 2 else size


def to_complex(value: Value) -> complex:
    """Raises ArithmeticError where a Fraction is beyond the floating range."""
    return complex(float(value)) if isinstance(value, Fraction) else value


def bounded(value: Fraction) -> Fraction:
    """The value itself; raises `TooLargeError` where it has outgrown exact arithmetic."""
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooLargeError
    return value


def power(base: Value, exponent: Value) -> Value:
    """Principal power, exact for a rational base and an integer exponent or an exact root."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(base) not in (0, 1) and abs(exponent) * bits > MAX_BITS:
                raise TooLargeError
            if abs(base) == 1:
                return base if exponent.numerator % 2 else Fraction(1)
            if base == 0 and exponent > 0:
                return base
            return base**exponent.numerator
        if (
            exponent.denominator < 10
            and base >= 0
            and (root := exact_root(base, exponent.denominator)) is not None
        ):
            return power(root, Fraction(exponent.numerator))
    a, b = to_complex(base), to_complex(exponent)
    if a and (b * cmath.log(a)).real > 700:
        raise TooLargeError
    return a**b


def exact_root(value: Fraction, index: int) -> Fraction | None:
    """The rational root of a value >= 0, or None if it is irrational or too large to tell."""
    parts = []
    for part in (value.numerator, value.denominator):
        if part.bit_length() > 1000:
            return None
        guess = round(part ** (1 / index))
        root = next((r for r in (guess - 1, guess, guess + 1) if r >= 0 and r**index == part), None)
        if root is None:
            return None
        parts.append(root)
    return Fraction(parts[0], parts[1])


def factorial(value: Value) -> Value:
    """n! of a natural number."""
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise UnreadableError("factorial")
    if value > 400:
        raise TooLargeError
    return Fraction(math.factorial(value.numerator))


_CALLS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "ln": cmath.log, "exp": cmath.exp,
    "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
    "asin": cmath.asin, "acos": cmath.acos, "atan": cmath.atan,
    "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z),
}  # fmt: skip


def call(function: str, arguments: list[Value]) -> Value:
    """A named function of its arguments, principal branches; `log` without a base is the natural one."""
    first = arguments[0]
    if function == "abs":
        return abs(first) if isinstance(first, Fraction) else complex(abs(first))
    if function == "root":
        index = arguments[1]
        if not isinstance(index, Fraction) or not index:
            raise UnreadableError("root")
        if isinstance(first, Fraction) and first < 0 and index.numerator % 2 and index.denominator == 1:
            return -power(-first, 1 / index)  # the real root, as in school
        return power(first, 1 / index)
    if function == "binom":
        n, k = arguments
        if not (isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1):
            raise UnreadableError("binom")
        if not 0 <= k <= n or n > 1000:
            raise TooLargeError
        return Fraction(math.comb(n.numerator, k.numerator))
    z = to_complex(first)
    if function == "log":
        return cmath.log(z) / cmath.log(to_complex(arguments[1])) if len(arguments) > 1 else cmath.log(z)
    if function not in _CALLS or len(arguments) > 1:
        raise UnreadableError(function)
    return _CALLS[function](z)
