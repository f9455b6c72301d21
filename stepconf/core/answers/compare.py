"""Comparing answers without a computer algebra system: a second, independent reading of both sides.

It answers only where it has read both answers to the last character, and says None where a difference could
be a matter of form. Conventions, where data sets disagree:

- A unit, a currency sign, a degree sign or "x =" that only one side has does not count; two known units of
  one dimension are converted ("1 hour" is "60 minutes"), other words behind a number are not compared.
- A percentage equals its number and its fraction: 28% is 28 and 0.28.
- A decimal equals what it is within 1e-6 of, relative below 1: 0.333333 is 1/3 and 0.33 is not.
- {1, 2} and a bare "1, 2" have no order; (1, 2) has. (1, 2) may be a pair or an open interval.
- Two clock times are compared as times, 3:15 is not 1:5; a ratio equals its value.
"""

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from stepconf.core.answers.evaluate import POINTS, TooLargeError, to_complex
from stepconf.core.answers.expression import Node, read
from stepconf.core.answers.literal import same_literal
from stepconf.core.answers.notation import MAX_CHARS, UnreadableError, normalise, without_text_commands
from stepconf.core.answers.scalars import Scalar, all_of, any_of, close, same_scalar

MAX_ITEMS = 12  # of an unordered list; the matching is quadratic
_LITERAL = re.compile(r"[-+]?[0-9]{1,60}(?:\.[0-9]{1,60})?|[-+]?\.[0-9]{1,60}")
_EQUALS = {"=", "\\approx"}
_ORDER = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


def same_answer_cheap(gold: str, predicted: str, answer_type: str = "math") -> bool | None:
    """Whether two answers are the same: True or False only where certain, None otherwise.

    Args:
        gold: the reference answer. predicted: hostile text.
        answer_type: `math` and `number` compare values; `choice`, `yesno` and `string` compare words and are
            always certain; `literal` compares Python values and is too; `code` is certain only where the
            texts are equal.
    """
    if answer_type in ("choice", "yesno", "string"):
        return _words(gold, answer_type) == _words(predicted, answer_type)
    if answer_type == "literal":
        return same_literal(gold, predicted)
    if gold.strip() == predicted.strip():
        return bool(gold.strip()) or None
    if answer_type == "code":
        return True if gold.split() == predicted.split() else None
    if _LITERAL.fullmatch(gold) and _LITERAL.fullmatch(predicted):
        return close(Fraction(gold), Fraction(predicted), "." in gold + predicted)
    try:
        verdicts = [_same(a, b) for a in read(gold) for b in read(predicted)]
        return any_of(verdicts)
    except (UnreadableError, TooLargeError, ArithmeticError, RecursionError):
        return None


def _words(text: str, answer_type: str) -> str:
    words = (without_text_commands(normalise(text)) if len(text) <= MAX_CHARS else text).casefold()
    words = " ".join(re.sub(r"[^\w\s.%/:+-]", " ", words).split()).rstrip(".")
    return {"true": "yes", "false": "no"}.get(words, words) if answer_type == "yesno" else words


def _same(a: Node, b: Node) -> bool | None:
    """Dispatches on form. Both trees are complete readings."""
    a, b = _plain(a), _plain(b)
    if a == b:
        return True
    if "text" in (a[0], b[0]):
        return _same_text(a, b)
    if "time" in (a[0], b[0]):
        return _same_time(a, b)
    if "rel" in (a[0], b[0]):
        return _same_relation(a, b)
    if "union" in (a[0], b[0]):
        return _unordered(a[1], b[1], _same) or None if a[0] == b[0] else None
    if "matrix" in (a[0], b[0]):
        return _same_matrix(a, b)
    if "seq" in (a[0], b[0]):
        return _same_sequence(a, b)
    return same_scalar(a, b)


def _plain(node: Node) -> Node:
    """Without what says nothing about the value: membership, a bracketless list of one, both signs of ±."""
    if node[0] == "rel" and node[1] == ("\\in",):
        return _plain(node[2][1])
    if node[0] == "seq" and len(node[3]) == 1 and node[1] in ("", "\\{"):
        return _plain(node[3][0])
    if _has_sign_choice(node):
        return ("seq", "", "", (choose_sign(node, True), choose_sign(node, False)))
    if node[0] == "seq" and any(_has_sign_choice(part) for part in node[3]) and node[1] in ("", "\\{"):
        parts: list[Node] = []
        for part in node[3]:
            expanded = _plain(part)
            parts += expanded[3] if expanded[0] == "seq" and _has_sign_choice(part) else (part,)
        return (*node[:3], tuple(parts))
    return node


