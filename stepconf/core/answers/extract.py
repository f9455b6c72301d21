"""Finding the answer in a solution's text, and the reference answer in a data set's column.

Markers are tried from the most to the least explicit: the last `\\boxed`, the last `####`, "the answer is",
a last line "A: 18", then, as a guess, the last formula or number. Everything here is linear in the text.
"""

import re
from typing import Literal, get_args

AnswerType = Literal["math", "number", "choice", "yesno", "string", "code"]
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)

_BOX = re.compile(r"\\(?:f|frame)?box(?:ed)?\s*(?=[{\s\d\\-])")
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;.*&~]|\\[\s,;:!()\[\]]|\\q?quad|\\text\s*\{[^{}]{0,12}\}|and|or)*")
_PHRASE = re.compile(
    r"\b(?:final\s+)?answer(?:\s+(?:to|for|of)\b[^.\n:]{0,80}?)?\s*(?:\*\*|__)?\s*(?::|=|\bis\b(?:\s*:)?)\s*",
    re.IGNORECASE,
)
_A_LINE = re.compile(r"^[ \t]*(?:\*\*)?A(?:nswer)?(?:\*\*)?:[ \t]*(?:\*\*)?", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|\s{3,}|\bI hope\b|<\|")
_FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\$((?:[^$\\]|\\.){1,2000})\$|\\\(((?:[^\\]|\\(?!\))){1,2000})\\\)|"
    r"\\\[((?:[^\\]|\\(?!\])){1,2000})\\\]"
)
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:[$€£¥]\s?)?[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:[.,]\d+)?(?:\s?/\s?\d+)?"
    r"(?:[eE][-+]?\d{1,4}\b)?(?:\s?(?:\\?%|percent\b|pct\b))?"
)
_CHOICE = re.compile(r"(?<![A-Za-z\\])\(?([A-J])\)?(?![A-Za-z'\u2019])")
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n?", re.MULTILINE)


def extract_answer(text: str, answer_type: str = "math", guess: bool = True) -> str | None:
    """The final answer of a solution, as the solution writes it; None if there is none.

    Args:
        text: the solution, hostile: any length, any characters.
        answer_type: one of `ANSWER_TYPES`; another one is treated as `math`.
        guess: whether the last formula or number counts where nothing is marked as the answer. Switch it off
            for a text that was cut: its last number is an accident.
    """
    if answer_type == "code":
        return _code(text) or None
    marked = _marked(text)
    if answer_type == "choice":
        return _choice(text, marked, guess)
    if answer_type == "yesno":
        found = _YES_NO.findall(marked if marked is not None else text if guess else "")
        return _as_yes_no(found[0] if marked is not None else found[-1]) if found else None
    if marked is not None:
        return marked or None
    if not guess:
        return None
    if answer_type == "string":
        lines = text.split("\n")
        return next((clean for line in reversed(lines) if (clean := _clean(line))), None)
    return _last_formula_or_number(text)


def gold_answer(text: str) -> str:
    """The reference answer in a gold column: after `####`, in a `\\boxed`, after `A:`, or the text itself."""
    marked = _marked(text)
    return marked if marked else text.strip()


def boxed(text: str) -> str | None:
    """What the last `\\boxed` holds, braces matched; boxes in a row ("... and ...") are one list.

    A box that never closes holds the rest of its line.
    """
    boxes: list[tuple[int, int, str]] = []
    for found in _BOX.finditer(text):
        if boxes and found.start() < boxes[-1][1]:
            boxes.pop()  # a box in a box: the inner one says it
        end, content = _argument(text, found.end())
        boxes.append((found.start(), end, content))
    if not boxes:
        return None
    last = len(boxes) - 1
    while (
        last
        and boxes[last][0] - boxes[last - 1][1] < 60
        and _only_joins(text[boxes[last - 1][1] : boxes[last][0]])
    ):
        last -= 1
    row = [content.strip() for _, _, content in boxes[last:]]
    return row[-1] if len(set(row)) == 1 else ", ".join(row)


def _only_joins(between: str) -> bool:
    return _BETWEEN_BOXES.fullmatch(between) is not None


def _argument(text: str, start: int) -> tuple[int, str]:
    """The TeX argument at `start`: where it ends, and what it holds."""
    if start >= len(text):
        return start, ""
    if text[start] != "{":
        bare = re.compile(r"\\[a-z]?frac\s*(?:\{[^{}]*\}|\d)\s*(?:\{[^{}]*\}|\d)|-?[\w.,]+").match(
            text, start
        )
        return (bare.end(), bare.group()) if bare else (start, "")
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if not depth:
            return brace.end(), text[start + 1 : brace.start()]
    line = text[start + 1 :].split("\n", 1)[0]
    return start + 1 + len(line), line.rstrip("$ .")


def _marked(text: str) -> str | None:
    """The answer that the text marks as such; "" if the mark is there and nothing behind it."""
    if (content := boxed(text)) is not None and content.strip():
        return content.strip()
    if (at := text.rfind("####")) >= 0:
        return _clean(text[at + 4 :].strip().split("\n", 1)[0])
    for marker in (_PHRASE, _A_LINE):
        last = None
        for last in marker.finditer(text):  # noqa: B007  the last match is wanted
            pass
        if last:
            return _tail(text[last.end() : last.end() + 4000])
    return None


def _tail(text: str) -> str:
    """The answer at the head of what follows "the answer is"."""
    text = text.lstrip(" \t\n*:_")
    formula = _FORMULA.search(text[:2000])
    end = _SENTENCE_END.search(text)
    if formula and (not end or formula.start() < end.start()) and not _NUMBER.search(text[: formula.start()]):
        return _formula(formula, text)
    return _clean(text[: end.start()] if end else text)


def _formula(found: re.Match[str], text: str) -> str:
    percent = re.compile(r"\s?(?:\\?%|percent\b|pct\b)").match(text, found.end())
    content = next(group for group in found.groups() if group is not None).strip()
    return content + "\\%" if percent else content


def _clean(line: str) -> str:
    """A line without the marks of emphasis, quotation and the full stop around it."""
    return line.strip().strip("*_`\"'“” \t").rstrip(".,;: ").strip()


def _last_formula_or_number(text: str) -> str | None:
    tail = text[-20_000:]
    last = None
    for last in _FORMULA.finditer(tail):  # noqa: B007
        pass
    numbers = list(_NUMBER.finditer(tail, last.end() if last else 0))
    if numbers:
        return numbers[-1].group().strip()
    return _formula(last, tail) if last else None


def _choice(text: str, marked: str | None, guess: bool) -> str | None:
    if marked is not None and (found := _CHOICE.search(marked)):
        return found.group(1)
    if not guess:
        return None
    letters = re.findall(r"\(([A-J])\)|^\W{0,4}([A-J])\W{0,4}$", text, re.MULTILINE)
    return next((a or b for a, b in reversed(letters)), None)


def _as_yes_no(word: str) -> str:
    return "yes" if word.lower() in ("yes", "true") else "no"


def _code(text: str) -> str:
    """The last fenced block, or all of the text."""
    fences = list(_FENCE.finditer(text))
    if not fences:
        return text.strip("\n")
    if len(fences) % 2:  # the last block was cut before its closing fence
        return text[fences[-1].end() :].strip("\n")
    return text[fences[-2].end() : fences[-1].start()].strip("\n")
