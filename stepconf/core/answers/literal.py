"""Answers that are Python values: what a call returns. Read by `ast.literal_eval`; nothing is run."""

import ast
import re
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

from stepconf.core.answers.endings import Ending

_MAX_CHARS = 10_000
_TAIL_CHARS = 20_000  # how far from the end an answer is looked for
_TAGGED = re.compile(
    r"\[ANSWER\](.*?)(?:\[/ANSWER\]|\Z)", re.DOTALL
)  # the form that CRUXEval's authors ask for
_ASSERTED = re.compile(r"^[ \t]*(?:assert\s+)?\w+\(.*\)\s*==\s*(.+)$", re.MULTILINE)
_SAID = re.compile(
    r"\b(?:answer|output|result|returns?|returned value)\b(?:\s+is)?\s*:?[ \t]*\n?(.+)", re.IGNORECASE
)
_FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_TEXT_COMMAND = re.compile(r"^\\(?:text|texttt|mathtt|mathrm)\{(.*)\}$", re.DOTALL)
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def literal_answer(text: str, boxed: str | None, guess: bool, ending: Ending = "solution") -> str | None:
    """The value that a solution gives, as it writes it; None if there is none.

    Args:
        text: the solution, hostile.
        boxed: what its last box holds.
        guess: whether what no mark announces counts: code, the last line.
        ending: of the text. Before more steps a sentence gives a value only where it can be read; where the text was
            cut, none that is its very end.
    """
    first = None
    text = text[-_TAIL_CHARS:]
    for said, ends_text in _candidates(text, boxed, guess):
        plain = _plain(said)
        if ending == "cut" and ends_text and text.rstrip(" \t.,").endswith(plain):
            continue
        if plain and read_literal(plain) is not None:
            return plain
        first = first or plain or None
    # A tag and a box come before all sentences.
    explicit = boxed is not None or _TAGGED.search(text)
    return first if explicit or ending != "step" else None


def same_literal(gold: str, predicted: str) -> bool:
    """Whether both are the same value, as Python's == has it (1 == 1.0 == True)."""
    a, b = read_literal(gold), read_literal(predicted)
    if a is None:
        return gold.split() == predicted.split()
    try:
        return b is not None and bool(a[0] == b[0])
    except RecursionError:
        return False


def read_literal(text: str) -> tuple[Any] | None:
    """The value, in a tuple, since it may be None; None where the text is no literal."""
    if len(text) > _MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a stray backslash in a string
            return (ast.literal_eval(text.strip()),)
    except _UNREADABLE:
        return None


def _candidates(text: str, boxed: str | None, guess: bool) -> Iterator[tuple[str, bool]]:
    """Where the value may stand, the most explicit first, and of each kind the last; whether the text ends with it."""
    if tagged := _last(_TAGGED, text):
        yield tagged[1], tagged.end(1) == len(text)
    if boxed is not None:
        yield boxed, False
        yield re.sub(r"\\([{}_#%$&])", r"\1", boxed), False
    for pattern in (_ASSERTED, _SAID):
        if found := _last(pattern, text):
            yield found[1], found.end() == len(text)
            if code := _INLINE.findall(found[1]):
                yield code[-1], False
    if not guess:
        return
    for pattern in (_FENCED, _INLINE):
        if found := _last(pattern, text):
            yield found[1], False
    yield next((line for line in reversed(text.splitlines()) if line.strip()), ""), True


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _plain(said: str) -> str:
    """Without what stands around a value: a call it is compared with, marks of code, a full stop."""
    said = said.strip()
    if compared := _ASSERTED.match(said):
        said = compared[1].strip()
    if wrapped := _TEXT_COMMAND.match(said):
        said = wrapped[1].strip()
    if read_literal(said) is not None:
        return said
    return said.strip("$*` ").rstrip(".").strip("$*` ")
