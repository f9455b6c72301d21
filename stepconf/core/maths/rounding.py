"""Does a stated relation between two expressions hold, given that people round?

The two sides are compared in every reading that their notation admits (20% as 1/5 or 20, pi as 3.14, ...).
The relation holds if it holds in one that people write so; it fails only if it clearly fails in all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, islice, product
from math import prod
from typing import Any, TypeAlias

import flint
from flint import arb, fmpq

from stepconf.core.maths.decide import BALLS, RATIONALS
from stepconf.core.maths.tree import Binary, Call, Const, Node, Num, Unary, has_percent, substitute, walk
from stepconf.core.maths.values import (
    PLAIN,
    PRECISION,
    Env,
    Reading,
    UndecidableError,
    Value,
    ball,
    differ,
    evaluate,
)

MAX_READINGS = 64  # of one relation; those nearest to the plain one come first
_MIN_READINGS = 8
_MAX_EFFORT = 20_000  # nodes that are evaluated for one relation
_MAX_MOVING = 12  # decimals of one side that are moved to see what rounding does
_Change: TypeAlias = dict[str, Any]
_PI_APPROXIMATIONS = (Fraction(314, 100), Fraction(22, 7), Fraction(31416, 10000), Fraction(3142, 1000))
_CERTAIN = fmpq(10**35 + 1, 10**35)
# Two-decimal forms of thirds, sixths, sevenths, ninths, pi, e and small roots: rarely meant exactly.
_FAMILIAR_ROUNDINGS = frozenset(
    """
    0.11 0.14 0.16 0.17 0.29 0.33 0.43 0.57 0.66 0.67 0.71 0.83 0.86
    1.41 1.73 2.23 2.24 2.45 2.71 2.72 3.14
    """.split()
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`holds` is None where the relation cannot be decided; `by` names what decided."""

    holds: bool | None
    reason: str = ""
    by: str = ""


def relation_holds(relation: str, left: Node, right: Node, env: Env | None = None) -> Outcome:
    """Decide `left relation right`: None, too, where it fails in all readings that are tried and there are more.

    Args:
        relation: one of `= ~ < > <= >=`, where `~` is "approximately".
        left, right: its sides.
        env: values of the variables.
    """
    env = env or {}
    worst: Outcome | None = None
    reason = ""
    most = _most_readings(left, right)
    for number, (left_reading, right_reading) in enumerate(islice(_readings(left, right), most + 1)):
        if number == most:
            return Outcome(None, "more readings than are tried")
        try:
            a, b = evaluate(left, env, left_reading), evaluate(right, env, right_reading)
            with flint.ctx.workprec(PRECISION):
                outcome = _decide(relation, a, b, _Slack(left, right, env, left_reading, right_reading))
        except UndecidableError as undecided:
            reason = str(undecided)
            continue
        if outcome.holds and _is_usual(left, right, left_reading, right_reading):
            return outcome
        if outcome.holds:
            outcome = Outcome(None, "holds in an unusual reading")
        if worst is None or (worst.holds is False and outcome.holds is None):
            worst = outcome
    return worst if worst is not None else Outcome(None, reason)


def effort(left: Node, right: Node) -> int:
    """How many nodes are evaluated, at most, to decide a relation between the two sides."""
    readings = prod(1 + len(others) for others in _alternatives(left, right))
    return min(readings, _most_readings(left, right)) * _effort_of_one(left, right)


def _effort_of_one(left: Node, right: Node) -> int:
    nodes = [*walk(left), *walk(right)]
    decimals = sum(isinstance(n, Num) and n.decimals > 0 for n in nodes)
    return len(nodes) * (1 + min(decimals, 2 * _MAX_MOVING))


