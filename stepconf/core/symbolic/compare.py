"""Does a stated relation between two expressions hold, given that people round?

The two sides are compared in every reading that their notation admits (20% as 1/5 or 20, pi as 3.14, ...).
The relation holds if it holds in one; it fails only if it clearly fails in all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

from stepconf.core.symbolic.evaluate import PLAIN, Reading, UndecidableError, Value, as_real, evaluate
from stepconf.core.symbolic.nodes import Binary, Call, Const, Node, Num, Unary, children, walk

_PI_APPROXIMATIONS = (Fraction(314, 100), Fraction(22, 7), Fraction(31416, 10000), Fraction(3142, 1000))
_CERTAIN = Fraction(1, 10**35)
# Two-decimal forms of thirds, sixths, sevenths, ninths, pi, e and small roots: rarely meant exactly.
_FAMILIAR_ROUNDINGS = frozenset(
    (
        *(
            "0.11",
            "0.14",
            "0.16",
            "0.17",
            "0.29",
            "0.33",
            "0.43",
            "0.57",
            "0.66",
            "0.67",
            "0.71",
            "0.83",
            "0.86",
        ),
        *("1.41", "1.73", "2.23", "2.24", "2.45", "2.71", "2.72", "3.14"),
    )
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`holds` is None where the relation cannot be decided; `left` and `right` are values to show."""

    holds: bool | None
    reason: str = ""
    left: str = ""
    right: str = ""


def relation_holds(
    relation: str, left: Node, right: Node, rounded: frozenset[str], env: Mapping[str, Value]
) -> Outcome:
    """Decide `left relation right`.

    Args:
        relation: one of `= ~ < > <= >= !=`, where `~` is "approximately".
        rounded: digits of numbers that stand for values rounded earlier.
        env: values of the variables.
    """
    worst: Outcome | None = None
    reason = ""
    for left_reading, right_reading in _readings(left, right):
        try:
            a, b = evaluate(left, env, left_reading), evaluate(right, env, right_reading)
            outcome = _decide(relation, a, b, _Slack(left, right, rounded, env, left_reading, right_reading))
        except UndecidableError as undecided:
            reason = str(undecided)
            continue
        if outcome.holds:
            return outcome
        if worst is None or (worst.holds is False and outcome.holds is None):
            worst = outcome
    return worst if worst is not None else Outcome(None, reason)


def _readings(left: Node, right: Node) -> Iterator[tuple[Reading, Reading]]:
    """Pairs of readings, the plain one first; at most some dozens."""
    sides = [list(walk(left)), list(walk(right))]
    both = sides[0] + sides[1]
    circles = [Const("pi") in side for side in sides]
    pis = [None, *_PI_APPROXIMATIONS] if circles[0] != circles[1] else [None]
    mixed = any(isinstance(n, Binary) and n.op == "mixed" for n in both)
    loose = any(_divides(n) and _has_op(n.right, "implicit") for n in both if isinstance(n, Binary))
    divided = any(_divides(n) and _has_op(n.left, "/") for n in both if isinstance(n, Binary))
    logs = any(isinstance(n, Call) and n.name == "log" and len(n.args) == 1 for n in both)
    percents = product(_percent_readings(sides[0]), _percent_readings(sides[1]))
    flags = [[False, True] if present else [False] for present in (mixed, loose, logs, divided)]
    for (a, b), pi, (of_mixed, of_loose, of_log, of_division) in product(percents, pis, product(*flags)):
        change: dict[str, Any] = {
            "pi": pi,
            "product_of_mixed": of_mixed,
            "loose_implicit": of_loose,
            "natural_log": of_log,
            "right_division": of_division,
        }
        yield replace(a, **change), replace(b, **change)


def _percent_readings(side: Sequence[Node]) -> list[Reading]:
    if any(isinstance(n, Unary) and n.op == "pct" for n in side):
        return [PLAIN, replace(PLAIN, percent_points=True), replace(PLAIN, percent_of_left=True)]
    return [PLAIN]


def _divides(node: Binary) -> bool:
    return node.op == "/"


def _has_op(node: Node, op: str) -> bool:
    return isinstance(node, Binary) and node.op == op


@dataclass(frozen=True, slots=True)
class _Slack:
    """How far apart the two sides may be because numbers in them are rounded."""

    left: Node
    right: Node
    rounded: frozenset[str]
    env: Mapping[str, Value]
    left_reading: Reading
    right_reading: Reading

    def total(self) -> Any:
        seen = {n.name for n in walk(self.left) if isinstance(n, Num)}
        left = _sensitivity(self.left, self.env, self.left_reading, self.is_rounded)
        right = _sensitivity(
            self.right, self.env, self.right_reading, lambda n: n.name not in seen or self.is_rounded(n)
        )
        return left + right

    def is_rounded(self, number: Num) -> bool:
        if not number.decimals:
            return number.name in self.rounded
        return number.name in self.rounded or number.name in _FAMILIAR_ROUNDINGS or number.decimals >= 4

    def right_number(self) -> Num | None:
        node = self.right
        while isinstance(node, Unary) and node.op in ("neg", "pct", "deg"):
            node = node.arg
        return node if isinstance(node, Num) else None


