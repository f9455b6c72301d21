"""Where a reasoning model thinks and where it answers: pure, linear in the text.

Models write their thinking between two marks, in front of the answer. A chat template may write the opening mark
itself, so that a completion begins inside the thinking.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple

from stepconf.core.protected import Span, code_blocks
from stepconf.core.statements import without_tags

Part = Literal["reasoning", "answer"]
PARTS: tuple[Part, ...] = ("reasoning", "answer")


class Family(NamedTuple):
    """Models that mark their thinking alike.

    Args:
        name: what the recipe key `reasoning` calls it.
        opening: the mark that begins the thinking, as a chat template or a model writes it.
        closing: the mark that ends it.
        opens: a regular expression, where the opening mark is written in several ways.
        closes: the same of the closing mark.
        hints: a text without any of these has none of the marks; empty: the two marks.
    """

    name: str
    opening: str
    closing: str
    opens: str = ""
    closes: str = ""
    hints: tuple[str, ...] = ()


FAMILIES = (
    # DeepSeek-R1, Qwen3 and QwQ, GLM-4.5 and GLM-Z1, MiniMax, Nemotron, Granite, SmolLM3, Step, ERNIE.
    Family("think", "<think>", "</think>"),
    Family("thinking", "<thinking>", "</thinking>"),
    Family("reasoning", "<reasoning>", "</reasoning>"),
    Family("mistral", "[THINK]", "[/THINK]"),
    # gpt-oss. Without special tokens, its two channels read `analysisWe add ...assistantfinalThe sum is ...`.
    Family(
        "harmony",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis(?:<\|message\|>)?|\Aanalysis(?=[A-Z])",
        r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final(?:<\|message\|>)?|assistantfinal(?=\S)",
        ("<|channel|>", "assistantfinal"),
    ),
    # Gemma 4.
    Family("gemma", "<|channel>thought", "<channel|>"),
    Family("kimi", "◁think▷", "◁/think▷"),
    Family("seed", "<seed:think>", "</seed:think>"),
)
NAMES = ("auto", "none", *(family.name for family in FAMILIES))
_BY_NAME = {family.name: family for family in FAMILIES}
_PATTERNS = {
    family.name: re.compile(
        f"(?P<opening>{family.opens or re.escape(family.opening)})|(?:{family.closes or re.escape(family.closing)})"
    )
    for family in FAMILIES
}
_FENCE_ENDS = ("```", "~~~", "[/asy]")
_LONGEST_TAGS = 200  # characters of turn-ending tokens that may follow an answer that is not there


class Thinking(NamedTuple):
    """How the thinking of a completion is divided from its answer.

    Args:
        family: one of `NAMES`; auto: any family's marks, none: the whole text is the answer.
        opened: the prompt ends with the opening mark.
    """

    family: str = "auto"
    opened: bool = False


BY_MARKS = Thinking()  # of a text of which no more is known


class Parts(NamedTuple):
    """The characters of a text that are thinking: half-open, with the marks; `body_*` are without them.

    Args:
        start: where the thinking begins.
        end: where the answer begins; the text's end where there is none.
        body_start: one past the opening mark.
        body_end: where the closing mark begins.
        closed: False where the thinking never ends.
        family: whose marks they are.
    """

    start: int
    end: int
    body_start: int
    body_end: int
    closed: bool
    family: str

    def after(self, at: int) -> "Parts | None":
        """The parts of the text from the character `at` on; None where that is answer alone."""
        if self.end <= at:
            return None
        start, end, body_start, body_end = (max(place - at, 0) for place in self[:4])
        return Parts(start, end, body_start, body_end, self.closed, self.family)


class _Mark(NamedTuple):
    start: int
    end: int
    is_opening: bool
    in_code: bool


def divide(text: str, thinking: Thinking = BY_MARKS) -> Parts | None:
    r"""Where the thinking of a text begins and ends; None where it holds none.

    - A closing mark without an opening one ends a thinking that the prompt has opened.
    - The thinking ends at the last closing mark after which something is said; where nothing is, at the first.
    - Thinking that opens again at the start of a line after that, and never ends, goes to the end of the text.
    - Marks inside code are text, unless the thinking would have no end without them.

    >>> text = "<think>\n2 + 2 = 4\n</think>\n\nIt is 4."
    >>> parts = divide(text)
    >>> text[parts.end :]
    '\n\nIt is 4.'
    """
    family, marks = _marks_of(text, thinking.family)
    if thinking.family == "none" or not (family or thinking.opened):
        return None
    usable = [mark for mark in marks if not mark.in_code]
    if not (usable or thinking.opened):
        return None
    start, body_start = _beginning(text, usable, thinking.opened)
    later = [mark for mark in usable if mark.start >= body_start]
    if all(mark.is_opening for mark in later):
        later = [mark for mark in marks if mark.start >= body_start]
    closing = _last_end(text, later)
    reopened = closing is not None and any(
        mark.is_opening and mark.start >= closing.end and _starts_line(text, mark.start)
        for mark in takewhile(lambda mark: mark.is_opening, reversed(later))
    )
    if closing is None or reopened:
        return Parts(start, len(text), body_start, len(text), False, family)
    end = closing.end if holds_words(text[closing.end :]) else len(text)
    return Parts(start, end, body_start, closing.start, True, family)


def after_thinking(text: str, parts: Parts | None) -> str:
    """What a solution says once it has thought; "" where its thinking never ends."""
    if parts is None:
        return text
    return text[parts.end :] if parts.closed else ""


def part_of(text: str, span: Span, parts: Parts | None) -> Part:
    """The part of a step: `reasoning` where it says something between the marks, and nothing before them."""
    if parts is None:
        return "answer"
    start, end = span
    if text[start : max(start, parts.start)].strip():
        return "answer"
    inside = text[max(start, parts.body_start) : min(end, parts.body_end)].strip()
    return "reasoning" if inside or (end > parts.start and not parts.closed) else "answer"


def family_in(template: str) -> str:
    """The family whose marks a chat template holds; `auto` where it holds none."""
    return next((one.name for one in FAMILIES if one.opening in template or one.closing in template), "auto")


def opened_by(prompt: str, family: str) -> str:
    """The family whose opening mark a prompt ends with, white space apart; "" where it ends with none.

    Args:
        prompt: the end of it is enough.
        family: one of `NAMES`; only its mark counts, any with auto.
    """
    ending = prompt.rstrip()
    return next((one.name for one in _families(family) if ending.endswith(one.opening)), "")


def closing_mark(family: str) -> str:
    """The mark that ends the thinking of a family, on a line of its own; that of `think` for auto."""
    return f"\n{_BY_NAME.get(family, FAMILIES[0]).closing}\n\n"


def _families(name: str) -> Iterable[Family]:
    return FAMILIES if name == "auto" else [_BY_NAME[name]] if name in _BY_NAME else []


def _marks_of(text: str, name: str) -> tuple[str, list[_Mark]]:
    """The family that marks the text, and its marks; of several families the one whose mark comes first."""
    blocks: list[Span] | None = None
    best: tuple[str, list[_Mark]] = ("" if name == "auto" else name, [])
    for family in _families(name):
        if not any(hint in text for hint in family.hints or (family.opening, family.closing)):
            continue
        if blocks is None:
            blocks = _closed_blocks(text)
        marks = [
            _Mark(*found.span(), found["opening"] is not None, _in_code(text, found.span(), blocks))
            for found in _PATTERNS[family.name].finditer(text)
        ]
        if marks and (not best[1] or _first(marks) < _first(best[1])):
            best = (family.name, marks)
    return best


def _first(marks: Sequence[_Mark]) -> tuple[bool, int]:
    """The order of families: those with a mark outside code first, then by place."""
    outside = next((mark for mark in marks if not mark.in_code), None)
    return (outside is None, (outside or marks[0]).start)


def _closed_blocks(text: str) -> list[Span]:
    """Code blocks that end: a fence left open in the thinking must not hide the mark that ends it."""
    if "```" not in text and "~~~" not in text and "[asy]" not in text:
        return []
    return [
        (start, end) for start, end in code_blocks(text) if text[start:end].rstrip().endswith(_FENCE_ENDS)
    ]


def _in_code(text: str, span: Span, blocks: Sequence[Span]) -> bool:
    start, end = span
    inline = start > 0 and text[start - 1] == "`" and text[end : end + 1] == "`"
    before = bisect_right(blocks, (start, len(text)))
    return inline or (before > 0 and start < blocks[before - 1][1])


def _beginning(text: str, marks: Sequence[_Mark], opened: bool) -> Span:
    """Where the thinking and its body begin."""
    first = marks[0] if marks else None
    if opened:
        repeated = first is not None and first.is_opening and not text[: first.start].strip()
        return 0, first.end if first and repeated else 0
    if first is not None and first.is_opening:
        return first.start, first.end
    return 0, 0


def _last_end(text: str, marks: Sequence[_Mark]) -> _Mark | None:
    """The last closing mark after which something is said; the first one where nothing is."""
    said, following, found = False, len(text), None
    for mark in reversed(marks):
        said = said or holds_words(text[mark.end : following])
        following = mark.start
        if not mark.is_opening:
            found = mark
            if said:
                break
    return found


def holds_words(text: str) -> bool:
    """Whether a text holds more than white space and the tokens that end a turn."""
    return bool(text.strip()) and (len(text) > _LONGEST_TAGS or bool(without_tags(text).strip()))


def _starts_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


# --- turns of thought ------------------------------------------------------------------------------------

# What begins another look at what was thought before; figure 3 of arXiv 2605.07353 counts such words.
TURNS = (
    r"[Bb]ut wait\b|Wait\b(?![ ](?:times?|for|until)\b)|\bwait,|Hmm+\b|Hold on\b|Alternatively\b|However\b|Actually\b"
    r"|(?:Let me|Let's|I should|I need to|Let us)[ ](?:just[ ])?(?:double[- ]?check|re-?check|check|verify|re-?think"
    r"|re-?consider|re-?examine|re-?calculate|think[ ]again|try[ ]again|go[ ]back|start[ ]over)\b"
    r"|On second thought\b|Another (?:way|approach)\b"
    r"|(?:That|This) (?:can't|cannot|doesn't|isn't|is not) (?:be )?right\b"
    r"|I made (?:a|an) (?:mistake|error)\b|No, (?:that|this|wait)\b|等等|等一下|不对|让我再"
)
_TURN = re.compile(rf"(?<!\w)(?:{TURNS})")


def is_reconsidering(text: str) -> bool:
    """Whether a step holds a turn of thought.

    >>> is_reconsidering("Wait, 7 * 8 is 56."), is_reconsidering("They wait 5 minutes.")
    (True, False)
    """
    return _TURN.search(text) is not None


def takes_itself_back(text: str) -> bool:
    """Whether a step reconsiders what it has said itself: something stands before a turn of thought."""
    begins = len(text) - len(text.lstrip())
    return any(found.start() > begins for found in _TURN.finditer(text))
