"""Are two expressions the same? Equal, different or undecided, and what decided.

In this order: exact rationals; quotients of polynomials (FLINT); balls at random points (FLINT), which prove a
difference where they do not meet, and which count as the same where they agree to 30 digits at every point. What
is open after these is a matter for SymPy (`algebra`), which only killable workers may ask.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import flint
from flint import arb

from stepconf.core.maths.polynomials import Ring, is_constant, is_zero
from stepconf.core.maths.tree import Call, Node, children, variables, walk
from stepconf.core.maths.values import (
    PLAIN,
    Reading,
    TooLargeError,
    UndecidableError,
    Value,
    ball,
    differ,
    evaluate,
)

RATIONALS, POLYNOMIALS, BALLS, SYMPY, WORDS = "rational arithmetic", "polynomials", "balls", "SymPy", "words"
POINTS = 6
TRIES = 16  # points at most, of which `POINTS` must lie where both sides have a value
MAX_NODES = 400
_CONVENTIONAL = frozenset({"log", "lg"})


@dataclass(frozen=True, slots=True)
class Decision:
    """`same` is None where it is undecided; `by` names what decided."""

    same: bool | None
    by: str = ""


UNDECIDED = Decision(None)


def same_expression(a: Node, b: Node, reading: Reading = PLAIN) -> Decision:
    """Whether two expressions have the same value, wherever both have one if they have variables."""
    if a == b:
        return Decision(True, WORDS)
    if variables(a) or variables(b):
        return same_everywhere(a, b, reading)
    try:
        x, y = evaluate(a, {}, reading), evaluate(b, {}, reading)
    except UndecidableError:
        return UNDECIDED
    return same_values(x, y)


def same_values(x: Value, y: Value) -> Decision:
    """Whether two values are the same."""
    different = differ(x, y)
    exact = isinstance(x, Fraction) and isinstance(y, Fraction)
    return Decision(None if different is None else not different, RATIONALS if exact else BALLS)


def same_everywhere(a: Node, b: Node, reading: Reading = PLAIN) -> Decision:
    """Whether two expressions in variables are the same at all points of their common domain.

    None where they cannot be evaluated, agree at some points only (`sqrt(x^2)` and `x`), or differ in what
    depends on a convention (the base of a logarithm).
    """
    try:
        top, _ = Ring().difference(a, b)
        if is_zero(top):
            return Decision(True, POLYNOMIALS)
        if is_constant(top) or not any(_is_opaque(node) for side in (a, b) for node in walk(side)):
            return Decision(False, POLYNOMIALS)
    except UndecidableError:
        pass
    return Decision(_same_at_points(a, b, reading), BALLS)


def _is_opaque(node: Node) -> bool:
    """Whether a polynomial's normal form may hide that expressions with this node in them are equal."""
    if isinstance(node, Call):
        return True
    if getattr(node, "op", "") in ("^", "^^"):
        exponent = children(node)[1]
        try:
            value = evaluate(exponent, {})
        except UndecidableError:
            return True
        return not isinstance(value, Fraction) or value.denominator != 1
    return getattr(node, "op", "") in ("abs", "fact", "floor", "ceil", "deg", "mod", "pm", "mp")


def _same_at_points(a: Node, b: Node, reading: Reading) -> bool | None:
    names = sorted(variables(a) | variables(b))
    if sum(1 for side in (a, b) for _ in walk(side)) > MAX_NODES:
        return None
    agreed = differed = 0
    for point in range(TRIES):
        env: Mapping[str, Value] = {name: drawn(name, point) for name in names}
        try:
            different = differ(evaluate(a, env, reading), evaluate(b, env, reading))
        except TooLargeError:
            return None
        except UndecidableError:
            continue
        agreed += different is False
        differed += different is True
        if agreed and differed:
            return None
        if agreed == POINTS:
            return True
    conventional = any(isinstance(n, Call) and n.name in _CONVENTIONAL for side in (a, b) for n in walk(side))
    return False if differed >= POINTS and not conventional else None


@lru_cache(maxsize=4096)
def drawn(name: str, point: int) -> Fraction:
    """The value of a variable at a random point: of size 0.3 to 2.8, negative at every fourth point."""
    digest = hashlib.blake2b(f"{name}#{point}".encode(errors="replace"), digest_size=16).digest()
    number = int.from_bytes(digest)
    size = Fraction(3, 10) + Fraction((number >> 1) % (1 << 40), 1 << 40) * Fraction(5, 2)
    return -size if point % 4 == 3 or (point % 2 and number % 2) else size


def close(x: Value, y: Value, tolerance: Fraction) -> bool:
    """Whether two values differ by at most `tolerance`, relative where they are below 1."""
    with flint.ctx.workprec(128):
        a, b = ball(x), ball(y)
        size = abs(a).abs_upper().max(abs(b).abs_upper()).min(arb(1))
        gap = abs(a - b).abs_upper()
        return bool(gap <= size * ball(tolerance).real)