def _has_sign_choice(node: object) -> bool:
    if not isinstance(node, tuple) or not node or node[0] == "seq":
        return False
    return node[0] == "pm" or any(_has_sign_choice(part) for part in node[1:])


def choose_sign(node: Node, upper: bool) -> Node:
    """The tree with every ± read as + (upper) or -, every ∓ the other way."""
    if not isinstance(node, tuple):
        return node
    if node and node[0] == "pm":
        left = choose_sign(node[1], upper) if node[1] else None
        right = choose_sign(node[2], upper)
        right = right if (node[3] == "\\pm") == upper else ("neg", right)
        return ("add", left, right) if left else right
    return tuple(choose_sign(part, upper) for part in node)


def _same_text(a: Node, b: Node) -> bool | None:
    if a[0] != b[0]:
        return None
    left, right = (" ".join(re.findall(r"[^\W_]+", node[1].casefold())) for node in (a, b))
    if left == right:
        return True
    # "abcd" and "dcba" may be products of variables.
    return None if sorted(left) == sorted(right) else False


def _same_time(a: Node, b: Node) -> bool | None:
    if a[0] == b[0]:
        return a[1:3] == b[1:3] and (a[3] == b[3] or not (a[3] and b[3]))
    time, other = (a, b) if a[0] == "time" else (b, a)
    if time[3] or not time[2] or math.gcd(time[1], time[2]) != 1:
        return False if other[0] in ("num", "ratio", "div") else None
    ratio = ("ratio", tuple(("num", Fraction(part), False) for part in time[1:3]))
    return _same(ratio, other)


def _same_relation(a: Node, b: Node) -> bool | None:
    if a[0] == "rel" and b[0] == "rel":
        if _is_assignment(a) and _is_assignment(b):
            verdicts = [_same(x, y) for x in _values(a) for y in _values(b)]
            same = any_of(verdicts)
            return same if _left_name(a) == _left_name(b) else None
        return _same_conditions(a, b)
    relation, other = (a, b) if a[0] == "rel" else (b, a)
    if other[0] in ("seq", "union"):
        interval = _as_interval(relation)
        if interval:
            return _same(interval, other)
    if set(relation[1]) <= _EQUALS and (relation is b or _is_assignment(relation)):
        verdicts = [_same(value, other) for value in _values(relation)]
        return any_of(verdicts)
    return None


def _values(relation: Node) -> list[Node]:
    """What an equation gives as its value: its last side, and the last exact one before an approximation."""
    operators, sides = relation[1], relation[2]
    exact = operators.index("\\approx") if "\\approx" in operators else len(operators)
    return [sides[-1], sides[exact]] if 0 < exact < len(operators) else [sides[-1]]


def _left_name(relation: Node) -> Node:
    """What an assignment names; of "f(x)" the f."""
    left: Node = relation[2][0]
    return left[1] if left[0] == "mul" else left


def _is_assignment(relation: Node) -> bool:
    """ "x = ..." or "(x, y) = ...": the left side only names what the right side is."""
    left = relation[2][0]
    named = left[0] in ("name", "seq") or (left[0] == "mul" and left[1][0] == left[2][0] == "name")
    return set(relation[1]) <= _EQUALS and named


def _same_conditions(a: Node, b: Node) -> bool | None:
    """Equations and inequalities: the same if the differences of their sides are proportional."""
    if len(a[1]) == 1 and len(b[1]) == 1:
        if a[1] == b[1]:
            factors = _factors(a[2], b[2])
        elif _ORDER.get(a[1][0]) == b[1][0]:
            factors = _factors(a[2], b[2][::-1])
        else:
            return None
        constant = factors is not None and all(abs(f - factors[0]) < 1e-9 * abs(factors[0]) for f in factors)
        directed = a[1][0] in ("=", "!=") or (factors is not None and factors[0].real > 0)
        return True if constant and directed else None
    left, right = _as_interval(a), _as_interval(b)
    return _same(left, right) if left and right else None


