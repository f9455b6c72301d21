"""Text with plain or LaTeX mathematics in it → tokens with their places in that text.

Our own lexer, because nothing that a model wrote may reach a general parser. It never raises and is linear
in the text; what it does not know becomes an `other` token, which no expression can contain.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.symbolic.notation import (
    ARROWS,
    COMMANDS,
    CONSTANTS,
    DOTS,
    FUNCTIONS,
    GREEK,
    LEX,
    OPERATORS,
    RELATIONS,
    SILENT,
    SUPERSCRIPTS,
    TEXTUAL,
    UNITS_OF_LETTERS,
    VULGAR,
)
from stepconf.core.symbolic.zones import math_zones

MAX_CHARS = 8_000
MAX_DIGITS = 120

# Kinds: num var word op rel open close func frac binom sqrt const pct deg fact bar comma dots sub arrow
#        break (a sentence, clause or row ends) annot (<<2*3=6>>) currency text pmod choose vulgar other


@dataclass(frozen=True, slots=True)
class Token:
    """`text[start:end]` read as `kind`; `name` is its canonical spelling, `value` and `decimals` a number's.

    `math` says that it stands between LaTeX delimiters; `spaced` that white space or a delimiter stands
    before it. A subscript is part of a variable's name.
    """

    kind: str
    name: str
    start: int
    end: int
    math: bool
    spaced: bool
    value: Fraction = Fraction(0)
    decimals: int = 0


def tokenize(text: str) -> list[Token]:
    """Tokens of `text`, in order; of a longer text those of its first `MAX_CHARS` characters, up to a break."""
    tokens = _Lexer(text[:MAX_CHARS]).run()
    while len(text) > MAX_CHARS and tokens and tokens[-1].kind != "break":
        tokens.pop()
    return tokens


class _Lexer:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        self.zones = math_zones(text)
        self.zone = 0
        self.spaced = True

    def run(self) -> list[Token]:
        position = 0
        while position < len(self.text):
            if self.text.startswith("[asy]", position):
                position = self.skip_to("[/asy]", position)
                continue
            found = LEX.match(self.text, position)
            if found is None:  # pragma: no cover - the last alternative matches anything
                break
            end = self.step(str(found.lastgroup), found[0], position)
            position = max(end, position + 1)
        return self.tokens

    def skip_to(self, closing: str, start: int) -> int:
        """Leave out a drawing or a table: what stands in it is no statement."""
        found = self.text.find(closing, start)
        end = found + len(closing) if found >= 0 else len(self.text)
        self.add("other", "...", start, end)
        return end

    def in_math(self, position: int) -> bool:
        while self.zone < len(self.zones) and self.zones[self.zone][1] <= position:
            self.zone += 1
        return self.zone < len(self.zones) and self.zones[self.zone][0] <= position

    def add(
        self, kind: str, name: str, start: int, end: int, value: Fraction = Fraction(0), decimals: int = 0
    ) -> int:
        self.tokens.append(Token(kind, name, start, end, self.in_math(start), self.spaced, value, decimals))
        self.spaced = False
        return end

    def step(self, group: str, piece: str, start: int) -> int:
        end = start + len(piece)
        match group:
            case "space":
                self.spaced = True
            case "newline" | "row" | "display":
                self.add("break", "\n\n" if piece.count("\n") > 1 else "\n", start, end)
                self.spaced = True
            case "num":
                return self.number(piece, start)
            case "shortfrac":
                return self.short_fraction(piece, start)
            case "command":
                return self.command(piece, start)
            case "rel":
                kind = "arrow" if piece in ARROWS else "rel"
                self.add(kind, RELATIONS.get(piece, piece), start, end)
            case "op" if piece in "-*•–" and self.begins_line(start) and not self.in_math(start):
                self.add("break", ".", start, end)
            case "op":
                self.add("op", OPERATORS[piece], start, end)
            case "bold":
                self.bold(start, end)
            case "letters":
                return self.letters(piece, start)
            case "sub":
                return self.subscript(start)
            case "currency":
                self.spaced = True  # a delimiter or money: either way no factor continues across it
                self.add("currency", piece, start, end) if not self.delimiter(start) else None
            case _:
                self.mark(group, piece, start, end)
        return end

    def begins_line(self, start: int) -> bool:
        """Whether the sign at `start` is the bullet of a list."""
        after = self.text[start + 1 : start + 2]
        return after == " " and not self.text[self.text.rfind("\n", 0, start) + 1 : start].strip()

    def mark(self, group: str, piece: str, start: int, end: int) -> None:
        """The one-character tokens that need no look around."""
        match group:
            case "super":
                self.add("op", "^", start, start)
                self.add("num", piece, start, end, Fraction(SUPERSCRIPTS[piece]))
            case "vulgar":
                self.add("vulgar", piece, start, end, Fraction(*VULGAR[piece]))
            case "bang":
                after = self.text[end : end + 1]
                factorial = (
                    len(piece) == 1
                    and not self.spaced
                    and (self.in_math(start) or after not in ("", " ", "\n"))
                )
                previous = self.tokens[-1].kind if self.tokens else ""
                factorial = factorial or (
                    not self.spaced and previous in ("num", "close") and len(piece) == 1
                )
                self.add("fact" if factorial else "break", piece, start, end)
            case "stop":
                ratio = piece == ":" and self.in_math(start)
                self.add("other" if ratio else "break", piece[0], start, end)
            case "degree":
                self.add("deg", "deg", start, end)
            case "root":
                self.add("sqrt", "sqrt", start, end)
            case "pi":
                self.add("const", "pi", start, end)
            case _:
                self.add(group, piece, start, end)

    def delimiter(self, start: int) -> bool:
        return any(
            start in (zone[0], zone[1] - 1) for zone in self.zones[max(0, self.zone - 1) : self.zone + 2]
        )

    def bold(self, start: int, end: int) -> None:
        """`2**3` is a power; elsewhere two stars are bold type and stand for nothing."""
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        if before.isalnum() and after.isalnum() and not self.spaced:
            self.add("op", "^", start, end)
        else:
            self.spaced = True

    def number(self, piece: str, start: int) -> int:
        end = start + len(piece)
        plain = re.sub(r"[^0-9.]", "", piece)
        clock = self.text[end : end + 1] == ":" and self.text[end + 1 : end + 2].isdigit()
        padded = len(plain) > 1 and plain[0] == "0" and plain[1] != "."
        if len(plain) > MAX_DIGITS or clock or padded or self.after_colon(start):
            return self.add("other", piece[:10], start, end)
        decimals = len(plain) - plain.index(".") - 1 if "." in plain else 0
        repeat = re.compile(r"\\overline\s*\{\s*([0-9]{1,20})\s*\}").match(self.text, end)
        value = Fraction(plain if not plain.startswith(".") else "0" + plain)
        bare = re.compile(r"\.\\overline\s*\{\s*([0-9]{1,20})\s*\}").match(self.text, end)
        if bare and "." not in plain:
            repeat = bare
        if repeat and ("." in plain or bare):
            digits = repeat[1]
            value += Fraction(int(digits), (10 ** len(digits) - 1) * 10**decimals)
            return self.add("num", plain, start, repeat.end(), value, 0)
        return self.add("num", plain, start, end, value, decimals)

    def after_colon(self, start: int) -> bool:
        """Whether the number at `start` is the second part of a time or ratio: `12:30`."""
        return start > 1 and self.text[start - 1] == ":" and self.text[start - 2].isdigit()

    def short_fraction(self, piece: str, start: int) -> int:
        """`\\frac12`: two one-digit arguments without braces."""
        end = start + len(piece)
        self.add("frac", "frac", start, start + 5)
        digits = [i for i, c in enumerate(piece) if c.isdigit()]
        for i in digits:
            self.add("num", piece[i], start + i, start + i + 1, Fraction(int(piece[i])))
        return end

    def letters(self, piece: str, start: int) -> int:
        end = start + len(piece)
        lower = piece.lower()
        if lower in FUNCTIONS and (self.in_math(start) or self.text[end : end + 1] in "(_^"):
            return self.add("func", lower, start, end)
        if piece == "mod":
            return self.add("op", "mod", start, end)
        if lower == "sqrt" and self.text[end : end + 1] in "({":
            return self.add("sqrt", "sqrt", start, end)
        if not self.in_math(start):
            return self.add(
                "var" if len(piece) == 1 and not (piece in "aI" and self.spaced) else "word",
                piece,
                start,
                end,
            )
        if piece in UNITS_OF_LETTERS or len(piece) >= 4:
            return self.add("word", piece, start, end)
        if len(piece) > 1 and piece.isupper():
            return self.add("var", piece, start, end)
        for i, letter in enumerate(piece):
            self.add("var", letter, start + i, start + i + 1)
        return end

    def subscript(self, start: int) -> int:
        """A subscript joins the name before it, so that `x_1` and `x_2` are two variables."""
        group = re.compile(
            r"_\s*(?:\{([^{}]{0,40}(?:\{[^{}]{0,20}\}[^{}]{0,20})?)\}|([A-Za-z0-9])|\\([A-Za-z]+))"
        )
        found = group.match(self.text, start)
        if not found:
            return self.add("other", "_", start, start + 1)
        name = re.sub(r"\\text|[\s{}\\]", "", found[1] or found[2] or found[3] or "")
        last = self.tokens[-1] if self.tokens else None
        if last is not None and last.kind == "var" and not self.spaced:
            self.tokens[-1] = Token(
                "var", f"{last.name}_{name}", last.start, found.end(), last.math, last.spaced
            )
            return found.end()
        if last is not None and last.kind == "num" and self.rebased(name, found.end()):
            return found.end()
        return self.add("sub", name, start, found.end())

    def rebased(self, base: str, end: int) -> bool:
        """`1202_7`: give the number before a subscript its value in that base, if it can have one."""
        last = self.tokens[-1]
        if not base.isascii() or not base.isdigit() or not 2 <= int(base[:4]) <= 10 or last.decimals:
            return False
        if not (last.name.isascii() and last.name.isdigit()):  # "²" is none, nor is what has a base already
            return False
        if any(int(digit) >= int(base) for digit in last.name):
            return False
        value = Fraction(int(last.name, int(base)))
        self.tokens[-1] = Token("num", f"{last.name}_{base}", last.start, end, last.math, last.spaced, value)
        return True

    def command(self, piece: str, start: int) -> int:
        end = start + len(piece)
        if piece in SILENT:
            self.spaced = self.spaced or piece not in ("\\left", "\\right")
            return self.skip_argument(end) if piece in ("\\hspace", "\\color", "\\phantom") else end
        if piece in OPERATORS:
            return self.add("op", OPERATORS[piece], start, end)
        if piece in RELATIONS:
            return self.add("rel", RELATIONS[piece], start, end)
        if piece in TEXTUAL:
            return self.textual(start, end)
        bare = piece[1:]
        if bare in COMMANDS:
            return self.add(COMMANDS[bare], {"lbrack": "[", "rbrack": "]"}.get(bare, bare), start, end)
        if bare in FUNCTIONS:
            return self.add("func", bare, start, end)
        if bare in GREEK:
            return self.add("var", bare, start, end)
        if piece in CONSTANTS:
            return self.add("const", CONSTANTS[piece], start, end)
        if bare == "$":
            self.spaced = True
            return self.add("currency", "$", start, end)
        if piece in ARROWS:
            return self.add("arrow", bare, start, end)
        if piece in DOTS:
            return self.add("dots", "...", start, end)
        if bare in ("begin", "end"):
            closed = self.text.find("}", end, end + 30)
            if bare == "begin" and closed > 0 and not self.layout(end):
                return self.skip_to("\\end" + self.text[end : closed + 1], start)
            return self.add(
                "break" if self.layout(end) else "other", bare, start, closed + 1 if closed > 0 else end
            )
        return self.add("other", piece, start, end)

    def layout(self, end: int) -> bool:
        """Whether an environment only lays out rows of formulas (a matrix is not one)."""
        return bool(re.compile(r"\s*\{(align|equation|gather|eqnarray|split)").match(self.text, end))

    def skip_argument(self, end: int) -> int:
        found = re.compile(r"\s*\{[^{}]{0,40}\}").match(self.text, end)
        return found.end() if found else end

    def textual(self, start: int, end: int) -> int:
        found = re.compile(r"\s*\{([^{}]{0,300})\}").match(self.text, end)
        if not found:
            return self.add("other", "text", start, end)
        name = found[1].strip()
        self.spaced = True
        if name.lower() in FUNCTIONS:
            self.add("func", name.lower(), start, found.end())
        elif name == "mod":
            self.add("op", "mod", start, found.end())
        elif name:
            self.add("text", name, start, found.end())
        self.spaced = True
        return found.end()
