"""Where sentences begin inside a line of masked text (`stepconf.core.protected`), in linear time."""

import re
from collections.abc import Iterator

from stepconf.core.protected import BLOCK_END, INLINE

STOPS = ".!?。！？"
CLOSERS = "\"')]}”’»*_`"
COMBINING = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u200d\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f\ufe20-\ufe2f"

_LOWER = "a-z\xdf-\xf6\xf8-\xffα-ωа-я"
_OPENERS = "\"'“‘«(\\[{*_`「『（"
STARTS_CAPITAL = rf"(?=[{_OPENERS}]*+[^\W\d_{_LOWER}])"

# A run of stops is tried at its first character only. One pattern for each kind of stop: looking for a single
# literal is several times faster than for a set.
_BEHIND = (
    rf"(?<![.!?…][.!?…])(?P<more>[.!?…]*+)[\"')\]}}”’»*_`]*+[^\S\n]++"
    rf"(?=[{_OPENERS}]*+(?P<next>[^\W\d_{_LOWER}]\w*+|[\d{INLINE}\\$#]))"
)
_FULL_STOP = re.compile(rf"\.{_BEHIND}")
_OTHER_STOP = re.compile(rf"[!?…؟۔।]{_BEHIND}")
_WITHOUT_SPACE = re.compile(
    rf"[。！？｡](?<![。！？｡][。！？｡])[。！？｡]*+[」』”’）)】》\"'*]*+[^\S\n]*+(?=[^\n{COMBINING}])"
)

# Abbreviations that never end a sentence, and those that do not before a number, a formula or a bracket.
_NEVER_LAST = frozenset(
    "e.g i.e eg ie vs cf viz resp approx a.k.a w.r.t w.l.o.g s.t dr mr mrs ms prof st mt gen sen rep gov "
    "capt lt sgt col rev hon messrs mme".split()
)
_BEFORE_NUMBER = frozenset(
    "no nos nr fig figs eq eqs eqn eqns thm lem prop cor def sec sect ch chap ex p pp vol art ref refs al ca "
    "c jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
# Words that show a new sentence after a lone capital or an acronym: "at point A. The line".
_STARTERS = frozenset(
    "The Then This That These Those There Therefore Thus So Since Hence However He She It Its In If For From "
    "We Let Now Next Note And But By As At To Using Also Finally First Second When Where What Because".split()
)
_LABELLED = frozenset(
    "Step Case Part Problem Question Example Method Claim Lemma Theorem Item Exercise Solution".split()
)
_SMALL_ROMAN = frozenset("i ii iii iv v vi vii viii ix x".split())
_INITIAL = re.compile(r"\b(?:[A-Z][a-z]++|[A-Z]\.) [A-Z]\Z")


def sentence_cuts(masked: str, start: int, end: int) -> Iterator[int]:
    """Offsets at which a sentence begins after another on its line, within `masked[start:end]`.

    In order within each kind of stop only. The spaces between two sentences belong to the first. Line ends
    are no concern of this function.
    """
    plain = masked.isascii()
    for found in _FULL_STOP.finditer(masked, start, end):
        if _ends_sentence(masked, start, found):
            yield found.end()
    if not plain or "?" in masked or "!" in masked:
        for found in _OTHER_STOP.finditer(masked, start, end):
            if _ends_sentence(masked, start, found):
                yield found.end()
    if not plain:
        for found in _WITHOUT_SPACE.finditer(masked, start, end):
            yield found.end()


def ends_in_abbreviation(masked: str, end: int) -> bool:
    """Whether the text before `end` closes with an abbreviation that more must follow, as in `Dr.`."""
    words = masked[max(0, end - 16) : end].split()
    return bool(words) and words[-1].endswith(".") and _plain(words[-1][:-1]).lower() in _NEVER_LAST


def _plain(word: str) -> str:
    return word.lstrip("([{\"'“‘*_")


def _ends_sentence(masked: str, start: int, found: re.Match[str]) -> bool:
    """Whether this stop, followed by space and then no small letter, ends a sentence."""
    stop, follows = found.start(), found["next"]
    is_number = follows[0] in (INLINE, "\\", "$") or follows[0].isdigit()
    after_word = stop > start and masked[stop - 1].isalnum()
    mark = masked[stop]
    if mark == "…" or (mark == "." and found["more"].startswith(".")):
        return after_word and not is_number
    if mark == "!":
        return not (after_word and is_number)
    if mark != ".":
        return True
    words = masked[max(start, stop - 16) : stop].split()
    if not words or masked[stop - 1].isspace():
        return True
    word = _plain(words[-1])
    name = word.lower()
    if name in _NEVER_LAST:
        return False
    if name in _BEFORE_NUMBER and (is_number or masked[found.end()] in "([" or len(follows) == 1):
        return False
    if len(words[-1]) <= 6 and _is_list_label(masked[max(start, stop - 32) : stop], words[-1]):
        return False
    if "." in word and len(word) <= 6 and word.replace(".", "").isalpha():
        return follows in _STARTERS
    if len(word) == 1 and word.isupper():
        is_initial = _INITIAL.search(masked, max(start, stop - 16), stop)
        return is_number or follows in _STARTERS or not is_initial
    return True


def _is_list_label(text: str, word: str) -> bool:
    """Whether `text`, which ends in `word`, ends in the label of an item, as in `Done. 2.` or `Step 1.`."""
    core = word.strip("()*")
    if not (
        (core.isdigit() and len(core) <= 3) or (core.isalpha() and len(core) == 1) or core in _SMALL_ROMAN
    ):
        return False
    before = text[: -len(word)].rstrip(" \t*(")
    last = next(reversed(before.split()), "")
    if last[:-1].lower() in _BEFORE_NUMBER:
        return False
    if last in _LABELLED:
        before = before[: -len(last)].rstrip(" \t*")
    return not before or before.rstrip(CLOSERS).endswith((*STOPS, "\n", BLOCK_END))
