"""Expressions with variables as quotients of polynomials with rational coefficients, in normal form.

What is no polynomial (a root, a sine, pi) becomes a variable of its own, named after its expression. That can
hide that two expressions are equal, never make two equal ones differ by a non-zero number.
"""

from fractions import Fraction
from typing import TypeAlias

from stepconf.core.symbolic.evaluate import UndecidableError, evaluate
from stepconf.core.symbolic.nodes import Binary, Call, Const, Node, Num, Unary, Var, variables

MAX_TERMS = 80
MAX_DEGREE = 24
MAX_COEFFICIENT_BITS = 600

Monomial: TypeAlias = tuple[tuple[str, int], ...]  # (variable, exponent > 0), sorted
Polynomial: TypeAlias = dict[Monomial, Fraction]  # no zero coefficients
ONE: Polynomial = {(): Fraction(1)}


def constant(value: Fraction) -> Polynomial:
    """The polynomial that is `value` everywhere."""
    return {(): value} if value else {}


def is_constant(p: Polynomial) -> bool:
    """Whether `p` has no variable."""
    return all(not monomial for monomial in p)


def add(p: Polynomial, q: Polynomial, scale: Fraction = Fraction(1)) -> Polynomial:
    """`p + scale * q`."""
    total = dict(p)
    for monomial, coefficient in q.items():
        value = total.get(monomial, Fraction(0)) + scale * coefficient
        if value:
            total[monomial] = value
        else:
            total.pop(monomial, None)
    return _checked(total)


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    """`p * q`.

    Raises:
        UndecidableError: the product would be too large.
    """
    if len(p) * len(q) > MAX_TERMS * 12:
        raise UndecidableError("too many terms")
    product: Polynomial = {}
    for a, x in p.items():
        for b, y in q.items():
            monomial = _product(a, b)
            value = product.get(monomial, Fraction(0)) + x * y
            if value:
                product[monomial] = value
            else:
                product.pop(monomial, None)
    return _checked(product)


def substitute_value(p: Polynomial, name: str, value: Fraction) -> Polynomial:
    """`p` with the variable `name` set to `value`."""
    result: Polynomial = {}
    for monomial, coefficient in p.items():
        exponent = dict(monomial).get(name, 0)
        rest = tuple(pair for pair in monomial if pair[0] != name)
        result = add(result, {rest: coefficient}, value**exponent)
    return result


def names(p: Polynomial) -> frozenset[str]:
    """The variables of `p`."""
    return frozenset(name for monomial in p for name, _ in monomial)


def fraction_of(node: Node) -> tuple[Polynomial, Polynomial]:
    """`node` as (numerator, denominator).

    Raises:
        UndecidableError: it is too large, or divides by zero.
    """
    if not variables(node) and not isinstance(node, Const):
        try:
            value = evaluate(node, {})
        except UndecidableError:
            value = None
        if isinstance(value, Fraction):
            return constant(value), ONE
    match node:
        case Num(value):
            return constant(value), ONE
        case Var(name):
            return {((name, 1),): Fraction(1)}, ONE
        case Unary("neg", arg):
            top, bottom = fraction_of(arg)
            return add({}, top, Fraction(-1)), bottom
        case Unary("pct", arg):
            top, bottom = fraction_of(arg)
            return add({}, top, Fraction(1, 100)), bottom
        case Unary("deg", arg):
            return fraction_of(arg)
        case Binary(op, left, right):
            return _binary(op, left, right, node)
    return _opaque(node)


def _binary(op: str, left: Node, right: Node, node: Node) -> tuple[Polynomial, Polynomial]:
    if op == "^":
        return _power(left, right, node)
    if op in ("mod", "pm", "mp"):
        return _opaque(node)
    (a, b), (c, d) = fraction_of(left), fraction_of(right)
    if op in ("+", "-", "mixed"):
        sign = Fraction(-1) if op == "-" else Fraction(1)
        if b == d:
            return add(a, c, sign), b
        return add(multiply(a, d), multiply(c, b), sign), multiply(b, d)
    if op == "/":
        c, d = d, c
        if not d:
            raise UndecidableError("division by zero")
    return multiply(a, c), multiply(b, d)


def _power(base: Node, exponent: Node, node: Node) -> tuple[Polynomial, Polynomial]:
    try:
        value = evaluate(exponent, {})
    except UndecidableError:
        return _opaque(node)
    if not isinstance(value, Fraction) or value.denominator != 1 or abs(value) > MAX_DEGREE:
        return _opaque(node)
    n = int(value)
    if isinstance(base, Call) and base.name == "sqrt" and n > 0 and n % 2 == 0:
        base, n = base.args[0], n // 2
    top, bottom = fraction_of(base)
    if n < 0:
        if not top:
            raise UndecidableError("division by zero")
        top, bottom, n = bottom, top, -n
    return _raised(top, n), _raised(bottom, n)


def _raised(p: Polynomial, n: int) -> Polynomial:
    if len(p) == 1:
        ((monomial, coefficient),) = p.items()
        powers = tuple((name, exponent * n) for name, exponent in monomial) if n else ()
        return _checked({powers: coefficient**n})
    result = ONE
    while n:
        if n % 2:
            result = multiply(result, p)
        p, n = multiply(p, p) if n > 1 else p, n // 2
    return result


def _opaque(node: Node) -> tuple[Polynomial, Polynomial]:
    return {((repr(node)[:400], 1),): Fraction(1)}, ONE


def _product(a: Monomial, b: Monomial) -> Monomial:
    exponents = dict(a)
    for name, exponent in b:
        exponents[name] = exponents.get(name, 0) + exponent
    return tuple(sorted(exponents.items()))


def _checked(p: Polynomial) -> Polynomial:
    if len(p) > MAX_TERMS:
        raise UndecidableError("too many terms")
    for monomial, coefficient in p.items():
        if sum(exponent for _, exponent in monomial) > MAX_DEGREE:
            raise UndecidableError("degree out of bounds")
        if coefficient.numerator.bit_length() + coefficient.denominator.bit_length() > MAX_COEFFICIENT_BITS:
            raise UndecidableError("coefficient out of bounds")
    return p


def difference(left: Node, right: Node) -> tuple[Polynomial, Polynomial]:
    """(numerator, denominator) of `left - right`."""
    return _binary("-", left, right, left)


def gcd(p: Polynomial, q: Polynomial, name: str) -> Polynomial:
    """The monic greatest common divisor of two polynomials in the one variable `name`, by Euclid."""
    a, b = _dense(p, name), _dense(q, name)
    while b:
        while len(a) >= len(b):
            factor, shift = a[-1] / b[-1], len(a) - len(b)
            a = [x - factor * (b[i - shift] if i >= shift else 0) for i, x in enumerate(a)]
            while a and not a[-1]:
                a.pop()
            if any(x.numerator.bit_length() > MAX_COEFFICIENT_BITS * 4 for x in a):
                raise UndecidableError("coefficient out of bounds")
        a, b = b, a
    return {(((name, i),) if i else ()): x / a[-1] for i, x in enumerate(a) if x}


def _dense(p: Polynomial, name: str) -> list[Fraction]:
    degree = max((dict(monomial).get(name, 0) for monomial in p), default=-1)
    row = [Fraction(0)] * (degree + 1)
    for monomial, coefficient in p.items():
        row[dict(monomial).get(name, 0)] += coefficient
    return row
