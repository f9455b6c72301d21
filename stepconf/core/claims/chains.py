"""Tokens of a step → the stated relations in it: pairs of neighbouring sides of `a = b = c`.

In prose nobody says where a side begins or ends, so the side before a relation is the longest expression that
ends exactly there, and the side after it the longest that begins there. Between two relations the side must
be one expression; otherwise what ends one statement and what begins the next are read apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stepconf.core.maths.parser import NoExpressionError, parse
from stepconf.core.maths.tokens import Token, is_glued
from stepconf.core.maths.tree import Binary, Node, Var
from stepconf.core.maths.units import is_product
from stepconf.core.maths.vocabulary import CLAUSE_STARTS

MAX_SIDE_TOKENS = 120
MAX_RELATIONS = 300
MAX_LINKS = 8  # how far the modulus at the end of a chain is looked for
_ENDS_SENTENCE = re.compile(r"[*\"'”’)]*(?:\s|\Z)")
_WORD_RELATIONS = {"is": "=", "equals": "=", "equal": "=", "are": "=", "gives": "=", "was": "="}
ROUGHLY = {"approximately", "about", "roughly", "around", "nearly", "almost"}
_STARTS = frozenset("num vulgar var const open frac binom sqrt func bar floor ceil currency".split())


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a relation: `node` read from `tokens[start:end]`."""

    node: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """`left name right` as stated; `spelled` where a word ("is") stands for the sign."""

    name: str
    left: Side
    right: Side
    spelled: bool
    chained: bool  # the left side is itself the right side of another relation
    modulus: Node | None = None


def relations(tokens: Sequence[Token]) -> list[Relation]:
    """The relations in `tokens` with both of their sides readable, among the first `MAX_RELATIONS`."""
    signs = _signs(tokens)[:MAX_RELATIONS]
    found: list[Relation] = []
    previous: tuple[bool, Side | None] = (False, None)
    for index, (at, after, name, spelled) in enumerate(signs):
        low = signs[index - 1][1] if index else 0
        high = signs[index + 1][0] if index + 1 < len(signs) else len(tokens)
        before = previous[1]
        chained = before is not None and before.end == at and not spelled and not previous[0]
        left = before if before is not None and chained else _ending_at(tokens, low, at)
        if spelled and left is not None and not chained and not _begins_clause(tokens, left.start):
            left = None
        right = _beginning_at(tokens, after, high)
        if left is None and name == "=" and not spelled:
            left = _quantity(tokens, low, at)
        if spelled and right is not None and not _ends_clause(tokens, right.end):
            right = None
        if left is not None and right is not None:
            modulus = _modulus(tokens, _chain_end(signs, index, right.end, tokens))
            found.append(Relation(name, left, right, spelled, chained, modulus))
        previous = (spelled, right)
    return found


def _signs(tokens: Sequence[Token]) -> list[tuple[int, int, str, bool]]:
    """(index, index after, name, spelled out) of every relation sign or word."""
    signs: list[tuple[int, int, str, bool]] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        after = index + 1
        if token.kind == "rel":
            signs.append((index, after, token.name, False))
        elif token.kind == "word" and token.name in _WORD_RELATIONS:
            name = "="
            while after < len(tokens) and tokens[after].name in ("equal", "to", "equals", *ROUGHLY):
                name = "~" if tokens[after].name in ROUGHLY else name
                after += 1
            signs.append((index, after, name, True))
        index = after
    return signs


def _chain_end(
    signs: Sequence[tuple[int, int, str, bool]], index: int, end: int, tokens: Sequence[Token]
) -> int:
    """Where the chain ends that goes on from `end`: `17 = 7 = 2 (mod 5)` has one modulus, at its end."""
    for at, after, name, _ in signs[index + 1 : index + MAX_LINKS]:
        if at != end or name not in ("=", "==="):
            break
        side = _beginning_at(tokens, after, len(tokens))
        if side is None:
            break
        end = side.end
    return end


