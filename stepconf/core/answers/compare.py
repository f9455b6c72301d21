"""Are two answers the same? Their forms are compared, and the values in them by `core.maths`.

True or False only where both answers were read to the last character and the difference is no matter of form.
Conventions, where data sets disagree:

- A unit, a currency sign, a degree sign or "x =" that only one side has does not count. Units on both sides are
  converted (1 hour is 60 minutes); units of different dimensions are never equal, nor are 10 km and 10 m.
- A percentage equals its number and its fraction: 28% is 28 and 0.28. An angle in degrees equals its number.
- A decimal equals what it is within 1e-6 of, relative below 1: 0.333333 is 1/3 and 0.33 is not.
- {1, 2} and a bare "1, 2" have no order; (1, 2) has. (1, 2) may be a pair or an open interval.
- Clock times are compared as times, 3:15 is not 1:5; a ratio equals its value. A base that only one side has does
  not count; two numbers with bases are compared by value.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

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
from stepconf.core.maths.forms import letters_of
from stepconf.core.maths.polynomials import Ring, is_constant, is_zero
from stepconf.core.maths.tree import (
    Binary,
    Call,
    Choice,
    Clock,
    Const,
    Form,
    Listing,
    Matrix,
    Node,
    Num,
    Quantity,
    Statement,
    Unary,
    Union,
    Var,
    Words,
    has_sign_choice,
    nodes,
    variables,
    walk,
    with_sign,
)
from stepconf.core.maths.units import measure, measure_of
from stepconf.core.maths.values import (
    IMAGINARY_UNIT,
    Reading,
    TooLargeError,
    UndecidableError,
    Value,
    evaluate,
)

TOLERANCE = Fraction(1000001, 10**12)  # 0.666666 and 0.666667 are both 2/3
MAX_ITEMS = 12  # of an unordered list; the matching is quadratic
_EQUALS = {"=", "~"}
_ORDER = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_EXPRESSIONS = (Num, Var, Const, Unary, Binary, Call)
_INFINITY, _REALS = Const("infinity"), Const("reals")
_STRENGTH = (WORDS, RATIONALS, POLYNOMIALS, BALLS, SYMPY)
_READINGS = (
    Reading(radians=True),
    Reading(radians=True, degrees=True),
    Reading(radians=True, natural_log=True),
)

Algebra = Callable[[Node, Node], bool | None]


@dataclass(slots=True)
class Comparison:
    """Compares the forms of two answers; `by` is the strongest means that was needed.

    Args:
        algebra: asked for expressions that nothing cheaper decides. solutions: the set that a statement describes.
            Both may raise `UndecidableError`.
    """

    algebra: Algebra | None = None
    solutions: Callable[[Statement], Any] | None = None
    by: str = WORDS

    def note(self, by: str) -> None:
        """Keep the strongest means that was needed."""
        self.by = max(self.by, by, key=_STRENGTH.index)

    def same(self, a: Form, b: Form) -> bool | None:
        """Dispatches on form. Both are complete readings."""
        a, b = _plain(a), _plain(b)
        if a == b:
            return True
        kinds = {type(a), type(b)}
        if Choice in kinds:
            return self._choice(a, b)
        if Words in kinds:
            return _words(a, b)
        if Clock in kinds:
            return self._clock(a, b)
        if Statement in kinds or _REALS in (a, b) or "or" in (_brackets(a), _brackets(b)):
            return self._statement(a, b)
        if Union in kinds:
            if isinstance(a, Union) and isinstance(b, Union):
                return self._unordered(a.parts, b.parts) or None
            return None
        if Matrix in kinds:
            return self._matrix(a, b)
        if isinstance(a, Listing) and isinstance(b, Listing) and a.brackets == b.brackets == ":":
            parts = [
                [Binary("/", _node(part), _node(form.items[0])) for part in form.items] for form in (a, b)
            ]
            return self._ordered(parts[0], parts[1])
        if any(isinstance(form, Listing) and form.brackets != ":" for form in (a, b)):
            return self._listing(a, b)
        return self._quantity(a, b)

    def _choice(self, a: Form, b: Form) -> bool | None:
        choice, other = (a, b) if isinstance(a, Choice) else (b, a)
        if isinstance(choice, Choice) and (letter := letters_of(other)):
            return choice.letter == letter and (
                not isinstance(other, Choice) or self.same(choice.value, other.value)
            )
        return self.same(choice.value, other) if isinstance(choice, Choice) else None

    def _clock(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Clock) and isinstance(b, Clock):
            if a.half and b.half and a.half != b.half:
                return False
            times = [{(c.hour, c.minute)} | _day_times(c) for c in (a, b)]
            return bool(times[0] & times[1])
        clock, other = (a, b) if isinstance(a, Clock) else (b, a)
        if not isinstance(clock, Clock):
            return None
        if (
            isinstance(other, Quantity)
            and (unit := measure(other.unit))
            and dict(unit.dimension) == {"time": 1}
        ):
            minutes = Num(Fraction(60 * clock.hour + clock.minute))
            return True if self.same(Quantity(minutes, ("minutes",)), other) else None
        if isinstance(other, Quantity | Statement | Choice):
            return None
        if clock.half or not clock.minute or math.gcd(clock.hour, clock.minute) != 1:
            return False  # 3:15 is no ratio in lowest terms
        return self.same(Binary("/", Num(Fraction(clock.hour)), Num(Fraction(clock.minute))), other)

    def _statement(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Statement) and isinstance(b, Statement):
            if _assigns(a) and _assigns(b):
                same = any_of([self.same(x, y) for x in _given(a) for y in _given(b)])
                return same if _name(a) == _name(b) else None
            return self._conditions(a, b)
        statement, other = (a, b) if isinstance(a, Statement) else (b, a)
        ranges = [_as_ranges(form) for form in (a, b)]
        if ranges[0] is not None and ranges[1] is not None:
            return self.same(ranges[0], ranges[1])
        equation = isinstance(statement, Statement) and set(statement.signs) <= _EQUALS
        if isinstance(statement, Statement) and equation and (statement is b or _assigns(statement)):
            return any_of([self.same(value, other) for value in _given(statement)])
        if isinstance(statement, Statement) and equation and isinstance(other, _EXPRESSIONS):
            if not any(isinstance(n, Var) for n in nodes(statement.sides[0])):
                return False  # `7 = 11a + c` is no value
            return any_of([self.same(value, other) for value in _given(statement)])  # `|AB| = 1`
        if isinstance(statement, Statement) and statement.signs == ("in",):
            return self.same(statement.sides[1], other)
        return self._as_sets(a, b)

    def _conditions(self, a: Statement, b: Statement) -> bool | None:
        """Equations and inequalities: the same if the differences of their sides are proportional."""
        if len(a.signs) == len(b.signs) == 1 and all(
            isinstance(s, _EXPRESSIONS) for s in (*a.sides, *b.sides)
        ):
            turned = a.signs != b.signs
            if turned and _ORDER.get(a.signs[0]) != b.signs[0]:
                return self._as_sets(a, b)
            sides = b.sides[::-1] if turned else b.sides
            factor = _proportion(a.sides, sides)  # type: ignore[arg-type]
            self.note(POLYNOMIALS)
            if factor is not None and (factor > 0 or a.signs[0] in ("=", "!=")):
                return True
        ranges = _as_ranges(a), _as_ranges(b)
        if ranges[0] is not None and ranges[1] is not None:
            return self.same(ranges[0], ranges[1])
        return self._as_sets(a, b)

    def _as_sets(self, a: Form, b: Form) -> bool | None:
        """What satisfies one condition is what satisfies the other, or the values that the other side lists."""
        if self.solutions is None or not all(isinstance(form, Statement) for form in (a, b)):
            return None
        if {_variable(form) for form in (a, b)} != {_variable(a)} or not _variable(a):
            return None
        try:
            one, other = self.solutions(a), self.solutions(b)  # type: ignore[arg-type]
        except UndecidableError:
            return None
        self.note(SYMPY)
        return bool(one == other)

    def _matrix(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Matrix) and isinstance(b, Matrix):
            if [len(row) for row in a.rows] != [len(row) for row in b.rows]:
                return False
            return self._ordered([c for row in a.rows for c in row], [c for row in b.rows for c in row])
        matrix, other = (a, b) if isinstance(a, Matrix) else (b, a)
        if (
            isinstance(matrix, Matrix)
            and _brackets(other) == "()"
            and 1 in (len(matrix.rows), len(matrix.rows[0]))
        ):
            cells = [cell for row in matrix.rows for cell in row]
            return self._ordered(cells, _items(other)) or None  # a vector, written as a point
        return None

    def _listing(self, a: Form, b: Form) -> bool | None:
        if not _items(a) or not _items(b):  # one value, or a union, against several values
            single = a if _items(b) else b
            return (
                False if isinstance(single, _EXPRESSIONS) and single not in (_REALS, Const("empty")) else None
            )
        brackets, counts = {_brackets(a), _brackets(b)}, (len(_items(a)), len(_items(b)))
        if counts[0] != counts[1]:
            return False
        named = [s.sides[0] for s in (*_items(a), *_items(b)) if isinstance(s, Statement)]
        if brackets <= {"", "{}"} and len({str(getattr(n, "name", n))[:1] for n in named}) <= 1:
            return self._unordered(_items(a), _items(b))
        if brackets <= {"", "{}"} and all(isinstance(s, Statement) for s in (*_items(a), *_items(b))):
            return self._unordered(_items(a), _items(b))
        if "{}" in brackets and len(brackets) > 1 and "" not in brackets:
            return None
        same = self._ordered(_items(a), _items(b))
        if len(brackets) == 1 or "" in brackets:
            return same
        endless = any(_infinite(item) for item in (*_items(a), *_items(b)))
        return False if same is False or endless else None  # (5, 7) and [5, 7]: intervals, or a point?

    def _ordered(self, a: Sequence[Form], b: Sequence[Form]) -> bool | None:
        if len(a) != len(b):
            return False
        verdicts: list[bool | None] = []
        for x, y in zip(a, b, strict=True):
            ends = _infinite(x), _infinite(y)
            verdicts.append(ends[0] == ends[1] if any(ends) else self.same(x, y))
        return all_of(verdicts)

    def _unordered(self, a: Sequence[Form], b: Sequence[Form]) -> bool | None:
        """Whether the parts can be matched one to one."""
        if len(a) != len(b) or len(a) > MAX_ITEMS:
            return None if len(a) == len(b) else False
        labelled = [_labels(side) for side in (a, b)]
        rest, certain = list(b), True
        for part in a:
            verdicts = [
                self.same(part, other) if not all(labelled) or _label(part) == _label(other) else False
                for other in rest
            ]
            if True in verdicts:
                rest.pop(verdicts.index(True))
            elif None in verdicts:
                certain = False
            else:
                return False
        return True if certain and not rest else None

    def _quantity(self, a: Form, b: Form) -> bool | None:
        """Values with or without units."""
        units = [form.unit if isinstance(form, Quantity) else () for form in (a, b)]
        values = [form.value if isinstance(form, Quantity) else form for form in (a, b)]
        measures = [measure(unit) for unit in units]
        if measures[0] and measures[1]:
            if measures[0].dimension != measures[1].dimension:
                return False
            if measures[0].size != measures[1].size:
                values = [
                    Binary("*", _node(value), Num(m.size))
                    for value, m in zip(values, measures, strict=True)
                    if m
                ]
        return self._values(_node(values[0]), _node(values[1]))

    def _values(self, a: Node, b: Node) -> bool | None:
        kinds = [_peeled(a)[0], _peeled(b)[0]]
        verdict = self._scalar(a, b)
        if verdict is True:
            return True
        if kinds.count("pct") == 1:
            plain = self._scalar(_peeled(a)[1], _peeled(b)[1])
            return any_of([verdict, plain])
        if kinds.count("deg") == 1:
            return any_of([verdict, self._scalar(_peeled(a)[1], _peeled(b)[1])])
        based = ["_" in node.name if isinstance(node, Num) else False for node in (a, b)]
        if based.count(True) == 1:
            return any_of([verdict, self._scalar(_unbased(a), _unbased(b))])
        return verdict

    def _scalar(self, a: Node, b: Node) -> bool | None:
        names = variables(a) - {"i"}, variables(b) - {"i"}
        if names[0] != names[1] and (not names[0] or not names[1]):
            return self._with_letter_as_unit(a, b)
        decimal = any(isinstance(n, Num) and n.decimals for side in (a, b) for n in walk(side))
        if not names[0] and not names[1]:
            return self._numbers(a, b, decimal)
        decision = same_expression(a, b, _READINGS[0])
        self.note(decision.by or BALLS)
        if decision.same is None and names[0] == names[1]:
            return self._by_algebra(a, b)
        return decision.same

    def _numbers(self, a: Node, b: Node, decimal: bool) -> bool | None:
        verdicts: list[bool | None] = []
        angled = any(isinstance(n, Unary) and n.op == "deg" for side in (a, b) for n in walk(side))
        logs = any(
            isinstance(n, Call) and n.name == "log" and len(n.args) == 1
            for side in (a, b)
            for n in walk(side)
        )
        env = {"i": IMAGINARY_UNIT}
        for reading in (_READINGS[0], *_READINGS[1:2] * angled, *_READINGS[2:] * logs):
            try:
                x, y = evaluate(a, env, reading), evaluate(b, env, reading)
            except UndecidableError:
                verdicts.append(_far_apart(a, b))
                continue
            exact = isinstance(x, Fraction) and isinstance(y, Fraction)
            self.note(RATIONALS if exact else BALLS)
            near = decimal and close(x, y, TOLERANCE)
            verdicts.append(True if near else _same(x, y))
        if True in verdicts:
            return True
        if logs and False in verdicts:
            return None if len(set(verdicts)) > 1 else False
        return any_of(verdicts) if None not in verdicts else self._by_algebra(a, b)

    def _with_letter_as_unit(self, a: Node, b: Node) -> bool | None:
        """5m and 5: a variable, or a unit without its space?"""
        lettered, other = (a, b) if variables(a) - {"i"} else (b, a)
        match lettered:
            case Binary("implicit", value, Var(letter)) if measure_of(letter) and not variables(value):
                return self._scalar(value, other) or None
        if variables(lettered) and not variables(other):
            constant = same_expression(lettered, other, _READINGS[0])
            self.note(constant.by or BALLS)
            return constant.same
        return None

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


def _same(x: Value, y: Value) -> bool | None:
    return same_values(x, y).same


def _far_apart(a: Node, b: Node) -> bool | None:
    """False where one side is astronomic and the other has a value."""
    huge = [_is_huge(node) for node in (a, b)]
    if huge.count(True) != 1:
        return None
    try:
        evaluate(b if huge[0] else a, {}, _READINGS[0])
    except UndecidableError:
        return None
    return False


def _is_huge(node: Node) -> bool:
    """Whether the tree is, up to its sign, a power or factorial that is provably astronomic."""
    while isinstance(node, Unary) and node.op == "neg":
        node = node.arg
    try:
        evaluate(node, {})
    except TooLargeError:
        pass
    except UndecidableError:
        return False
    else:
        return False
    if isinstance(node, Unary):
        return node.op == "fact"
    if not isinstance(node, Binary) or node.op not in ("^", "^^"):
        return False
    try:
        base = evaluate(node.left, {})
        return isinstance(base, Fraction) and base >= 2 and (_is_huge(node.right) or _positive(node.right))
    except UndecidableError:
        return False


def _positive(node: Node) -> bool:
    value = evaluate(node, {})
    return isinstance(value, Fraction) and value > 0


def _plain(form: Form) -> Form:
    """Without what says nothing about the value: a bare list of one, a set of one, both signs of a ±."""
    if isinstance(form, Listing):
        items = [part for item in form.items for part in _both_signs(item)]
        if len(items) == 1 and form.brackets in ("", "{}"):
            return _plain(items[0])
        return Listing(form.brackets, tuple(items)) if form.brackets in ("", "{}", "or") else form
    both = _both_signs(form)
    return Listing("", tuple(both)) if len(both) > 1 else form


def _both_signs(form: Form) -> list[Form]:
    if isinstance(form, Statement) and len(form.sides) == 2:
        return [Statement(form.signs, (form.sides[0], side)) for side in _both_signs(form.sides[1])]
    if isinstance(form, Quantity):
        return [Quantity(value, form.unit) for value in _both_signs(form.value)]
    if isinstance(form, _EXPRESSIONS) and has_sign_choice(form):
        return [with_sign(form, True), with_sign(form, False)]
    return [form]


def _brackets(form: Form) -> str | None:
    return form.brackets if isinstance(form, Listing) else None


def _items(form: Form) -> tuple[Form, ...]:
    return form.items if isinstance(form, Listing) and form.brackets != ":" else ()


def _words(a: Form, b: Form) -> bool | None:
    """Words against words; words without any number against a value are another answer."""
    if isinstance(a, Words) and isinstance(b, Words):
        left, right = (" ".join(re.findall(r"[^\W_]+", form.text.casefold())) for form in (a, b))
        # "abcd" and "dcba" may be products of variables.
        return True if left == right else None if sorted(left) == sorted(right) else False
    return None


def _day_times(clock: Clock) -> set[tuple[int, int]]:
    """The times of 24 hours that a clock time may be."""
    if clock.half:
        return {(clock.hour % 12 + 12 * (clock.half == "p"), clock.minute)}
    return {(clock.hour, clock.minute)}


def _assigns(statement: Statement) -> bool:
    """ "x = ..." or "f(x) = ...": the left side only names what the right side is."""
    left = statement.sides[0]
    product = isinstance(left, Binary) and left.op == "implicit" and isinstance(left.left, Var)
    return set(statement.signs) <= _EQUALS and (isinstance(left, Var | Listing) or product)


def _given(statement: Statement) -> list[Form]:
    """What an equation gives as its value: its last side, and the last exact one before an approximation."""
    signs, sides = statement.signs, statement.sides
    exact = signs.index("~") if "~" in signs else len(signs)
    return [sides[-1], sides[exact]] if 0 < exact < len(signs) else [sides[-1]]


def _name(statement: Statement) -> Form:
    """What an assignment names; of "f(x)" the f."""
    left = statement.sides[0]
    return left.left if isinstance(left, Binary) else left


def _variable(form: Form) -> str:
    """The one variable of a statement; "" where there is not one."""
    sides = form.sides if isinstance(form, Statement) else ()
    names = {name for side in sides if isinstance(side, _EXPRESSIONS) for name in variables(side)}
    return names.pop() if len(names) == 1 else ""


def _proportion(a: Sequence[Node], b: Sequence[Node]) -> Fraction | None:
    """(a0 - a1) / (b0 - b1) where that is one number."""
    ring = Ring()
    try:
        top, bottom = ring.difference(a[0], a[1]), ring.difference(b[0], b[1])
        if is_zero(bottom[0]) or is_zero(top[0]):
            return None
        p, q = top[0] * bottom[1], bottom[0] * top[1]
        ratio = Fraction(int(p.leading_coefficient()), int(q.leading_coefficient()))
        return ratio if is_zero(p * ratio.denominator - q * ratio.numerator) and not is_constant(p) else None
    except UndecidableError:
        return None


def _as_ranges(form: Form) -> Form | None:
    """Inequalities as the interval, or the union of intervals, that they describe; None for other forms."""
    if isinstance(form, Listing) and form.brackets == "or":
        parts = [_as_ranges(item) for item in form.items]
        found = tuple(part for part in parts if part is not None)
        return Union(found) if len(found) == len(parts) else None
    if form == _REALS:
        return Listing("()", (Unary("neg", _INFINITY), _INFINITY))
    if not isinstance(form, Statement):
        return form if isinstance(form, Union) or _brackets(form) in ("()", "[)", "(]", "[]") else None
    signs, sides = form.signs, form.sides
    if set(signs) <= {">", ">="}:
        return _as_ranges(Statement(tuple(_ORDER[s] for s in signs[::-1]), sides[::-1]))
    if not set(signs) <= {"<", "<="}:
        return None
    if len(signs) == 2 and isinstance(sides[1], Var):
        return Listing(
            ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]"), (sides[0], sides[2])
        )
    if len(signs) == 1 and isinstance(sides[0], Var):
        return Listing("()" if signs[0] == "<" else "(]", (Unary("neg", _INFINITY), sides[1]))
    if len(signs) == 1 and isinstance(sides[1], Var):
        return Listing("()" if signs[0] == "<" else "[)", (sides[0], _INFINITY))
    return None


def _infinite(form: Form) -> int:
    """1 and -1 for the infinities, 0 for what is finite."""
    if isinstance(form, Unary) and form.op == "neg":
        return -_infinite(form.arg)
    return int(form == _INFINITY)


def _label(form: Form) -> str:
    """What a part of a list counts, in the singular: "20 chickens"."""
    words = form.unit if isinstance(form, Quantity) else ()
    return " ".join(words).lower().rstrip("s") if words and measure(words) is None else ""


def _labels(forms: Sequence[Form]) -> bool:
    found = [_label(form) for form in forms]
    return all(found) and len(set(found)) == len(found)


def _node(form: Form) -> Node:
    """The expression that a value is; a ratio is its quotient.

    Raises:
        UndecidableError: it is none.
    """
    if isinstance(form, Listing) and form.brackets == ":" and len(form.items) == 2:
        return Binary("/", _node(form.items[0]), _node(form.items[1]))
    if isinstance(form, _EXPRESSIONS):
        return form
    raise UndecidableError("no expression")


def _peeled(node: Node) -> tuple[str, Node]:
    """The sign of per cent or degrees behind a value, and the value without it."""
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
