"""Expressions with variables as quotients of polynomials, by FLINT; elimination by Gröbner bases.

What is no polynomial (a root, a sine, pi) becomes a variable of its own, named after its expression. That can
hide that two expressions are equal, never make two equal ones differ by a non-zero number.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

from flint import Ordering, fmpz_mpoly, fmpz_mpoly_ctx, fmpz_mpoly_vec

from stepconf.core.maths.tree import Binary, Call, Const, Node, Unary, Var, variables
from stepconf.core.maths.values import ANGLED, UndecidableError, evaluate

MAX_VARIABLES = 24  # of one solution
MAX_TERMS = 80
MAX_DEGREE = 24  # of what is no monomial
MAX_EXPONENT = 10_000
MAX_COEFFICIENT_BITS = 600
MAX_EQUATIONS = 24
MAX_TOTAL_TERMS = 250
_BASIS_LIMITS = (60, 120, 4000)  # polynomials, terms of one, bits of a coefficient
_CONTEXT = fmpz_mpoly_ctx.get([f"x{i}" for i in range(MAX_VARIABLES)], Ordering.degrevlex)
_GENERATORS = _CONTEXT.gens()

Polynomial: TypeAlias = fmpz_mpoly
Quotient: TypeAlias = tuple[Polynomial, Polynomial]


class Ring:
    """Polynomials in the variables of one solution or comparison, which it numbers as they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def variable(self, name: str) -> Polynomial:
        """The variable itself. Raises `UndecidableError` where there are too many."""
        number = self.numbers.setdefault(name, len(self.numbers))
        if number >= MAX_VARIABLES:
            del self.numbers[name]
            raise UndecidableError("too many variables")
        return _GENERATORS[number]

    def names(self, p: Polynomial) -> frozenset[str]:
        """The variables of `p`."""
        degrees = p.degrees()
        return frozenset(name for name, number in self.numbers.items() if degrees[number])

    def value(self, p: Polynomial) -> tuple[str, Fraction] | None:
        """The variable and its value where `p = 0` says `x = 3`."""
        names = self.names(p)
        if len(names) != 1 or p.total_degree() != 1:
            return None
        (name,) = names
        slope, constant = p.coefficient(0), p - p.coefficient(0) * self.variable(name)
        return name, -Fraction(
            int(constant.leading_coefficient()) if not is_zero(constant) else 0, int(slope)
        )

    def quotient(self, node: Node) -> Quotient:
        """`node` as (numerator, denominator) without a common factor.

        Raises:
            UndecidableError: it is too large, or divides by zero.
        """
        if not variables(node) and not isinstance(node, Const):
            try:
                value = evaluate(node, {})
            except UndecidableError:
                value = None
            if isinstance(value, Fraction):
                return constant(value.numerator), constant(value.denominator)
        match node:
            case Var(name):
                return self.variable(name), constant(1)
            case Unary("neg", arg):
                top, bottom = self.quotient(arg)
                return -top, bottom
            case Binary("^" | "^^", base, exponent):
                return self._power(base, exponent, node)
            case Binary(op, left, right) if op not in ("mod", "pm", "mp"):
                return self._combined(op, self.quotient(left), self.quotient(right))
        return self.variable(repr(node)[:400]), constant(1)

    def difference(self, left: Node, right: Node) -> Quotient:
        """`left - right`."""
        return self._combined("-", self.quotient(left), self.quotient(right))

    def _combined(self, op: str, one: Quotient, other: Quotient) -> Quotient:
        (a, b), (c, d) = one, other
        if any(len(p) * len(q) > MAX_TERMS * 12 for p, q in ((a, c), (a, d), (b, c), (b, d))):
            raise UndecidableError("too many terms")
        if op in ("+", "-", "mixed"):
            c = -c if op == "-" else c
            return _reduced(a + c, b) if b == d else _reduced(a * d + c * b, b * d)
        if op == "/":
            if is_zero(c):
                raise UndecidableError("division by zero")
            c, d = d, c
        return _reduced(a * c, b * d)

    def _power(self, base: Node, exponent: Node, node: Node) -> Quotient:
        try:
            value = evaluate(exponent, {})
        except UndecidableError:
            value = None
        if not isinstance(value, Fraction) or value.denominator != 1:
            return self.variable(repr(node)[:400]), constant(1)
        if abs(value) > MAX_EXPONENT:
            raise UndecidableError("degree out of bounds")
        n = int(value)
        if isinstance(base, Call) and base.name == "sqrt" and n > 0 and n % 2 == 0:
            base, n = base.args[0], n // 2
        if n < 0 and isinstance(base, Call) and base.name in ANGLED:
            raise UndecidableError("an inverse function or a reciprocal")
        top, bottom = self.quotient(base)
        if n < 0:
            if is_zero(top):
                raise UndecidableError("division by zero")
            top, bottom, n = bottom, top, -n
        if (
            max(len(top), len(bottom)) > 1
            and n * max(top.total_degree(), bottom.total_degree(), 1) > MAX_DEGREE
        ):
            raise UndecidableError("degree out of bounds")
        return _reduced(top**n, bottom**n)


def constant(value: int) -> Polynomial:
    """The polynomial that is `value` everywhere."""
    return _CONTEXT.constant(value)


def is_zero(p: Polynomial) -> bool:
    """Whether `p` is 0 everywhere."""
    return len(p) == 0


def is_constant(p: Polynomial) -> bool:
    """Whether `p` has no variable."""
    return bool(p.is_constant())


def contradictory(equations: Sequence[Polynomial]) -> bool:
    """Whether `p = 0` for all `p` in `equations` is impossible. False where that is not found out."""
    return any(is_constant(p) for p in _basis(equations))


def implied_value(ring: Ring, equations: Sequence[Polynomial], name: str) -> Fraction | None:
    """The value of `name` that the equations force, if elimination finds it."""
    said = (ring.value(p) for p in _basis(equations))
    return next((value[1] for value in said if value and value[0] == name), None)


def _basis(equations: Sequence[Polynomial]) -> list[Polynomial]:
    """A reduced Gröbner basis, or the part of it that was found within the limits."""
    rows = list(equations)[-MAX_EQUATIONS:]
    if not rows or sum(len(row) for row in rows) > MAX_TOTAL_TERMS:
        return []
    found, _ = fmpz_mpoly_vec(rows, _CONTEXT).buchberger_naive(limits=_BASIS_LIMITS)
    reduced: fmpz_mpoly_vec = found.autoreduction()  # type: ignore[attr-defined]  # its stub names another class
    return [p for p in reduced if not is_zero(p)]


def _reduced(top: Polynomial, bottom: Polynomial) -> Quotient:
    """The quotient without its common factor.

    Raises:
        UndecidableError: it is out of bounds.
    """
    common = top.gcd(bottom)
    top, bottom = top // common, bottom // common
    for p in (top, bottom):
        if len(p) > MAX_TERMS:
            raise UndecidableError("too many terms")
        if len(p) > 1 and p.total_degree() > MAX_DEGREE:
            raise UndecidableError("degree out of bounds")
        if any(abs(int(c)).bit_length() > MAX_COEFFICIENT_BITS for c in p.coeffs()):
            raise UndecidableError("coefficient out of bounds")
    return top, bottom
