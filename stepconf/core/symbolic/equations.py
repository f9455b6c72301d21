"""What problem and solution have said of their variables so far, and whether the next equation can hold too."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from stepconf.core.symbolic.chains import Relation, Side
from stepconf.core.symbolic.compare import relation_holds
from stepconf.core.symbolic.evaluate import UndecidableError
from stepconf.core.symbolic.nodes import Num, Var, is_literal, variables, walk
from stepconf.core.symbolic.polynomials import Polynomial, difference, fraction_of, is_constant, names
from stepconf.core.symbolic.systems import contradictory, implied_value
from stepconf.core.symbolic.tokens import Token
from stepconf.core.symbolic.vocabulary import CONDITIONS, MEASURES, PLACES

MAX_FACTS = 60


@dataclass(slots=True)
class Known:
    """Equations that hold together, as polynomials that are zero."""

    facts: list[Polynomial] = field(default_factory=list)
    literals: dict[str, Fraction] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)  # variables that take more than one value
    given: frozenset[str] = frozenset()  # the decimals that stand in the problem, which are exact

    def allows(self, relation: Relation, words: frozenset[str], given: bool = False) -> bool | None:
        """Whether the equation `relation` can hold with all that was stated: None if nobody can say.

        It is kept for later where it may hold. `words` are those of its sentence.
        """
        polynomial = polynomial_of(relation)
        if polynomial is None:
            return None
        own = names(polynomial)
        if words & (CONDITIONS | PLACES):
            self.several |= {name for name in own if len(own) == 1 and assigns(relation)}
            return None
        if is_constant(polynomial):
            return not polynomial
        if self._has_two_values(relation) or own & self.several:
            return None
        related = _connected(self.facts, polynomial)
        if contradictory([*related, polynomial]):
            if self.rounded(relation, related):
                return None
            # Which of them is wrong is not known, so none of them may judge what comes next.
            self.facts = [fact for fact in self.facts if fact not in related]
            return False
        if given or not self._branches(own):
            self.facts = [*self.facts[-MAX_FACTS:], polynomial]
        return None

    def nothing_of(self, relation: Relation) -> bool:
        """Whether nothing was stated of the variables of `relation` that could make its sides equal."""
        own = variables(relation.left.node) | variables(relation.right.node)
        stated = {*self.literals, *self.several, *(name for fact in self.facts for name in names(fact))}
        return not any(name in own or "(" in name for name in stated)

    def rounded(self, relation: Relation, facts: Sequence[Polynomial]) -> bool:
        """Whether the equation may differ from what follows from `facts` only because it is rounded."""
        sides = relation.left.node, relation.right.node
        decimals = {n.name for side in sides for n in walk(side) if isinstance(n, Num) and n.decimals}
        if decimals <= self.given:
            return False
        for one, other in (sides, sides[::-1]):
            if isinstance(one, Var) and not variables(other):
                value = implied_value(facts, one.name)
                if value is None:
                    return True
                return relation_holds("=", Num(value), other, frozenset(), {}).holds is not False
        return True

    def _branches(self, own: frozenset[str]) -> bool:
        """Whether what is known leaves several values open: the next equation may be one of several cases."""
        for fact in self.facts:
            for monomial in fact:
                for name, exponent in monomial:
                    if (name in own and exponent > 1) or any(f"Var(name={one!r})" in name for one in own):
                        return True
        return False

    def _has_two_values(self, relation: Relation) -> bool:
        """Note a plain assignment `x = 3`; whether `x` was plainly given another value before."""
        assigned = assigns(relation)
        if assigned is None:
            return False
        name, value = assigned
        if self.literals.setdefault(name, value) != value:
            self.several.add(name)
            self.facts = [fact for fact in self.facts if name not in names(fact)]
            return True
        return False

    def retract(self) -> None:
        """The solution takes something back: what was stated so far binds it no more."""
        self.facts.clear()
        self.literals.clear()


def assigns(relation: Relation) -> tuple[str, Fraction] | None:
    """The variable and the number of `x = 3` or `3 = x`."""
    for side, other in ((relation.left.node, relation.right.node), (relation.right.node, relation.left.node)):
        if isinstance(side, Var) and is_literal(other):
            top, bottom = fraction_of(other)
            return side.name, top.get((), Fraction(0)) / bottom[()]
    return None


def polynomial_of(relation: Relation) -> Polynomial | None:
    """What is zero where the equation `relation` holds; None where it is no exact equation."""
    if relation.name != "=" or relation.modulus is not None:
        return None
    try:
        top, bottom = difference(relation.left.node, relation.right.node)
    except UndecidableError:
        return None
    if not bottom or any("..." in name for name in names(top)) or _inexact(relation, top):
        return None
    return top


def _inexact(relation: Relation, polynomial: Polynomial) -> bool:
    """Whether a number in the equation may be rounded."""
    numbers = [n for side in (relation.left, relation.right) for n in walk(side.node) if isinstance(n, Num)]
    longest = max((n.decimals for n in numbers), default=0)
    opaque = any("(" in name or name == "pi" for name in names(polynomial))
    return longest > 2 or (longest > 0 and opaque)


def _connected(facts: Sequence[Polynomial], polynomial: Polynomial) -> list[Polynomial]:
    """The facts that share variables with `polynomial`, directly or through one another."""
    reached = set(names(polynomial))
    chosen: list[Polynomial] = []
    rest = list(facts)
    while True:
        near = [fact for fact in rest if names(fact) & reached]
        if not near:
            return chosen
        rest = [fact for fact in rest if not names(fact) & reached]
        chosen += near
        reached |= {name for fact in near for name in names(fact)}


def measures(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The units of a side that can be converted into others."""
    inside = tokens[side.start : side.end]
    found = (
        word.strip(".,") for t in inside if t.kind in ("word", "text") for word in t.name.lower().split()
    )
    return frozenset(word for word in found if word in MEASURES)


def has_variables(relation: Relation) -> bool:
    """Whether either side has a variable."""
    return bool(variables(relation.left.node) or variables(relation.right.node))
