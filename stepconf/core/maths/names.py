"""Letters and subscripts of a text → variables, functions, units and words."""

import re
from dataclasses import replace
from itertools import pairwise

from stepconf.core.maths.notation import (
    CONSTANT_WORDS,
    FUNCTIONS,
    GREEK_LETTERS,
    LETTER_UNITS,
    UNITS_OF_LETTERS,
)
from stepconf.core.maths.numbers import in_base
from stepconf.core.maths.scan import INDEXED, Scan

_SUBSCRIPT = re.compile(
    r"_\s*(?:\{([^{}]{0,40}(?:\{[^{}]{0,20}\}[^{}]{0,20})?)\}|([A-Za-z0-9])|\\([A-Za-z]+))"
)
_MARKED = re.compile(r"\^|_|[⁻⁺]?[²³¹⁰⁴-⁹]|[₀-₉]")  # what follows a name: an exponent or a subscript
_RAISED = re.compile(r"[⁻⁺]?[²³¹⁰⁴-⁹]")
_BASE = re.compile(r"(?:2|10)(?=\()")  # of `log2(`


def letters(scan: Scan, piece: str, start: int) -> int:
    """The name or names that letters in a row are; returns where the reading goes on, as all of these do."""
    end = start + len(piece)
    lower, after, math = piece.lower(), scan.text[end : end + 1], scan.in_math(start)
    if piece in GREEK_LETTERS:
        return scan.add("var", GREEK_LETTERS[piece], start, end)
    if lower == "log" and (base := _BASE.match(scan.text, end)):
        scan.add("func", lower, start, end)
        return scan.add("sub", base[0], end, base.end())
    if lower in FUNCTIONS and (math or _applies(scan, piece, end)):
        return scan.add("func", lower, start, end)
    if piece == "mod":
        return scan.add("op", "mod", start, end)
    if lower == "sqrt":
        return scan.add("sqrt", "sqrt", start, end)
    if piece in CONSTANT_WORDS and (scan.answer or piece == "pi"):
        return scan.add("const", CONSTANT_WORDS[piece], start, end)
    if not math or not piece.isascii():
        return _prose(scan, piece, start)
    follows = scan.answer and scan.spaced and scan.last() in ("num", "word")  # "5 apples", "10 m/s"
    unit = len(piece) > 1 or (piece in LETTER_UNITS and after in ("", "/", "²", "³"))
    word = (len(piece) >= 4 and not _runs(piece)) or piece in ("and", "or", "per")
    if piece in UNITS_OF_LETTERS or word or (follows and unit):
        return scan.add("word", piece, start, end)
    if piece.isupper() and not scan.answer:
        return _capitals(scan, piece, start)
    if len(piece) > 1 and piece.isupper():
        return scan.add("var", piece, start, end)
    for i, letter in enumerate(piece):
        scan.add("var", letter, start + i, start + i + 1)
    return end


def _applies(scan: Scan, piece: str, end: int) -> bool:
    """Whether the name of a function that ends at `end` in prose is applied there, and is no unit: `m/sec²`."""
    if scan.text[end : end + 1] in ("(", "_", "^"):
        return True
    beside = scan.tokens[-1] if scan.tokens else None
    measures = beside and (beside.name == "/" or (beside.kind == "num" and scan.spaced))
    if _RAISED.match(scan.text, end):
        return not (measures and piece in UNITS_OF_LETTERS)
    return "₀" <= scan.text[end : end + 1] <= "₉"


def _capitals(scan: Scan, piece: str, start: int) -> int:
    """Capitals side by side name a segment, also where a space stands between them: `A B = 5`."""
    last = scan.tokens[-1] if scan.last() == "var" else None
    if last and len(last.name) + len(piece) <= 3 and not scan.text[last.end : start].strip(" "):
        scan.tokens[-1] = replace(last, name=last.name + piece, end=start + len(piece))
        return start + len(piece)
    return scan.add("var", piece, start, start + len(piece))


def _prose(scan: Scan, piece: str, start: int) -> int:
    """Letters outside formulas: one is a variable, so are the capitals that name a line; others are words."""
    end = start + len(piece)
    if piece == "x" and scan.indexed and (index := INDEXED.match(scan.text, start)):
        return scan.add("var", f"x_{index[1]}", start, index.end())
    article = piece in "aI" and scan.spaced and not _MARKED.match(scan.text, end)
    single = len(piece) == 1 and piece.isascii() and not article
    line = len(piece) in (2, 3) and piece.isupper() and piece not in UNITS_OF_LETTERS
    return scan.add("var" if single or (line and scan.last() == "op") else "word", piece, start, end)


def subscript(scan: Scan, start: int) -> int:
    """A subscript joins the name before it, so that `x_1` and `x_2` are two variables."""
    found = _SUBSCRIPT.match(scan.text, start)
    if not found:
        return scan.add("other", "_", start, start + 1)
    name = re.sub(r"\\text|[\s{}\\]", "", found[1] or found[2] or found[3] or "")
    return lowered(scan, name, start, found.end())


def lowered(scan: Scan, name: str, start: int, end: int) -> int:
    """`name` as a subscript: of the variable or the number before it, or apart, as the base of a logarithm."""
    last = scan.tokens[-1] if scan.tokens and not scan.spaced else None
    if last is not None and last.kind == "var":
        scan.tokens[-1] = replace(last, name=f"{last.name}_{name}", end=end)
        return end
    if last is not None and last.kind == "num":
        value = in_base(last.name, name)
        if value is not None:
            scan.tokens[-1] = replace(last, name=f"{last.name}_{name}", end=end, value=value)
            return end
    return scan.add("sub", name, start, end)


def _runs(letters: str) -> bool:
    """Whether letters follow one another in the alphabet: `abcd` is a product."""
    return all(ord(b) - ord(a) == 1 for a, b in pairwise(letters))
