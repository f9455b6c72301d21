"""An inequality and the one it is derived from: `2x > 6`, so `x > 3`.

Only linear ones in one variable are followed. The second must contain all that satisfies the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.claims.chains import Relation
from stepconf.core.maths.polynomials import Ring, is_constant
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Num, walk
from stepconf.core.maths.values import UndecidableError
from stepconf.core.maths.vocabulary import BRANCHING

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SILENT = ("break", "arrow", "currency", "close", "annot")
_BOTH_SIDES = 14  # tokens at most in "dividing both sides by 2, we get"
_SLACK = 1  # two bounds that differ by no more may differ by rounding, or because the variable is whole


@dataclass(frozen=True, slots=True)
class HalfLine:
    """All `name relation bound`."""

    name: str
    relation: str
    bound: Fraction

    def within(self, other: "HalfLine") -> bool | None:
        """Whether every point of it lies in `other`: None where that hangs on a rounding."""
        upward = self.relation[0] == ">"
        if upward != (other.relation[0] == ">"):
            gap = self.bound - other.bound if upward else other.bound - self.bound
            return False if gap >= -_SLACK else None  # opposite directions with nothing, or little, in common
        excess = other.bound - self.bound if upward else self.bound - other.bound
        if excess > _SLACK:
            return False
        if excess == 0:
            return None if len(other.relation) < len(self.relation) else True
        return None


def half_line(relation: Relation, ring: Ring) -> HalfLine | None:
    """What satisfies the inequality `relation`; None where it is none, or not linear in one variable."""
    if relation.name not in _FLIPPED or relation.spelled:
        return None
    try:
        top, bottom = ring.difference(relation.left.node, relation.right.node)
    except UndecidableError:
        return None
    value = ring.value(top)
    if value is None or not is_constant(bottom) or "(" in value[0]:
        return None
    rising = int(top.leading_coefficient()) * int(bottom.leading_coefficient()) > 0
    return HalfLine(value[0], relation.name if rising else _FLIPPED[relation.name], value[1])


@dataclass(slots=True)
class InequalityTrail:
    """The last inequality, and where it stands."""

    ring: Ring
    last: HalfLine | None = None
    step: int = -1
    end: int = 0
    closes: bool = False  # it ends its step

    def follows(self, relation: Relation, step: int, tokens: Sequence[Token]) -> tuple[bool | None, str]:
        """Note the next inequality; whether it follows from the one before it, if it is derived from that.

        Args:
            relation: the inequality.
            step: index of its step.
            tokens: of that step.
        """
        after = relation.right.end
        # 1 < x < 3 is none of ours
        ends = tokens[relation.left.start - 1 : relation.left.start], tokens[after : after + 1]
        double = any(token.kind == "rel" for end in ends for token in end)
        before, found = self.last, None if double else half_line(relation, self.ring)
        between = tokens[self.end if step == self.step else 0 : relation.left.start]
        near = step == self.step or (step == self.step + 1 and self.closes)
        self.last, self.step, self.end = found, step, after
        self.closes = all(token.kind in _SILENT for token in tokens[after:])
        if before is None or found is None or before.name != found.name or not near:
            return None, ""
        if not _derived(between):
            return None, ""
        if before == found:
            return True, ""
        if _has_decimals(relation) or before.within(found) is not False:
            return None, ""
        return False, f"what satisfies {before.name} {before.relation} {before.bound} need not satisfy it"


def _derived(between: Sequence[Token]) -> bool:
    """Whether what stands between says that the second is the first, rewritten: an arrow, or "both sides"."""
    if all(token.kind in _SILENT for token in between):
        return any(token.kind == "arrow" for token in between)
    said = [token.name.lower() for token in between if token.kind == "word"]
    other = any(token.kind == "rel" for token in between) or set(said) & BRANCHING
    return "sides" in said and not other and len(between) <= _BOTH_SIDES


def _has_decimals(relation: Relation) -> bool:
    return any(
        isinstance(n, Num) and n.decimals for side in (relation.left, relation.right) for n in walk(side.node)
    )
