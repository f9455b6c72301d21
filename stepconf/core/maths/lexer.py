"""Text with plain or TeX mathematics in it → tokens with their places in that text.

Our own lexer, because nothing that a model wrote may reach a general parser. It never raises and is linear
in the text; what it does not know becomes an `other` token, which no expression can contain.
"""

import re
import unicodedata
from dataclasses import replace
from fractions import Fraction
from math import factorial

from stepconf.core.maths.commands import TEXT_ARGUMENT, command
from stepconf.core.maths.names import letters, lowered, subscript
from stepconf.core.maths.notation import (
    ARROWS,
    CONSTANTS,
    FUNCTIONS,
    LEX,
    OPERATORS,
    RELATIONS,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    TEXTUAL,
    folded,
)
from stepconf.core.maths.numbers import MAX_DIGITS
from stepconf.core.maths.numerals import number, short_fraction
from stepconf.core.maths.scan import Scan
from stepconf.core.maths.tokens import Token

_SPACING = re.compile(r"(?:[\s&]|\\q?quad(?![a-z])|\\[,;:! ])*")
_EQUALLED = re.compile(r"\s*([0-9]{1,20})\s*([-+*·×⋅/÷!(]|\\(?:cdot|times|div)(?![a-z]))?")

MAX_CHARS = 8_000


def tokenize(text: str, answer: bool = False) -> list[Token]:
    """Tokens of `text`, in order; of a longer text those of its first `MAX_CHARS` characters, up to a break.

    Args:
        text: a step, a problem or an answer.
        answer: whether all of it is one formula, as an answer is.
    """
    tokens = _read(folded(text[:MAX_CHARS]), answer)
    while len(text) > MAX_CHARS and tokens and tokens[-1].kind != "break":
        tokens.pop()
    return tokens


def _read(text: str, answer: bool) -> list[Token]:
    scan, position = Scan(text, answer), 0
    while position < len(text):
        if text.startswith("[asy]", position):
            position = scan.skip_to("[/asy]", position)
            continue
        found = LEX.match(text, position)
        if found is None:  # pragma: no cover - the last alternative matches anything
            break
        end = _step(scan, str(found.lastgroup), found[0], position)
        position = max(end, position + 1)
    return scan.tokens


def _step(scan: Scan, group: str, piece: str, start: int) -> int:
    """Read one match of the table; returns where the reading goes on."""
    end = start + len(piece)
    match group:
        case "space":
            scan.spaced = True
        case "newline" | "row" | "display":
            _line_end(scan, group, piece, start, end)
        case "fence":
            return scan.skip_to("```", start)
        case "num":
            return number(scan, piece, start)
        case "shortfrac":
            return short_fraction(scan, piece, start)
        case "command" if piece in TEXTUAL:
            return _textual(scan, piece, start, end)
        case "command":
            return command(scan, piece, start)
        case "rel" if piece == "!=" and _is_factorial(scan, end):
            return scan.add("fact", "!", start, start + 1)
        case "rel":
            kind = "arrow" if piece in ARROWS else "rel"
            scan.add(kind, RELATIONS.get(piece, piece), start, end)
        case "op" if piece in "-*•–" and _begins_line(scan, start) and not scan.in_math(start):
            scan.add("break", ".", start, end)
        case "op":
            scan.add("op", OPERATORS[piece], start, end)
        case "bold":
            scan.spaced = True
        case "power":
            scan.add("op", "^", start, end)
        case "letters":
            return letters(scan, piece, start)
        case "sub":
            return subscript(scan, start)
        case "lowered":
            return lowered(scan, piece.translate(SUBSCRIPTS), start, end)
        case "currency":
            scan.spaced = True  # no factor continues across money
            if (scan.money or piece != "$") and not scan.delimiter(start):
                scan.add("currency", piece, start, end)
            scan.spaced = True
        case _:
            _mark(scan, group, piece, start, end)
    return end


def _line_end(scan: Scan, group: str, piece: str, start: int, end: int) -> None:
    """A line break parts statements, but not inside a formula that goes on."""
    inside = group == "newline" and scan.in_math(start) and piece.count("\n") == 1
    open_end = scan.last() in ("op", "rel", "open", "comma", "func", "sub", "frac")
    if not inside or not (open_end or scan.goes_on(end) or not scan.states()):
        scan.add("break", "\n\n" if piece.count("\n") > 1 else "\n", start, end)
    scan.spaced = True


