"""Boxes of a text, and where a box or a formula breaks off."""

import re
from collections import deque

_BOX = re.compile(r"\\(?:f|frame)?box(?:ed)?\s*(?=[{\s0-9\\-])")
_BARE_ARGUMENT = re.compile(r"\\[dtc]?frac\s*(?:\{[^{}]*\}|[0-9])\s*(?:\{[^{}]*\}|[0-9])|-?[0-9A-Za-z.,]+")
_DISPLAYS = (("\\[", "\\]"), ("\\(", "\\)"))
_OPENS = re.compile(r"[\s(:*]?\$(?=[\w\\({[|+-])(?![0-9][^\\]*\Z)")  # the last dollar: a formula, no money
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINT = re.compile(  # between listed boxes; the second may be escaped twice
    r"(?:[\s$]|\\[,;:! ()\[\]]|\\q?quad)*(?:[a-z]{3,12}\s+(?=and|or))?"
    r"(?:,|;|([-+*=_~|])\1{2,}|\b(?:and|or)\b|,\s*(?:and|or)\b|\\text\{\s*(?:,|and|or|, and)\s*\})?"
    r"(?:[\s$]|\\[,;:! ()\[\]]|\\q?quad)*(?:\(?[a-h1-9]\)|[A-Za-z](?:_\{?\w\}?)?\s*=)?[\s$]*\\?"
)
_PLACEHOLDERS = ("", "...", "\\ldots", "\\dots", "…", "?", "answer", "your answer", "\\text{answer}")
_TAIL_CHARS = 4000  # how long a box may be
_MAX_BOXES = 20  # that may together be one answer


def boxed(text: str) -> str | None:
    """What the last filled `\\boxed` holds, braces matched; boxes that the text lists are one list.

    A box that never closes holds the rest of its line.
    """
    found = boxes(text)
    return found[-1][1] if found else None


def boxes(text: str) -> list[tuple[int, str]]:
    """Where the last boxes begin, and what each holds, together with those that it is listed with."""
    single: list[tuple[int, int, str]] = []
    for found in deque(_BOX.finditer(text), maxlen=_MAX_BOXES):
        if single and found.start() < single[-1][1]:
            single.pop()  # a box in a box: the inner one says it
        end, content = _argument(text, found.end())
        if content.strip().lower() not in _PLACEHOLDERS:
            single.append((found.start(), end, content.strip()))
    rows: list[tuple[int, list[str]]] = []
    for i, (start, _, content) in enumerate(single):
        between = text[single[i - 1][1] : start] if i else ""
        if i and "\n\n" not in between and _JOINT.fullmatch(between):
            rows[-1] = (start, [*rows[-1][1], content])
        else:
            rows.append((start, [content]))
    return [(start, row[-1] if len(set(row)) == 1 else ", ".join(row)) for start, row in rows]


def _argument(text: str, start: int) -> tuple[int, str]:
    """The TeX argument at `start`: where it ends, and what it holds."""
    if not text.startswith("{", start):
        bare = _BARE_ARGUMENT.match(text, start)
        return (bare.end(), bare.group()) if bare else (start, "")
    closing = _closing(text, start)
    if closing is not None:
        return closing + 1, text[start + 1 : closing]
    line = text[start + 1 : start + _TAIL_CHARS].split("\n", 1)[0]
    return start + 1 + len(line), line.rstrip("$ .")


def _closing(text: str, start: int) -> int | None:
    """Where the brace closes that opens at `start`."""
    depth = 0
    for brace in _BRACE.finditer(text, start, start + _TAIL_CHARS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if not depth:
            return brace.start()
    return None


def broken_at(text: str) -> int:
    """Where the box or the formula begins inside which a text was cut; its length where it was inside none."""
    length = len(text.rstrip())
    for found in deque(_BOX.finditer(text), maxlen=_MAX_BOXES):
        start = found.end()
        braced = text.startswith("{", start)
        ends = _closing(text, start) is not None if braced else _argument(text, start)[0] < length
        if not ends and "\n\n" not in text[start:]:
            return found.start()
    return _open_formula(text)


def _open_formula(text: str) -> int:
    """Where a formula begins that never closes and holds no box; the length of a text without one."""
    starts = [text.rfind("$$")] if text.count("$$") % 2 else []
    starts += [text.rfind(begin) for begin, end in _DISPLAYS if text.rfind(begin) > text.rfind(end)]
    dollar = text.rfind("$")
    starts += [dollar] if dollar >= 0 and _OPENS.match(text, max(dollar - 1, 0)) else []
    start = max(starts, default=len(text))
    is_broken = "\n\n" not in text[start:] and not _BOX.search(text, start)
    return start if is_broken else len(text)
