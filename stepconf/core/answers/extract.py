"""Finding the answer in a solution's text, and the reference answer in a data set's column.

The last answer that the text marks as such wins, of whatever kind the mark is: a box, "the answer is" in several
languages, `####`, a line "A: 18", `<answer>` tags, a line in bold type. Where nothing is marked, the last formula
or number is a guess. Only what stands after a thinking part and before the end of the turn is looked at.
Everything here is linear in the text.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from stepconf.core.answers.boxes import boxed, boxes, broken_at
from stepconf.core.answers.endings import CHOICE, YES_NO, Ending, Said, said_in, stands
from stepconf.core.answers.literal import literal_answer
from stepconf.core.answers.wording import RATIO
from stepconf.core.maths.forms import head, read
from stepconf.core.maths.notation import FUNCTIONS, UPRIGHT, folded
from stepconf.core.maths.tree import Num, Var, Words
from stepconf.core.reasoning import BY_MARKS, Thinking, after_thinking, divide

AnswerType = Literal["math", "number", "choice", "yesno", "string", "literal", "code"]
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)

_TURN_ENDS = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|end_of_text|endoftext|end|return|user)\|>|</s>|<end_of_turn>|<｜end"
)
_PHRASE = re.compile(
    r"""\banswers?(?:\s+(?:to|for|of)\b[^.\n:]{0,80}?)?["”*_]{0,3}\s{0,3}(?:\*\*|__)?\s{0,3}
        (?::|=|\b(?:is|are|must\ be|would\ be)\b(?:\s{0,3}:)?)
    | 答案\s?(?:应?[是为為])?\s?:? | 答えは | 答\s?: | [Оо]твет\w?\s?[:—–-]? | 답은 | 정답[은:]
    | \b(?:respuesta|risposta|resposta)(?:\s+final\w?)?\s?(?::|\b(?:es|è|é)\b)
    | \br[ée]ponse(?:\s+finale)?\s?(?::|\best\b) | \b(?:Antwort|Ergebnis|L[öo]sung)\s?(?::|\b(?:ist|lautet)\b)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_A_LINE = re.compile(r"^[ \t]{0,8}(?:\*\*)?A(?:\*\*)?:", re.MULTILINE)
_TAGGED = re.compile(r"<answer>")
_BOLD_LINE = re.compile(r"^[ \t]{0,8}(\*\*|__)(?=[^\n]{1,120}?\1[^\w\n]{0,6}\s*\Z)", re.MULTILINE)
_FILLER = re.compile(
    r"(?:(?:therefore|thus|then|simply|just|exactly|approximately|about|around|equal to|given by|now|clearly|only"
    r"|indeed|a total of|the (?:point|number|value|set|interval|function|pair|ordered pair|fraction|ratio))\b[\s:,]*)+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=\s|$)|\n|\bI hope\b|<\||</")
_FORMULA = re.compile(
    r"\$\$([^$]{1,800})\$\$|\$((?:[^$\\]|\\.){1,800})\$|\\\(((?:[^\\]|\\(?!\))){1,800})\\\)|"
    r"\\\[((?:[^\\]|\\(?!\])){1,800})\\\]",
    re.DOTALL,
)
_PERCENT = re.compile(r"\s?(?:\\?%|percent\b|pct\b)")
_NUMBER = re.compile(
    r"(?<![\w.,])(?:(?<!-)negative\s{1,3}|(?<=\bis\s)minus\s{1,3})?[-+\u2212]?(?:[$\u20ac\u00a3\u00a5]\s?)?[-+\u2212]?"
    r"(?:[0-9]{1,2}:[0-5][0-9](?:\s?[ap]\.?m\b\.?)?|[0-9]+\s[0-9]+/[0-9]+"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:[.,][0-9]+)?(?:\s?/\s?[0-9]+)?(?:[eE][-+]?[0-9]{1,4}\b)?|\.[0-9]+)"
    r"(?:\s?(?:\\?%|percent\b|pct\b))?",
)
_GLUED_NUMBER = re.compile(r"[0-9][0-9.,]*")  # between letters of a script that sets no spaces
_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")
_PROSE_WORD = re.compile(r"[a-z]{2,}|[^\W\d_A-Za-z]{2,}")
_STARTS_WITH_NUMBER = re.compile(r"[-+\u2212]?[$\u20ac\u00a3]?[0-9.]")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_LONE_CHOICE = re.compile(r"\(([A-J])\)|^\W{0,4}([A-J])\W{0,4}$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]{0,8}```[^\n]*\n?", re.MULTILINE)
_LEADING = re.compile(r"^(?:\n[ \t]*[-•*][ \t]|[\s*:_\"'`=：\u201c])+")  # at a line's start, `- ` is a bullet
_BULLETS = re.compile(r"[\s:*_]{0,8}?((?:\n\s{0,8}[-•*][ \t]+[^\s][^\n]{0,60}){2,20})")
_SAID_SIGN = re.compile(
    r"(?:negative|minus)\s{1,3}"
    r"(?=(\$|\\\()?\s?(?:\.?[0-9][0-9.,/]{0,40}|\\[dt]?frac\{[0-9]{1,20}\}\{[0-9]{1,20}\})\s?(\$|\\\))?)",
    re.IGNORECASE,
)
_EXCLAIMED = re.compile(r"(?<=[0-9])!(?=[*_\"”]*(?:\s*$|\s*\n|\s+[^\sa-z0-9=+*/^,.()<>≈×·÷\\$-]))")
_AT_END = 100  # characters: what stands so near the end ends the solution
_TAIL_CHARS = 4000  # how far after a mark, or from the end, an answer is looked for
_MAX_PARTS = 20  # formulas that may together be one answer
_MAX_MARKS = 8  # of each kind that are looked at, from the last


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as the solution writes it. One that is not `marked` is a guess."""

    text: str
    marked: bool


def find_answer(
    text: str,
    answer_type: str = "math",
    guess: bool = True,
    thinking: Thinking = BY_MARKS,
    more_follows: bool = False,
) -> Found | None:
    """The final answer of a solution; None if there is none, and where its thinking never ends.

    Args:
        text: the solution, hostile: any length, any characters.
        answer_type: one of `ANSWER_TYPES`; another one is treated as `math`.
        guess: whether what nothing marks may be the answer. Switch it off for a text that was cut: its last
            number is an accident, and a marked answer at its very end may be the beginning of another.
        thinking: how its thinking is divided from its answer.
        more_follows: whether the text ends with a step after which the solution goes on. Words in a sentence of it
            are no answer: they may announce one.
    """
    whole, text = text, answer_part(text, thinking)
    # What stands before the end of a turn was not cut.
    ending: Ending = "step" if more_follows else "solution" if guess or not whole.endswith(text) else "cut"
    if answer_type == "code":
        return _found(_code(text) or None)
    if answer_type == "literal":
        unbroken = text[: broken_at(text)] if ending == "cut" else text
        return _found(literal_answer(text, boxed(unbroken), guess, ending))
    marked = _marked(text, answer_type, ending)
    if answer_type == "choice":
        return _found(_choice(text, marked, guess))
    if answer_type == "yesno":
        found = YES_NO.findall(marked if marked is not None else text[-_TAIL_CHARS:] if guess else "")
        return _found(_as_yes_no(found[0] if marked is not None else found[-1]) if found else None)
    if marked is not None or not guess:
        return _found(marked)
    if answer_type == "string":
        lines = (_clean(line) for line in reversed(text[-_TAIL_CHARS:].split("\n")))
        return _found(next((line for line in lines if line), None))
    return _found(_bare_answer(text)) or _found(_last_value(text[-_TAIL_CHARS:]), marked=False)


def extract_answer(
    text: str,
    answer_type: str = "math",
    guess: bool = True,
    thinking: Thinking = BY_MARKS,
    more_follows: bool = False,
) -> str | None:
    """The text of `find_answer`."""
    found = find_answer(text, answer_type, guess, thinking, more_follows)
    return found.text if found else None


def gold_answer(text: str, answer_type: str = "math") -> str:
    """The reference answer in a gold column: the last one that it marks, or the text itself.

    In a Python value or a program such marks are just text.
    """
    return (None if answer_type in ("literal", "code") else _marked(text, "math")) or text.strip()


def answer_part(text: str, thinking: Thinking = BY_MARKS) -> str:
    """What a model says after it has thought, up to the end of its turn; "" where it has only thought."""
    text = after_thinking(text, divide(text, thinking))
    end = _TURN_ENDS.search(text, len(text) - len(text.lstrip()) + 1)
    return text[: end.start()] if end else text


def _found(text: str | None, marked: bool = True) -> Found | None:
    return None if text is None else Found(text, marked)


def _marked(text: str, answer_type: str, ending: Ending = "solution") -> str | None:
    """The last answer that the text marks as such."""
    marks = sorted(_mark_ends(folded(text)), reverse=True)
    if ending == "cut":
        text = text[: broken_at(text)]
    found = boxes(text)
    for start in marks:
        if found and found[-1][0] >= start:
            break
        said = _behind_mark(text, start, answer_type)
        if said is not None and stands(said, text, start, answer_type, ending):
            return said.text
    return found[-1][1] if found else None


def _mark_ends(text: str) -> Iterator[int]:
    """Where marked answers may begin."""
    for pattern in (_PHRASE, _A_LINE, _TAGGED, _BOLD_LINE):
        yield from (found.end() for found in deque(pattern.finditer(text), maxlen=_MAX_MARKS))
    if (at := text.rfind("####")) >= 0:
        line, _, rest = text[at + 4 : at + _TAIL_CHARS].strip().partition("\n")
        if line and (not rest or _NUMBER.fullmatch(_clean(line))):  # else it is a Markdown heading
            yield at + 4


def _behind_mark(text: str, start: int, answer_type: str) -> Said | None:
    """The answer at the head of what follows a mark; None if there is only talk.

    Words may be the answer at the end of a solution only: before it, they announce one.
    """
    listed = _bullets(text[start : start + _TAIL_CHARS])
    rest = _LEADING.sub("", text[start : start + _TAIL_CHARS])
    bold = next((mark for mark in ("**", "__") if text.endswith(mark, 0, start)), "")
    if _PHRASE.search(text, max(0, start - 30), start):
        bold = ""
    end = _SENTENCE_END.search(rest)
    sentence = _clean(rest[: end.start()] if end else rest)
    spoken = said_in(rest, sentence, answer_type)
    if answer_type in ("choice", "yesno", "string"):
        return spoken if sentence else None
    if text.endswith("####", 0, start):
        line = _clean(rest.partition("\n")[0])
        return said_in(rest, line) if line else None
    filler = _FILLER.match(rest)
    rest = _signed(rest[filler.end() :] if filler else rest)
    if ratio := RATIO.match(rest):
        return Said(ratio.group(), rest[ratio.end() :])
    if listed:
        return listed
    if formulas := _formulas_at(rest, 0):
        # The mark that closes a formula is behind what it holds, so its beginning serves as what follows.
        return None if _goes_on(text, start, formulas, sentence) else Said(formulas, rest)
    rest = rest if bold else _calm(rest)
    line = _clean(rest.partition("\n")[0].replace("$ $", " "))
    if _is_formula(line):
        return said_in(rest, line)
    length = head(rest[:400])
    if bold and (not length or _clean(rest[length : rest.find(bold)])):
        return None
    if length:
        return Said(rest[:length].strip(), rest[length:])
    values = _places_of_values(sentence)
    if len(values) == 1 and not _VARIABLE.search(values[0][2]):
        return Said(values[0][2], sentence[values[0][1] :] + spoken.after)
    at_end = len(text) - start < _AT_END
    return spoken if not values and at_end and 0 < len(sentence.split()) <= 5 else None


def _bullets(text: str) -> Said | None:
    """The values of a list with bullets at the head of a text; None where there is one, or it is talk."""
    found = _BULLETS.match(text)
    lines = [_clean(line.strip()[1:]) for line in found[1].split("\n") if line.strip()] if found else []
    values = [read(line) for line in lines]
    plain = all(forms and not isinstance(forms[0], Words) for forms in values)
    if not found or not plain:
        return None
    # A list may go on in the next line.
    return Said(", ".join(line.strip("$") for line in lines), text[found.end() :].lstrip("\n"))


def _signed(rest: str) -> str:
    """ "negative 3" and "minus $3$" at the start, with their sign before the number."""
    said = _SAID_SIGN.match(rest)
    if not said:
        return rest
    value = rest[said.end() :]
    if said[1] and said[2]:
        return f"{said[1]}-{value[len(said[1]) :]}"
    return rest if said[1] and "$" in value[1:].partition("\n")[0] else "-" + value  # `minus $3x$` stays


def _calm(rest: str) -> str:
    """Without the exclamation mark that ends the first sentence: it is no factorial, unless it is one of several."""
    first = rest.find("!")
    ends = _EXCLAIMED.match(rest, first) if first >= 0 and "\n" not in rest[:first] else None
    return rest[:first] + "." + rest[first + 1 :] if ends else rest


def _goes_on(text: str, start: int, formulas: str, sentence: str) -> bool:
    """Whether formulas after a mark are no answer: the text evaluates them, or talks of a variable."""
    after = len(text) - start - len(formulas)
    if not _VARIABLE.search(formulas) or not ("=" in sentence[len(formulas) :] or after > _AT_END):
        return False
    later = _last_value(text[-3 * _AT_END :])
    evaluated = later is not None and later != formulas and not _VARIABLE.search(later)
    return evaluated or (after > _AT_END and _is_lone_variable(formulas))


def _is_formula(line: str) -> bool:
    """Whether a line is TeX, or mathematics that needs none, and no prose."""
    outside = _COMMAND.sub(" ", UPRIGHT.sub(" ", line))
    words = {word for word in _PROSE_WORD.findall(outside) if len(word) > 2 or "\\" not in line}
    if not line or "$" in line or words - FUNCTIONS - {"and", "or", "sqrt", "pi"}:
        return False
    return "\\" in line or bool(read(line))


def _bare_answer(text: str) -> str | None:
    """The whole text, where it is one short line of mathematics and nothing else."""
    line = _clean(text[:200])
    if len(text) > 200 or "\n" in line:
        return None
    inside = _FORMULA.fullmatch(line)
    bare = next(group for group in inside.groups() if group) if inside else line
    spoken = any(isinstance(form, Num) for form in read(bare))  # "one hundred"
    formula = _is_formula(bare) or _STARTS_WITH_NUMBER.match(bare)
    return line if spoken or (read(bare) and formula) else None


def _formulas_at(text: str, start: int) -> str:
    """The formula that begins here, with those that the text lists with it; "" if none does."""
    parts: list[str] = []
    while (found := _FORMULA.match(text, start)) and len(parts) < _MAX_PARTS:
        content = next(group for group in found.groups() if group is not None).strip()
        percent = _PERCENT.match(text, found.end())
        parts.append(content + "\\%" if percent else content)
        start = found.end()
        joint = re.compile(r"\s{0,3}(?:,\s{0,3}(?:and|or)?|and|or)\s{0,3}").match(text, start)
        if not joint:
            break
        start = joint.end()
    words = re.compile(r"[ \t]*[a-z]+ +[a-z]+", re.IGNORECASE).match(text, start)
    return parts[0] if len(parts) > 1 and words else ", ".join(parts)


def _values(text: str) -> list[str]:
    """The formulas and numbers of a text, in order; a lone variable is no answer."""
    return [value for _, _, value in _places_of_values(text)]


def _places_of_values(text: str) -> list[tuple[int, int, str]]:
    """Where each of the `_values` begins, where it ends, the mark that closes a formula left out, and what it is."""
    found: list[tuple[int, int, str]] = []
    at = 0
    for formula in [*_FORMULA.finditer(text), None]:
        end = formula.start() if formula else len(text)
        found += [(*n.span(), _signed(n.group().strip())) for n in _NUMBER.finditer(text, at, end)]
        if formula:
            found.append((formula.start(), formula.end() - 1, _formulas_at(text, formula.start())))
            at = formula.end()
    if not found and not text.isascii():
        found = [(*n.span(), n.group().rstrip(".,")) for n in _GLUED_NUMBER.finditer(folded(text))]
    return [place for place in sorted(found) if not _is_lone_variable(place[2])]


def _is_lone_variable(value: str) -> bool:
    forms = read(value)
    return bool(forms) and all(isinstance(form, Var) for form in forms)


def _last_value(text: str) -> str | None:
    return next(reversed(_values(text)), None)


def _clean(line: str) -> str:
    """A line without the marks of emphasis, quotation and the full stop around it."""
    return line.strip().strip("*_`\"'“” \t").rstrip(".,;: ").strip()


def _choice(text: str, marked: str | None, guess: bool) -> str | None:
    if marked is not None and (found := CHOICE.search(marked)):
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
