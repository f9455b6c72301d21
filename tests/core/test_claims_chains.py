"""Arithmetic in many surface forms with errors put in at random: the checks against exact ground truth."""

import random
from fractions import Fraction

import pytest

from stepconf.core.claims import check_steps

UNITS = ["apples", "dollars", "km", "hours", "cups of flour", "pages", "students"]
BEFORE = [
    "",
    "So ",
    "First, ",
    "The total is ",
    "Next, we add: ",
    "She now has ",
    "Therefore, the number left is ",
    "Step 3: ",
    "- ",
    "**Step 2:** Now compute ",
]
AFTER = ["", ".", " in total.", ".\n", " left, which we use next.", ", so we go on."]


def decimal(value: Fraction) -> str | None:
    """The exact decimal form with at most three places, if there is one."""
    text = f"{float(value):.3f}"
    return text.rstrip("0").rstrip(".") if Fraction(text) == value else None


class Line:
    """One line of arithmetic: its expression in a surface form, and its exact value."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        kind = rng.choice(["whole", "whole", "negative", "decimal", "fraction", "many", "brackets", "power"])
        self.latex = rng.random() < 0.4
        self.value, self.plain, self.tex = getattr(self, kind)()

    def whole(self) -> tuple[Fraction, str, str]:
        a, b = self.rng.randint(1, 999), self.rng.randint(1, 99)
        return self.binary(Fraction(a), Fraction(b), str(a), str(b))

    def negative(self) -> tuple[Fraction, str, str]:
        a, b = self.rng.randint(-99, -1), self.rng.randint(1, 99)
        op = self.rng.choice("+-*")
        return self.joined(op, Fraction(a), Fraction(b), str(a), str(b))

    def decimal(self) -> tuple[Fraction, str, str]:
        a, b = Fraction(self.rng.randint(1, 9999), 100), Fraction(self.rng.randint(1, 99), 10)
        op = self.rng.choice("+-*")
        return self.joined(op, a, b, decimal(a) or "0", decimal(b) or "0")

    def fraction(self) -> tuple[Fraction, str, str]:
        a, b = Fraction(self.rng.randint(1, 9), self.rng.randint(2, 9)), Fraction(self.rng.randint(1, 60))
        op = self.rng.choice("+-*")
        value = {"+": a + b, "-": a - b, "*": a * b}[op]
        top, bottom = a.numerator, a.denominator
        sign = {"+": "+", "-": "-", "*": r"\cdot"}[op]
        return value, f"{top}/{bottom} {op} {b}", rf"\frac{{{top}}}{{{bottom}}} {sign} {b}"

    def many(self) -> tuple[Fraction, str, str]:
        numbers = [self.rng.randint(1, 60) for _ in range(self.rng.randint(3, 6))]
        ops = [self.rng.choice("+-+*") for _ in numbers[1:]]
        plain = str(numbers[0]) + "".join(f" {op} {n}" for op, n in zip(ops, numbers[1:], strict=True))
        terms = [Fraction(numbers[0])]
        for op, n in zip(ops, numbers[1:], strict=True):
            if op == "*":
                terms[-1] *= n
            else:
                terms.append(Fraction(n if op == "+" else -n))
        return sum(terms, Fraction(0)), plain, plain.replace("*", r"\times")

    def brackets(self) -> tuple[Fraction, str, str]:
        a, b, c = (self.rng.randint(2, 40) for _ in range(3))
        return (
            Fraction((a + b) * c),
            f"({a} + {b}) * {c}",
            rf"\left( {a} + {b} \right) \cdot {c}",
        )

    def power(self) -> tuple[Fraction, str, str]:
        a, n, b = self.rng.randint(2, 12), self.rng.randint(2, 3), self.rng.randint(1, 50)
        return Fraction(a**n + b), f"{a}^{n} + {b}", f"{a}^{{{n}}} + {b}"

    def binary(self, a: Fraction, b: Fraction, left: str, right: str) -> tuple[Fraction, str, str]:
        op = self.rng.choice("+-*/")
        if op == "/":
            left, a = str(a * b), a * b
        return self.joined(op, a, b, left, right)

    def joined(self, op: str, a: Fraction, b: Fraction, left: str, right: str) -> tuple[Fraction, str, str]:
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[op]
        sign = self.rng.choice({"*": ["*", "×", "x"], "/": ["/", "÷"], "-": ["-", "−"]}.get(op, [op]))
        tex = {"*": self.rng.choice([r"\times", r"\cdot"]), "/": r"\div"}.get(op, op)
        return value, f"{left} {sign} {right}", f"{left} {tex} {right}"

    def shown(self, value: Fraction) -> str:
        exact = decimal(value)
        if exact is not None:
            big = value.denominator == 1 and abs(value) >= 1000 and self.rng.random() < 0.5
            return f"{int(value):,}" if big else exact
        if self.latex:
            return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
        return f"{value.numerator}/{value.denominator}"

    def text(self, value: Fraction) -> str:
        """The line with `value` for its result."""
        if self.latex:
            body = f"{self.tex} = {self.shown(value)}"
            body = self.rng.choice(
                [rf"\({body}\)", f"${body}$", rf"\[ {body} \]", rf"\[ \text{{Total}} = {body} \]"]
            )
            return self.rng.choice(BEFORE) + body + self.rng.choice(["", "."])
        unit = " " + self.rng.choice(UNITS) if self.rng.random() < 0.4 else ""
        money = (
            "$"
            if not unit and value >= 0 and "/" not in self.shown(value) and self.rng.random() < 0.2
            else ""
        )
        return (
            self.rng.choice(BEFORE)
            + f"{self.plain} = {money}{self.shown(value)}{unit}"
            + self.rng.choice(AFTER)
        )


def wrong(rng: random.Random, value: Fraction) -> Fraction:
    """A result as a model gets it wrong: off by a little, a digit, a sign or a factor of ten."""
    return rng.choice(
        [
            value + rng.choice([-10, -2, -1, 1, 2, 10]),
            -value if value else Fraction(1),
            value * 10 or Fraction(3),
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_lines_of_arithmetic(seed: int) -> None:
    rng = random.Random(seed)
    decided = agreed = total = 0
    disagreements = []
    for _ in range(250):
        lines = [Line(rng) for _ in range(4)]
        truths = [rng.random() < 0.6 for _ in lines]
        steps = [
            line.text(line.value if true else wrong(rng, line.value))
            for line, true in zip(lines, truths, strict=True)
        ]
        for step, true, found in zip(steps, truths, check_steps("", steps), strict=True):
            total += 1
            decided += found.label != "unknown"
            if found.label != "unknown" and (found.label == "correct") == true:
                agreed += 1
            elif found.label != "unknown":
                disagreements.append((step, true, found.reason))
    assert decided >= 0.95 * total, (decided, total)
    assert agreed >= 0.99 * decided, disagreements[:10]


def test_chains_like_the_demo() -> None:
    """`47 + 38 = 85` line by line, each line going on from the result before it, right or wrong."""
    rng = random.Random(11)
    decided = agreed = total = 0
    for _ in range(300):
        running, steps, truths = rng.randint(10, 99), [], []
        for _ in range(rng.randint(2, 5)):
            op, number = rng.choice("+-"), rng.randint(1, 99)
            true = rng.random() < 0.5
            value = running + number if op == "+" else running - number
            stated = value if true else value + rng.choice([-10, -1, 1, 10, 100])
            steps.append(f"{running} {op} {number} = {stated}")
            truths.append(true)
            running = stated
        for true, found in zip(truths, check_steps("What is the result?", steps), strict=True):
            total += 1
            decided += found.label != "unknown"
            agreed += found.label == ("correct" if true else "incorrect")
    assert decided >= 0.95 * total
    assert agreed >= 0.99 * decided
