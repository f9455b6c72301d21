"""Equations with variables: what contradicts what was stated, and what must be left alone."""

from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.claims import check_steps
from stepconf.core.maths.polynomials import Polynomial, Ring, constant, contradictory, implied_value
from stepconf.core.maths.tree import Binary, Node, Num, Var

WRONG = [
    # (problem, steps, index of the step that must be flagged)
    ("", [r"So \(2x + 3 = 9\).", r"Therefore \(x = 4\)."], 1),
    ("", [r"\[ 2x + 3 = 9 \\ 2x = 12 \\ x = 6 \]"], 0),
    ("", ["30 + x + 105 = 500. Simplifying, we get: 135 + x = 500. So x = 350 - 150."], 0),
    ("", [r"\[S = 2B\]", r"\[(S + 2) + (B + 2) = 28\]", r"\[2B + 4 + B + 2 = 28\]"], 2),
    ("", [r"We factor \(x^3 - 1 = (x + 1)(x^2 - x + 1)\)."], 0),
    ("", [r"We have \(6r^2 = 12r\).", r"Dividing both sides by 2r gives \(3r = 12\)."], 1),
    ("If $x + y = 10$ and $x - y = 4$, find $x$.", ["Adding gives $2x = 14$, so $x = 8$."], 0),
    ("", ["Total = 9 + 3 + 4\nTotal = 18"], 0),
    ("", [r"\( (x - 16 + 100) - 25 = x + 69 - 25 \)"], 0),
    ("Find $z$ if $2 - 3iz = 3$.", [r"\[ \frac{1}{-5i} \cdot \frac{-i}{-i} = \frac{-i}{25} \]"], 0),
    ("", ["Both 24 and 1199 are divisible by 3."], 0),
    ("", [r"Since 91 is prime, we stop."], 0),
    ("", [r"\( 7^{100} \equiv 2 \pmod{5} \)"], 0),
    ("", [r"Thus $441 = 1202_7$."], 0),
    ("", [r"\( \frac{5 \pm \sqrt{25 + 24}}{4} = \frac{5 \pm 8}{4} \)"], 0),
    ("", [r"\( 2 \pm \sqrt{16} = 2 ± 8 \)"], 0),
    (
        "",
        [r"We know $p + q < 9$ and $p = 2q$.", r"Also $q = 3$.", r"So $p = 2 + 5$."],
        2,
    ),  # both sides of an "and"
]
RIGHT = [
    ("", [r"\[ 2x + 3 = 9 \\ 2x = 6 \\ x = 3 \]"]),
    ("", [r"\(x^2 = 9\), so \(x = 3\) or \(x = -3\)."]),
    ("", [r"\((x - 2)(x + 5) = 0\)", r"\(x - 2 = 0\) and \(x + 5 = 0\) give both roots."]),
    ("", [r"If \(x = 1\), then \(y = 4\).", r"If \(x = 2\), then \(y = 7\)."]),
    ("", [r"Case 1: \(n = 3\).", r"Case 2: \(n = 5\)."]),
    ("The lines $y = 2x + 1$ and $y = 2x + 3$ are parallel.", [r"The slope of \(y = 2x + 1\) is 2."]),
    ("", [r"\(3x = 2\)", r"\(x = 0.67\)"]),
    ("", [r"\(x^2 + 1 = 0\)", "has no real solution"]),
    ("", [r"\(f(2) = 3\)", r"\(f(3) = 7\)"]),
    ("", [r"We assume that \(a = 2\).", r"We could also take \(a = 5\)."]),
    ("", ["Total = 5 + 3 = 8\nTotal = 8 + 4 = 12"]),
    ("", [r"\(x = 4\).", "Wait, there was an error.", r"So \(x = 5 - 2\)."]),
    ("", [r"\( x = 5 \text{ feet} = 60 \text{ inches} \)"]),
    ("", [r"\( 7^{100} \equiv 1 \pmod{5} \)"]),
    ("", ["97 is prime and 91 is not prime."]),
    ("", ["The product of 3 and 7 is divisible by 3."]),
    ("", [r"\(|x - 7| = 3\)", r"\(x - 7 = 3\)", r"\(x - 7 = -3\)"]),
    ("Define the operation $a * b = 2a + 3b$.", [r"So $2 * 5 = 4 + 15 = 19$."]),
    ("", [r"$6$ inches $\times 3$ feet $= .5$ feet $\times 3$ feet"]),
    ("", [r"\( 2x > 6 \implies x > 3 \)"]),
    ("", [r"\( 2x > 6 \implies x > 2 \)"]),
    ("", [r"\( 2x > 7 \implies x \ge 4 \)"]),
    ("", [r"\( -3 < 2x < 7 \implies -1.5 < x < 3.5 \)"]),
    ("", [r"\( x - 2 \ge 0 \\ 7 - x \ge 0 \)"]),
    ("", [r"\( (x - 1)(x - 9) > 0 \implies x > 9 \) or \( x < 1 \)"]),
    ("", [r"\( x > 5 \), and \( x < 3 \) cannot be."]),
    ("", [r"\( |x| > 2 \implies x > 2 \) or \( x < -2 \)"]),
    ("", [r"\( \frac{5 \pm \sqrt{25 + 24}}{4} = \frac{5 \pm 7}{4} \)"]),
    ("", [r"\( 2 \pm 3 = 5, -1 \)"]),
    ("", [r"\( x = 2 \pm 3 \)", r"\( x = 5 \)"]),
    ("", [r"\( \frac{-6 \mp 2}{-2} = 3 \pm 1 \)"]),
    # an operation of the problem: its sign, a letter or a box
    (r"Let $u$ $\$$ $v$ mean $3u - v$. Find $4$ $\$$ $5$.", [r"$4\ \$\ 5 = 12 - 5 = 7$."]),
    ("Suppose $(m)$ x $(n) = m^2 + 3n$. Find $(2)$ x $(4)$.", [r"Then $(2)$ x $(4) = 4 + 12 = 16$."]),
    (r"Write $\boxed{k}$ for the sum of the digits of $k$.", [r"$\boxed{19} + \boxed{21} = 10 + 3 = 13$."]),
    # cases that a heading or suppositions of several values begin
    ("", [r"Case 1: $p$ is even.", r"Then $u = 4$.", r"Case 2: $p$ is odd.", r"Then $3u = 9$."]),
    (
        "",
        [
            r"If $p = 1$, then $2u = 8v$.",
            r"Hence $u = 4v$.",
            r"If $p = 2$, then $u = v$.",
            r"Hence $v = 5$, $u = 5$.",
        ],
    ),
    # brackets that round
    ("", [r"\( k = \left[ 3m + \frac{8}{5} \right] \implies k = 3m + 2 \)"]),
    # an equation that is only an operand
    ("", [r"We have $t^2 - t + 1 = 0$. Multiplying this equation by $t + 1 = 0$, we get $t^3 + 1 = 0$."]),
    # lines that do not all meet in one point
    (
        "What is the area bounded by $v = 1$, $v = u + 2$ and $u + 2v = 10$?",
        [r"Thus $u + 2(u + 2) = 10$, so $3u = 6$."],
    ),
    # two columns of a system
    ("", [r"\begin{align*} \frac{u}{v} &= 3 & \frac{u + 8}{v + 1} &= 4 \end{align*}", r"So $u = 3v$."]),
    # an equation that has no solution, and what it is turned into
    (
        r"How many $t$ satisfy $\frac{t}{t - 4} = \frac{4}{t - 4} + 2 - 1 + \frac{1}{t - 4}$?",
        [r"Moving a term, $\frac{t - 4}{t - 4} = 1 + \frac{1}{t - 4}$.", "There is none."],
    ),
    # several values
    ("", [r"We find $p + q = 4, 15$ and $p - q = 2, -7$.", r"So $p = 3$.", r"Then $q = 1 + 11$."]),
    # edges of a solid: each has its own equations
    (
        "",
        [
            r"On the edge passing through $A$ we have $v = 0$ and $w = 6$.",
            r"On the edge passing through $B$, $7 - w = 2$.",
        ],
    ),
    # a part of a number that was stated
    ("A tank holds 7.5 litres.", [r"10\% = 0.75, so 30\% is 2.25."]),
    ("", [r"[asy] int i; for (i = 0; i < 5; i = i + 1) { x = 3; x = 4; } [/asy]"]),
]


