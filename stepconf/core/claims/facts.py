"""Statements about whole numbers in words: "91 is prime", "24 and 1199 are divisible by 3"."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stepconf.core.maths.numbers import is_prime
from stepconf.core.maths.tokens import Token

MAX_NUMBER = 10**12
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
        if start and tokens[start - 1].kind == "comma":
            return [], at
    before = tokens[start - 1] if start else None
    if before is not None and before.kind == "comma" and start >= 2 and tokens[start - 2].kind == "num":
        return [], at
    alone = before is None or before.kind in ("word", "break", "arrow", "comma", "open")
    # "the product of 3 and 7 is prime", "the sum of the digits of 12 is ..." speak of something else.
    if before is not None and before.name.lower() in _PARTS:
        return [], at
    return (numbers, start) if alone else ([], at)


def _whole(token: Token) -> bool:
    return (
        token.kind == "num"
        and token.value.denominator == 1
        and not token.decimals
        and token.value <= MAX_NUMBER
    )


def _stated(tokens: Sequence[Token], at: int, numbers: list[int]) -> tuple[int, bool]:
    """(end, holds) of what the words from `at` say of `numbers`; end 0 if nothing that can be checked."""
    words = [t.name.lower() if t.kind == "word" else "" for t in tokens[at : at + 7]]
    verb, rest, used = words[0], words[1:], 1
    if verb == ("is" if len(numbers) == 1 else "are"):
        truth = True
        if rest and rest[0] == "not":
            truth, rest, used = False, rest[1:], used + 1
        if rest and rest[0] in ("a", "also", "both"):
            rest, used = rest[1:], used + 1
        if rest and rest[0] == "prime":
            noun = rest[1] if len(rest) > 1 else ""
            if noun in ("factor", "divisor", "factors", "to", "power"):
                return 0, False
            return at + used + 1, all(is_prime(n) == truth for n in numbers)
        if rest[:2] in (["divisible", "by"], ["multiple", "of"], ["multiples", "of"]):
            return _divisibility(
                tokens, at + used + 2, lambda n, d: (d != 0 and n % d == 0) == truth, numbers
            )
        if rest[:2] in (["factor", "of"], ["divisor", "of"], ["factors", "of"], ["divisors", "of"]):
            return _divisibility(
                tokens, at + used + 2, lambda n, d: (n != 0 and d % n == 0) == truth, numbers
            )
    return 0, False


def _divisibility(
    tokens: Sequence[Token], at: int, holds: Callable[[int, int], bool], numbers: list[int]
) -> tuple[int, bool]:
    if at >= len(tokens) or not _whole(tokens[at]):
        return 0, False
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if after is not None and (
        after.kind not in ("break", "comma", "word", "close") or after.name in ("and", "or")
    ):
        return 0, False
    other = int(tokens[at].value)
    return at + 1, all(holds(n, other) for n in numbers)
