"""What can be checked in the steps of one solution without a model, and what came out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from stepconf.core.records import Label
from stepconf.core.symbolic.chains import Relation, Side, prefixes, relations, suffixes
from stepconf.core.symbolic.compare import Outcome, relation_holds, show
from stepconf.core.symbolic.context import in_doubt, sentence, words
from stepconf.core.symbolic.derivations import Trail
from stepconf.core.symbolic.equations import Known, assigns, has_variables, measures, polynomial_of
from stepconf.core.symbolic.evaluate import IMAGINARY_UNIT, UndecidableError, evaluate
from stepconf.core.symbolic.facts import Fact, number_facts
from stepconf.core.symbolic.inequalities import InequalityTrail
from stepconf.core.symbolic.nodes import (
    Binary,
    Node,
    Num,
    Var,
    has_operation,
    has_sign_choice,
    is_compound,
    is_literal,
    variables,
    walk,
    with_sign,
)
from stepconf.core.symbolic.polynomials import Polynomial, is_constant
from stepconf.core.symbolic.rewrites import announces, holds_everywhere, is_slip
from stepconf.core.symbolic.tokens import Token, tokenize
from stepconf.core.symbolic.vocabulary import (
    CONDITIONS,
    DEFINING,
    DENIALS,
    GIVING,
    PLACES,
    SECOND_THOUGHTS,
    SUPPOSITIONS,
)

_STARS = ("*", "\\ast", "∗")
MAX_GIVEN = 30  # equations of a problem
MAX_IDENTITIES = 60  # of one solution that are tried at random points
MAX_EQUATIONS = 200  # of one solution that are compared with each other; long ones count more


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
        tokens = tokenize(problem)
        said = words(tokens, 0, len(tokens))
        self.rounded: set[str] = set()
        self.trail = Trail()
        self.inequalities = InequalityTrail()
        self.index = -1  # of the step
        self.by_cases = False
        self.supposing = False
        self.equations_left = MAX_EQUATIONS
        self.identities_left = MAX_IDENTITIES
        self.rewrites = False  # all links of the chain so far are identities
        self.complex = any(t.kind == "var" and t.name == "i" and t.math for t in tokens)
        self.redefined = _defines_a_star(tokens, problem, said)
        self.known = Known(given=frozenset(t.name for t in tokens if t.kind == "num" and t.decimals))
        if said & PLACES:
            self.known.several |= {"x", "y"}
        for relation in relations(tokens)[:MAX_GIVEN]:
            signed = has_sign_choice(relation.left.node) or has_sign_choice(relation.right.node)
            if has_variables(relation) and not signed and not _measured(tokens, relation):
                around = sentence(tokens, relation.left.start, relation.right.end)
                self.known.allows(relation, words(tokens, *around) - GIVING, given=True)

    def step(self, text: str) -> StepCheck:
        tokens = self.tokens_of(text)
        self.supposing = False
        self.index += 1
        if words(tokens, 0, len(tokens)) & SECOND_THOUGHTS:
            self.known.retract()
        claims = self.chain_claims(text, tokens)
        claims += [_fact_claim(text, tokens, fact) for fact in number_facts(tokens)]
        for start, inside in _annotations(text, tokens):
            claims += [_moved(claim, start) for claim in self.chain_claims(inside, tokenize(inside))]
        failed = [claim for claim in claims if claim.holds is False]
        if failed:
            return StepCheck("incorrect", tuple(claims), f"{failed[0].text!r}: {failed[0].reason}")
        if any(claim.holds for claim in claims):
            return StepCheck("correct", tuple(claims), "")
        return StepCheck("unknown", tuple(claims), "nothing that can be checked")

    def tokens_of(self, text: str) -> list[Token]:
        """The tokens of a step; a sign that the problem defines anew can stand in no expression."""
        tokens = tokenize(text)
        if self.redefined:
            return [replace(t, kind="other") if text[t.start : t.end] in _STARS else t for t in tokens]
        return tokens

    def chain_claims(self, text: str, tokens: Sequence[Token]) -> list[Claim]:
        return [
            claim
            for relation in relations(tokens)
            if (claim := self.claim(text, tokens, relation)) is not None
        ]

    def claim(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        left, right = relation.left, relation.right
        rewrites, self.rewrites = relation.chained and self.rewrites, False
        modulus = relation.modulus
        if has_sign_choice(left.node) or has_sign_choice(right.node):
            return self.both_signs(text, tokens, relation)
        if relation.name == "===" and isinstance(right.node, Binary) and right.node.op == "mod":
            modulus = right.node.right
        if modulus is not None:
            return self.congruence(text, tokens, relation, modulus)
        if has_variables(relation):
            return self.equation(text, tokens, relation, rewrites)
        if not _is_numeric_claim(relation, tokens):
            return None
        outcome = self.decide(relation)
        units = measures(tokens, left), measures(tokens, right)
        if outcome.holds is False and units[0] and units[1] and units[0] != units[1]:
            outcome = Outcome(None, "other units on the other side")
        if outcome.reason.startswith("rounded"):
            self.rounded |= {n.name for n in walk(right.node) if isinstance(n, Num)}
        if outcome.holds is False and in_doubt(tokens, left.start, right.end, DENIALS):
            outcome = Outcome(None, "stated in doubt")
        return _claim(text, tokens, relation, outcome.holds, outcome.reason)

    def both_signs(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        """`(5 ± sqrt(49)) / 4 = (5 ± 7) / 4`: the values of one side are those of the other."""
        sides = relation.left.node, relation.right.node
        if relation.name != "=" or has_variables(relation) or not all(map(has_sign_choice, sides)):
            return None
        if relation.modulus is not None or in_doubt(tokens, relation.left.start, relation.right.end, DENIALS):
            return None
        left, right = ([with_sign(side, upper) for upper in (True, False)] for side in sides)
        holds = [
            [
                relation_holds("=", a, b, frozenset(self.rounded), {}).holds
                for a, b in zip(left, other, strict=True)
            ]
            for other in (right, right[::-1])
        ]
        if any(all(pair) for pair in holds):
            return _claim(text, tokens, relation, True, "")
        if all(False in pair for pair in holds):
            return _claim(text, tokens, relation, False, "the values differ")
        return None

    def congruence(
        self, text: str, tokens: Sequence[Token], relation: Relation, modulus: Node
    ) -> Claim | None:
        """`17 = 2 (mod 5)` between whole numbers."""
        try:
            a, b, n = (evaluate(node, {}) for node in (relation.left.node, relation.right.node, modulus))
        except UndecidableError:
            return None
        if any(not isinstance(v, Fraction) or v.denominator != 1 for v in (a, b, n)) or n < 2:
            return None
        holds = (a - b) % n == 0
        reason = "" if holds else f"{show(a)} and {show(b)} differ modulo {n}"
        if not holds and in_doubt(tokens, relation.left.start, relation.right.end, DENIALS):
            return None
        return _claim(text, tokens, relation, holds, reason)

    def complex_claim(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        """An equality between complex numbers."""
        if relation.name != "=" or not (is_compound(relation.left.node) or relation.chained):
            return None
        outcome = relation_holds(
            "=", relation.left.node, relation.right.node, frozenset(), {"i": IMAGINARY_UNIT}
        )
        if outcome.holds is None or (
            not outcome.holds and in_doubt(tokens, relation.left.start, relation.right.end, DENIALS)
        ):
            return None
        return _claim(text, tokens, relation, outcome.holds, outcome.reason)

    def equation(
        self, text: str, tokens: Sequence[Token], relation: Relation, rewrites: bool
    ) -> Claim | None:
        """A relation between variables: it must not contradict what was said before.

        `rewrites`: whether it goes on a chain all links of which are identities.
        """
        if relation.spelled or _measured(tokens, relation):
            return None
        if relation.name in ("<", ">", "<=", ">="):
            return self.inequality(text, tokens, relation)
        around = sentence(tokens, relation.left.start, relation.right.end)
        said = words(tokens, *around)
        if said & {"case", "cases"}:
            self.by_cases = True
        if self.complex and variables(relation.left.node) | variables(relation.right.node) == {"i"}:
            return self.complex_claim(text, tokens, relation)
        self.equations_left -= 1
        if self.equations_left < 0:
            return None
        polynomial = polynomial_of(relation)
        self.equations_left -= len(polynomial or ()) // 4
        identity = self.identity(relation, polynomial)
        announced = rewrites or announces(tokens, relation)
        self.rewrites = (
            bool(identity) and (rewrites or not relation.chained) and is_compound(relation.left.node)
        )
        if polynomial is not None and not said & DENIALS:
            follows = self.trail.follows(
                polynomial,
                self.index,
                tokens,
                (relation.left.start, relation.right.end),
                assigns(relation) is not None,
            )
            if follows is False and not self.known.rounded(relation, self.trail.origin()):
                return _claim(text, tokens, relation, False, "does not follow from the equation before it")
        if identity:
            return _claim(text, tokens, relation, True, "")
        self.supposing = self.supposing or bool(said & SUPPOSITIONS)
        if self.by_cases or self.supposing:
            return None
        if isinstance(relation.left.node, Var) and " " in relation.left.node.name:
            return None  # a quantity named in words is only followed from line to line
        free = not said & (CONDITIONS | DENIALS) and self.known.nothing_of(relation)
        if free and is_slip(relation, announced):
            return _claim(text, tokens, relation, False, "the two sides are not the same")
        allowed = self.known.allows(relation, said)
        if allowed is None or (identity is None and polynomial is not None and is_constant(polynomial)):
            return None
        return _claim(
            text, tokens, relation, allowed, "" if allowed else "contradicts what was stated before"
        )

    def inequality(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        """An inequality between expressions with a variable: it must follow from what it is derived from."""
        holds, reason = self.inequalities.follows(relation, self.index, tokens)
        if holds is None or in_doubt(tokens, relation.left.start, relation.right.end, DENIALS):
            return None
        return _claim(text, tokens, relation, holds, reason)

    def identity(self, relation: Relation, polynomial: Polynomial | None) -> bool | None:
        """Whether the two sides are the same, or never the same, whatever the variables are."""
        self.identities_left -= 1
        return holds_everywhere(relation, polynomial) if self.identities_left >= 0 else None

    def decide(self, relation: Relation) -> Outcome:
        rounded = frozenset(self.rounded)
        best = relation_holds(relation.name, relation.left.node, relation.right.node, rounded, {})
        if best.holds is not False:
            return best
        for a in (relation.left.node, *suffixes(relation.left.node)):
            for b in (relation.right.node, *prefixes(relation.right.node)):
                other = relation_holds(relation.name, a, b, rounded, {})
                if other.holds:
                    return Outcome(None, "holds in another reading")
        return best


def _claim(text: str, tokens: Sequence[Token], relation: Relation, holds: bool | None, reason: str) -> Claim:
    last = relation.right.end - 1
    while tokens[last].kind in ("break", "annot", "currency"):
        last -= 1
    start, end = tokens[relation.left.start].start, tokens[last].end
    return Claim(start, end, text[start:end].strip(), holds, reason)


def _fact_claim(text: str, tokens: Sequence[Token], fact: Fact) -> Claim:
    start, end = tokens[fact.start].start, tokens[fact.end - 1].end
    doubted = not fact.holds and in_doubt(tokens, fact.start, fact.end, DENIALS - {"not"})
    return Claim(start, end, text[start:end], None if doubted else fact.holds, fact.reason)


def _defines_a_star(tokens: Sequence[Token], problem: str, said: frozenset[str]) -> bool:
    """Whether the problem gives `*` a meaning of its own: it says so, or writes it between two variables."""
    for before, star, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if problem[star.start : star.end] in _STARS and (
            said & DEFINING or (before.kind == after.kind == "var" and before.math)
        ):
            return True
    return False


def _measured(tokens: Sequence[Token], relation: Relation) -> bool:
    return bool(measures(tokens, relation.left) or measures(tokens, relation.right))


def _annotations(text: str, tokens: Sequence[Token]) -> list[tuple[int, str]]:
    """Where and what stands between the brackets of GSM8K's calculator annotations `<<2*3=6>>`."""
    return [(t.start + 2, text[t.start + 2 : t.end - 2]) for t in tokens if t.kind == "annot"]


def _moved(claim: Claim, offset: int) -> Claim:
    return Claim(claim.start + offset, claim.end + offset, claim.text, claim.holds, claim.reason)


def _is_numeric_claim(relation: Relation, tokens: Sequence[Token]) -> bool:
    left, right = relation.left, relation.right
    if relation.name in ("===", "!="):
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
    return frozenset(
        t.name.lower().rstrip("s.") for t in inside if t.kind in ("word", "text") and t.name != "of"
    )