def _is_factorial(scan: Scan, end: int) -> bool:
    """Whether `!=` is a factorial and an equals sign (`5!=120`)."""
    if scan.spaced or not scan.tokens:
        return False
    last, said = scan.tokens[-1], _EQUALLED.match(scan.text, end)
    if last.kind != "num" or not said:
        return last.math
    # 3!=3*2*1 and 5!=120, but 3!=5
    return bool(said[2]) or (last.value <= 20 and factorial(int(last.value)) == int(said[1]))


def _begins_line(scan: Scan, start: int) -> bool:
    """Whether the sign at `start` is the bullet of a list."""
    after = scan.text[start + 1 : start + 2]
    return after == " " and not scan.text[scan.text.rfind("\n", 0, start) + 1 : start].strip()


def _mark(scan: Scan, group: str, piece: str, start: int, end: int) -> None:
    """What needs little look around."""
    match group:
        case "super":
            power = piece.translate(SUPERSCRIPTS)
            scan.add("op", "^", start, start)
            if power.isalpha():
                scan.add("var", power, start, end)
            elif len(power.lstrip("+-")) <= MAX_DIGITS:
                scan.add("num", power, start, end, Fraction(power))
        case "vulgar":
            value = Fraction(unicodedata.numeric(piece)).limit_denominator(10)
            scan.add("vulgar", piece, start, end, value)
        case "bang":
            glued = len(piece) == 1 and not scan.spaced
            counts = scan.last() in ("num", "close") or scan.in_math(start)
            scan.add("fact" if glued and counts else "break", piece, start, end)
        case "stop":
            ratio = piece == ":" and (scan.in_math(start) or _between_digits(scan, start))
            scan.add("colon" if ratio else "break", piece[0], start, end)
        case "degree":
            scan.add("deg", "deg", start, end)
        case "root":
            scan.add("sqrt", "sqrt", start, end)
        case "const":
            scan.add("const", CONSTANTS[piece], start, end)
        case "other" if piece == "&":
            scan.spaced = True
            if scan.answer:
                scan.add("amp", piece, start, end)
            elif _parts_columns(scan, start, end):
                scan.add("break", ",", start, end)
        case _:
            scan.add(group, piece, start, end)


def _parts_columns(scan: Scan, start: int, end: int) -> bool:
    """Whether `&` parts two formulas: where it aligns one, a sign stands beside it."""
    after = _SPACING.match(scan.text, end)
    beside = scan.last() in ("op", "rel", "arrow", "break", "") or (after and scan.goes_on(after.end()))
    return scan.in_math(start) and not beside


def _between_digits(scan: Scan, start: int) -> bool:
    return scan.text[max(0, start - 1) : start].isdigit() and scan.text[start + 1 : start + 2].isdigit()


def _textual(scan: Scan, piece: str, start: int, end: int) -> int:
    """What stands in `\\text{...}` is prose; a lone letter set upright is a unit, a name or e."""
    found = TEXT_ARGUMENT.match(scan.text, end)
    if not found:
        return scan.add("other", "text", start, end)
    inside, scan.spaced = found[1].strip(), True
    if piece == "\\mathbf" and len(inside) == 1 and inside.isalpha() and not scan.answer:
        return scan.add("other", inside, start, found.end())  # a vector: its products have two meanings
    if inside.replace(" ", "").isdigit():
        number(scan, inside.replace(" ", ""), start)
        scan.tokens[-1] = replace(scan.tokens[-1], end=found.end())
    elif inside == "cis":
        scan.add("other", inside, start, found.end())
    elif inside == "mod" or (inside.lower() in FUNCTIONS and piece in ("\\operatorname", "\\mathrm")):
        scan.add("op" if inside == "mod" else "func", inside.lower(), start, found.end())
    else:
        offset = found.start(1)
        for token in _read(found[1], answer=False):
            kind = "word" if token.kind == "var" else token.kind
            scan.tokens.append(
                replace(token, kind=kind, start=token.start + offset, end=token.end + offset, math=True)
            )
        if scan.tokens:
            scan.tokens[-1] = replace(scan.tokens[-1], end=found.end())
    scan.spaced = True
    return found.end()
