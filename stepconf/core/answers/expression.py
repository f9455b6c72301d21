"""Answers as trees: a recursive-descent parser over `notation.tokens`, bounded in length and depth.

A node is a tuple with its kind first:
("num", Fraction, is_decimal) | ("name", str) | ("add" | "mul" | "div" | "pow", node, node) | ("neg", node) |
("pm", node | None, node, sign) | ("call", function, node, ...) | ("fact", node) | ("percent", node) |
("deg", node) | ("unit", node, str) | ("base", digits, base) | ("seq", open, close, nodes) |
("rel", operators, nodes) | ("union", nodes) | ("ratio", nodes) | ("matrix", rows) | ("text", str)
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from stepconf.core.answers.notation import (
    FUNCTIONS,
    MAX_CHARS,
    Token,
    UnreadableError,
    normalise,
    tokens,
    with_decimal_point,
    without_text_commands,
)
from stepconf.core.answers.units import is_unit

Node = tuple[Any, ...]

MAX_DEPTH = 40
_LETTERS = frozenset({
    "\\alpha", "\\beta", "\\gamma", "\\delta", "\\epsilon", "\\varepsilon", "\\zeta", "\\eta", "\\theta",
    "\\kappa", "\\lambda", "\\mu", "\\nu", "\\xi", "\\rho", "\\sigma", "\\tau", "\\phi", "\\varphi", "\\chi",
    "\\psi", "\\omega", "\\Gamma", "\\Delta", "\\Theta", "\\Lambda", "\\Sigma", "\\Phi", "\\Psi", "\\Omega",
    "\\pi", "\\ell", "\\infty", "\\emptyset", "\\varnothing",
})  # fmt: skip
_CALLS = frozenset("\\" + name for name in FUNCTIONS)
_RELATIONS = frozenset({"=", "==", "!=", "<", ">", "<=", ">=", "\\in", "\\approx"})
_NO_FACTORS = _RELATIONS | {"\\cup", "\\pm", "\\mp", "\\deg", "\\end", "\\cr"}
_CLOSERS = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",)}
_TIME = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9]) ?([ap])?\.?(?:m)?\.?", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z'\-]*(?:[ ,.:;()/]+[A-Za-z'\-]+)*")
_FRACTION = re.compile(r"[0-9]{1,9}/0*[1-9][0-9]{0,9}")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")


@lru_cache(maxsize=4096)
def read(answer: str) -> tuple[Node, ...]:
    """The readings of an answer: one, or two where a comma may be a decimal comma.

    Raises `UnreadableError` where the text is not wholly inside the grammar.
    """
    if len(answer) > MAX_CHARS:
        raise UnreadableError("too long")
    text = normalise(answer)
    decimal = with_decimal_point(text)
    return (_read(text),) if decimal is None else (_read(decimal), _read(text))


def _read(text: str) -> Node:
    plain = without_text_commands(text)
    if clock := _TIME.fullmatch(plain):
        return ("time", int(clock[1]), int(clock[2]), (clock[3] or "").lower())
    long_words = [w for w in _LONG_WORD.findall(plain) if w not in FUNCTIONS and w not in ("and", "infty")]
    if long_words and _WORDS.fullmatch(plain):
        return ("text", plain)
    parser = _Parser(tokens(text))
    tree = parser.listed(())
    if parser.peek() is not None:
        raise UnreadableError(parser.tokens[parser.at].text)
    return tree


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.at = 0
        self.depth = 0
        self.bars = 0  # open absolute values

    def peek(self) -> str | None:
        return self.tokens[self.at].text if self.at < len(self.tokens) else None

    def next(self) -> Token:
        if self.at >= len(self.tokens):
            raise UnreadableError("it ends early")
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, *signs: str) -> str | None:
        if (sign := self.peek()) in signs:
            self.at += 1
            return sign
        return None

    def expect(self, *signs: str) -> str:
        if (sign := self.take(*signs)) is None:
            raise UnreadableError(f"{self.peek()} for {signs}")
        return sign

    def listed(self, closers: tuple[str, ...]) -> Node:
        """Parts between commas, "and", "or"; lists of them between semicolons; one part stands for itself."""
        lists: list[list[Node]] = [[]]
        while (sign := self.peek()) is not None and sign not in closers:
            if self.take(";"):
                lists.append([])
            elif not self.take(","):
                lists[-1].append(self.relation())
                if self.peek() not in (None, *closers, ",", ";"):
                    raise UnreadableError(str(self.peek()))
        rows = [("seq", "", "", tuple(parts)) if len(parts) > 1 else parts[0] for parts in lists if parts]
        if not rows:
            raise UnreadableError("empty")
        return ("seq", "", "", tuple(rows)) if len(rows) > 1 else rows[0]

    def relation(self) -> Node:
        sides, operators = [self.union()], []
        while (operator := self.peek()) in _RELATIONS:
            self.at += 1
            operators.append("=" if operator == "==" else operator)
            sides.append(self.union())
        return ("rel", tuple(operators), tuple(sides)) if operators else sides[0]

    def union(self) -> Node:
        parts = [self.ratio()]
        while self.take("\\cup"):
            parts.append(self.ratio())
        return ("union", tuple(parts)) if len(parts) > 1 else parts[0]

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.take(":"):
            parts.append(self.sum())
        return ("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        sign = self.take("\\pm", "\\mp")
        node: Node = ("pm", None, self.term(), sign) if sign else self.term()
        while sign := self.take("+", "-", "\\pm", "\\mp"):
            right = self.term()
            if sign in ("+", "-"):
                node = ("add", node, right if sign == "+" else ("neg", right))
            else:
                node = ("pm", node, right, sign)
        self.depth -= 1
        return node

    def term(self) -> Node:
        node = self.signed()
        while True:
            if sign := self.take("*", "/"):
                node = ("mul" if sign == "*" else "div", node, self.signed())
            elif self.at < len(self.tokens) and self.starts_factor():
                node = ("mul", node, self.power())
            else:
                return node

    def signed(self) -> Node:
        negative = False
        while sign := self.take("+", "-"):
            negative ^= sign == "-"
        return ("neg", self.power()) if negative else self.power()

    def starts_factor(self) -> bool:
        token = self.tokens[self.at]
        if token.kind in ("name", "word"):
            return token.text not in _NO_FACTORS
        return token.text in ("(", "{", "\\{") or (token.text == "|" and not self.bars)

    def power(self) -> Node:
        node = self.postfixed(self.primary())
        if self.take("^"):
            node = self.postfixed(("pow", node, self.exponent()))
        return node

    def exponent(self) -> Node:
        """What stands behind ^: a group or one sign; a factorial, percent sign or unit is not part of it."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        if self.take("-"):
            node: Node = ("neg", self.primary())
        else:
            node = self.primary()
        if self.take("^"):
            node = ("pow", node, self.exponent())
        self.depth -= 1
        return node

    def postfixed(self, node: Node) -> Node:
        while True:
            if self.take("!"):
                node = ("fact", node)
            elif node[0] != "percent" and self.take("%"):
                node = ("percent", node)
            elif self.take("\\deg"):
                node = ("deg", node)
            elif unit := self.unit(node):
                return ("unit", node, unit)
            else:
                return node

    def unit(self, node: Node) -> str:
        """Words behind a value: "cm^2", "km/h", "dollars per day"; "" if what follows is not that."""
        words: list[str] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "text" or (token.kind == "word" and (words or is_unit(token.text))):
                words.append(token.text.strip())
            elif words and token.kind == "name" and token.spaced and token.text.isalpha():
                words.append(token.text)
            elif words and token.text == "/" and self.tokens[self.at + 1 : self.at + 2]:
                words.append("/")
            elif words and token.text == "^":
                self.at += 1
                self.primary()
                continue
            else:
                break
            self.at += 1
        if words and node[0] == "name" and node[1].isalpha():
            raise UnreadableError("a letter before words")
        return " ".join(words)

    def primary(self) -> Node:
        token = self.next()
        if token.kind == "number":
            return self.number(token.text)
        if token.kind == "word":
            return self.product_of_letters(token.text)
        if token.text == "|" and not self.bars:
            self.bars += 1
            inner = self.sum()
            self.expect("|")
            self.bars -= 1
            return ("call", "abs", inner)
        if token.text in _CLOSERS:
            return self.bracketed(token.text)
        if token.kind == "name":
            return self.command(token.text) if token.text.startswith("\\") else self.name(token.text)
        raise UnreadableError(token.text)

    def number(self, text: str) -> Node:
        if len(text) > 300:
            raise UnreadableError("too many digits")
        node: Node = ("num", Fraction(text), "." in text or "e" in text.lower())
        if self.peek() == "_":
            self.at += 1
            base = self.argument()
            if base[0] != "num" or not text.isdigit() or not int(max(text)) < base[1] <= 36:
                raise UnreadableError("base")
            return ("base", text, int(base[1]))
        if text.isdigit() and (fraction := self.fraction_of_mixed()):
            return ("add", node, fraction)
        return node

    def fraction_of_mixed(self) -> Node | None:
        """The fraction of a mixed number: 3\\frac{1}{2} or 3 1/2."""
        start = self.at
        ahead = self.tokens[start : start + 3]
        if [token.text for token in ahead[:1]] == ["\\frac"]:
            self.at += 1
            top, bottom = self.argument(), self.argument()
            if top[0] == bottom[0] == "num" and not top[2] and not bottom[2] and 0 < top[1] < bottom[1]:
                return ("div", top, bottom)
        elif len(ahead) == 3 and ahead[0].spaced and _FRACTION.fullmatch("".join(t.text for t in ahead)):
            self.at += 3
            return ("num", Fraction(int(ahead[0].text), int(ahead[2].text)), False)
        self.at = start
        return None

    def product_of_letters(self, word: str) -> Node:
        if len(word) > 4:
            raise UnreadableError(word)
        node: Node = ("name", word[0])
        for letter in word[1:]:
            node = ("mul", node, ("name", letter))
        return node

    def bracketed(self, opener: str) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        bars, self.bars = self.bars, 0
        inner = self.listed(_CLOSERS[opener])
        closer = self.expect(*_CLOSERS[opener])
        self.bars = bars
        self.depth -= 1
        if opener == "{" or (opener == "(" and closer == ")"):
            if inner[:3] == ("seq", "", ""):
                return ("seq", opener.strip("{"), closer.strip("}"), inner[3])
            return inner
        parts = inner[3] if inner[:3] == ("seq", "", "") else (inner,)
        return ("seq", opener, closer, parts)

    def name(self, letter: str) -> Node:
        if self.take("_"):
            subscript = self.argument()
            return ("name", f"{letter}_{subscript!r}")
        return ("name", letter)

    def argument(self) -> Node:
        """What a TeX command or a subscript takes: a group, or one sign (\\frac12 takes 1 and 2)."""
        if self.take("{"):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise UnreadableError("too deep")
            bars, self.bars = self.bars, 0
            node = self.listed(("}",))
            self.expect("}")
            self.bars = bars
            self.depth -= 1
            return node
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token and token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = Token("number", token.text[1:], False)
            return ("num", Fraction(int(token.text[0])), False)
        token = self.next()
        if token.kind == "number":
            return ("num", Fraction(token.text), "." in token.text)
        if token.kind == "name":
            return self.command(token.text) if token.text.startswith("\\") else ("name", token.text)
        if token.kind == "word":
            return self.product_of_letters(token.text)
        raise UnreadableError(token.text)

    def command(self, name: str) -> Node:
        if name == "\\frac":
            return ("div", self.argument(), self.argument())
        if name in ("\\binom", "\\dbinom", "\\tbinom"):
            return ("call", "binom", self.argument(), self.argument())
        if name == "\\sqrt":
            index: Node = ("num", Fraction(2), False)
            if self.take("["):
                index = self.listed(("]",))
                self.expect("]")
            inside = self.power() if self.peek() == "(" else self.argument()
            return ("call", "root", inside, index)
        if name in _CALLS:
            return self.call(name[1:])
        if name == "\\begin":
            return self.matrix()
        if name in _LETTERS:
            return self.name(name)
        raise UnreadableError(name)

    def call(self, function: str) -> Node:
        base = exponent = None
        if self.take("_"):
            base = self.argument()
        if self.take("^"):
            exponent = self.argument() if self.peek() == "{" else self.primary()
        if self.take("("):
            inner = self.bracketed("(")
        else:  # sin 2x takes the whole product, as TeX authors mean it
            inner = self.power()
            while self.at < len(self.tokens) and self.starts_factor() and self.peek() not in _CALLS:
                inner = ("mul", inner, self.power())
        node: Node = ("call", function, inner) if base is None else ("call", function, inner, base)
        if exponent == ("neg", ("num", Fraction(1), False)):
            return ("call", "arc" + function, inner)
        return node if exponent is None else ("pow", node, exponent)

    def matrix(self) -> Node:
        kind = self.environment()
        if not kind.rstrip("*").endswith("matrix"):
            raise UnreadableError(kind)
        rows: list[tuple[Node, ...]] = []
        while True:
            row = [self.sum()]
            while self.take("&"):
                row.append(self.sum())
            rows.append(tuple(row))
            ended = not self.take("\\cr")
            if self.take("\\end"):
                break
            if ended:
                raise UnreadableError(str(self.peek()))
        if self.environment() != kind or len({len(row) for row in rows}) != 1:
            raise UnreadableError("matrix")
        return ("matrix", tuple(rows))

    def environment(self) -> str:
        self.expect("{")
        name = ""
        while not self.take("}"):
            name += self.next().text
        return name
