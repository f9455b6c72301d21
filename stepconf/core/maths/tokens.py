"""Text with plain or TeX mathematics in it → tokens with their places in that text.

Our own lexer, because nothing that a model wrote may reach a general parser. It never raises and is linear
in the text; what it does not know becomes an `other` token, which no expression can contain.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, takewhile
from math import factorial

from stepconf.core.maths.notation import (
    APART,
    ARROWS,
    BLACKBOARD,
    COMMANDS,
    CONSTANT_WORDS,
    CONSTANTS,
    DOTS,
    FUNCTIONS,
    GREEK,
    GREEK_LETTERS,
    LETTER_UNITS,
    LEX,
    OPERATORS,
    RELATIONS,
    SILENT,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    TEXTUAL,
    UNITS_OF_LETTERS,
    folded,
)
from stepconf.core.maths.numbers import MAX_DIGITS, decimals_of, in_base, plain_digits, repeating
from stepconf.core.maths.zones import math_zones

MAX_CHARS = 8_000

# Kinds: num var word op rel open close brace endbrace func frac binom sqrt const pct deg fact bar such comma
#        colon dots sub arrow break (a sentence, clause or row ends) annot (<<2*3=6>>) currency pmod choose
#        vulgar begin end amp other
_TEXT_ARGUMENT = re.compile(r"\s*\{([^{}]{0,300})\}")
_SHORT_ARGUMENT = re.compile(r"\s*\{[^{}]{0,40}\}")
_ENVIRONMENT = re.compile(r"\s*\{([A-Za-z]{1,20})\*?\}(?:\{[clr|]{1,20}\})?")
_LAYOUT = ("align", "equation", "gather", "eqnarray", "split")
_SUBSCRIPT = re.compile(
    r"_\s*(?:\{([^{}]{0,40}(?:\{[^{}]{0,20}\}[^{}]{0,20})?)\}|([A-Za-z0-9])|\\([A-Za-z]+))"
)
_DECIMAL_COMMA = re.compile(r",([0-9]{1,2}|[0-9]{4,12})(?![0-9,])")
_SIGN_AFTER = re.compile(r"\s*(?:[-+*×·⋅/÷=€%]|\\(?:cdot|times|div)(?![a-z]))")
_SIGN_BEFORE = re.compile(r"(?:[+*×·⋅/÷]|\\(?:cdot|times|div))\s*\Z")
_EUROPEAN = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]")  # 1.250,50: points part its thousands
_SPACING = re.compile(r"(?:[\s&]|\\q?quad(?![a-z])|\\[,;:! ])*")
_EQUALLED = re.compile(r"\s*([0-9]{1,20})\s*([-+*·×⋅/÷!(]|\\(?:cdot|times|div)(?![a-z]))?")
_MARKED = re.compile(r"\^|_|[⁻⁺]?[²³¹⁰⁴-⁹]|[₀-₉]")  # what follows a name: an exponent or a subscript
_RAISED = re.compile(r"[⁻⁺]?[²³¹⁰⁴-⁹]")
_BASE = re.compile(r"(?:2|10)(?=\()")  # of `log2(`
_INDEXED = re.compile(r"(?<![A-Za-z])x([0-9])(?![0-9])")
_SPACED_THOUSANDS = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")


@dataclass(frozen=True, slots=True)
class Token:
    """`text[start:end]` read as `kind`; `name` is its canonical spelling, `value` and `decimals` a number's.

    `math` says that it stands between TeX delimiters; `spaced` that white space or a delimiter stands
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


def tokenize(text: str, answer: bool = False) -> list[Token]:
    """Tokens of `text`, in order; of a longer text those of its first `MAX_CHARS` characters, up to a break.

    Args:
        text: a step, a problem or an answer.
        answer: whether all of it is one formula, as an answer is.
    """
    tokens = _Lexer(folded(text[:MAX_CHARS]), answer).run()
    while len(text) > MAX_CHARS and tokens and tokens[-1].kind != "break":
        tokens.pop()
    return tokens


def is_glued(before: Token, token: Token) -> bool:
    """Whether `token` belongs to the name `before` it: `profit(10)`, `x1`; scripts without spaces part nothing."""
    named = before.kind == "var" or (before.kind == "word" and unicodedata.category(before.name[-1]) != "Lo")
    return named and not token.spaced and before.end == token.start