def _most_readings(left: Node, right: Node) -> int:
    return max(_MIN_READINGS, min(MAX_READINGS, _MAX_EFFORT // _effort_of_one(left, right)))


def _is_usual(left: Node, right: Node, one: Reading, other: Reading) -> bool:
    """Whether people write it so: what holds in another reading only may be an error as well."""
    if one.product_of_mixed or one.right_division or one.points_part_thousands:
        return False
    taken = all(_is_of_left(side) for side, read in ((left, one), (right, other)) if read.percent_of_left)
    if one.percent_points and not _is_percent(left):
        return False  # 50 + 20% = 70
    if other.percent_points and not one.percent_points:
        # `5 / 20 * 100 = 25%`, but not `50 * 20% = 10%`
        return taken and _is_percent(right) and (one.percent_of_left or not has_percent(left))
    return taken


def _is_percent(side: Node) -> bool:
    """Whether a side is a percentage, or a sum of some."""
    match side:
        case Unary("pct", _):
            return True
        case Unary("neg", arg):
            return _is_percent(arg)
        case Binary("+" | "-", left, right):
            return _is_percent(left) and _is_percent(right)
    return False


def _is_of_left(side: Node) -> bool:
    """Whether what is added can be percentages of what stands before them: not in `50% + 20%`."""
    sums = [n for n in walk(side) if isinstance(n, Binary) and n.op in ("+", "-") and _is_percent(n.right)]
    return bool(sums) and not any(_is_percent(n.left) for n in sums)


def _readings(left: Node, right: Node) -> Iterator[tuple[Reading, Reading]]:
    """Pairs of readings: the plain one, then those that differ from it in one thing, in two, and so on."""
    alternatives = _alternatives(left, right)
    for size in range(len(alternatives) + 1):
        for things in combinations(alternatives, size):
            for chosen in product(*things):
                a = {key: value for change, _ in chosen for key, value in change.items()}
                b = {key: value for _, change in chosen for key, value in change.items()}
                yield replace(PLAIN, **a), replace(PLAIN, **b)


def _alternatives(left: Node, right: Node) -> list[list[tuple[_Change, _Change]]]:
    """For each thing that can be read otherwise, in what ways: what changes on the left and on the right."""
    sides = [list(walk(left)), list(walk(right))]
    both = sides[0] + sides[1]
    binary = [n for n in both if isinstance(n, Binary)]
    circles = [Const("pi") in side for side in sides]
    decimals = [n.decimals for n in both if isinstance(n, Num) and n.decimals]
    percents: list[_Change] = [{"percent_points": True}, {"percent_of_left": True}]
    found: list[list[tuple[_Change, _Change]]] = []
    if has_percent(left):
        found.append([(change, {}) for change in percents])
    if has_percent(right):
        found.append([({}, change) for change in percents])
    if circles[0] != circles[1]:
        found.append([({"pi": pi}, {"pi": pi}) for pi in _PI_APPROXIMATIONS])
    flags = {
        "product_of_mixed": any(n.op == "mixed" for n in binary),
        "loose_implicit": any(n.op == "/" and getattr(n.right, "op", "") == "implicit" for n in binary),
        "tight_division": any(n.op == "loose" for n in binary),
        "natural_log": any(isinstance(n, Call) and n.name == "log" for n in both),
        "right_division": any(n.op == "/" and getattr(n.left, "op", "") == "/" for n in binary),
        "points_part_thousands": bool(decimals) and set(decimals) == {3},
        "degrees": any(isinstance(n, Unary) and n.op == "deg" for n in both)
        and (any(circles) or any(isinstance(n, Call) and n.name.startswith("arc") for n in both)),
    }
    return found + [[({flag: True}, {flag: True})] for flag, present in flags.items() if present]


@dataclass(frozen=True, slots=True)
class _Slack:
    """How far apart the two sides may be because numbers in them are rounded."""

    left: Node
    right: Node
    env: Env
    left_reading: Reading
    right_reading: Reading

    def total(self) -> arb:
        seen = {n.name for n in walk(self.left) if isinstance(n, Num)}
        left = _sensitivity(self.left, self.env, self.left_reading, _is_rounded)
        right = _sensitivity(
            self.right, self.env, self.right_reading, lambda n: n.name not in seen or _is_rounded(n)
        )
        return left + right

    def right_number(self) -> Num | None:
        node = self.right
        while isinstance(node, Unary) and node.op in ("neg", "pct", "deg"):
            node = node.arg
        return node if isinstance(node, Num) else None


def _is_rounded(number: Num) -> bool:
    """Whether a decimal is never meant exactly."""
    return number.name in _FAMILIAR_ROUNDINGS or number.decimals >= 4


def _sensitivity(node: Node, env: Env, reading: Reading, moves: Callable[[Num], bool]) -> arb:
    """How much the value changes when each moving decimal changes by one in its last digit, summed."""
    centre = ball(evaluate(node, env, reading))
    total = arb(0)
    numbers = {n for n in walk(node) if isinstance(n, Num) and n.decimals and moves(n)}
    for number in list(numbers)[:_MAX_MOVING]:
        shifted = Num(number.value + Fraction(1, 10**number.decimals), number.decimals, number.name)
        total += abs(ball(evaluate(substitute(node, number, shifted), env, reading)) - centre)
    return total


def _decide(relation: str, a: Value, b: Value, slack: _Slack) -> Outcome:
    by = RATIONALS if isinstance(a, Fraction) and isinstance(b, Fraction) else BALLS
    different = differ(a, b)
    if different is None:
        return Outcome(None, "too close to tell")
    if relation in ("=", "~"):
        return _nearly(relation, a, b, slack, by) if different else Outcome(True, "", by)
    x, y = ball(a), ball(b)
    if not (x.imag.contains(0) and y.imag.contains(0)):
        return Outcome(None, "an inequality between complex values")
    less = bool(x.real < y.real)
    holds = (different and less == (relation[0] == "<")) or (relation[1:] == "=" and not different)
    if not holds and abs(x.real - y.real) <= slack.total() * _CERTAIN:
        return Outcome(None, "within rounding")
    return Outcome(holds, "" if holds else f"{show(a)} {relation} {show(b)} is false", by)


def _nearly(relation: str, a: Value, b: Value, slack: _Slack, by: str) -> Outcome:
    """The two sides differ: is that rounding (holds), perhaps rounding (None), or an error?"""
    allowed = slack.total() if _needs_rounding(a, slack) else arb(0)
    gap = abs(ball(a) - ball(b))
    size = abs(ball(a)).max(abs(ball(b)))
    if allowed > 0 and gap <= allowed * _CERTAIN:
        near = relation == "~" or bool(2 * gap <= allowed * _CERTAIN)
        return Outcome(True if near else None, "rounded", by)
    number = slack.right_number()
    whole = isinstance(a, Fraction) and a.denominator == 1
    if number is not None and number.decimals == 0 and gap < 1 and not whole:
        half = bool(2 * gap <= _CERTAIN)
        return Outcome(True if half and relation == "~" else None, "rounded to a whole number", by)
    if relation == "~" and gap <= size / 10:
        return Outcome(None, "a rough approximation")
    if allowed > 0 and gap <= 3 * allowed:
        return Outcome(None, "close to a rounded value")
    return Outcome(False, f"{show(a)} is not {show(b)}", by)


def _needs_rounding(a: Value, slack: _Slack) -> bool:
    """Whether the left value cannot be written with the decimals of the number on the right."""
    number = slack.right_number()
    if number is None or not number.decimals or not isinstance(a, Fraction):
        return True
    percent = 2 if any(isinstance(n, Unary) and n.op == "pct" for n in walk(slack.right)) else 0
    written = (a * 10 ** (number.decimals + percent)).denominator == 1
    return not written or any(_is_rounded(n) for n in walk(slack.left) if isinstance(n, Num))


def show(value: Value) -> str:
    """A value for people: an integer, a short fraction or ten digits."""
    if isinstance(value, Fraction):
        if value.denominator == 1 and value.numerator.bit_length() < 200:
            return str(value.numerator)
        if value.denominator <= 1000 and value.numerator.bit_length() < 40:
            return f"{value.numerator}/{value.denominator}"
    number = ball(value)
    return str((number.real if number.imag.contains(0) else number).str(10, radius=False))
