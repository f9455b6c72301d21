"""Answers that are Python values: what a call returns. Read by `ast.literal_eval`; nothing is run."""

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Any

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


def literal_answer(text: str, boxed: str | None, guess: bool, more_follows: bool = False) -> str | None:
    """The value that a solution gives, as it writes it; None if there is none.

    Args:
        text: the solution, hostile.
        boxed: what its last box holds.
        guess: whether what no mark announces counts: code, the last line.
        more_follows: whether the solution goes on after the text: a sentence gives a value only where it can be read.
    """
    first = None
    for said in _candidates(text[-_TAIL_CHARS:], boxed, guess):
        plain = _plain(said)
        if plain and read_literal(plain) is not None:
            return plain
        first = first or plain or None
    # A tag and a box come before all sentences.
    explicit = boxed is not None or _TAGGED.search(text, max(0, len(text) - _TAIL_CHARS))
    return first if explicit or not more_follows else None


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


def _candidates(text: str, boxed: str | None, guess: bool) -> Iterator[str]:
    """Where the value may stand, the most explicit first, and of each kind the last."""
    if tagged := _TAGGED.findall(text):
        yield tagged[-1]
    if boxed is not None:
        yield boxed
        yield re.sub(r"\\([{}_#%$&])", r"\1", boxed)
    for pattern in (_ASSERTED, _SAID):
        if found := pattern.findall(text):
            yield found[-1]
            if code := _INLINE.findall(found[-1]):
                yield code[-1]
    if not guess:
        return
    for pattern in (_FENCED, _INLINE):
        if found := pattern.findall(text):
            yield found[-1]
    yield next((line for line in reversed(text.splitlines()) if line.strip()), "")


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
