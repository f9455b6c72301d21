"""Statements about whole numbers in words: "91 is prime", "24 and 1199 are divisible by 3"."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stepconf.core.maths.numbers import is_prime
from stepconf.core.maths.tokens import Token

MAX_NUMBER = 10**12
_BEFORE = ("word", "break", "arrow", "comma", "open")
_MULTIPLES = {("divisible", "by"), ("multiple", "of"), ("multiples", "of")}
_DIVISORS = {(noun, "of") for noun in ("factor", "divisor", "factors", "divisors")}
_NO_PRIME = (["factor"], ["divisor"], ["factors"], ["to"], ["power"])  # 4 is prime to 9
_PARTS = frozenset("of by than between from to plus minus".split())


@dataclass(frozen=True, slots=True)
class Fact:
    """What is stated in `tokens[start:end]`, and whether it is so."""

    start: int
    end: int
    holds: bool
    reason: str


def number_facts(tokens: Sequence[Token]) -> Iterator[Fact]:
    """Every such statement in `tokens`."""
    for at, token in enumerate(tokens):
        if token.kind != "word":
            continue
        numbers, start = _numbers_before(tokens, at)
        if not numbers:
            continue
        end, holds = _stated(tokens, at, numbers)
        if end:
            said = " ".join(t.name for t in tokens[start:end])
            yield Fact(start, end, holds, "" if holds else f"it is not so that {said}")


def _numbers_before(tokens: Sequence[Token], at: int) -> tuple[list[int], int]:
    """The number, or the two joined by "and", that stand just before `at`, and where they begin."""
    if at == 0 or not _whole(tokens[at - 1]):
        return [], at
    numbers, start = [int(tokens[at - 1].value)], at - 1
    if start >= 2 and tokens[start - 1].name == "and" and _whole(tokens[start - 2]):
        numbers, start = [int(tokens[start - 2].value), *numbers], start - 2
    before = tokens[start - 1] if start else None
    # "2, 3, and 4 are", "the product of 3 and 7 is", "the sum of the digits of 12 is" speak of something else
    listed = start >= 2 and tokens[start - 1].kind == "comma" and tokens[start - 2].kind == "num"
    if before and (listed or before.name.lower() in _PARTS or before.kind not in _BEFORE):
        return [], at
    return numbers, start


def _whole(token: Token) -> bool:
    return (
        token.kind == "num"
        and token.value.denominator == 1
        and not token.decimals
        and token.value <= MAX_NUMBER
    )


def _stated(tokens: Sequence[Token], at: int, numbers: list[int]) -> tuple[int, bool]:
    """(end, holds) of what the words from `at` say of `numbers`; end 0 if nothing that can be checked."""
    verb, *rest = [t.name.lower() if t.kind == "word" else "" for t in tokens[at : at + 7]]
    if verb != ("is" if len(numbers) == 1 else "are"):
        return 0, False
    end = at + 1
    truth = rest[:1] != ["not"]
    for skipped in (("not",), ("a", "also", "both")):
        if rest and rest[0] in skipped:
            rest, end = rest[1:], end + 1
    if rest[:1] == ["prime"] and rest[1:2] not in _NO_PRIME:
        return end + 1, all(is_prime(n) == truth for n in numbers)
    other, *after = tokens[end + 2 : end + 4] or tokens[at : at + 1]
    ends = all(t.kind in ("break", "comma", "word", "close") and t.name not in ("and", "or") for t in after)
    if tuple(rest[:2]) not in _MULTIPLES | _DIVISORS or not _whole(other) or not ends:
        return 0, False
    pairs = [(n, int(other.value)) for n in numbers]
    if tuple(rest[:2]) in _DIVISORS:
        pairs = [(d, n) for n, d in pairs]
    return end + 3, all((d != 0 and n % d == 0) == truth for n, d in pairs)
