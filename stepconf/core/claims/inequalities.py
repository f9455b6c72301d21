"""An inequality and the one it is derived from: `2x > 6`, so `x > 3`. Only linear ones in one variable are followed."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.claims.chains import Relation
from stepconf.core.maths.polynomials import Ring, is_constant
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.values import UndecidableError
from stepconf.core.maths.vocabulary import BRANCHING

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SILENT = ("break", "arrow", "currency", "close", "annot")
_BOTH_SIDES = 14  # tokens at most in "dividing both sides by 2, we get"


@dataclass(frozen=True, slots=True)
class HalfLine:
    """All `name relation bound`."""

    name: str
    relation: str
    bound: Fraction


def half_line(relation: Relation, ring: Ring) -> HalfLine | None:
    """What satisfies the inequality `relation`; None where it is none, or not linear in one variable."""
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

    def follows(self, relation: Relation, step: int, tokens: Sequence[Token]) -> bool:
        """Note the next inequality; whether it says the same as the one before it, from which it is derived.

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
        return found is not None and before == found and near and _derived(between)


def _derived(between: Sequence[Token]) -> bool:
    """Whether what stands between says that the second is the first, rewritten: an arrow, or "both sides"."""
    if all(token.kind in _SILENT for token in between):
        return any(token.kind == "arrow" for token in between)
    said = [token.name.lower() for token in between if token.kind == "word"]
    other = any(token.kind == "rel" for token in between) or set(said) & BRANCHING
    return "sides" in said and not other and len(between) <= _BOTH_SIDES
