"""Texts that were read (from a run, a file, a model, a server, a path), made fit for a terminal."""

import re

# What a terminal obeys instead of showing it: control characters (C0, C1), and marks that turn the direction of
# writing. Lone surrogates cannot be encoded. Line feed and tab are layout.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with Python's escape in place of each character that a terminal would obey.

    >>> printable("\x1b[31mred\n\u202e")
    '\\x1b[31mred\n\\u202e'
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
