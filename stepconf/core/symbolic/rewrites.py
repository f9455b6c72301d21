"""Where `A = B` with variables can only mean that the two are the same, and not an equation to be solved.

That is rare: `x^2 + 4x + 4 = x^2 + 4` may be either. It is taken for a slip only if something announces a
rewriting (all links of the chain before it are identities, or "expanding" stands right before it) and the two
sides agree in most of their terms, the leading one among them.
"""

from collections.abc import Sequence

from stepconf.core.symbolic.chains import Relation
from stepconf.core.symbolic.evaluate import UndecidableError
from stepconf.core.symbolic.identities import same_everywhere
from stepconf.core.symbolic.nodes import Binary, Node, children, is_compound, variables
from stepconf.core.symbolic.polynomials import Polynomial, fraction_of, is_constant
from stepconf.core.symbolic.tokens import Token

_REWRITING = ("expand", "expanding", "factor", "factoring", "factorizing", "multiplying out")
_MIN_TERMS = 3


def holds_everywhere(relation: Relation, polynomial: Polynomial | None) -> bool | None:
    """Whether an equation is an identity (True), is never so (False: its sides differ by a constant), or neither.

    Args:
        polynomial: what is zero where the equation holds, in normal form; None if it has none. Constant ones
            decide, if the random points do not contradict them.
    """
    left, right = relation.left.node, relation.right.node
    if relation.name != "=" or relation.modulus is not None or relation.spelled:
        return None
    if polynomial is not None and is_constant(polynomial):
        sampled = same_everywhere(left, right)
        return None if sampled is bool(polynomial) else not polynomial
    if polynomial is not None and not _has_opaque(polynomial):
        return None
    return True if same_everywhere(left, right) else None


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
    try:
        (a, b), (c, d) = fraction_of(left), fraction_of(right)
    except UndecidableError:
        return False
    if b != d or not a or not c or _has_opaque(a) or _has_opaque(c):
        return False
    different = [m for m in a.keys() | c.keys() if a.get(m) != c.get(m)]
    leading = max(sum(e for _, e in m) for m in a)
    near = 2 * len(different) <= len(a) and len(a) >= _MIN_TERMS
    return (
        near
        and all(sum(e for _, e in m) < leading for m in different)
        and same_everywhere(left, right) is False
    )


def announces(tokens: Sequence[Token], relation: Relation) -> bool:
    """Whether "expanding" or the like stands right before the left side."""
    before = tokens[relation.left.start - 1] if relation.left.start else None
    return before is not None and before.kind in ("word", "text") and before.name.lower() in _REWRITING


def _has_opaque(polynomial: Polynomial) -> bool:
    return any("(" in name for monomial in polynomial for name, _ in monomial)


def _to_be_multiplied(node: Node) -> bool:
    """Whether there is a product or a power of a sum in `node`."""
    match node:
        case Binary("*" | "implicit" | "^", left, right) if _is_sum(left) or _is_sum(right):
            return True
    return any(_to_be_multiplied(child) for child in children(node))


def _is_sum(node: Node) -> bool:
    return isinstance(node, Binary) and node.op in ("+", "-") and bool(variables(node))
