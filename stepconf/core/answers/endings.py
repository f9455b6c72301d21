"""Whether a marked answer stands where the text that marks it is not the end of a solution.

At the end of a step words may announce an answer: "the answer is easy to find". Where a token limit cut the text, its
last number may be the beginning of another.
"""

import re
from typing import Literal, NamedTuple

from stepconf.core.maths.forms import read
from stepconf.core.maths.tree import Num

Ending = Literal["solution", "step", "cut"]  # what a text ends with; "cut": inside of either

CHOICE = re.compile(r"(?<![A-Za-z\\])\(?([A-J])\)?(?![A-Za-z'\u2019])")
YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_WORD_AFTER = re.compile(r" +[a-z]")
_ONLY_YES_NO = re.compile(r"(?:yes|no|true|false)\b(?=\W*\Z|\W*[,;:\u2014\u2013-])", re.IGNORECASE)
_MATHEMATICAL = re.compile(r"[0-9\\$=+*/^<>|%]")
# "found in 3 steps", "given by the sum of 2 and 3"
_HOW_IT_IS_FOUND = re.compile(
    r"[ ]*(?:found|given|[a-z]{3,}ed)[ ]+(?:after|as|by|from|in|through|using|via|when|with)\b", re.IGNORECASE
)
_FIRST_OF_LIST = re.compile(r"[\s:*_]*(?:\n[ \t*_]*1[.)][ \t*_]+\S|Step[ \t]+[0-9])", re.IGNORECASE)
_EMPHASISED = re.compile(r"[\s:=]*(?:\*\*[ \t]+)?(\*\*|__)(?=\S)[^*_\n]{1,80}\1[^\w\n]*(?:\n|\Z)")
# Up to the end of a text: an operator, a command or a digit that belongs to the value before it.
_UNFINISHED = re.compile(r"[ \t0-9]*(?:[-+*/^=(_]|\\[A-Za-z]*|(?<=[0-9])[.:]|(?<=[0-9)\]}]),)?[ \t]*\Z")


class Said(NamedTuple):
    """The answer behind a mark, and the text that follows it."""

    text: str
    after: str


def said_in(rest: str, part: str, answer_type: str = "") -> Said:
    """A part of what stands behind a mark; where the answer is one word of it, what follows is behind that word."""
    after = rest[max(rest.find(part), 0) + len(part) :]
    word = CHOICE if answer_type == "choice" else YES_NO if answer_type == "yesno" else None
    found = word.search(part) if word else None
    return Said(part, part[found.end(1) :] + after if found else after)


def stands(said: Said, text: str, start: int, answer_type: str, ending: Ending) -> bool:
    """Whether what is said behind the mark that ends at `start` is an answer, as the text ends."""
    if ending == "cut":
        # What ends a line ends its value.
        return not _UNFINISHED.match(said.text + said.after, len(said.text))
    return ending == "solution" or _stands_in_step(text, start, said.text, answer_type)


def _stands_in_step(text: str, start: int, answer: str, answer_type: str) -> bool:
    """Words count only with a mark that is made for an answer, not with a sentence that talks of one."""
    if _FIRST_OF_LIST.match(text, start) or _HOW_IT_IS_FOUND.match(text, start):
        return False
    if text.endswith(("####", "<answer>", "**", "__"), 0, start) or _EMPHASISED.match(text, start):
        return True
    at = text.find(answer, start)
    in_formula = at > start and not {"$", "\\"}.isdisjoint(text[start:at])
    return in_formula or not _is_announcement(answer, answer_type)


def _is_announcement(answer: str, answer_type: str) -> bool:
    """Whether an answer is words that may as well tell how it will be found."""
    if answer_type == "choice":
        letter = CHOICE.search(answer)
        # "A" and "I" are words, too.
        return not letter or (letter[0] in "AI" and bool(_WORD_AFTER.match(answer, letter.end())))
    if answer_type == "yesno":
        return not _ONLY_YES_NO.match(answer)
    return not _MATHEMATICAL.search(answer) and not any(isinstance(form, Num) for form in read(answer))