def _modulus(tokens: Sequence[Token], at: int) -> Node | None:
    while at < len(tokens) and tokens[at].kind == "open" and tokens[at].name == "(":
        at += 1
    if at < len(tokens) and (tokens[at].kind == "pmod" or tokens[at].name == "mod"):
        try:
            return parse(tokens, at + 1, min(len(tokens), at + 8))[0]
        except NoExpressionError:
            return None
    return None


def _skip_breaks(tokens: Sequence[Token], at: int, end: int) -> int:
    """A line may be broken after a relation sign; an annotation says the same again."""
    while at < end and (
        tokens[at].kind == "annot" or (tokens[at].kind == "break" and tokens[at].name == "\n")
    ):
        at += 1
    return at


def _beginning_at(tokens: Sequence[Token], start: int, end: int) -> Side | None:
    start = _skip_breaks(tokens, start, end)
    limit = min(end, start + MAX_SIDE_TOKENS)
    try:
        node, after = parse(tokens, start, limit)
    except NoExpressionError:
        return None
    if _rounds(tokens, start, after):
        return None
    rest = next((t for t in tokens[after : after + 10] if t.kind != "break"), None)
    if rest is not None and after < end and tokens[after].kind == "break" and rest.math and rest.kind == "op":
        return None  # the next row goes on: `= 1 + 2 \\ & \quad + 3`
    closed = after
    while closed < end and (
        tokens[closed].kind in ("annot", "currency")
        or (tokens[closed].kind == "break" and tokens[closed].name == "\n")
    ):
        closed += 1
    after = closed if closed == end else after
    if after < end and is_product(tokens[after]):
        return None
    if after < end and tokens[after].kind == "var" and tokens[after].name.isupper():
        return None  # "J = 4 N": a factor that prose sets apart
    modulus = after + 1 < end and tokens[after].kind == "open" and tokens[after + 1].name == "mod"
    if after < end and tokens[after].kind in _UNFINISHED and after - start < MAX_SIDE_TOKENS and not modulus:
        return None
    if after < end and tokens[after].math and tokens[after - 1].math and tokens[after].kind not in _ENDS:
        return None
    return Side(node, start, after)


_ENDS = frozenset("break rel arrow comma close word annot currency pmod".split())
_UNFINISHED = frozenset("dots sub frac choose fact num other open colon vulgar".split())


def _ending_at(tokens: Sequence[Token], low: int, end: int) -> Side | None:
    """The longest expression that ends just before `tokens[end]`."""
    stop = end
    while stop > low and (
        tokens[stop - 1].kind in ("annot", "currency")
        or (tokens[stop - 1].kind == "break" and tokens[stop - 1].name == "\n")
    ):
        stop -= 1
    first = max(low, stop - MAX_SIDE_TOKENS)
    for index in range(stop - 1, first - 1, -1):
        if tokens[index].kind in ("break", "arrow", "rel"):
            first = index + 1
            if tokens[index].kind == "break" and _cut(tokens, index):
                return None
            break
    for start in range(first, stop):
        if not _may_begin(tokens, start, low):
            continue
        try:
            node, after = parse(tokens, start, stop)
        except NoExpressionError:
            continue
        if after == stop:
            return None if _rounds(tokens, start, stop) else Side(node, start, end)
    return None


def _rounds(tokens: Sequence[Token], start: int, end: int) -> bool:
    """Whether square brackets stand around a whole side, where they group nothing: they round, or mean a matrix."""
    depth = 0
    for index in range(start, end):
        depth += {"open": 1, "close": -1}.get(tokens[index].kind, 0)
        if not depth:
            return tokens[start].name == "[" and tokens[index].name == "]" and index == end - 1
    return False


def _cut(tokens: Sequence[Token], at: int) -> bool:
    """Whether the break at `at` cuts an expression: `.8 + . 84 = 1.64`, or a row that begins with an operator."""
    before, after = tokens[max(0, at - 1)], tokens[at + 1]
    return before.kind == "op" or (after.kind == "op" and after.math and before.math)


