"""Digits of a text → number tokens: thousands, decimal commas, repeating decimals, short fractions."""

import re
from fractions import Fraction

from stepconf.core.maths.numbers import MAX_DIGITS, decimals_of, plain_digits, repeating
from stepconf.core.maths.scan import Scan

_DECIMAL_COMMA = re.compile(r",([0-9]{1,2}|[0-9]{4,12})(?![0-9,])")
_SIGN_AFTER = re.compile(r"\s*(?:[-+*×·⋅/÷=€%]|\\(?:cdot|times|div)(?![a-z]))")
_SIGN_BEFORE = re.compile(r"(?:[+*×·⋅/÷]|\\(?:cdot|times|div))\s*\Z")
_SPACED_THOUSANDS = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")


def number(scan: Scan, piece: str, start: int) -> int:
    """The number that begins with `piece`; returns where the reading goes on."""
    if "," in piece and scan.brackets and _lists_arguments(scan, piece):
        piece = piece[: piece.index(",")]
    elif scan.answer and (spaced := _SPACED_THOUSANDS.match(scan.text, start)):
        piece = max(piece, spaced[0], key=len)
    end = start + len(piece)
    if "e" in piece.lower():
        return scan.add("num", piece, start, end, Fraction(piece), decimals_of(piece))
    digits = plain_digits(piece).rstrip(".")
    if scan.european and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", piece):
        digits = digits.replace(".", "")
    padded = len(digits) > 1 and digits[0] == "0" and digits[1] != "." and not scan.answer
    if len(digits) > MAX_DIGITS or padded:
        return scan.add("other", piece[:10], start, end)
    if digits == "0" and scan.text[end : end + 1] == "." and scan.text[end + 1 : end + 2].isalpha():
        return scan.add("other", digits, start, end + 1)  # "0.abc" has letters for digits
    comma = _DECIMAL_COMMA.match(scan.text, end)
    if comma and digits.isdigit() and _is_decimal_comma(scan, start, comma):
        digits, end = f"{digits}.{comma[1]}", comma.end()
    decimals, value = decimals_of(digits), Fraction(digits)
    if more := repeating(scan.text, end, digits):
        return scan.add("num", digits, start, more[1], value + more[0], 0)
    return scan.add("num", digits, start, end, value, decimals)


def _lists_arguments(scan: Scan, piece: str) -> bool:
    """Whether a comma in brackets parts two numbers rather than thousands: `gcd(4,100)`, `(28,365)`."""
    if "{" in piece or "\\" in piece or ",0" in piece:
        return False
    return scan.answer or [token.kind for token in scan.tokens[-2:]] == ["func", "open"]


def _is_decimal_comma(scan: Scan, start: int, comma: re.Match[str]) -> bool:
    """Whether a comma between digits is the point of a European number: an operator stands beside it."""
    if scan.brackets or scan.last() == "comma":
        return False
    before = scan.text[max(0, start - 8) : start]
    return bool(_SIGN_BEFORE.search(before) or _SIGN_AFTER.match(scan.text, comma.end()))


def short_fraction(scan: Scan, piece: str, start: int) -> int:
    """`\\frac12`: two one-digit arguments without braces."""
    end = start + len(piece)
    scan.add("frac", "frac", start, start + 5)
    for i in (i for i, c in enumerate(piece) if c.isdigit()):
        scan.add("num", piece[i], start + i, start + i + 1, Fraction(int(piece[i])))
    return end
