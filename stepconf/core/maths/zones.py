"""Where mathematics stands between LaTeX delimiters, and where a dollar sign is money."""

import re

from stepconf.core.maths.notation import UPRIGHT

MAX_ZONE = 8_000  # characters
_OPENING = re.compile(r"\\\(|\\\[|(?<!\\)\$\$?|\\begin\{(align|aligned|equation|gather|eqnarray|split)\*?\}")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[ ,]+[A-Za-z]{2,}[ ,.]")
_COMMAND = re.compile(r"\\[A-Za-z]{2}")


def math_zones(text: str) -> list[tuple[int, int]]:
    """The half-open spans of `text` that stand between LaTeX delimiters, in order.

    A dollar sign is a delimiter only where it cannot be money: something that is not prose up to the next
    dollar sign, no space inside either, no digit after the second.
    """
    zones: list[tuple[int, int]] = []
    absent: set[str] = set()  # closing delimiters that occur no more
    position = 0
    while opening := _OPENING.search(text, position):
        closing = _closing(opening)
        end = -1 if closing in absent else _find(text, closing, opening.end())
        if end < 0:
            absent.add(closing)
        after = end + len(closing)
        if 0 <= end <= opening.end() + MAX_ZONE and (closing != "$" or _is_formula(text, opening.end(), end)):
            zones.append((opening.start(), after))
            position = after
        else:
            position = opening.start() + 1
    return zones


def _find(text: str, closing: str, start: int) -> int:
    """Where `closing` stands next, not counting an escaped dollar sign; -1 if nowhere."""
    at = text.find(closing, start)
    while at > 0 and closing[0] == "$" and text[at - 1] == "\\":
        at = text.find(closing, at + 1)
    return at


def _closing(opening: re.Match[str]) -> str:
    if opening[1]:
        return "\\end{" + opening[0].removeprefix("\\begin{")
    return {"\\(": "\\)", "\\[": "\\]"}.get(opening[0], opening[0])


def _is_formula(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` between two dollar signs is a formula, and the signs no money."""
    inside = text[start:end]
    if not inside or inside[-1] == "\\" or len(inside) > 2_000:
        return False
    if (inside[0].isspace() or inside[-1].isspace()) and not _COMMAND.search(inside):
        return False
    return not text[end + 1 : end + 2].isdigit() and not _PROSE.search(UPRIGHT.sub("", inside) + " ")
