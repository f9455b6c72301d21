"""Numbers: digits with their separators, repeating decimals, other bases, and numbers in words."""

import re
from collections.abc import Sequence
from fractions import Fraction

from flint import fmpz

MAX_DIGITS = 120
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "crore": 10**7, "dozen": 12, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_REPEATING = re.compile(r"(\.?)\\(?:overline|bar|dot)\s*\{\s*([0-9]{1,20})\s*\}")
_SEPARATORS = re.compile(r"[^0-9.]")
_EUROPEAN = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,([0-9]+))?")


def plain_digits(piece: str) -> str:
    """The digits and the point of a number, without what parts its thousands: 1,000.5 and 1.000,5 are one."""
    if piece.count(".") > 1 or "." in piece[: piece.rfind(",") + 1]:
        european = _EUROPEAN.fullmatch(piece)
        whole = _SEPARATORS.sub("", piece.partition(",")[0]).replace(".", "")
        return f"{whole}.{european[1]}" if european and european[1] else whole
    return _SEPARATORS.sub("", piece)


def decimals_of(digits: str) -> int:
    """How many digits stand after the point."""
    return len(digits) - digits.index(".") - 1 if "." in digits else 0


def repeating(text: str, at: int, digits: str) -> tuple[Fraction, int] | None:
    r"""What a repeating part at `at` adds to the number `digits` (`0.1\overline{6}`), and where it ends."""
    found = _REPEATING.match(text, at)
    if not found or bool(found[1]) == ("." in digits):
        return None
    nines = 10 ** len(found[2]) - 1
    return Fraction(int(found[2]), nines * 10 ** decimals_of(digits)), found.end()


def in_base(digits: str, base: str) -> Fraction | None:
    """The value of `digits` in a base of 2 to 36, written as a number; None where they cannot be read in it."""
    if not (base.isascii() and base.isdigit()) or not 2 <= int(base[:4]) <= 36:
        return None
    if not (digits.isascii() and digits.isalnum()) or len(digits) > MAX_DIGITS:
        return None
    try:
        return Fraction(int(digits, int(base)))
    except ValueError:
        return None


def is_prime(number: int) -> bool:
    """Whether a whole number is prime."""
    return number > 1 and bool(fmpz(number).is_prime())


def spoken(words: Sequence[str]) -> Fraction | None:
    """The number that English words say: "one hundred and twenty five", "three fourths" is none."""
    total = group = 0
    said = False
    for word in (part for one in words for part in one.lower().split("-")):
        if word in _WORDS:
            group += _WORDS[word]
        elif word in SCALES and SCALES[word] in (12, 100):
            group = max(group, 1) * SCALES[word]
        elif word in SCALES:
            total, group = total + max(group, 1) * SCALES[word], 0
        elif not (word == "and" and said) and not (word in ("a", "an") and not said):
            return None
        said = said or word not in ("a", "an")
    return Fraction(total + group) if said else None