def _sensitivity(node: Node, env: Mapping[str, Value], reading: Reading, moves: Callable[[Num], bool]) -> Any:
    """How much the value changes when each moving decimal changes by one in its last digit, summed."""
    centre = as_real(evaluate(node, env, reading))
    total: Any = as_real(Fraction(0))
    numbers = {n for n in walk(node) if isinstance(n, Num) and moves(n) and (n.decimals or not _is_whole(n))}
    for number in list(numbers)[:12]:
        shifted = Num(number.value + Fraction(1, 10**number.decimals), number.decimals, number.name)
        total += abs(as_real(evaluate(substitute(node, number, shifted), env, reading)) - centre)
    return total


def _is_whole(number: Num) -> bool:
    return number.value.denominator == 1


def substitute(node: Node, old: Node, new: Node) -> Node:
    """`node` with every `old` in it replaced by `new`."""
    if node == old:
        return new
    if not children(node):
        return node
    match node:
        case Unary(op, arg):
            return Unary(op, substitute(arg, old, new))
        case Binary(op, left, right):
            return Binary(op, substitute(left, old, new), substitute(right, old, new))
        case Call(name, args):
            return Call(name, tuple(substitute(arg, old, new) for arg in args))
    return node


def _decide(relation: str, a: Value, b: Value, slack: _Slack) -> Outcome:
    shown = show(a), show(b)
    difference = abs(as_real(a) - as_real(b)) if not _both_exact(a, b) else abs(a - b)
    same = difference == 0 if _both_exact(a, b) else difference <= as_real(_CERTAIN) * max(1, abs(as_real(a)))
    if relation in ("=", "~"):
        if same:
            return Outcome(True, "", *shown)
        return _nearly(relation, a, b, difference, slack, shown)
    if relation == "!=":
        return Outcome(not same, "the two sides are equal" if same else "", *shown)
    real_a, real_b = as_real(a), as_real(b)
    if not (hasattr(real_a, "__lt__") and _is_real(real_a) and _is_real(real_b)):
        return Outcome(None, "an inequality between complex values", *shown)
    holds = {"<": not same and real_a < real_b, ">": not same and real_a > real_b,
             "<=": same or real_a < real_b, ">=": same or real_a > real_b}[relation]  # fmt: skip
    if not holds and as_real(difference) <= slack.total():
        return Outcome(None, "within rounding", *shown)
    return Outcome(holds, "" if holds else f"{shown[0]} {relation} {shown[1]} is false", *shown)


def _nearly(
    relation: str, a: Value, b: Value, difference: Any, slack: _Slack, shown: tuple[str, str]
) -> Outcome:
    """The two sides differ: is that rounding (holds), perhaps rounding (None), or an error?"""
    allowed = slack.total() if _needs_rounding(a, slack) else as_real(Fraction(0))
    real = as_real(difference) if isinstance(difference, Fraction) else difference
    size = max(abs(as_real(a)), abs(as_real(b)))
    if allowed and real <= allowed * (1 + as_real(_CERTAIN)):
        return Outcome(True, "rounded", *shown)
    number = slack.right_number()
    whole_right = number is not None and number.decimals == 0
    if whole_right and real < 1 and not (isinstance(a, Fraction) and a.denominator == 1):
        half = 2 * real <= 1
        return Outcome(True if half and relation == "~" else None, "rounded to a whole number", *shown)
    if relation == "~" and size and real <= size / 20:
        return Outcome(None, "a rough approximation", *shown)
    if allowed and real <= 3 * allowed:
        return Outcome(None, "close to a rounded value", *shown)
    return Outcome(False, f"{shown[0]} is not {shown[1]}", *shown)


def _needs_rounding(a: Value, slack: _Slack) -> bool:
    """Whether the left value cannot be written with the decimals of the number on the right."""
    number = slack.right_number()
    if number is None or not number.decimals or not isinstance(a, Fraction):
        return True
    percent = 2 if any(isinstance(n, Unary) and n.op == "pct" for n in walk(slack.right)) else 0
    written = (a * 10 ** (number.decimals + percent)).denominator == 1
    return not written or any(slack.is_rounded(n) for n in walk(slack.left) if isinstance(n, Num))


def _both_exact(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _is_real(value: Any) -> bool:
    return getattr(value, "imag", 0) == 0


def show(value: Value) -> str:
    """A value for people: an integer, a short fraction or eight digits."""
    if isinstance(value, Fraction):
        if value.denominator == 1:
            text = str(value.numerator) if value.numerator.bit_length() < 200 else f"{float_text(value)}"
        elif value.denominator <= 1000 and value.numerator.bit_length() < 40:
            text = f"{value.numerator}/{value.denominator}"
        else:
            text = float_text(value)
        return text
    return str(as_real(value).real if getattr(value, "imag", 0) == 0 else value)[:24]


def float_text(value: Fraction) -> str:
    """Ten significant digits of a fraction of any size."""
    return str(as_real(value))[:16]
