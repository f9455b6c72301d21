"""Comparing two answers that are each one value: a number, an expression, a quantity in a unit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.answers.letters import (
    coefficient,
    in_celsius,
    power_of_unit,
    renamed,
    temperature,
    units_in_letters,
)
from stepconf.core.maths.decide import (
    BALLS,
    POLYNOMIALS,
    RATIONALS,
    SYMPY,
    WORDS,
    close,
    same_expression,
    same_values,
)
from stepconf.core.maths.tree import (
    EXPRESSIONS,
    Binary,
    Call,
    Form,
    Listing,
    Node,
    Num,
    Quantity,
    Unary,
    Var,
    variables,
    walk,
)
from stepconf.core.maths.units import measure, measure_of
from stepconf.core.maths.values import IMAGINARY_UNIT, Reading, UndecidableError, evaluate

TOLERANCE = Fraction(1000001, 10**12)  # 0.666666 and 0.666667 are both 2/3
ROUNDED = Fraction(1, 20)
_STRENGTH = (WORDS, RATIONALS, POLYNOMIALS, BALLS, SYMPY)
_PLAIN = Reading(radians=True)
_DEGREES = Reading(radians=True, degrees=True)
_NATURAL = Reading(radians=True, natural_log=True)

Algebra = Callable[[Node, Node], bool | None]


@dataclass(slots=True)
class Scalars:
    """Compares values; `by` is the strongest means that was needed.

    Args:
        algebra: asked for expressions that nothing cheaper decides. It may raise `UndecidableError`.
    """

    algebra: Algebra | None = None
    by: str = WORDS

    def note(self, by: str) -> None:
        """Keep the strongest means that was needed."""
        self.by = max(self.by, by, key=_STRENGTH.index)

    def same(self, a: Form, b: Form) -> bool | None:
        """Values with or without units."""
        warm = temperature(a), temperature(b)
        if warm[0] and warm[1]:
            return self._values(*(in_celsius(*one) for one in warm if one))
        units = [form.unit if isinstance(form, Quantity) else () for form in (a, b)]
        values = [form.value if isinstance(form, Quantity) else form for form in (a, b)]
        measures = [measure(unit) for unit in units]
        values = [one[0] if one and not any(measures) else v for one, v in zip(warm, values, strict=True)]
        if measures[0] and measures[1]:
            if measures[0].dimension != measures[1].dimension:
                return False
            if measures[0].size != measures[1].size:
                values = [
                    Binary("*", value_of(value), Num(m.size))
                    for value, m in zip(values, measures, strict=True)
                    if m
                ]
        one, other = map(value_of, values)
        implied = [m or power_of_unit(v) for m, v in zip(measures, (one, other), strict=True)]
        if any(measures) and implied[0] and implied[1] and implied[0].dimension != implied[1].dimension:
            return False  # 4 m and 4 m^2
        same = self._values(one, other)
        spelled = units_in_letters(one) or units_in_letters(other)
        return None if same is False and spelled and any(measures) else same  # 42 mu m and 0.042 mm

    def near(self, a: Form, b: Form) -> bool:
        """Whether one value may be a rounding of the other; True where that cannot be computed."""
        try:
            ratio = evaluate(Binary("/", value_of(a), value_of(b)), {"i": IMAGINARY_UNIT}, _PLAIN)
        except UndecidableError:
            return True
        return close(ratio, Fraction(1), ROUNDED)

    def _values(self, a: Node, b: Node) -> bool | None:
        kinds = [_peeled(a)[0], _peeled(b)[0]]
        verdict = self._scalar(a, b)
        if verdict is True:
            return True
        if kinds.count("pct") == 1 or kinds.count("deg") == 1:
            return any_of([verdict, self._scalar(_peeled(a)[1], _peeled(b)[1])])
        based = ["_" in node.name if isinstance(node, Num) else False for node in (a, b)]
        if based.count(True) == 1:
            return any_of([verdict, self._scalar(_unbased(a), _unbased(b))])
        return verdict

    def _scalar(self, a: Node, b: Node) -> bool | None:
        names = variables(a) - {"i"}, variables(b) - {"i"}
        if not names[0] and not names[1]:
            return self._numbers(a, b)
        match (a, b) if names[0] else (b, a):
            case Binary("implicit", value, Var(letter)), other if measure_of(letter) and not all(names):
                return (
                    self._scalar(value, other) or None
                )  # 5m and 5: a variable, or a unit without its space?
        decision = same_expression(a, b, _PLAIN)
        self.note(decision.by or BALLS)
        if decision.same is None and names[0] == names[1]:
            return self._by_algebra(a, b)
        return None if decision.same is False and self._is_open(a, b) else decision.same

    def _is_open(self, a: Node, b: Node) -> bool:
        """Whether two different expressions may mean one: with letters as a unit, or named otherwise."""
        lone = coefficient(a), coefficient(b)
        if not (variables(a) - {"i"} and variables(b) - {"i"}):
            one, other = lone[0] or a, lone[1] or b
            return any(lone) and self._numbers(_peeled(one)[1], _peeled(other)[1]) is not False
        return any(same_expression(a, other, _PLAIN).same for other in renamed(a, b))

    def _numbers(self, a: Node, b: Node) -> bool | None:
        verdicts: list[bool | None] = []
        decimal = any(isinstance(n, Num) and n.decimals for side in (a, b) for n in walk(side))
        angled = any(isinstance(n, Unary) and n.op == "deg" for side in (a, b) for n in walk(side))
        logs = any(isinstance(n, Call) and n.name == "log" for side in (a, b) for n in walk(side))
        env = {"i": IMAGINARY_UNIT}
        for reading in (_PLAIN, *[_DEGREES] * angled, *[_NATURAL] * logs):
            try:
                x, y = evaluate(a, env, reading), evaluate(b, env, reading)
            except UndecidableError:
                verdicts.append(None)
                continue
            exact = isinstance(x, Fraction) and isinstance(y, Fraction)
            self.note(RATIONALS if exact else BALLS)
            near = decimal and close(x, y, TOLERANCE)
            verdicts.append(True if near else same_values(x, y).same)
        if True in verdicts:
            return True
        if logs and False in verdicts:
            return None if len(set(verdicts)) > 1 else False
        return any_of(verdicts) if None not in verdicts else self._by_algebra(a, b)

    def _by_algebra(self, a: Node, b: Node) -> bool | None:
        if self.algebra is None:
            return None
        try:
            same = self.algebra(a, b)
        except UndecidableError:
            return None
        if same is not None:
            self.note(SYMPY)
        return same


def any_of(verdicts: Sequence[bool | None]) -> bool | None:
    """Three-valued "or"."""
    return True if True in verdicts else None if None in verdicts or not verdicts else False


def all_of(verdicts: Sequence[bool | None]) -> bool | None:
    """Three-valued "and"."""
    return False if False in verdicts else None if None in verdicts else True


def value_of(form: Form) -> Node:
    """The expression that a value is; a ratio is its quotient.

    Raises:
        UndecidableError: it is none.
    """
    if isinstance(form, Listing) and form.brackets == ":" and len(form.items) == 2:
        return Binary("/", value_of(form.items[0]), value_of(form.items[1]))
    if isinstance(form, EXPRESSIONS):
        return form
    raise UndecidableError("no expression")


def _peeled(node: Node) -> tuple[str, Node]:
    """The sign of per cent or degrees after a value, and the value without it."""
    if isinstance(node, Unary) and node.op in ("pct", "deg"):
        return node.op, node.arg
    if isinstance(node, Unary) and node.op == "neg":
        kind, inner = _peeled(node.arg)
        return kind, Unary("neg", inner)
    return "", node


def _unbased(node: Node) -> Node:
    """A number's digits in base ten."""
    digits = node.name.partition("_")[0] if isinstance(node, Num) else ""
    return Num(Fraction(digits)) if digits.isdigit() else node
