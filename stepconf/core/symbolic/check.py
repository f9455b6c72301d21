"""What can be checked in the steps of one solution without a model, and what came out."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepconf.core.records import Label
from stepconf.core.symbolic.chains import Relation, Side, relations
from stepconf.core.symbolic.compare import Outcome, relation_holds
from stepconf.core.symbolic.nodes import Num, has_operation, is_literal, variables, walk
from stepconf.core.symbolic.tokens import Token, tokenize

_DOUBT = {"if", "suppose", "assume", "contradiction", "impossible", "false", "incorrect", "whether", "assuming", "wrong",
          "not", "cannot", "never", "mistake", "instead", "error", "contradicts", "isn't", "doesn't", "don't", "hypothetical",
          "would", "try", "unless", "neither", "nor", "check", "guess"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """Something stated in `step[start:end]`; `holds` is None where it cannot be decided."""

    start: int
    end: int
    text: str
    holds: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class StepCheck:
    """`incorrect` if a claim fails, `correct` if some were decided and all hold, else `unknown`."""

    label: Label
    claims: tuple[Claim, ...]
    reason: str


def check_steps(problem: str, steps: Sequence[str]) -> list[StepCheck]:
    """Check every step of one solution, in order, given what was stated before it.

    Args:
        problem: the problem's text.
        steps: the solution's steps; they may hold anything at all.
    """
    checker = _Solution(problem)
    return [checker.step(step) for step in steps]


class _Solution:
    """What has been stated so far."""

    def __init__(self, problem: str) -> None:
        self.rounded: set[str] = set()

    def step(self, text: str) -> StepCheck:
        tokens = tokenize(text)
        claims = self.chain_claims(text, tokens)
        for start, inside in _annotations(text, tokens):
            claims += [_moved(claim, start) for claim in self.chain_claims(inside, tokenize(inside))]
        failed = [claim for claim in claims if claim.holds is False]
        if failed:
            return StepCheck("incorrect", tuple(claims), f"{failed[0].text!r}: {failed[0].reason}")
        if any(claim.holds for claim in claims):
            return StepCheck("correct", tuple(claims), "")
        return StepCheck("unknown", tuple(claims), "nothing that can be checked")

    def chain_claims(self, text: str, tokens: Sequence[Token]) -> list[Claim]:
        return [claim for relation in relations(tokens) if (claim := self.claim(text, tokens, relation)) is not None]

    def claim(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        left, right = relation.left, relation.right
        if not _is_numeric_claim(relation, tokens):
            return None
        outcome = self.decide(relation)
        if outcome.reason.startswith("rounded"):
            self.rounded |= {n.name for n in walk(right.node) if isinstance(n, Num)}
        last = right.end - 1
        while tokens[last].kind in ("break", "annot", "currency"):
            last -= 1
        start, end = tokens[left.start].start, tokens[last].end
        if outcome.holds is False and _in_doubt(tokens, left.start, right.end):
            outcome = Outcome(None, "stated in doubt")
        return Claim(start, end, text[start:end].strip(), outcome.holds, outcome.reason)

    def decide(self, relation: Relation) -> Outcome:
        rounded = frozenset(self.rounded)
        best = relation_holds(relation.name, relation.left.node, relation.right.node, rounded, {})
        if best.holds is not False:
            return best
        for a in (relation.left.node, *relation.left.others):
            for b in (relation.right.node, *relation.right.others):
                other = relation_holds(relation.name, a, b, rounded, {})
                if other.holds:
                    return Outcome(None, "holds in another reading")
        return best


def _annotations(text: str, tokens: Sequence[Token]) -> list[tuple[int, str]]:
    """Where and what stands between the brackets of GSM8K's calculator annotations `<<2*3=6>>`."""
    return [(t.start + 2, text[t.start + 2 : t.end - 2]) for t in tokens if t.kind == "annot"]


def _moved(claim: Claim, offset: int) -> Claim:
    return Claim(claim.start + offset, claim.end + offset, claim.text, claim.holds, claim.reason)


def _is_numeric_claim(relation: Relation, tokens: Sequence[Token]) -> bool:
    left, right = relation.left, relation.right
    if relation.name in ("===", "!="):
        return False
    if variables(left.node) or variables(right.node):
        return False
    if relation.modulus is not None:
        return False
    if relation.spelled:
        return not is_literal(left.node) and is_literal(right.node)
    if not is_literal(left.node):
        return True
    units = _units(tokens, left), _units(tokens, right)
    if is_literal(right.node) and "%" in {t.name for t in tokens[left.start : right.end]}:
        return not units[0] and not units[1]
    if is_literal(right.node) or not relation.chained:
        plain = not units[0] and (not units[1] or relation.chained)
        return plain and (relation.chained or tokens[left.start].math or has_operation(left.node))
    return True


def _units(tokens: Sequence[Token], side: Side) -> frozenset[str]:
    """The words, singular and in lower case, that stand among the numbers of a side."""
    inside = tokens[side.start : side.end]
    return frozenset(t.name.lower().rstrip("s.") for t in inside if t.kind in ("word", "text") and t.name != "of")


def _in_doubt(tokens: Sequence[Token], start: int, end: int) -> bool:
    """Whether the sentence around says that the relation is only supposed, or denied."""
    low = start
    while low > 0 and not (tokens[low - 1].kind == "break" and tokens[low - 1].name in (".", "?", "\n\n")):
        low -= 1
    high = end
    while high < len(tokens) and not (tokens[high].kind == "break" and tokens[high].name in (".", "?", "\n\n", ";")):
        high += 1
    if high < len(tokens) and tokens[high].name == "?":
        return True
    return any(token.kind == "word" and token.name.lower() in _DOUBT for token in tokens[low:high])
