"""Whether a marked answer stands where the text that marks it is not the end of a solution.

At the end of a step words may announce an answer: "the answer is easy to find".
"""

import re

from stepconf.core.maths.forms import read
from stepconf.core.maths.tree import Num

CHOICE = re.compile(r"(?<![A-Za-z\\])\(?([A-J])\)?(?![A-Za-z'\u2019])")
YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_WORD_AFTER = re.compile(r" +[a-z]")
_ONLY_YES_NO = re.compile(r"(?:yes|no|true|false)\b(?=\W*\Z|\W*[,;:\u2014\u2013-])", re.IGNORECASE)
_MATHEMATICAL = re.compile(r"[0-9\\$=+*/^<>|%]")
_FIRST_OF_LIST = re.compile(r"[\s:*_]*(?:\n[ \t*_]*1[.)][ \t*_]+\S|Step[ \t]+[0-9])", re.IGNORECASE)
_EMPHASISED = re.compile(r"[\s:=]*(?:\*\*[ \t]+)?(\*\*|__)(?=\S)[^*_\n]{1,80}\1[^\w\n]*(?:\n|\Z)")


def stands_in_step(text: str, start: int, answer: str, answer_type: str) -> bool:
    """Whether the answer behind the mark that ends at `start` is one, though the solution goes on after the text.

    Words count only with a mark that is made for an answer, not with a sentence that talks of one.
    """
    if _FIRST_OF_LIST.match(text, start):
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
