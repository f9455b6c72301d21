"""Equations that are said to hold together: can they?

The equations are made linear by taking every monomial for an unknown. If a combination of them says that a
non-zero number is zero they contradict each other, whatever the variables stand for. Values found on the way
are substituted, and two equations in one variable must have a common root.
"""

from collections.abc import Sequence
from fractions import Fraction

from stepconf.core.symbolic.evaluate import UndecidableError
from stepconf.core.symbolic.polynomials import (
    Monomial,
    Polynomial,
    add,
    gcd,
    is_constant,
    names,
    substitute_value,
)

MAX_EQUATIONS = 24
MAX_TOTAL_TERMS = 250
_ROUNDS = 4


def contradictory(equations: Sequence[Polynomial]) -> bool:
    """Whether `p = 0` for all `p` in `equations` is impossible. False where that is not found out."""
    rows = list(equations)[-MAX_EQUATIONS:]
    if sum(len(row) for row in rows) > MAX_TOTAL_TERMS:
        return False
    try:
        for _ in range(_ROUNDS):
            rows, impossible = _eliminate(rows)
            if impossible:
                return True
            values = _values(rows)
            if values is None:
                return True
            if not values:
                return False
            rows = [_substituted(row, values) for row in rows if not _is_assignment(row)] + [
                row for row in rows if _is_assignment(row)
            ]
            if any(is_constant(row) and row for row in rows):
                return True
            rows = [row for row in rows if row]
    except UndecidableError:
        return False
    return False


def implied_value(equations: Sequence[Polynomial], name: str) -> Fraction | None:
    """The value of `name` that the equations force, if elimination finds it."""
    rows = list(equations)[-MAX_EQUATIONS:]
    try:
        for _ in range(_ROUNDS):
            rows, impossible = _eliminate(rows)
            values = None if impossible else _values(rows)
            if not values or name in values:
                return values.get(name) if values else None
            rows = [row if _is_assignment(row) else _substituted(row, values) for row in rows]
    except UndecidableError:
        return None
    return None


def _eliminate(rows: Sequence[Polynomial]) -> tuple[list[Polynomial], bool]:
    """Rows in echelon form over the monomials, and whether one of them reads 1 = 0."""
    pivots: dict[Monomial, Polynomial] = {}
    for row in rows:
        reduced = row
        for monomial, pivot in pivots.items():
            if monomial in reduced:
                reduced = add(reduced, pivot, -reduced[monomial])
        if not reduced:
            continue
        if is_constant(reduced):
            return [], True
        lead = max((m for m in reduced if m), key=_order)
        scaled = add({}, reduced, 1 / reduced[lead])
        pivots = {m: add(p, scaled, -p[lead]) if lead in p else p for m, p in pivots.items()}
        pivots[lead] = scaled
    return list(pivots.values()), False


def _order(monomial: Monomial) -> tuple[int, Monomial]:
    return sum(exponent for _, exponent in monomial), monomial


def _is_assignment(row: Polynomial) -> bool:
    return len([m for m in row if m]) == 1 and all(len(m) == 1 and m[0][1] == 1 for m in row if m)


def _values(rows: Sequence[Polynomial]) -> dict[str, Fraction] | None:
    """Values that the equations in one variable force; None if two of them have no common root."""
    single: dict[str, Polynomial] = {}
    for row in rows:
        own = names(row)
        if len(own) == 1:
            name = next(iter(own))
            single[name] = gcd(single[name], row, name) if name in single else row
            if is_constant(single[name]):
                return None
    values: dict[str, Fraction] = {}
    for name, row in single.items():
        if _is_assignment(row):
            values[name] = -row.get((), Fraction(0)) / row[((name, 1),)]
    return values


def _substituted(row: Polynomial, values: dict[str, Fraction]) -> Polynomial:
    for name in names(row) & values.keys():
        row = substitute_value(row, name, values[name])
    return row
