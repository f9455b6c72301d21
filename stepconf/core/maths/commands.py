"""TeX commands of a text → tokens."""

import re

from stepconf.core.maths.notation import (
    APART,
    ARROWS,
    BLACKBOARD,
    COMMANDS,
    CONSTANTS,
    DOTS,
    FUNCTIONS,
    GREEK,
    OPERATORS,
    RELATIONS,
    SILENT,
)
from stepconf.core.maths.scan import Scan

TEXT_ARGUMENT = re.compile(r"\s*\{([^{}]{0,300})\}")
_SHORT_ARGUMENT = re.compile(r"\s*\{[^{}]{0,40}\}")
_ENVIRONMENT = re.compile(r"\s*\{([A-Za-z]{1,20})\*?\}(?:\{[clr|]{1,20}\})?")
_LAYOUT = ("align", "equation", "gather", "eqnarray", "split")


def command(scan: Scan, piece: str, start: int) -> int:
    """A command but those of text; returns where the reading goes on."""
    end = start + len(piece)
    if piece == "\\boxed" and scan.last() == "num" and not scan.spaced:
        return scan.add("other", piece, start, end)  # `3\boxed{55}` has its digits in a row
    if piece in SILENT:
        scan.spaced = scan.spaced or piece not in ("\\left", "\\right")
        argued = piece in ("\\hspace", "\\color", "\\textcolor", "\\phantom")
        return _skip_argument(scan, end) if argued else end
    if piece in APART:
        scan.spaced = True
        return scan.add("comma" if scan.answer else "break", ",", start, end)
    for table, kind in ((OPERATORS, "op"), (RELATIONS, "rel"), (CONSTANTS, "const")):
        if piece in table:
            return scan.add(kind, table[piece], start, end)
    bare = piece[1:]
    if bare in COMMANDS:
        return scan.add(COMMANDS[bare], {"lbrack": "[", "rbrack": "]"}.get(bare, bare), start, end)
    if bare in FUNCTIONS:
        return scan.add("func", bare, start, end)
    if bare in GREEK:
        return scan.add("var", bare, start, end)
    if bare == "$":
        scan.spaced = True
        return scan.add("currency", "$", start, end)
    if piece in ARROWS:
        return scan.add("arrow", bare, start, end)
    if piece in DOTS:
        return scan.add("dots", "...", start, end)
    if bare == "mathbb" and (found := TEXT_ARGUMENT.match(scan.text, end)) and found[1] in BLACKBOARD:
        return scan.add("const", BLACKBOARD[found[1]], start, found.end())
    if bare in ("begin", "end"):
        return _environment(scan, bare, start, end)
    return scan.add("other", piece, start, end)


def _environment(scan: Scan, bare: str, start: int, end: int) -> int:
    """Rows of formulas are read row by row, a matrix of an answer whole; others are left out."""
    found = _ENVIRONMENT.match(scan.text, end)
    name = found[1] if found else ""
    closed = found.end() if found else end
    if name.endswith("matrix") and scan.answer:
        return scan.add(bare, name, start, closed)
    if name.startswith(_LAYOUT):
        return scan.add("break", bare, start, closed)
    if bare == "begin" and found:
        return scan.skip_to("\\end{" + name, start) + 1
    return scan.add("other", bare, start, closed)


def _skip_argument(scan: Scan, end: int) -> int:
    found = _SHORT_ARGUMENT.match(scan.text, end)
    return found.end() if found else end
