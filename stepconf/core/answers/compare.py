"""Are two answers the same? Their forms are compared, and the values in them by `core.maths`.

True or False only where both answers were read to the last character and the difference is no matter of form.
Conventions, where data sets disagree:

- A unit, a currency sign, a degree sign or "x =" that only one side has does not count. Units on both sides are
  converted (1 hour is 60 minutes); units of different dimensions are never equal, nor are 10 km and 10 m.
- A percentage equals its number and its fraction: 28% is 28 and 0.28. An angle in degrees equals its number.
- A decimal equals what it is within 1e-6 of, relative below 1: 0.333333 is 1/3 and 0.33 is not.
- {1, 2} and a bare "1, 2" have no order; (1, 2) has. (1, 2) may be a pair or an open interval.
- A value that is given in several forms (2/3, about 0.667; 1,500 m, or 1.5 km) counts in each of them.
- Words differ only where both are short and share nothing. A number times letters may be the number in a unit, and
  the name of one letter is free: both are left open.
- Clock times are compared as times, 3:15 is not 1:5; a ratio equals its value. A base that only one side has does
  not count; two numbers with bases are compared by value.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from stepconf.core.answers.conditions import (
    EQUALS,
    REALS,
    TURNED,
    as_ranges,
    assigns,
    given,
    infinite,
    letters,
    named,
    proportion,
    turned,
    variable_of,
)
from stepconf.core.answers.letters import without_domain
from stepconf.core.answers.scalars import Scalars, all_of, any_of, value_of
from stepconf.core.answers.wording import same_words
from stepconf.core.maths.decide import POLYNOMIALS, SYMPY
from stepconf.core.maths.tree import (
    EXPRESSIONS,
    Binary,
    Choice,
    Clock,
    Const,
    Form,
    Listing,
    Matrix,
    Num,
    Quantity,
    Statement,
    Union,
    Var,
    Words,
    expressions,
    has_sign_choice,
    with_sign,
)
from stepconf.core.maths.units import measure
from stepconf.core.maths.values import UndecidableError

MAX_ITEMS = 12  # of an unordered list; the matching is quadratic


@dataclass(slots=True)
class Comparison:
    """Compares the forms of two answers.

    Args:
        scalars: compares the values in them, and notes by what means.
        solutions: the set that a statement describes; it may raise `UndecidableError`.
    """

    scalars: Scalars = field(default_factory=Scalars)
    solutions: Callable[[Statement], Any] | None = None

    def same(self, a: Form, b: Form) -> bool | None:
        """Dispatches on form. Both are complete readings."""
        for listing, value in ((a, b), (b, a)):
            if isinstance(listing, Listing) and _is_alternatives(listing) and _is_single(value):
                return self._one_of(listing, value)
        a, b = _plain(a), _plain(b)
        if a == b:
            return True
        kinds = {type(a), type(b)}
        if Choice in kinds:
            return self._choice(a, b)
        if Words in kinds:
            # words without any number against a value may be any answer
            return same_words(a.text, b.text) if isinstance(a, Words) and isinstance(b, Words) else None
        if Clock in kinds:
            return self._clock(a, b)
        if Statement in kinds or REALS in (a, b) or "or" in (_brackets(a), _brackets(b)):
            return self._statement(a, b)
        if Matrix in kinds:
            return self._matrix(a, b)
        match a, b:
            case Union(one), Union(other):
                return self._unordered(one, other) or None
            case (Union(), _) | (_, Union()):
                return None
            case Listing(":", one), Listing(":", other):
                ratios = [[Binary("/", value_of(p), value_of(s[0])) for p in s] for s in (one, other)]
                return self._ordered(*ratios)
        if _items(a) or _items(b):
            return self._listing(a, b)
        return self.scalars.same(a, b)

    def _choice(self, a: Form, b: Form) -> bool | None:
        match a, b:
            case Choice(letter, value), Choice(other, meant):
                return letter == other and self.same(value, meant)
            case (Choice(letter, _), Var(name)) | (Var(name), Choice(letter, _)) if len(name) == 1:
                return letter == name
            case (Choice(_, value), form) | (form, Choice(_, value)):
                return self.same(value, form)
        return None

    def _clock(self, a: Form, b: Form) -> bool | None:
        match a, b:
            case Clock(), Clock():
                return not (a.half and b.half and a.half != b.half) and bool(_day_times(a) & _day_times(b))
            case (Clock(hour, minute, _), Quantity() as time) | (Quantity() as time, Clock(hour, minute, _)):
                minutes = Quantity(Num(Fraction(60 * hour + minute)), ("minutes",))
                return (self.same(minutes, time) or None) if measure(time.unit) else None
            case (Clock(hour, minute, half), other) | (other, Clock(hour, minute, half)):
                if half or not minute or math.gcd(hour, minute) != 1:
                    return False  # 3:15 is no ratio in lowest terms
                return self.same(Binary("/", Num(Fraction(hour)), Num(Fraction(minute))), other)
        return None

    def _statement(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Statement) and isinstance(b, Statement):
            if assigns(a) and assigns(b):
                same = any_of([self.same(x, y) for x in given(a) for y in given(b)])
                return same if named(a) == named(b) else None
            return self._conditions(a, b)
        if isinstance(a, Listing) and isinstance(b, Listing):
            return self._unordered(a.items, b.items) or None
        statement, other = (a, b) if isinstance(a, Statement) else (b, a)
        ranges = [as_ranges(form) for form in (a, b)]
        if ranges[0] is not None and ranges[1] is not None:
            return self.same(ranges[0], ranges[1])
        if isinstance(statement, Statement) and set(statement.signs) <= EQUALS:
            is_gold, statement = statement is a, turned(statement)
            value = isinstance(other, (*EXPRESSIONS, Quantity))
            if is_gold and value and not letters(statement.sides[0]) and letters(statement.sides[-1]):
                return False  # `7 = 11a + c` is no value
            if value or not is_gold or assigns(statement):
                return self._equation(statement, other)
        if isinstance(statement, Statement) and statement.signs == ("in",):
            return self.same(statement.sides[1], other)
        return self._as_sets(a, b)

    def _equation(self, statement: Statement, value: Form) -> bool | None:
        """An equation against a value: its value, or one that its sides give in several forms.

        In "90 minutes = 1.5 hours" each side counts, in "5 * 3 = 16" only the last one; "1/3 = 0.33" is unclear.
        """
        verdicts = [self.same(side, value) for side in given(statement)]
        same, last, sides = any_of(verdicts), statement.sides[-1], statement.sides
        if verdicts[0] is False and same and not self.scalars.near(given(statement)[1], last):
            return None  # "pi ~ 5" says two things
        sides = sides if letters(sides[0]) == letters(last) and not assigns(statement) else sides[1:]
        if same is not False or any(letters(side) != letters(last) for side in sides):
            return same
        said = next((side for side in sides[:-1] if self.same(side, value)), None)
        if said is None:
            return False
        if all(self.same(side, last) for side in sides):
            return True
        return None if self.scalars.near(said, last) else False

    def _one_of(self, listing: Listing, value: Form) -> bool | None:
        """Values joined by "or" against one: the same if it is among them and they are all this one."""
        verdicts = [self.same(item, value) for item in listing.items]
        if True not in verdicts:
            return any_of(verdicts)
        meant = listing.items[verdicts.index(True)]
        if all(self.same(item, meant) for item in listing.items):
            return True
        return None if all(self.scalars.near(item, meant) for item in listing.items) else False  # "5 or 6"

    def _conditions(self, a: Statement, b: Statement) -> bool | None:
        """Equations and inequalities: the same if the differences of their sides are proportional."""
        one, other = expressions(a.sides), expressions(b.sides)
        if one is not None and other is not None and len(a.signs) == len(b.signs) == 1:
            turned = a.signs != b.signs
            if turned and TURNED.get(a.signs[0]) != b.signs[0]:
                return self._as_sets(a, b)
            factor = proportion(one, other[::-1] if turned else other)
            self.scalars.note(POLYNOMIALS)
            if factor is not None and (factor > 0 or a.signs[0] in ("=", "!=")):
                return True
        ranges = as_ranges(a), as_ranges(b)
        if ranges[0] is not None and ranges[1] is not None:
            return self.same(ranges[0], ranges[1])
        return self._as_sets(a, b)

    def _as_sets(self, a: Form, b: Form) -> bool | None:
        """What satisfies one condition is what satisfies the other, or the values that the other side lists."""
        if self.solutions is None or not isinstance(a, Statement) or not isinstance(b, Statement):
            return None
        if {variable_of(form) for form in (a, b)} != {variable_of(a)} or not variable_of(a):
            return None
        try:
            one, other = self.solutions(a), self.solutions(b)
        except UndecidableError:
            return None
        self.scalars.note(SYMPY)
        return bool(one == other)

    def _matrix(self, a: Form, b: Form) -> bool | None:
        if isinstance(a, Matrix) and isinstance(b, Matrix):
            if [len(row) for row in a.rows] != [len(row) for row in b.rows]:
                return False
            return self._ordered([c for row in a.rows for c in row], [c for row in b.rows for c in row])
        matrix, other = (a, b) if isinstance(a, Matrix) else (b, a)
        if isinstance(matrix, Matrix) and _brackets(other) == "()":
            cells = [cell for row in matrix.rows for cell in row]
            return self._ordered(cells, _items(other)) or None  # a vector, written as a point
        return None

    def _listing(self, a: Form, b: Form) -> bool | None:
        if not _items(a) or not _items(b):  # one value, or a union, against several values
            single, items = (a, _items(b)) if _items(b) else (b, _items(a))
            if "" in (_brackets(a), _brackets(b)) and all(self.same(item, single) for item in items):
                return None  # "1/2, 0.5": one value in two forms, or two?
            return False if isinstance(single, EXPRESSIONS) and single != Const("empty") else None
        brackets, counts = {_brackets(a), _brackets(b)}, (len(_items(a)), len(_items(b)))
        if counts[0] != counts[1]:
            return False
        named = [s.sides[0] for s in (*_items(a), *_items(b)) if isinstance(s, Statement)]
        one_name = len({str(getattr(n, "name", n))[:1] for n in named}) <= 1
        if brackets <= {"", "{}"} and (one_name or len(named) == 2 * counts[0]):
            return self._unordered(_items(a), _items(b))
        if "{}" in brackets and len(brackets) > 1 and "" not in brackets:
            return None
        same = self._ordered(_items(a), _items(b))
        if len(brackets) == 1 or "" in brackets:
            return same
        endless = any(infinite(item) for item in (*_items(a), *_items(b)))
        return False if same is False or endless else None  # (5, 7) and [5, 7]: intervals, or a point?

    def _ordered(self, a: Sequence[Form], b: Sequence[Form]) -> bool | None:
        if len(a) != len(b):
            return False
        verdicts: list[bool | None] = []
        for x, y in zip(a, b, strict=True):
            ends = infinite(x), infinite(y)
            verdicts.append(ends[0] == ends[1] if any(ends) else self.same(x, y))
        return all_of(verdicts)

    def _unordered(self, a: Sequence[Form], b: Sequence[Form]) -> bool | None:
        """Whether the parts can be matched one to one."""
        if len(a) != len(b):
            return False
        if len(a) > MAX_ITEMS:
            return None
        labelled = _labels(a) and _labels(b)
        rest, certain = list(b), True
        for part in a:
            verdicts = [
                False if labelled and _label(part) != _label(other) else self.same(part, other)
                for other in rest
            ]
            if True in verdicts:
                rest.pop(verdicts.index(True))
            elif None in verdicts:
                certain = False
            else:
                return False
        return certain or None


def _plain(form: Form) -> Form:
    """Without what says nothing about the value: a bare list of one, a set of one, both signs of a ±."""
    if isinstance(form, Listing):
        parts = without_domain(form.items) if form.brackets in ("", "or") else form.items
        items = [part for item in parts for part in _both_signs(item)]
        if len(items) == 1 and form.brackets in ("", "{}", "or"):
            return _plain(items[0])
        stated = any(isinstance(item, Statement) for item in items)
        brackets = "" if form.brackets == "or" and not stated else form.brackets
        return Listing(brackets, tuple(items)) if brackets in ("", "{}", "or") else form
    both = _both_signs(form)
    return Listing("", tuple(both)) if len(both) > 1 else form


def _is_alternatives(listing: Listing) -> bool:
    """Whether values, not conditions, are joined by "or"."""
    return listing.brackets == "or" and all(map(_is_single, listing.items))


def _is_single(form: Form) -> bool:
    """Whether a form is one value, with a unit or without."""
    return isinstance(form, (*EXPRESSIONS, Quantity)) and len(_both_signs(form)) == 1 and form != REALS


def _both_signs(form: Form) -> list[Form]:
    if isinstance(form, Statement) and len(form.sides) == 2:
        return [Statement(form.signs, (form.sides[0], side)) for side in _both_signs(form.sides[1])]
    if isinstance(form, Quantity):
        return [Quantity(value, form.unit) for value in _both_signs(form.value)]
    if isinstance(form, EXPRESSIONS) and has_sign_choice(form):
        return [with_sign(form, True), with_sign(form, False)]
    return [form]


def _brackets(form: Form) -> str | None:
    return form.brackets if isinstance(form, Listing) else None


def _items(form: Form) -> tuple[Form, ...]:
    return form.items if isinstance(form, Listing) and form.brackets != ":" else ()


def _day_times(clock: Clock) -> set[tuple[int, int]]:
    """The times of 24 hours that a clock time may be, and the time as it is written."""
    half = {(clock.hour % 12 + 12 * (clock.half == "p"), clock.minute)} if clock.half else set()
    return {(clock.hour, clock.minute)} | half


def _label(form: Form) -> str:
    """What a part of a list counts, in the singular: "20 chickens"."""
    words = form.unit if isinstance(form, Quantity) else ()
    return " ".join(words).lower().rstrip("s") if words and measure(words) is None else ""


def _labels(forms: Sequence[Form]) -> bool:
    found = [_label(form) for form in forms]
    return all(found) and len(set(found)) == len(found)