@pytest.mark.parametrize(("problem", "steps", "index"), WRONG)
def test_what_cannot_hold_is_flagged(problem: str, steps: list[str], index: int) -> None:
    labels = [found.label for found in check_steps(problem, steps)]
    assert labels.index("incorrect") == index, check_steps(problem, steps)


@pytest.mark.parametrize(("problem", "steps"), RIGHT)
def test_what_may_hold_is_not_flagged(problem: str, steps: list[str]) -> None:
    found = check_steps(problem, steps)
    assert "incorrect" not in [one.label for one in found], found


@pytest.mark.parametrize(
    "step",
    [
        r"\( 2x > 6 \implies x > 3 \)",
        r"\( -2x \ge 6 \implies x \le -3 \)",
        r"We have 2x + 4 >= 10. Subtracting 4 from both sides gives 2x >= 6.",
        r"\( \frac{5 \pm \sqrt{25 + 24}}{4} = \frac{5 \pm 7}{4} \)",
        r"\( \frac{-6 \mp 2}{-2} = 3 \pm 1 \)",
        r"\( 3 \pm 1 = 3 \mp 1 \)",
    ],
)
def test_transformed_inequalities_and_both_signs_hold(step: str) -> None:
    assert check_steps("", [step])[0].label == "correct"


TERMS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-5, 5)), min_size=1, max_size=4)
RING = Ring()
X, Y = RING.variable("x"), RING.variable("y")


