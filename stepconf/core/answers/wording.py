"""Words in and around answers: what they say of numbers, and which of them are certainly different."""

import re
from functools import lru_cache

from stepconf.core.maths.forms import MAX_CHARS, read
from stepconf.core.maths.notation import UPRIGHT
from stepconf.core.maths.tree import Form, Words

MAX_SHORT = 2  # words of an answer that is a name, a day, a property
MIN_STEM, MAX_ENDINGS = 4, (3, 5)  # letters that words of one stem share, and of what follows them in each
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "false"})
_NONE = frozenset(
    "no none never not nothing nobody neither undefined impossible indeterminate nonexistent dne false".split()
)
_JOINS = frozenset({"the", "an", "and", "or"})
_SENTENCE = frozenset(
    "it is isn are aren was were do don does doesn did can cannot will has have there they he she this that".split()
)
_NUMBER = r"\$?(-?[0-9]+(?:[.,][0-9]+)*)\$?"
RATIO = re.compile(rf"{_NUMBER}\s+(out\s+of|to)\s+{_NUMBER}(?![0-9A-Za-z%^\\])", re.IGNORECASE)
_SPOKEN_SIGN = re.compile(r"(?:negative|minus)\s+(?=[0-9.\\])", re.IGNORECASE)
_CALLED = re.compile(r"\s*([A-Z])\s*(\(\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\))\s*")


@lru_cache(maxsize=4096)
def readings(answer: str) -> tuple[Form, ...]:
    """What an answer may be; none where the grammar does not read it to its last character.

    "7 out of 10" is a ratio or 7, "3 to 4" a ratio or a range, `C(10,3)` a number of choices or a point.
    """
    if len(answer) > MAX_CHARS:
        return ()
    plain = " ".join(UPRIGHT.sub(r" \1 ", answer).split()).strip(" .")
    if ratio := RATIO.fullmatch(plain):
        part, of = ratio[1], ratio[2].lower() != "to"
        return (*read(f"{part}{'/' if of else ':'}{ratio[3]}"), *(read(part) if of else ()), Words(plain))
    if called := _CALLED.fullmatch(plain.strip("$")):
        counts = {"C": r"\binom{%s}{%s}", "P": r"\frac{%s!}{(%s-%s)!}"}.get(called[1], "")
        values = (called[3], called[3], called[4]) if called[1] == "P" else (called[3], called[4])
        return (*read(called[2]), *(read(counts % values) if counts else ()))
    sign = _SPOKEN_SIGN.match(plain)
    return read(f"-{plain[sign.end() :]}" if sign else answer)


def same_words(a: str, b: str) -> bool | None:
    """Whether two answers in words are the same: False only for short ones that have nothing in common.

    A sentence may say the other answer with more words, and two negations often are one.
    """
    one, other = _content(a), _content(b)
    if "".join(one) == "".join(other):
        return True if one else None
    if any(group.issuperset(one) and group.issuperset(other) for group in (_YES, _NO)):
        return True
    polar = [_YES.issuperset(words) or _NO.issuperset(words) for words in (one, other)]
    if any(polar):
        return False if all(polar) else None
    if set(one) <= set(other) or set(other) <= set(one) or not _are_names(one, other):
        return None
    # "abcd" and "dcba" may be products of variables
    anagrams = sorted("".join(one)) == sorted("".join(other))
    return None if anagrams or any(_one_stem(x, y) for x in one for y in other if x != y) else False


def _content(text: str) -> list[str]:
    """The words of an answer in lower case, without articles and joints."""
    words = re.findall(r"[^\W_]+", text)
    return [
        w.casefold() for i, w in enumerate(words) if w.casefold() not in _JOINS and not _is_article(words, i)
    ]


def _is_article(words: list[str], at: int) -> bool:
    """ "a parallelogram", "A circle", but not "A and B"."""
    after = words[at + 1].casefold() if at + 1 < len(words) else ""
    return words[at] == "a" or (words[at] == "A" and not at and len(after) > 1 and after not in _JOINS)


def _are_names(one: list[str], other: list[str]) -> bool:
    """Whether both are short, no sentences, and not both negations."""
    if len(one) > MAX_SHORT or len(other) > MAX_SHORT or not _SENTENCE.isdisjoint(one + other):
        return False
    return _NONE.isdisjoint(one) or _NONE.isdisjoint(other)


def _one_stem(a: str, b: str) -> bool:
    """Whether two words may be forms of one: "converges" and "convergent", "Mon" and "Monday"."""
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    short, long = sorted((len(a) - shared, len(b) - shared))
    abbreviated = not short and shared >= 3
    return abbreviated or (shared >= MIN_STEM and short <= MAX_ENDINGS[0] and long <= MAX_ENDINGS[1])
