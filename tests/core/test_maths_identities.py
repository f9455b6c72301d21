"""Identities: equality at random points against SymPy, and which false ones may be called wrong."""

from fractions import Fraction
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.claims import check_steps
from stepconf.core.maths.decide import same_everywhere
from stepconf.core.maths.lexer import tokenize
from stepconf.core.maths.parser import parse
from stepconf.core.maths.tree import Binary, Node, Num, Unary, Var

X, Y = sympy.symbols("x y", positive=True)

LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.integers(-4, 5).map(lambda n: Num(Fraction(n))), st.sampled_from([Var("x"), Var("y")])
)


def grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(Binary, st.sampled_from("+-*/"), inner, inner),
        st.builds(lambda base, n: Binary("^", base, Num(Fraction(n))), inner, st.integers(-2, 3)),
        st.builds(lambda arg: Unary("neg", arg), inner),
    )


RATIONAL = st.recursive(LEAVES, grown, max_leaves=8)


def as_sympy(node: Node) -> sympy.Expr:
    match node:
        case Num(value):
            return sympy.Rational(value.numerator, value.denominator)
        case Var(name):
            return {"x": X, "y": Y}[name]
        case Unary(_, arg):
            return -as_sympy(arg)
        case Binary(op, left, right):
            a, b = as_sympy(left), as_sympy(right)
            return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}.get(
                op, lambda: a**b
            )()
    raise AssertionError(node)


@settings(max_examples=150, deadline=None)
@given(RATIONAL, RATIONAL)
def test_quotients_of_polynomials_agree_with_sympy(left: Node, right: Node) -> None:
    a, b = as_sympy(left), as_sympy(right)
    found = same_everywhere(left, right).same
    if a.has(sympy.zoo, sympy.nan, sympy.oo) or b.has(sympy.zoo, sympy.nan, sympy.oo):
        return  # defined nowhere
    if found is not None:
        assert found == (sympy.cancel(sympy.together(a - b)) == 0)


@settings(max_examples=100, deadline=None)
@given(RATIONAL)
def test_what_sympy_rewrites_stays_the_same(node: Node) -> None:
    expression = as_sympy(node)
    if expression.has(sympy.zoo, sympy.nan, sympy.oo):
        return
    for other in (sympy.expand(expression), sympy.factor(expression)):
        assert same_everywhere(node, from_sympy(other)).same is not False


def from_sympy(expression: Any) -> Node:
    if expression.is_Symbol:
        return Var(expression.name)
    if expression.is_Rational:
        return Num(Fraction(int(expression.p), int(expression.q)))
    parts = [from_sympy(arg) for arg in expression.args]
    node = parts[0]
    for part in parts[1:]:
        node = Binary("+" if expression.is_Add else "*" if expression.is_Mul else "^", node, part)
    return node


def sides(text: str) -> tuple[Node, Node]:
    tokens = tokenize(f"${text}$")
    at = next(i for i, token in enumerate(tokens) if token.kind == "rel")
    return parse(tokens, 0, at)[0], parse(tokens, at + 1, len(tokens))[0]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (r"\sin^2 x + \cos^2 x = 1", True),
        (r"\sin 2x = 2 \sin x \cos x", True),
        (r"\tan x = \frac{\sin x}{\cos x}", True),
        (r"\sqrt{x^2} = |x|", True),
        (r"\sqrt{x^2} = x", None),  # for positive x only
        (r"\frac{1}{\sqrt{x} + 1} = \frac{\sqrt{x} - 1}{x - 1}", True),
        (r"(\sqrt{x} + 1)^2 = x + \sqrt{x} + 1", False),
        (r"(\sqrt{x} + 1)^2 = x + 2\sqrt{x} + 1", True),
        (r"\sqrt{x + y} = \sqrt{x} + \sqrt{y}", False),
        (r"\sqrt[3]{8x^3} = 2x", True),
        (r"\log(xy) = \log x + \log y", True),
        (r"\log(x + y) = \log x + \log y", None),  # a logarithm's base is a convention
        (r"4^n = 2^{2n}", True),
        (r"4^n = 2^{3n}", False),
        (r"e^{2x} = (e^x)^2", True),
        (r"(-1)^n = 1", None),
        (r"\sin^{-1} x = \frac{1}{\sin x}", None),
        (r"\sin 30 = \frac{1}{2}x", None),  # an angle without its unit
        (r"\frac{x^2 - 1}{x - 1} = x + 1", True),
        (r"x^{2000} \cdot x = x^{2001}", True),
        (r"x^{9^{9^9}} = x", None),
        (r"\frac{x}{x - x} = 1", None),
        (r"\pi r^2 + \pi r^2 = 2 \pi r^2", True),
        (r"n! = n", None),
    ],
)
def test_functions_roots_and_powers(text: str, same: bool | None) -> None:
    assert same_everywhere(*sides(text)).same is same


def test_a_fermat_power_is_not_one() -> None:
    """`x^(p-1)` is 1 modulo p: the bound on degrees keeps such powers out."""
    power: Node = Var("x")
    for factor in (1321, 331, 151, 61, 41, 31, 13, 11, 7, 5, 5, 3, 3, 2):
        power = Binary("^", power, Num(Fraction(factor)))
    assert same_everywhere(power, Num(Fraction(1))).same is not True


HOLDS = [
    r"\(\sin^2 x + \cos^2 x = 1\)",
    r"\((x + 1)^2 = x^2 + 2x + 1\)",
    r"Rationalising, \(\frac{1}{\sqrt{x} + 1} = \frac{\sqrt{x} - 1}{x - 1}\).",
    r"Suppose that \((a + b)^2 = a^2 + 2ab + b^2\).",
]
OPEN = [
    r"\( (x + 2)^2 = x^2 + 2x + 4 \)",  # an equation with the solution 0
    r"\( (x + 2)^2 = x^2 + 4x + 4 = 16 \)",
    r"\( (x + 2)^2 = x^2 + 4x + 4 = 3x^2 + 1 \)",
    r"Expanding the right side, \( x^2 + 2 = (x + 2)^2 = x^2 + 4x + 4 \).",
    r"Expanding, we get \( (x + 2)^2 = x^2 + 2x + 4 \).",
    r"\( A = (x + 1)^2 \)",
    r"\( (x + 1)^2 = (x + 1)(x + 1) = x^2 + x + 1 \) is wrong.",
    r"If \( (x + 1)^2 = (x + 1)(x + 1) = x^2 + x + 1 \), then \(x = 0\).",
]


@pytest.mark.parametrize("step", HOLDS)
def test_identities_hold(step: str) -> None:
    assert check_steps("", [step])[0].label == "correct"


@pytest.mark.parametrize("step", OPEN)
def test_what_may_be_an_equation_is_not_flagged(step: str) -> None:
    assert check_steps("", [step])[0].label != "incorrect"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-9, 9),
    st.integers(-9, 9),
    st.integers(1, 5),
    st.sampled_from("xyzt"),
)
def test_true_expansions_are_never_flagged(a: int, b: int, c: int, name: str) -> None:
    linear, constant = c * (a + b), c * a * b
    step = (
        rf"\( {c}({name} + ({a}))({name} + ({b})) = {c}({name}^2 + ({a + b}){name} + ({a * b}))"
        rf" = {c}{name}^2 + ({linear}){name} + ({constant}) \)"
    )
    assert check_steps("", [step])[0].label == "correct", step