def _factors(a: Sequence[Node], b: Sequence[Node]) -> list[complex] | None:
    """(a0 - a1) / (b0 - b1) at the sample points; None where it has no value or a variable is missing."""
    factors, names = [], set[str]()
    for point in range(POINTS):
        left, right = (Scalar(("add", pair[0], ("neg", pair[1])), point) for pair in (a, b))
        if left.names != right.names or not left.result or not right.result:
            return None
        names = left.names
        factors.append(to_complex(left.result) / to_complex(right.result))
    return factors if names else None


def _as_interval(relation: Node) -> Node | None:
    """lo < x <= hi as the interval it is; None for another relation."""
    operators, sides = relation[1], relation[2]
    infinity: Node = ("name", "\\infty")
    if len(operators) == 2 and sides[1][0] == "name" and set(operators) <= {"<", "<="}:
        opener, closer = "(" if operators[0] == "<" else "[", ")" if operators[1] == "<" else "]"
        return ("seq", opener, closer, (sides[0], sides[2]))
    if len(operators) == 2 and set(operators) <= {">", ">="}:
        return _as_interval(("rel", tuple(_ORDER[o] for o in operators[::-1]), sides[::-1]))
    if len(operators) == 1 and operators[0] in ("<", "<=", ">", ">="):
        if sides[0][0] != "name":
            return (
                _as_interval(("rel", (_ORDER[operators[0]],), sides[::-1])) if sides[1][0] == "name" else None
            )
        if operators[0] in ("<", "<="):
            return ("seq", "(", ")" if operators[0] == "<" else "]", (("neg", infinity), sides[1]))
        return ("seq", "(" if operators[0] == ">" else "[", ")", (sides[1], infinity))
    return None


def _same_matrix(a: Node, b: Node) -> bool | None:
    if a[0] != b[0]:
        other = a if b[0] == "matrix" else b
        matrix = b if b[0] == "matrix" else a
        cells = tuple(cell for row in matrix[1] for cell in row)
        if other[0] == "seq" and other[1] == "(" and 1 in (len(matrix[1]), len(matrix[1][0])):
            return _ordered(cells, other[3]) or None  # a vector, written as a point
        return None
    if [len(row) for row in a[1]] != [len(row) for row in b[1]]:
        return False
    return _ordered([c for row in a[1] for c in row], [c for row in b[1] for c in row])


def _same_sequence(a: Node, b: Node) -> bool | None:
    if a[0] != "seq" or b[0] != "seq":
        return None
    if len(a[3]) != len(b[3]):
        return None if "" in (a[1], b[1]) else False
    brackets = {a[1] + a[2], b[1] + b[2]}
    named = [part[2][0] for part in (*a[3], *b[3]) if part[0] == "rel" and set(part[1]) <= _EQUALS]
    if brackets <= {"", "\\{\\}"} and not _distinct_letters(named):
        return _unordered(a[3], b[3], _same)
    if "\\{\\}" in brackets and len(brackets) > 1 and "" not in brackets:
        return None
    same = _ordered(a[3], b[3])
    return same if len(brackets) == 1 else same or None if "" in brackets else None


def _distinct_letters(named: list[Node]) -> bool:
    """Whether the parts are named x, y, ... (an order) rather than x_1, x_2 (roots, which have none)."""
    return len({str(left[1])[:1] for left in named}) > 1


def _ordered(a: Sequence[Node], b: Sequence[Node]) -> bool | None:
    if len(a) != len(b):
        return False
    return all_of([_same_endpoint(x, y) for x, y in zip(a, b, strict=True)])


def _same_endpoint(a: Node, b: Node) -> bool | None:
    """As `_same`, where infinity may stand."""
    infinite = [_infinity(node) for node in (a, b)]
    return infinite[0] == infinite[1] if any(infinite) else _same(a, b)


def _infinity(node: Node) -> int:
    if node[0] == "neg":
        return -_infinity(node[1])
    return 1 if node == ("name", "\\infty") else 0


def _unordered(
    a: Sequence[Node], b: Sequence[Node], same: Callable[[Node, Node], bool | None]
) -> bool | None:
    """Whether the parts can be matched one to one."""
    if len(a) != len(b) or len(a) > MAX_ITEMS:
        return None if len(a) == len(b) else False
    rest, certain = list(b), True
    for part in a:
        verdicts = [same(part, other) for other in rest]
        if True in verdicts:
            rest.pop(verdicts.index(True))
        elif None in verdicts:
            certain = False
        else:
            return False
    return True if certain and not rest else None
