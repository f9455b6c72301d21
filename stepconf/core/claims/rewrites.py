"""Where `A = B` with variables can only mean that the two are the same, and not an equation to be solved.

That is rare: `x^2 + 4x + 4 = x^2 + 4` may be either. It is taken for a slip only if something announces a
rewriting (all links of the chain before it are identities, or "expanding" stands right before it) and the two
sides agree in most of their terms, the leading one among them.
"""

from collections.abc import Sequence

from stepconf.core.claims.chains import Relation
from stepconf.core.maths.decide import same_everywhere
from stepconf.core.maths.polynomials import Polynomial, Ring, is_constant, is_zero
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Binary, Node, children, is_compound, variables
from stepconf.core.maths.values import UndecidableError

_REWRITING = ("expand", "expanding", "factor", "factoring", "factorizing", "multiplying out")
_MIN_TERMS = 3


def holds_everywhere(relation: Relation, polynomial: Polynomial | None, ring: Ring) -> bool | None:
    """Whether an equation is an identity (True), is never so (False: its sides differ by a constant), or neither.

    Args:
        relation: the equation.
        polynomial: what is zero where the equation holds; None if it has none.
        ring: that of the polynomial.
    """
    if relation.name != "=" or relation.modulus is not None or relation.spelled:
        return None
    if polynomial is not None and is_constant(polynomial):
        return is_zero(polynomial)
    if polynomial is not None and not _has_opaque(ring.names(polynomial)):
        return None
    return True if same_everywhere(relation.left.node, relation.right.node).same else None


def is_slip(relation: Relation, announced: bool) -> bool:
    """Whether a false equation is an identity that went wrong.

    Args:
        relation: the equation.
        announced: whether the chain before it, or a word, says that it rewrites its left side.
    """
    left, right = relation.left.node, relation.right.node
    own = variables(left)
    if not announced or not own or own != variables(right) or "i" in own:
        return False
    if not (is_compound(left) and is_compound(right) and _to_be_multiplied(left) != _to_be_multiplied(right)):
        return False
    ring = Ring()
    try:
        (a, b), (c, d) = ring.quotient(left), ring.quotient(right)
    except UndecidableError:
        return False
    if b != d or is_zero(a) or is_zero(c) or _has_opaque(ring.names(a) | ring.names(c)):
        return False
    terms, others = a.to_dict(), c.to_dict()
    different = [m for m in terms.keys() | others.keys() if terms.get(m) != others.get(m)]
    near = 2 * len(different) <= len(terms) and len(terms) >= _MIN_TERMS
    return near and all(sum(monomial) < a.total_degree() for monomial in different)


def announces(tokens: Sequence[Token], relation: Relation) -> bool:
    """Whether "expanding" or the like stands right before the left side."""
    before = tokens[relation.left.start - 1] if relation.left.start else None
    return before is not None and before.kind == "word" and before.name.lower() in _REWRITING


def _has_opaque(names: frozenset[str]) -> bool:
    return any("(" in name for name in names)


def _to_be_multiplied(node: Node) -> bool:
    """Whether there is a product or a power of a sum in `node`."""
    match node:
        case Binary("*" | "implicit" | "^", left, right) if _is_sum(left) or _is_sum(right):
            return True
    return any(_to_be_multiplied(child) for child in children(node))


def _is_sum(node: Node) -> bool:
    return isinstance(node, Binary) and node.op in ("+", "-") and bool(variables(node))
