"""Where the lexer is in a text, and what it read so far."""

import re
from fractions import Fraction
from itertools import takewhile

from stepconf.core.maths.notation import LEX, OPERATORS, RELATIONS
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.zones import math_zones

_EUROPEAN = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]")  # 1.250,50: points part its thousands
INDEXED = re.compile(r"(?<![A-Za-z])x([0-9])(?![0-9])")


class Scan:
    """A text that is being read: the tokens so far, and what they say of the next."""

    def __init__(self, text: str, answer: bool) -> None:
        self.text, self.answer = text, answer
        self.tokens: list[Token] = []
        self.zones = [(0, len(text))] if answer else math_zones(text)
        self.zone = 0
        self.european = _EUROPEAN.search(text) is not None
        self.indexed = {"1", "2"} <= set(INDEXED.findall(text))  # `3x1 + 2x2` is no sum of 3 × 1 and 2 × 2
        self.spaced = True
        self.brackets = 0  # open ones, but for those of TeX's arguments
        self.money = not answer or text.count("$") % 2 == 1  # whether a dollar sign may be money

    def in_math(self, position: int) -> bool:
        """Whether `position` stands between TeX delimiters; asked in the order of the text."""
        while self.zone < len(self.zones) and self.zones[self.zone][1] <= position:
            self.zone += 1
        return self.zone < len(self.zones) and self.zones[self.zone][0] <= position

    def add(
        self, kind: str, name: str, start: int, end: int, value: Fraction = Fraction(0), decimals: int = 0
    ) -> int:
        """Append a token; returns its end."""
        self.tokens.append(Token(kind, name, start, end, self.in_math(start), self.spaced, value, decimals))
        self.spaced = False
        if name != "{" and name != "}":
            self.brackets += (kind in ("open", "brace")) - (kind in ("close", "endbrace"))
        return end

    def last(self) -> str:
        """The kind of the last token."""
        return self.tokens[-1].kind if self.tokens else ""

    def skip_to(self, closing: str, start: int) -> int:
        """Leave out code, a drawing or a table: what stands in it is no statement."""
        found = self.text.find(closing, start + 3)
        end = found + len(closing) if found >= 0 else len(self.text)
        self.add("other", "...", start, end)
        self.add("break", "\n\n", end, end)
        return end

    def states(self) -> bool:
        """Whether a relation stands in the line at hand."""
        kinds = (token.kind for token in reversed(self.tokens))
        return "rel" in takewhile(lambda kind: kind != "break", kinds)

    def goes_on(self, at: int) -> bool:
        """Whether the formula goes on at `at` with a sign between two operands."""
        found = LEX.match(self.text, at)
        return found is not None and (found[0] in OPERATORS or found[0] in RELATIONS)

    def delimiter(self, start: int) -> bool:
        """Whether the dollar sign at `start` opens or closes a formula."""
        near = self.zones[max(0, self.zone - 1) : self.zone + 2]
        return not self.answer and any(start in (zone[0], zone[1] - 1) for zone in near)
