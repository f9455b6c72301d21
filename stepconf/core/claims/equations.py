"""What problem and solution have said of their variables so far, and whether the next equation can hold too."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from stepconf.core.claims.chains import Relation, Side
from stepconf.core.maths.decide import same_everywhere
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
from stepconf.core.maths.tree import (
    Binary,
    Node,
    Num,
    Unary,
    Var,
    has_open_division,
    is_literal,
    variables,
    walk,
)
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

    def allows(self, relation: Relation, words: frozenset[str]) -> bool:
        """Whether the equation `relation` may hold with all that was stated.

        It is kept for later where it may hold. `words` are those of its sentence.
        """
        polynomial = polynomial_of(relation, self.ring)
        if polynomial is None:
            return True
        own = self.ring.names(polynomial)
        if words & (CONDITIONS | PLACES):
            self.several |= {name for name in own if len(own) == 1 and assigns(relation)}
            return True
        if self._has_two_values(relation) or own & self.several:
            return True
        related = self._connected(polynomial)
        if len(own) > 1 and any(is_constant(polynomial - fact) for fact in related):
            return True  # one of several cases: `a + b = 10`, `a + b = 11`
        if contradictory([*related, polynomial]):
            if self.rounded(relation, related):
                return True
            # Which of them is wrong is not known, so none of them may judge what comes next.
            self.facts = [fact for fact in self.facts if fact not in related]
            return False
        if not self._branches(own):
            self.facts = [*self.facts[-MAX_FACTS:], polynomial]
        return True

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
                return relation_holds("=", Num(value), other).holds is not False
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
        return said is not None and self.literals.setdefault(*said) != said[1]

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
    sides = relation.left.node, relation.right.node
    if relation.name != "=" or any(map(_changes_by_percent, sides)) or _is_whole_share(*sides):
        return None
    if has_open_division(*sides):
        return None  # `12/2x = 3` may say that x is 2, and that it is 1/2
    try:
        return ring.difference(relation.left.node, relation.right.node)[0]
    except UndecidableError:
        return None


def _changes_by_percent(side: Node) -> bool:
    """Whether a percentage is added to a variable: in `x - 20%` it is one of x."""
    sums = [(n.left, n.right) for n in walk(side) if isinstance(n, Binary) and n.op in ("+", "-")]
    return any(variables(a) and is_percentage(b) for pair in sums for a, b in (pair, pair[::-1]))


def _is_whole_share(left: Node, right: Node) -> bool:
    """Whether a percentage names an amount: `100% = x`."""
    return is_percentage(left) and isinstance(right, Var)


def is_percentage(node: Node) -> bool:
    """Whether `node` is one percentage as written."""
    while isinstance(node, Unary) and node.op == "neg":
        node = node.arg
    return isinstance(node, Unary) and node.op == "pct"


def holds_everywhere(relation: Relation, polynomial: Polynomial | None, ring: Ring) -> bool | None:
    """Whether an equation is an identity (True), is never so (False: its sides differ by a constant), or neither.

    Args:
        relation: the equation.
        polynomial: what is zero where the equation holds; None if it has none.
        ring: that of the polynomial.
    """
    if polynomial is not None and is_constant(polynomial):
        return is_zero(polynomial)
    if relation.name != "=" or (polynomial is not None and not has_opaque(ring.names(polynomial))):
        return None
    return True if same_everywhere(relation.left.node, relation.right.node).same else None


def has_opaque(names: frozenset[str]) -> bool:
    """Whether an expression that is no polynomial is among the variables of one."""
    return any("(" in name for name in names)


def lists_values(tokens: Sequence[Token], right: Side) -> bool:
    """Whether another value stands after the right side: `x = 3, -8`, but not `x = 3, 4 = y`."""
    after = [t for t in tokens[right.end : right.end + 4] if t.name != "-"]
    kinds = [token.kind for token in after]
    return kinds[:2] == ["comma", "num"] and after[0].math and kinds[2:3] != ["rel"]


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
    return frozenset(CURRENCIES[t.name] for t in tokens[side.start : side.end] if t.kind == "currency")


def has_variables(relation: Relation) -> bool:
    """Whether either side has a variable."""
    return bool(variables(relation.left.node) or variables(relation.right.node))
