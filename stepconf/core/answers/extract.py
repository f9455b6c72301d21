"""Finding the answer in a solution's text, and the reference answer in a data set's column.

Markers are tried from the most to the least explicit: the last `\\boxed`, the last `####`, "the answer is",
a last line "A: 18", then, as a guess, the last formula or number. Everything here is linear in the text.
"""

import re
from collections import deque
from typing import Literal, get_args

from stepconf.core.answers.expression import read
from stepconf.core.answers.literal import literal_answer
from stepconf.core.answers.notation import UnreadableError

AnswerType = Literal["math", "number", "choice", "yesno", "string", "literal", "code"]
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)

_BOX = re.compile(r"\\(?:f|frame)?box(?:ed)?\s*(?=[{\s0-9\\-])")
_BARE_ARGUMENT = re.compile(r"\\[dtc]?frac\s*(?:\{[^{}]*\}|[0-9])\s*(?:\{[^{}]*\}|[0-9])|-?[0-9A-Za-z.,]+")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_JOIN = re.compile(r",|\band\b|\bor\b")
_PHRASE = re.compile(
    r"\banswer(?:\s+(?:to|for|of)\b[^.\n:]{0,80}?)?\s{0,3}(?:\*\*|__)?\s{0,3}(?::|=|\bis\b(?:\s{0,3}:)?)",
    re.IGNORECASE,
)
_A_LINE = re.compile(r"^[ \t]{0,8}(?:\*\*)?A(?:\*\*)?:", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|\bI hope\b|<\|")
_FORMULA = re.compile(
    r"\$\$([^$]{1,800})\$\$|\$((?:[^$\\]|\\.){1,800})\$|\\\(((?:[^\\]|\\(?!\))){1,800})\\\)|"
    r"\\\[((?:[^\\]|\\(?!\])){1,800})\\\]",
    re.DOTALL,
)
_PERCENT = re.compile(r"\s?(?:\\?%|percent\b|pct\b)")
_NUMBER = re.compile(
    r"(?<![\w.,])[-+\u2212]?(?:[$\u20ac\u00a3\u00a5]\s?)?[-+\u2212]?"
    r"(?:[0-9]{1,2}:[0-5][0-9](?:\s?[ap]\.?m\b\.?)?|[0-9]+\s[0-9]+/[0-9]+"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:[.,][0-9]+)?(?:\s?/\s?[0-9]+)?(?:[eE][-+]?[0-9]{1,4}\b)?|\.[0-9]+)"
    r"(?:\s?(?:\\?%|percent\b|pct\b))?",
)
_STARTS_WITH_VALUE = re.compile(
    r"[-+\u2212]?\s?[$\u20ac\u00a3\u00a5]?\s?[0-9.(\[{\\]|[A-Za-z](?:_\w)?\s?(?:=|\\in)"
)
_NOT_BARE = re.compile(r"\n|\$|\\[(\[]|(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")
_CHOICE = re.compile(r"(?<![A-Za-z\\])\(?([A-J])\)?(?![A-Za-z'\u2019])")
_LONE_CHOICE = re.compile(r"\(([A-J])\)|^\W{0,4}([A-J])\W{0,4}$", re.MULTILINE)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]{0,8}```[^\n]*\n?", re.MULTILINE)
_TAIL_CHARS = 4000  # how far behind a mark, or from the end, an answer is looked for
_MAX_PARTS = 20  # boxes or formulas that may together be one answer


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
    if answer_type == "literal":
        return literal_answer(text, boxed(text), guess)
    marked = _marked(text, answer_type)
    if answer_type == "choice":
        return _choice(text, marked, guess)
    if answer_type == "yesno":
        found = _YES_NO.findall(marked if marked is not None else text[-_TAIL_CHARS:] if guess else "")
        return _as_yes_no(found[0] if marked is not None else found[-1]) if found else None
    if marked is not None or not guess:
        return marked
    if answer_type == "string":
        return next(
            (clean for line in reversed(text[-_TAIL_CHARS:].split("\n")) if (clean := _clean(line))), None
        )
    return _bare_answer(text) or _last_value(text[-_TAIL_CHARS:])


def gold_answer(text: str, answer_type: str = "math") -> str:
    """The reference answer in a gold column: after `####`, in a `\\boxed`, after `A:`, or the text itself.

    In a Python value or a program such marks are just text.
    """
    return (None if answer_type in ("literal", "code") else _marked(text, "math")) or text.strip()


def boxed(text: str) -> str | None:
    """What the last `\\boxed` holds, braces matched; boxes in a row ("... and ...") are one list.

    A box that never closes holds the rest of its line.
    """
    boxes: list[tuple[int, int, str]] = []
    for found in deque(_BOX.finditer(text), maxlen=_MAX_PARTS):
        if boxes and found.start() < boxes[-1][1]:
            boxes.pop()  # a box in a box: the inner one says it
        end, content = _argument(text, found.end())
        boxes.append((found.start(), end, content))
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    row = [content.strip() for _, _, content in boxes[first:]]
    return row[-1] if len(set(row)) == 1 else ", ".join(row)


def _joined(between: str) -> bool:
    """Whether two boxes with this between them are one answer in two parts."""
    return len(between) < 10 or (len(between) < 70 and "\n\n" not in between and bool(_JOIN.search(between)))


def _argument(text: str, start: int) -> tuple[int, str]:
    """The TeX argument at `start`: where it ends, and what it holds."""
    if start >= len(text):
        return start, ""
    if text[start] != "{":
        bare = _BARE_ARGUMENT.match(text, start)
        return (bare.end(), bare.group()) if bare else (start, "")
    depth = 0
    for brace in _BRACE.finditer(text, start, start + _TAIL_CHARS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if not depth:
            return brace.end(), text[start + 1 : brace.start()]
    line = text[start + 1 : start + _TAIL_CHARS].split("\n", 1)[0]
    return start + 1 + len(line), line.rstrip("$ .")


def _marked(text: str, answer_type: str) -> str | None:
    """The answer that the text marks as such."""
    if content := boxed(text):
        return content
    if (at := text.rfind("####")) >= 0:
        line, _, rest = text[at + 4 : at + _TAIL_CHARS].strip().partition("\n")
        heading = _clean(line)
        if heading and (not rest or _NUMBER.fullmatch(heading)):  # else it is a Markdown heading
            return heading
    ends = deque((found.end() for found in _PHRASE.finditer(text)), maxlen=5)
    ends.extendleft([found.end() for found in _A_LINE.finditer(text)][-1:])
    for end in reversed(ends):
        if answer := _behind_mark(text[end : end + _TAIL_CHARS], answer_type, len(text) - end < 100):
            return answer
    return None


def _behind_mark(text: str, answer_type: str, at_end: bool) -> str | None:
    """The answer at the head of what follows "the answer is"; None if there is only talk.

    Words may be the answer at the end of a solution only: before it, they announce one.
    """
    text = text.lstrip(" \t\n*:_")
    end = _SENTENCE_END.search(text)
    sentence = _clean(text[: end.start()] if end else text)
    if answer_type in ("choice", "yesno", "string"):
        return sentence or None
    if formulas := _formulas_at(text, 0):
        return formulas
    if _STARTS_WITH_VALUE.match(sentence):
        return sentence
    return _last_value(sentence) or (sentence if at_end and 0 < len(sentence.split()) <= 5 else None)


def _bare_answer(text: str) -> str | None:
    """The whole text, where it is one short line of mathematics and nothing else."""
    line = _clean(text[:200])
    if len(text) > 200 or _NOT_BARE.search(line):
        return None
    try:
        return line if all(tree[0] != "text" for tree in read(line)) else None
    except UnreadableError:
        return None


def _formulas_at(text: str, start: int) -> str:
    """The formula that begins here, with those joined to it by commas, "and" or "or"; "" if none does."""
    parts: list[str] = []
    while (found := _FORMULA.match(text, start)) and len(parts) < _MAX_PARTS:
        content = next(group for group in found.groups() if group is not None).strip()
        percent = _PERCENT.match(text, found.end())
        parts.append(content + "\\%" if percent else content)
        joint = re.compile(r"\s{0,3}(?:,\s{0,3}(?:and|or)?|and|or)\s{0,3}").match(text, found.end())
        if not joint:
            break
        start = joint.end()
    return ", ".join(parts)


def _last_value(text: str) -> str | None:
    """The last formula or number of a text."""
    formula = None
    for formula in _FORMULA.finditer(text):  # noqa: B007  the last one is wanted
        pass
    numbers = list(_NUMBER.finditer(text, formula.end() if formula else 0))
    if numbers:
        return numbers[-1].group().strip()
    if not formula:
        return None
    return _formulas_at(text, formula.start()) or None


def _clean(line: str) -> str:
    """A line without the marks of emphasis, quotation and the full stop around it."""
    return line.strip().strip("*_`\"'“” \t").rstrip(".,;: ").strip()


def _choice(text: str, marked: str | None, guess: bool) -> str | None:
    if marked is not None and (found := _CHOICE.search(marked)):
        return found.group(1)
    if not guess:
        return None
    return next((a or b for a, b in reversed(_LONE_CHOICE.findall(text[-_TAIL_CHARS:]))), None)


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
