"""What problem and solution have said of their variables so far, and whether the next equation can hold too."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.maths.notation import CURRENCIES
from stepconf.core.maths.polynomials import (
    Polynomial,
    Ring,
    contradictory,
    implied_value,
    is_constant,
    is_zero,
)
from stepconf.core.maths.rounding import relation_holds
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Node, Num, Var, is_literal, variables, walk
from stepconf.core.maths.units import CONVERTIBLE
from stepconf.core.maths.values import UndecidableError, evaluate
from stepconf.core.maths.vocabulary import CONDITIONS, PLACES

MAX_FACTS = 60


@dataclass(slots=True)
class Known:
    """Equations that hold together, as polynomials that are zero."""

    ring: Ring = field(default_factory=Ring)
    facts: list[Polynomial] = field(default_factory=list)
    literals: dict[Node, Fraction] = field(default_factory=dict)  # what was said to have a value
    several: set[str] = field(default_factory=set)  # variables that take more than one value
    given: frozenset[str] = frozenset()  # the decimals that stand in the problem, which are exact

    def allows(self, relation: Relation, words: frozenset[str], given: bool = False) -> bool | None:
        """Whether the equation `relation` can hold with all that was stated: None if nobody can say.

        It is kept for later where it may hold. `words` are those of its sentence.
        """
        polynomial = polynomial_of(relation, self.ring)
        if polynomial is None:
            return None
        own = self.ring.names(polynomial)
        if words & (CONDITIONS | PLACES):
            self.several |= {name for name in own if len(own) == 1 and assigns(relation)}
            return None
        if is_constant(polynomial):
            return is_zero(polynomial)
        if self._has_two_values(relation) or own & self.several:
            return None
        related = self._connected(polynomial)
        if len(own) > 1 and any(is_constant(polynomial - fact) for fact in related):
            return None  # one of several cases: `a + b = 10`, `a + b = 11`
        if contradictory([*related, polynomial]):
            if self.rounded(relation, related):
                return None
            if given:
                self.several |= own  # equations of different points
            # Which of them is wrong is not known, so none of them may judge what comes next.
            self.facts = [fact for fact in self.facts if fact not in related]
            return False
        if given or not self._branches(own):
            self.facts = [*self.facts[-MAX_FACTS:], polynomial]
        return None

    def nothing_of(self, relation: Relation) -> bool:
        """Whether nothing was stated of the variables of `relation` that could make its sides equal."""
        own = variables(relation.left.node) | variables(relation.right.node)
        assigned = {name for node in self.literals for name in variables(node)}
        in_facts = {name for fact in self.facts for name in self.ring.names(fact)}
        stated = assigned | in_facts | self.several
        return not any(name in own or "(" in name for name in stated)

    def rounded(self, relation: Relation, facts: Sequence[Polynomial]) -> bool:
        """Whether the equation may differ from what follows from `facts` only because it is rounded."""
        sides = relation.left.node, relation.right.node
        decimals = {n.name for side in sides for n in walk(side) if isinstance(n, Num) and n.decimals}
        if decimals <= self.given:
            return False
        for one, other in (sides, sides[::-1]):
            if isinstance(one, Var) and not variables(other):
                value = implied_value(self.ring, facts, one.name)
                if value is None:
                    return True
                return relation_holds("=", Num(value), other, frozenset(), {}).holds is not False
        return len(facts) != 1 or self._rounds(relation, facts[0])

    def _rounds(self, relation: Relation, fact: Polynomial) -> bool:
        """Whether the coefficients of an equation are those of `fact`, scaled and rounded to its decimals."""
        top, bottom = self.ring.difference(relation.left.node, relation.right.node)
        sides = relation.left.node, relation.right.node
        digits = max(n.decimals for side in sides for n in walk(side) if isinstance(n, Num))
        written, exact = top.to_dict(), fact.to_dict()
        if written.keys() != exact.keys() or not is_constant(bottom):
            return True
        below = int(bottom.leading_coefficient())
        own = {monomial: Fraction(int(value), below) for monomial, value in written.items()}
        scales = [own[monomial] / int(exact[monomial]) for monomial in own]
        half = Fraction(1, 2 * 10**digits)
        return any(all(abs(own[m] - int(exact[m]) * scale) <= half for m in own) for scale in scales)

    def _branches(self, own: frozenset[str]) -> bool:
        """Whether what is known leaves several values open: the next equation may be one of several cases."""
        for fact in self.facts:
            degrees = fact.degrees()
            for name in self.ring.names(fact):
                higher = name in own and degrees[self.ring.numbers[name]] > 1
                if higher or any(f"Var(name={one!r})" in name for one in own):
                    return True
        return False

    def _has_two_values(self, relation: Relation) -> bool:
        """Note what an expression is said to be, `x = 3`; whether it was plainly given another value before."""
        said = _valued(relation)
        if said is None:
            return False
        node, value = said
        if self.literals.setdefault(node, value) == value:
            return False
        if isinstance(node, Var):
            self.several.add(node.name)
            self.facts = [fact for fact in self.facts if node.name not in self.ring.names(fact)]
        return True

    def retract(self) -> None:
        """The solution takes something back: what was stated so far binds it no more."""
        self.facts.clear()
        self.literals.clear()

    def _connected(self, polynomial: Polynomial) -> list[Polynomial]:
        """The facts that share variables with `polynomial`, directly or through one another."""
        reached = set(self.ring.names(polynomial))
        chosen: list[Polynomial] = []
        rest = [(fact, self.ring.names(fact)) for fact in self.facts]
        while near := [pair for pair in rest if pair[1] & reached]:
            rest = [pair for pair in rest if not pair[1] & reached]
            chosen += [fact for fact, _ in near]
            reached |= {name for _, names in near for name in names}
        return chosen


def assigns(relation: Relation, literal: bool = False) -> tuple[str, Fraction] | None:
    """The variable and its value where one side is a variable and the other has none: `x = 2 * 3`.

    Args:
        relation: an equation.
        literal: whether the other side must be one number as written.
    """
    said = _valued(relation)
    if said is None or not isinstance(said[0], Var):
        return None
    other = relation.right.node if said[0] == relation.left.node else relation.left.node
    return (said[0].name, said[1]) if not literal or is_literal(other) else None


def _valued(relation: Relation) -> tuple[Node, Fraction] | None:
    """The side with variables, and the value of the other one, which has none."""
    for side, other in ((relation.left.node, relation.right.node), (relation.right.node, relation.left.node)):
        if variables(side) and not variables(other):
            try:
                value = evaluate(other, {})
            except UndecidableError:
                return None
            return (side, value) if isinstance(value, Fraction) else None
    return None


def polynomial_of(relation: Relation, ring: Ring) -> Polynomial | None:
    """What is zero where the equation `relation` holds; None where it is no exact equation."""
    if relation.name != "=" or relation.modulus is not None:
        return None
    try:
        top, _ = ring.difference(relation.left.node, relation.right.node)
    except UndecidableError:
        return None
    return None if _inexact(relation, ring.names(top)) else top


def _inexact(relation: Relation, names: frozenset[str]) -> bool:
    """Whether a number in the equation may be rounded."""
    numbers = [n for side in (relation.left, relation.right) for n in walk(side.node) if isinstance(n, Num)]
    longest = max((n.decimals for n in numbers), default=0)
    return longest > 2 or (longest > 0 and any("(" in name for name in names))


def lists_values(tokens: Sequence[Token], right: Side) -> bool:
    """Whether another value stands behind the right side: `x = 3, -8`, but not `x = 3, 4 = y`."""
    after = tokens[right.end : right.end + 4]
    if not after or after[0].kind != "comma" or not after[0].math:
        return False
    value = after[2:] if after[1:2] and after[1].name == "-" else after[1:]
    return (
        bool(value) and value[0].kind == "num" and value[0].math and all(t.kind != "rel" for t in value[1:2])
    )


def measures(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The units of a side that can be converted into others, in the singular."""
    end = side.end
    while end < len(tokens) and tokens[end].kind in ("currency", "close") and not tokens[end].spaced:
        end += 1
    inside = tokens[side.start : end + 1 if end < len(tokens) and tokens[end].kind == "word" else end]
    words = {t.name.lower().strip(".,") for t in inside if t.kind == "word"} & CONVERTIBLE
    return frozenset(word.removesuffix("s") if len(word) > 2 else word for word in words)


def money(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The currency whose sign stands in a side."""
    signs = (t.name for t in tokens[side.start : side.end] if t.kind == "currency")
    return frozenset(CURRENCIES[sign] for sign in signs if sign in CURRENCIES)


def has_variables(relation: Relation) -> bool:
    """Whether either side has a variable."""
    return bool(variables(relation.left.node) or variables(relation.right.node))
