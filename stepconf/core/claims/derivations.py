"""An equation and the one it is derived from, side by side: the two must be able to hold together.

This needs no knowledge of what the variables are, so that it also holds inside a case or a supposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stepconf.core.maths.polynomials import Polynomial, Ring, contradictory
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.vocabulary import BRANCHING, REWRITING

_KEPT = 8
_BEFORE_OPERAND = ("by", "from", "to")
_OPERATION = ("add", "divid", "multipl", "subtract")
_REACH = 8  # tokens between an operation and its second operand
_TRANSPARENT = ("break", "arrow", "currency")


@dataclass(slots=True)
class Trail:
    """The equations of the solution in their order."""

    ring: Ring
    equations: list[Polynomial] = field(default_factory=list)
    step: int = -1
    end: int = 0  # index of the token after the last equation in step `step`
    solved: bool = False  # the last equation was `x = 3`: nothing is derived from that

    def follows(
        self, polynomial: Polynomial, step: int, tokens: Sequence[Token], span: tuple[int, int], solved: bool
    ) -> bool | None:
        """Note the next equation; False if it is derived from the one before it and cannot be.

        Args:
            polynomial: the equation, as what is zero.
            step: index of its step.
            tokens: of that step.
            span: where in `tokens` the equation stands.
            solved: whether it is of the form `x = 3`.
        """
        before = self.equations[-1] if self.equations else None
        derived = (
            before is not None
            and not self.solved
            and self._derived(before, polynomial, step, tokens, span[0])
        )
        earlier = self.equations[:-1]
        self.equations = [*self.equations[-_KEPT:], polynomial]
        self.step, self.end, self.solved = step, span[1], solved
        if not derived or before is None or self._several_roots(earlier, before, polynomial):
            return None
        return False if contradictory([before, polynomial]) else None

    def origin(self) -> list[Polynomial]:
        """The equation before the last one, from which it was derived."""
        return self.equations[-2:-1]

    def _derived(
        self, before: Polynomial, after: Polynomial, step: int, tokens: Sequence[Token], start: int
    ) -> bool:
        if self.ring.names(before) != self.ring.names(after) or not self.ring.names(after):
            return False
        same = step == self.step
        between = tokens[self.end if same else 0 : start]
        words = " ".join(token.name.lower() for token in between if token.kind == "word")
        columns = any(token.kind == "word" and token.math and token.name == "or" for token in tokens)
        if (
            columns
            or is_operand(tokens, start)
            or set(words.split()) & BRANCHING
            or any(token.kind == "comma" for token in between[-1:])
        ):
            return False
        if same and all(token.kind in _TRANSPARENT for token in between):
            return True
        return len(between) < 30 and any(word in words + " " for word in REWRITING)

    def _several_roots(self, earlier: Sequence[Polynomial], before: Polynomial, after: Polynomial) -> bool:
        """Whether two linear equations may be two roots of an equation before them."""
        if before.total_degree() > 1:
            return after.total_degree() <= 1 and len(before) == 1  # x^2 = 0 and the like say nothing more
        own = self.ring.names(after)
        return any(one.total_degree() > 1 and self.ring.names(one) & own for one in earlier)


def is_operand(tokens: Sequence[Token], start: int) -> bool:
    """Whether the equation at `start` is only named: "multiplying this equation by x + 1 = 0"."""
    before = tokens[max(0, start - _REACH) : start]
    said = any(token.kind == "word" and token.name.lower().startswith(_OPERATION) for token in before)
    return said and before[-1].name in _BEFORE_OPERAND
