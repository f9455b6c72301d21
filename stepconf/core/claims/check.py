"""What can be checked in the steps of one solution without a model, and what came out."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from stepconf.core.claims.chains import (
    ROUGHLY,
    Relation,
    prefixes,
    relations,
    without_dash,
    without_exclamation,
)
from stepconf.core.claims.claims import (
    Claim,
    both_signs,
    claim_of,
    complex_equality,
    congruence,
    fact_claim,
    is_numeric_claim,
    moved,
)
from stepconf.core.claims.context import counts_a_name, in_doubt, numbers_a_name, sentence, words
from stepconf.core.claims.conversions import is_converted, tells_time
from stepconf.core.claims.derivations import Trail, is_operand
from stepconf.core.claims.equations import (
    Known,
    assigns,
    has_variables,
    holds_everywhere,
    lists_values,
    measures,
    money,
    polynomial_of,
)
from stepconf.core.claims.facts import number_facts
from stepconf.core.claims.inequalities import InequalityTrail
from stepconf.core.claims.meanings import named_moduli, other_meaning
from stepconf.core.claims.operations import BOX, UNKNOWN_BOX, own_signs
from stepconf.core.maths.decide import BALLS, POLYNOMIALS, RATIONALS
from stepconf.core.maths.lexer import tokenize
from stepconf.core.maths.polynomials import Polynomial, Ring, is_constant, is_zero
from stepconf.core.maths.rounding import Outcome, effort, relation_holds
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import (
    Binary,
    Num,
    Var,
    has_sign_choice,
    variables,
    walk,
)
from stepconf.core.maths.vocabulary import (
    CHOICES,
    DENIALS,
    GIVING,
    PLACES,
    REFUSALS,
    SECOND_THOUGHTS,
    SUPPOSITIONS,
)
from stepconf.core.records import Label

_ANNOTATION = re.compile(r"<<([^<>\n]{0,100})>>[^<>\n=]{0,3}\Z")
_CODE = re.compile(r"^[ \t]*(?:def \w+\(|for \w+ in |while .+:$|return\b|print\(|import \w)", re.MULTILINE)
_OPEN = DENIALS | REFUSALS | {"either", "if", "or", "when"}
MAX_GIVEN = 30  # equations of a problem
MAX_SAMPLED = 2_000  # nodes of expressions in one solution that are evaluated at random points
MAX_EFFORT = 300_000  # nodes of expressions in one solution that are evaluated in all their readings
MAX_EQUATIONS = 200  # of one solution that are compared with each other; long ones count more


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
        self.ring = Ring()
        self.trail = Trail(self.ring)
        self.inequalities = InequalityTrail(self.ring)
        self.numbers = {
            token.value for token in tokens if token.kind == "num"
        }  # of problem and earlier steps
        self.moduli = named_moduli(problem)
        self.index = -1  # of the step
        self.by_cases = False
        self.supposing = False
        self.supposed: dict[str, Fraction] = {}  # the values that variables were supposed to have
        self.equations_left = MAX_EQUATIONS
        self.nodes_left = MAX_SAMPLED
        self.effort_left = MAX_EFFORT
        self.complex = any(t.kind == "var" and t.name == "i" and t.math for t in tokens)
        self.own_signs = own_signs(tokens, problem)
        self.known = Known(
            self.ring, given=frozenset(t.name for t in tokens if t.kind == "num" and t.decimals)
        )
        if said & PLACES:
            self.known.several |= {"x", "y"}
        self.unsolvable = (
            False  # the problem poses an equation that never holds, and so are those derived from it
        )
        for relation in relations(tokens)[:MAX_GIVEN]:
            self.give(tokens, relation)

    def give(self, tokens: Sequence[Token], relation: Relation) -> None:
        """Note what the problem states."""
        if not has_variables(relation) or relation.spelled:
            return
        around = sentence(tokens, relation.left.start, relation.right.end)
        self.known.allows(relation, words(tokens, *around) - GIVING)
        polynomial = polynomial_of(relation, self.ring)
        never = polynomial is not None and is_constant(polynomial) and not is_zero(polynomial)
        self.unsolvable = self.unsolvable or never

    def step(self, text: str) -> StepCheck:
        if _CODE.search(text):
            return StepCheck("unknown", (), "code")
        tokens = self.tokens_of(text)
        self.supposing = False
        self.index += 1
        if words(tokens, 0, len(tokens)) & SECOND_THOUGHTS:
            self.known.retract()
        self.by_cases = self.by_cases or _numbers_a_case(tokens)
        stated = [token for token in tokens if token.kind != "annot"]
        claims = self.chain_claims(text, stated)
        claims += [fact_claim(text, stated, fact) for fact in number_facts(stated)]
        for start, inside in _annotations(text, tokens):
            claims += [moved(claim, start) for claim in self.chain_claims(inside, tokenize(inside))]
        self.numbers |= {token.value for token in stated if token.kind == "num"}
        failed = [claim for claim in claims if claim.holds is False]
        if failed:
            first = failed[0]
            return StepCheck("incorrect", tuple(claims), f"{first.text!r}: {first.reason} ({first.by})")
        if means := sorted({claim.by for claim in claims if claim.holds}):
            return StepCheck("correct", tuple(claims), f"decided by {', '.join(means)}")
        return StepCheck("unknown", tuple(claims), "nothing that can be checked")

    def tokens_of(self, text: str) -> list[Token]:
        """The tokens of a step; a sign that the problem redefines can stand in no expression."""
        if BOX in self.own_signs:
            text = text.replace(BOX, UNKNOWN_BOX)
        return [
            replace(t, kind="other") if text[t.start : t.end] in self.own_signs else t for t in tokenize(text)
        ]

    def chain_claims(self, text: str, tokens: Sequence[Token]) -> list[Claim]:
        return [
            claim
            for relation in relations(tokens)
            if (claim := self.claim(text, tokens, relation)) is not None
        ]

    def claim(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        left, right = relation.left, relation.right
        modulus = relation.modulus
        if tells_time(tokens, left) or tells_time(tokens, right):
            return None
        signed = has_sign_choice(left.node) or has_sign_choice(right.node)
        if not self.affords(relation, 8 if signed else 1):
            return None
        if signed:
            return both_signs(text, tokens, relation)
        if relation.name == "===" and isinstance(right.node, Binary) and right.node.op == "mod":
            modulus = right.node.right
        if modulus is not None:
            return congruence(text, tokens, relation, modulus)
        exclaimed = without_exclamation(text, tokens, relation)
        if has_variables(relation):
            return self.equation(text, tokens, relation) if exclaimed is None else None
        if not is_numeric_claim(relation, tokens):
            return None
        outcome = self.decide(_roughly(tokens, relation))
        if exclaimed is not None and not outcome.holds:
            outcome = self.decide(exclaimed)
        if outcome.holds is False and (doubt := self.doubt(text, tokens, relation)):
            outcome = Outcome(None, doubt)
        return claim_of(text, tokens, relation, outcome.holds, outcome.reason, outcome.by)

    def doubt(self, text: str, tokens: Sequence[Token], relation: Relation) -> str:
        """Why a relation between numbers that fails need not be an error of the step; "" where nothing says so."""
        left, right = relation.left, relation.right
        units = [measures(tokens, side) | money(tokens, side) for side in (left, right)]
        if units[0] and units[1] and units[0] != units[1]:
            return "other units on the other side"
        if is_converted(tokens, relation):
            return "a unit on one side"
        if in_doubt(tokens, left.start, right.end, DENIALS | REFUSALS):
            return "stated in doubt"
        bare = without_dash(tokens, left)
        if bare is not None and relation_holds(relation.name, bare, right.node).holds:
            return "a dash before money"
        if self.annotated(text, tokens[right.start].start):
            return "an annotation says it otherwise"
        if counts_a_name(tokens, left.start):
            return "the number of a name"
        return other_meaning(text, tokens, relation, self.numbers, self.moduli)

    def annotated(self, text: str, start: int) -> bool:
        """Whether a calculator annotation that holds stands before the right side."""
        found = _ANNOTATION.search(text, max(0, start - 120), start)
        inside = tokenize(found[1]) if found else []
        stated = relations(inside)
        return bool(stated) and all(self.decide(r).holds is not False for r in stated)

    def affords(self, relation: Relation, times: int = 1) -> bool:
        """Whether the solution leaves enough of `MAX_EFFORT` to compute `relation`, which is taken from it."""
        self.effort_left -= times * effort(relation.left.node, relation.right.node)
        return self.effort_left >= 0

    def decide(self, relation: Relation) -> Outcome:
        """Whether a relation between numbers holds: None where it does for the first numbers of its right side."""
        best = relation_holds(relation.name, relation.left.node, relation.right.node)
        if best.holds is not False:
            return best
        for node in prefixes(relation.right.node):
            shorter = replace(relation, right=replace(relation.right, node=node))
            if not self.affords(shorter):
                return Outcome(None, "too much to compute")
            if relation_holds(relation.name, relation.left.node, node).holds:
                return Outcome(None, "holds in another reading")
        return best

    def equation(self, text: str, tokens: Sequence[Token], relation: Relation) -> Claim | None:
        """A relation between variables: it must not contradict what was said before."""
        if relation.spelled or _measured(tokens, relation):
            return None
        if relation.name in ("<", ">", "<=", ">="):
            same = self.inequalities.follows(relation, self.index, tokens)
            return claim_of(text, tokens, relation, True, "", RATIONALS) if same else None
        around = sentence(tokens, relation.left.start, relation.right.end)
        said = words(tokens, *around)
        self.by_cases = self.by_cases or bool(said & {"case", "cases"})
        if self.complex and variables(relation.left.node) | variables(relation.right.node) == {"i"}:
            return complex_equality(text, tokens, relation)
        if lists_values(tokens, relation.right):
            self.known.several |= variables(relation.left.node)
            return None
        self.equations_left -= 1
        if self.equations_left < 0:
            return None
        polynomial = polynomial_of(relation, self.ring)
        self.equations_left -= len(polynomial) // 4 if polynomial is not None else 0
        identity = self.identity(relation, polynomial)
        if polynomial is not None and not said & (DENIALS | REFUSALS | CHOICES):
            follows = self.trail.follows(
                polynomial,
                self.index,
                tokens,
                (relation.left.start, relation.right.end),
                assigns(relation, literal=True) is not None,
            )
            if follows is False and not self.known.rounded(relation, self.trail.origin()):
                reason = "does not follow from the equation before it"
                return claim_of(text, tokens, relation, False, reason, POLYNOMIALS)
        by = POLYNOMIALS if polynomial is not None and is_constant(polynomial) else BALLS
        if identity:
            return claim_of(text, tokens, relation, True, "", by)
        if said & SUPPOSITIONS:
            self.suppose(relation)
        if self.is_left_alone(tokens, relation, said, identity):
            return None
        if identity is False:
            return claim_of(text, tokens, relation, False, "the two sides differ by a constant", by)
        if self.known.allows(relation, said):
            return None
        return claim_of(text, tokens, relation, False, "contradicts what was stated before", POLYNOMIALS)

    def is_left_alone(
        self, tokens: Sequence[Token], relation: Relation, said: Set[str], identity: bool | None
    ) -> bool:
        """Whether a relation that is no identity may be false and still be no error of the step."""
        left = relation.left.node
        if self.by_cases or self.supposing or is_operand(tokens, relation.left.start):
            return True
        if isinstance(left, Var) and " " in left.name:
            return True  # a quantity named in words is only followed from line to line
        if isinstance(left, Num) and numbers_a_name(tokens, relation.left.start):
            return True
        sets_anew = left in walk(relation.right.node)  # `x = x + 1`
        return identity is False and (sets_anew or self.unsolvable or bool(said & _OPEN))

    def suppose(self, relation: Relation) -> None:
        """Note a supposition; two values of one variable ("If d = 0, ... If d = 1, ...") are cases."""
        self.supposing = True
        if said := assigns(relation):
            self.by_cases = self.by_cases or self.supposed.setdefault(*said) != said[1]

    def identity(self, relation: Relation, polynomial: Polynomial | None) -> bool | None:
        """Whether the two sides are the same, or never the same, whatever the variables are."""
        self.nodes_left -= sum(1 for side in (relation.left, relation.right) for _ in walk(side.node))
        if self.nodes_left >= 0:
            return holds_everywhere(relation, polynomial, self.ring)
        return is_zero(polynomial) if polynomial is not None and is_constant(polynomial) else None


def _roughly(tokens: Sequence[Token], relation: Relation) -> Relation:
    """The relation with the sign that it means where its right side says "about": `10/3 = about 3.4`."""
    right = relation.right
    said = {token.name.lower() for token in tokens[right.start : right.end] if token.kind == "word"}
    return replace(relation, name="~") if relation.name == "=" and said & ROUGHLY else relation


def _numbers_a_case(tokens: Sequence[Token]) -> bool:
    """Whether "Case 2" stands in a step."""
    return any(a.name.lower() == "case" and b.kind == "num" for a, b in pairwise(tokens))


def _measured(tokens: Sequence[Token], relation: Relation) -> bool:
    return bool(measures(tokens, relation.left) or measures(tokens, relation.right))


def _annotations(text: str, tokens: Sequence[Token]) -> list[tuple[int, str]]:
    """Where and what stands between the brackets of GSM8K's calculator annotations `<<2*3=6>>`."""
    return [(t.start + 2, text[t.start + 2 : t.end - 2]) for t in tokens if t.kind == "annot"]