def _quantity(tokens: Sequence[Token], low: int, end: int) -> Side | None:
    """A quantity named in words, from the beginning of its line: "Total earnings = ..."."""
    start = end
    while start > low and tokens[start - 1].kind == "word":
        start -= 1
    if start == end or (start and tokens[start - 1].kind not in ("break", "arrow")):
        return None
    name = " ".join(token.name.lower() for token in tokens[start:end])
    return Side(Var(f"{name} "), start, end)


def _begins_clause(tokens: Sequence[Token], at: int) -> bool:
    """Whether nothing before `at` can have a part in what is said: "the last digit of 2^9 is 2"."""
    before = tokens[at - 1] if at else None
    return (
        before is None or before.kind in ("break", "arrow", "comma") or before.name.lower() in CLAUSE_STARTS
    )


def _ends_clause(tokens: Sequence[Token], at: int) -> bool:
    """Whether nothing after `at` can change what is said: "5^8 is 5 raised to ..."."""
    return at == len(tokens) or tokens[at].kind in ("break", "arrow", "comma", "close", "rel", "currency")


def _may_begin(tokens: Sequence[Token], at: int, low: int) -> bool:
    """Whether an expression may begin at `at`: not in the middle of one that could not be read."""
    token = tokens[at]
    signed = token.kind == "op" and token.name == "-" and not _is_bullet(tokens, at)
    if token.kind not in _STARTS and not signed:
        return False
    if at == low:
        return True
    before = tokens[at - 1]
    if token.kind in ("open", "num") and is_glued(before, token):
        return False  # `factorial(4) + 1`, `log2(8)`
    if before.math and token.math:
        return before.kind in ("break", "arrow", "rel", "comma", "open", "annot", "currency")
    # "12 x 1 and 1/4"
    mixed = token.kind != "var" and before.name == "and" and at > low + 1 and tokens[at - 2].kind == "num"
    if before.kind in _MIDDLES or mixed:
        return False
    return not (before.kind == "close" and token.kind == "num")


_MIDDLES = frozenset("op dots sub frac sqrt func other var num fact pct colon such".split())


def _is_bullet(tokens: Sequence[Token], at: int) -> bool:
    """Whether the dash at `at` is punctuation: it begins a line of prose or follows a word."""
    follows = at == 0 or tokens[at - 1].kind in ("word", "break", "close")
    if not follows or tokens[at].math or at + 1 == len(tokens):
        return False
    after = tokens[at + 1]  # money always counts as spaced: `-$20`
    return tokens[at].end < after.start if after.kind == "currency" else after.spaced


def without_exclamation(text: str, tokens: Sequence[Token], relation: Relation) -> Relation | None:
    """`relation` without the `!` at its end, where that may be the sentence's: `So 5 + 3 = 8!`."""
    right, last = relation.right, relation.right.end - 1
    while tokens[last].kind in ("annot", "break"):
        last -= 1
    mark = tokens[last]
    if mark.kind != "fact" or mark.math or not _ENDS_SENTENCE.match(text, mark.end):
        return None
    if last + 1 < len(tokens) and tokens[last + 1].kind in ("rel", "op"):
        return None
    try:
        node, after = parse(tokens, right.start, last)
    except NoExpressionError:
        return None
    return replace(relation, right=replace(right, node=node)) if after == last else None


def without_dash(tokens: Sequence[Token], side: Side) -> Node | None:
    """`side` without the minus that it begins with, where a dash may be meant: `Tickets -$5 × 4`."""
    start = side.start
    before = tokens[start - 1].kind if start else "break"
    if tokens[start].name != "-" or tokens[start].math or before not in ("word", "break"):
        return None
    return parse(tokens, start + 1, side.end)[0] if tokens[start + 1].kind == "currency" else None


def prefixes(node: Node) -> list[Node]:
    """What `10 - 3` begins with: `10`. Sums written as a running total ("5 + 5 = 10 - 3 = 7") need it."""
    found: list[Node] = []
    while isinstance(node, Binary) and node.op in ("+", "-", "*", "/", "implicit", "loose", "of"):
        node = node.left
        found.append(node)
    return found
