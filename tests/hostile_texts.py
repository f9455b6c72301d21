"""What a terminal or rich would obey, and how to see that nothing of it came through."""

import unicodedata

from tests.tiny import Ended

# An end tag of nothing (rich raises), tags that rich would take, an emoji code, colours, a title by OSC, CSI as one
# character of C1, a carriage return and a backspace that overwrite, directions turned round, a lone surrogate.
HOSTILE = (
    "x [/INST] [old] [link=https://a.example]y[/link] [bold red]z :bomb: \x1b[31m \x1b]0;owned\x07 \x9b2J \r\b "
    "\u202egnp\u2066 \ud800"
)
# As a path can have it.
NAME = "a :bomb: \x1b]0;owned\x07 \r \u202e b"


def check_inert(text: str) -> None:
    """Nothing in the text is obeyed: no control character but line feed and tab, no turned direction."""
    for c in text:
        turned = unicodedata.bidirectional(c) in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }
        obeyed = unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"
        assert not turned and not obeyed, f"{c!r} in {text!r}"


def check_shown(ended: Ended, *parts: str, code: int = 0) -> None:
    """The command ended so, and showed the parts as they are and nothing that is obeyed."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    check_inert(ended.out)
    check_inert(ended.err)
    for part in parts:
        assert part in ended.out + ended.err, f"{part!r} is not in {ended}"