class _Lexer:
    """One pass over one text."""

    def __init__(self, text: str, answer: bool) -> None:
        self.text, self.answer = text, answer
        self.tokens: list[Token] = []
        self.zones = [(0, len(text))] if answer else math_zones(text)
        self.zone = 0
        self.european = _EUROPEAN.search(text) is not None
        self.indexed = {"1", "2"} <= set(_INDEXED.findall(text))  # `3x1 + 2x2` is no sum of 3 × 1 and 2 × 2
        self.spaced = True
        self.brackets = 0  # open ones, but for those of TeX's arguments
        self.money = not answer or text.count("$") % 2 == 1  # whether a dollar sign may be money

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
        """Leave out code, a drawing or a table: what stands in it is no statement."""
        found = self.text.find(closing, start + 3)
        end = found + len(closing) if found >= 0 else len(self.text)
        self.add("other", "...", start, end)
        self.add("break", "\n\n", end, end)
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
        if name != "{" and name != "}":
            self.brackets += (kind in ("open", "brace")) - (kind in ("close", "endbrace"))
        return end

    def last(self) -> str:
        return self.tokens[-1].kind if self.tokens else ""

    def step(self, group: str, piece: str, start: int) -> int:
        end = start + len(piece)
        match group:
            case "space":
                self.spaced = True
            case "newline" | "row" | "display":
                self.line_end(group, piece, start, end)
            case "fence":
                return self.skip_to("```", start)
            case "num":
                return self.number(piece, start)
            case "shortfrac":
                return self.short_fraction(piece, start)
            case "command":
                return self.command(piece, start)
            case "rel" if piece == "!=" and self.is_factorial(end):
                return self.add("fact", "!", start, start + 1)
            case "rel":
                kind = "arrow" if piece in ARROWS else "rel"
                self.add(kind, RELATIONS.get(piece, piece), start, end)
            case "op" if piece in "-*•–" and self.begins_line(start) and not self.in_math(start):
                self.add("break", ".", start, end)
            case "op":
                self.add("op", OPERATORS[piece], start, end)
            case "bold":
                self.spaced = True
            case "power":
                self.add("op", "^", start, end)
            case "letters":
                return self.letters(piece, start)
            case "sub":
                return self.subscript(start)
            case "lowered":
                return self.lower(piece.translate(SUBSCRIPTS), start, end)
            case "currency":
                self.spaced = True  # no factor continues across money
                if (self.money or piece != "$") and not self.delimiter(start):
                    self.add("currency", piece, start, end)
                self.spaced = True
            case _:
                self.mark(group, piece, start, end)
        return end

    def line_end(self, group: str, piece: str, start: int, end: int) -> None:
        """A line break parts statements, but not inside a formula that goes on."""
        inside = group == "newline" and self.in_math(start) and piece.count("\n") == 1
        open_end = self.last() in ("op", "rel", "open", "comma", "func", "sub", "frac")
        if not inside or not (open_end or self.goes_on(end) or not self.states()):
            self.add("break", "\n\n" if piece.count("\n") > 1 else "\n", start, end)
        self.spaced = True

    def states(self) -> bool:
        """Whether a relation stands in the line at hand."""
        kinds = (token.kind for token in reversed(self.tokens))
        return "rel" in takewhile(lambda kind: kind != "break", kinds)

    def goes_on(self, at: int) -> bool:
        """Whether the formula goes on at `at` with a sign between two operands."""
        found = LEX.match(self.text, at)
        return found is not None and (found[0] in OPERATORS or found[0] in RELATIONS)

    def is_factorial(self, end: int) -> bool:
        """Whether `!=` is a factorial and an equals sign (`5!=120`)."""
        if self.spaced or not self.tokens:
            return False
        last, said = self.tokens[-1], _EQUALLED.match(self.text, end)
        if last.kind != "num" or not said:
            return last.math
        # 3!=3*2*1 and 5!=120, but 3!=5
        return bool(said[2]) or (last.value <= 20 and factorial(int(last.value)) == int(said[1]))

    def begins_line(self, start: int) -> bool:
        """Whether the sign at `start` is the bullet of a list."""
        after = self.text[start + 1 : start + 2]
        return after == " " and not self.text[self.text.rfind("\n", 0, start) + 1 : start].strip()

    def mark(self, group: str, piece: str, start: int, end: int) -> None:
        """What needs little look around."""
        match group:
            case "super":
                power = piece.translate(SUPERSCRIPTS)
                self.add("op", "^", start, start)
                if power.isalpha():
                    self.add("var", power, start, end)
                elif len(power.lstrip("+-")) <= MAX_DIGITS:
                    self.add("num", power, start, end, Fraction(power))
            case "vulgar":
                value = Fraction(unicodedata.numeric(piece)).limit_denominator(10)
                self.add("vulgar", piece, start, end, value)
            case "bang":
                glued = len(piece) == 1 and not self.spaced
                counts = self.last() in ("num", "close") or self.in_math(start)
                self.add("fact" if glued and counts else "break", piece, start, end)
            case "stop":
                ratio = piece == ":" and (self.in_math(start) or self.between_digits(start))
                self.add("colon" if ratio else "break", piece[0], start, end)
            case "degree":
                self.add("deg", "deg", start, end)
            case "root":
                self.add("sqrt", "sqrt", start, end)
            case "const":
                self.add("const", CONSTANTS[piece], start, end)
            case "other" if piece == "&":
                self.spaced = True
                if self.answer:
                    self.add("amp", piece, start, end)
                elif self.parts_columns(start, end):
                    self.add("break", ",", start, end)
            case _:
                self.add(group, piece, start, end)

    def parts_columns(self, start: int, end: int) -> bool:
        """Whether `&` parts two formulas: where it aligns one, a sign stands beside it."""
        after = _SPACING.match(self.text, end)
        beside = self.last() in ("op", "rel", "arrow", "break", "") or (after and self.goes_on(after.end()))
        return self.in_math(start) and not beside

    def between_digits(self, start: int) -> bool:
        return self.text[max(0, start - 1) : start].isdigit() and self.text[start + 1 : start + 2].isdigit()

    def delimiter(self, start: int) -> bool:
        return (
            any(start in (zone[0], zone[1] - 1) for zone in self.zones[max(0, self.zone - 1) : self.zone + 2])
            and not self.answer
        )

    def number(self, piece: str, start: int) -> int:
        if "," in piece and self.brackets and self.lists_arguments(piece):
            piece = piece[: piece.index(",")]
        elif self.answer and (spaced := _SPACED_THOUSANDS.match(self.text, start)):
            piece = max(piece, spaced[0], key=len)
        end = start + len(piece)
        if "e" in piece.lower():
            return self.add("num", piece, start, end, Fraction(piece), decimals_of(piece))
        digits = plain_digits(piece).rstrip(".")
        if self.european and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", piece):
            digits = digits.replace(".", "")
        padded = len(digits) > 1 and digits[0] == "0" and digits[1] != "." and not self.answer
        if len(digits) > MAX_DIGITS or padded:
            return self.add("other", piece[:10], start, end)
        if digits == "0" and self.text[end : end + 1] == "." and self.text[end + 1 : end + 2].isalpha():
            return self.add("other", digits, start, end + 1)  # "0.abc" has letters for digits
        comma = _DECIMAL_COMMA.match(self.text, end)
        if comma and digits.isdigit() and self.is_decimal_comma(start, comma):
            digits, end = f"{digits}.{comma[1]}", comma.end()
        decimals, value = decimals_of(digits), Fraction(digits)
        if more := repeating(self.text, end, digits):
            return self.add("num", digits, start, more[1], value + more[0], 0)
        return self.add("num", digits, start, end, value, decimals)

    def lists_arguments(self, piece: str) -> bool:
        """Whether a comma in brackets parts two numbers rather than thousands: `gcd(4,100)`, `(28,365)`."""
        if "{" in piece or "\\" in piece or ",0" in piece:
            return False
        return self.answer or [token.kind for token in self.tokens[-2:]] == ["func", "open"]

    def is_decimal_comma(self, start: int, comma: re.Match[str]) -> bool:
        """Whether a comma between digits is the point of a European number: an operator stands beside it."""
        if self.brackets or self.last() == "comma":
            return False
        before = self.text[max(0, start - 8) : start]
        return bool(_SIGN_BEFORE.search(before) or _SIGN_AFTER.match(self.text, comma.end()))

    def short_fraction(self, piece: str, start: int) -> int:
        """`\\frac12`: two one-digit arguments without braces."""
        end = start + len(piece)
        self.add("frac", "frac", start, start + 5)
        for i in (i for i, c in enumerate(piece) if c.isdigit()):
            self.add("num", piece[i], start + i, start + i + 1, Fraction(int(piece[i])))
        return end

    def letters(self, piece: str, start: int) -> int:
        end = start + len(piece)
        lower, after, math = piece.lower(), self.text[end : end + 1], self.in_math(start)
        if piece in GREEK_LETTERS:
            return self.add("var", GREEK_LETTERS[piece], start, end)
        if lower == "log" and (base := _BASE.match(self.text, end)):
            self.add("func", lower, start, end)
            return self.add("sub", base[0], end, base.end())
        if lower in FUNCTIONS and (math or self.applies(piece, end)):
            return self.add("func", lower, start, end)
        if piece == "mod":
            return self.add("op", "mod", start, end)
        if lower == "sqrt":
            return self.add("sqrt", "sqrt", start, end)
        if piece in CONSTANT_WORDS and (self.answer or piece == "pi"):
            return self.add("const", CONSTANT_WORDS[piece], start, end)
        if not math or not piece.isascii():
            return self.prose(piece, start)
        follows = self.answer and self.spaced and self.last() in ("num", "word")  # "5 apples", "10 m/s"
        unit = len(piece) > 1 or (piece in LETTER_UNITS and after in ("", "/", "²", "³"))
        word = (len(piece) >= 4 and not _runs(piece)) or piece in ("and", "or", "per")
        if piece in UNITS_OF_LETTERS or word or (follows and unit):
            return self.add("word", piece, start, end)
        if piece.isupper() and not self.answer:
            return self.capitals(piece, start)
        if len(piece) > 1 and piece.isupper():
            return self.add("var", piece, start, end)
        for i, letter in enumerate(piece):
            self.add("var", letter, start + i, start + i + 1)
        return end

    def applies(self, piece: str, end: int) -> bool:
        """Whether the name of a function that ends at `end` in prose is applied there, and is no unit: `m/sec²`."""
        if self.text[end : end + 1] in ("(", "_", "^"):
            return True
        beside = self.tokens[-1] if self.tokens else None
        measures = beside and (beside.name == "/" or (beside.kind == "num" and self.spaced))
        if _RAISED.match(self.text, end):
            return not (measures and piece in UNITS_OF_LETTERS)
        return "₀" <= self.text[end : end + 1] <= "₉"

    def capitals(self, piece: str, start: int) -> int:
        """Capitals side by side name a segment, also where a space stands between them: `A B = 5`."""
        last = self.tokens[-1] if self.last() == "var" else None
        if last and len(last.name) + len(piece) <= 3 and not self.text[last.end : start].strip(" "):
            self.tokens[-1] = replace(last, name=last.name + piece, end=start + len(piece))
            return start + len(piece)
        return self.add("var", piece, start, start + len(piece))

    def prose(self, piece: str, start: int) -> int:
        """Letters outside formulas: one is a variable, so are the capitals that name a line; others are words."""
        end = start + len(piece)
        if piece == "x" and self.indexed and (index := _INDEXED.match(self.text, start)):
            return self.add("var", f"x_{index[1]}", start, index.end())
        article = piece in "aI" and self.spaced and not _MARKED.match(self.text, end)
        single = len(piece) == 1 and piece.isascii() and not article
        line = len(piece) in (2, 3) and piece.isupper() and piece not in UNITS_OF_LETTERS
        return self.add("var" if single or (line and self.last() == "op") else "word", piece, start, end)

    def subscript(self, start: int) -> int:
        """A subscript joins the name before it, so that `x_1` and `x_2` are two variables."""
        found = _SUBSCRIPT.match(self.text, start)
        if not found:
            return self.add("other", "_", start, start + 1)
        name = re.sub(r"\\text|[\s{}\\]", "", found[1] or found[2] or found[3] or "")
        return self.lower(name, start, found.end())

    def lower(self, name: str, start: int, end: int) -> int:
        """`name` as a subscript: of the variable or the number before it, or apart, as the base of a logarithm."""
        last = self.tokens[-1] if self.tokens and not self.spaced else None
        if last is not None and last.kind == "var":
            self.tokens[-1] = replace(last, name=f"{last.name}_{name}", end=end)
            return end
        if last is not None and last.kind == "num":
            value = in_base(last.name, name)
            if value is not None:
                self.tokens[-1] = replace(last, name=f"{last.name}_{name}", end=end, value=value)
                return end
        return self.add("sub", name, start, end)

    def command(self, piece: str, start: int) -> int:
        end = start + len(piece)
        if piece == "\\boxed" and self.last() == "num" and not self.spaced:
            return self.add("other", piece, start, end)  # `3\boxed{55}` has its digits in a row
        if piece in SILENT:
            self.spaced = self.spaced or piece not in ("\\left", "\\right")
            return (
                self.skip_argument(end)
                if piece in ("\\hspace", "\\color", "\\textcolor", "\\phantom")
                else end
            )
        if piece in APART:
            self.spaced = True
            return self.add("comma" if self.answer else "break", ",", start, end)
        for table, kind in ((OPERATORS, "op"), (RELATIONS, "rel"), (CONSTANTS, "const")):
            if piece in table:
                return self.add(kind, table[piece], start, end)
        if piece in TEXTUAL:
            return self.textual(piece, start, end)
        bare = piece[1:]
        if bare in COMMANDS:
            return self.add(COMMANDS[bare], {"lbrack": "[", "rbrack": "]"}.get(bare, bare), start, end)
        if bare in FUNCTIONS:
            return self.add("func", bare, start, end)
        if bare in GREEK:
            return self.add("var", bare, start, end)
        if bare == "$":
            self.spaced = True
            return self.add("currency", "$", start, end)
        if piece in ARROWS:
            return self.add("arrow", bare, start, end)
        if piece in DOTS:
            return self.add("dots", "...", start, end)
        if bare == "mathbb" and (found := _TEXT_ARGUMENT.match(self.text, end)) and found[1] in BLACKBOARD:
            return self.add("const", BLACKBOARD[found[1]], start, found.end())
        if bare in ("begin", "end"):
            return self.environment(bare, start, end)
        return self.add("other", piece, start, end)

    def environment(self, bare: str, start: int, end: int) -> int:
        """Rows of formulas are read row by row, a matrix of an answer whole; others are left out."""
        found = _ENVIRONMENT.match(self.text, end)
        name = found[1] if found else ""
        closed = found.end() if found else end
        if name.endswith("matrix") and self.answer:
            return self.add(bare, name, start, closed)
        if name.startswith(_LAYOUT):
            return self.add("break", bare, start, closed)
        if bare == "begin" and found:
            return self.skip_to("\\end{" + name, start) + 1
        return self.add("other", bare, start, closed)

    def skip_argument(self, end: int) -> int:
        found = _SHORT_ARGUMENT.match(self.text, end)
        return found.end() if found else end

    def textual(self, piece: str, start: int, end: int) -> int:
        """What stands in `\\text{...}` is prose; a lone letter set upright is a unit, a name or e."""
        found = _TEXT_ARGUMENT.match(self.text, end)
        if not found:
            return self.add("other", "text", start, end)
        inside, self.spaced = found[1].strip(), True
        if piece == "\\mathbf" and len(inside) == 1 and inside.isalpha() and not self.answer:
            return self.add("other", inside, start, found.end())  # a vector: its products have two meanings
        if inside.replace(" ", "").isdigit():
            self.number(inside.replace(" ", ""), start)
            self.tokens[-1] = replace(self.tokens[-1], end=found.end())
        elif inside == "cis":
            self.add("other", inside, start, found.end())
        elif inside == "mod" or (inside.lower() in FUNCTIONS and piece in ("\\operatorname", "\\mathrm")):
            self.add("op" if inside == "mod" else "func", inside.lower(), start, found.end())
        else:
            offset = found.start(1)
            for token in _Lexer(found[1], answer=False).run():
                kind = "word" if token.kind == "var" else token.kind
                self.tokens.append(
                    replace(token, kind=kind, start=token.start + offset, end=token.end + offset, math=True)
                )
            if self.tokens:
                self.tokens[-1] = replace(self.tokens[-1], end=found.end())
        self.spaced = True
        return found.end()


def _runs(letters: str) -> bool:
    """Whether letters follow one another in the alphabet: `abcd` is a product."""
    return all(ord(b) - ord(a) == 1 for a, b in pairwise(letters))
