"""The sentence around a statement: does it hold there, or is it supposed, asked or denied?"""

from collections.abc import Sequence

from stepconf.core.maths.tokens import Token
from stepconf.core.maths.vocabulary import FINDINGS, NOT_UNITS, NUMBERED, SUPPOSITIONS

MAX_REACH = 150  # tokens to either side that a sentence is followed


def sentence(tokens: Sequence[Token], start: int, end: int) -> tuple[int, int]:
    """The half-open span of the sentence around `tokens[start:end]`."""
    low = start
    while low > max(0, start - MAX_REACH) and not _ends(tokens[low - 1], (".", "?", "\n\n")):
        low -= 1
    high = end
    while high < min(len(tokens), end + MAX_REACH) and not _ends(tokens[high], (".", "?", "\n\n", ";")):
        high += 1
    return low, high


def _ends(token: Token, names: tuple[str, ...]) -> bool:
    return token.kind == "break" and token.name in names


def words(tokens: Sequence[Token], low: int, high: int) -> frozenset[str]:
    """The words of `tokens[low:high]` in lower case; "for n = 3" counts as "when", "for each box" does not."""
    inside = tokens[low:high]
    found = {word.lower() for token in inside if token.kind == "word" for word in token.name.split()}
    if found & {"for", "at", "with"}:
        before = [None, *inside]
        pairs = zip(before, inside, tokens[low + 1 : high + 1], strict=False)
        if any(
            a.name.lower() in ("for", "at", "with") and b.kind != "word" and not _solves(first)
            for first, a, b in pairs
        ):
            found.add("when")
    return frozenset(found)


def numbers_a_name(tokens: Sequence[Token], start: int) -> bool:
    """Whether the number at `start` belongs to the noun before it, as in "section 2 = x + 200"."""
    before = tokens[start - 1] if start else None
    return before is not None and before.kind == "word" and before.name.lower() not in NOT_UNITS | FINDINGS


def counts_a_name(tokens: Sequence[Token], start: int) -> bool:
    """Whether the whole number at `start` surely belongs to the noun before it: "Day 1 + 5", "box 2 - 3"."""
    number = tokens[start]
    if number.kind != "num" or number.decimals or not numbers_a_name(tokens, start):
        return False
    noun = tokens[start - 1].name
    return noun[0].isupper() or noun.lower().removesuffix("s") in NUMBERED


def _solves(token: Token | None) -> bool:
    """Whether it is "solve" in "solve for x"."""
    return token is not None and token.name.lower().startswith("solv")


def in_doubt(tokens: Sequence[Token], start: int, end: int, denials: frozenset[str]) -> bool:
    """Whether the sentence around `tokens[start:end]` only supposes or asks it, or has one of the `denials`."""
    low, high = sentence(tokens, start, end)
    if high < len(tokens) and tokens[high].name == "?":
        return True
    commas = (i + 1 for i in range(low, start) if tokens[i].kind == "comma" or tokens[i].name == "then")
    clause = max(commas, default=low)
    return bool(words(tokens, low, high) & denials or words(tokens, clause, high) & SUPPOSITIONS)