def polynomial(terms: list[tuple[int, int, int]]) -> Polynomial:
    total = constant(0)
    for a, b, coefficient in terms:
        total += coefficient * X**a * Y**b
    return total


def tree(terms: list[tuple[int, int, int]]) -> Node:
    parts: list[Node] = [
        Binary(
            "*",
            Num(Fraction(coefficient)),
            Binary("*", Binary("^", Var("x"), Num(Fraction(a))), Binary("^", Var("y"), Num(Fraction(b)))),
        )
        for a, b, coefficient in terms
    ]
    node = parts[0]
    for part in parts[1:]:
        node = Binary("+", node, part)
    return node


@settings(max_examples=60, deadline=None)
@given(TERMS, TERMS)
def test_a_difference_is_that_of_flint(p: list[tuple[int, int, int]], q: list[tuple[int, int, int]]) -> None:
    top, bottom = RING.difference(tree(p), tree(q))
    assert top == (polynomial(p) - polynomial(q)) * bottom


@settings(max_examples=80, deadline=None)
@given(st.lists(TERMS, min_size=1, max_size=5), st.integers(-3, 3), st.integers(-3, 3))
def test_equations_with_a_common_solution_never_contradict(
    rows: list[list[tuple[int, int, int]]], x: int, y: int
) -> None:
    """Shift each polynomial so that (x, y) is a root of it: no elimination may then call them impossible."""
    shifted = []
    for terms in rows:
        value = sum(coefficient * x**a * y**b for a, b, coefficient in terms)
        shifted.append(polynomial(terms) - value)
    assert not contradictory(shifted)


@settings(max_examples=60, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
def test_values_of_a_linear_system_are_those_of_sympy(a: int, b: int, c: int) -> None:
    x, y = sympy.symbols("x y")
    (solution,) = sympy.linsolve([x + c * y - a, x - c * y - b], x, y)
    rows = [X + c * Y - a, X - c * Y - b]
    assert implied_value(RING, rows, "x") == Fraction(int(solution[0].p), int(solution[0].q))
    assert contradictory([*rows, X - (a + b + 2)]) == (solution[0] != a + b + 2)
