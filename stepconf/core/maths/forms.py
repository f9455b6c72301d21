"""An answer → its form: an expression, or a list, set, interval, equation, matrix, quantity or time of such.

`read` reads an answer to its last character or not at all; `head` finds how far an answer goes in prose.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from stepconf.core.maths.lexer import tokenize
from stepconf.core.maths.notation import UPRIGHT
from stepconf.core.maths.numbers import in_base, spoken
from stepconf.core.maths.parser import NoExpressionError, parse
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import (
    Binary,
    Choice,
    Clock,
    Const,
    Form,
    Listing,
    Matrix,
    Node,
    Num,
    Quantity,
    Statement,
    Unary,
    Union,
    Words,
    expressions,
)
from stepconf.core.maths.units import measure, unit_after

MAX_CHARS = 600
MAX_DEPTH = 20
MAX_ITEMS = 40
_CLOCK = re.compile(
    r"([01]?[0-9]|2[0-4]):([0-5][0-9])(?: ?([ap])\.?m\.?)?|(1?[0-9]) ?([ap])\.?m\.?", re.IGNORECASE
)
_SAID = re.compile(
    r"(?:\\text\{)?\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s*\}?(?=.*[0-9\\])", re.IGNORECASE
)
_ORDINAL = re.compile(
    r"\^?\s*\{?\s*(?:\\(?:text|mathrm|mbox)\w*\s*\{\s*)(?:st|nd|rd|th)\s*\}\s*\}?|(?<=[0-9])(?:st|nd|rd|th)\b"
)
_TWICE_ESCAPED = re.compile(r"\\\\(?=[A-Za-z{}$%])")
_DECIMAL_COMMA = re.compile(r"([-+−]?\s*[0-9]+),([0-9]+)(?=\s*(?:%|\\|[A-Za-z$€£]|$))")
_BASED = re.compile(r"(?=[A-Za-z]*[0-9])([0-9A-Za-z]{2,100})_\{?([0-9]{1,2})\}?")
_WHERE = re.compile(r"\$?,?\s*(?:\\text\{,?\s*)?\bwhere\b")
_GLUED = re.compile(r"(?<=[0-9)])(or|and)(?=[A-Za-z\\(])")
_PLAIN_WORDS = re.compile(r"(?!(?:sin|cos|tan|cot|sec|csc|log|inf)\b)(?:[a-z]{3,}|no)", re.IGNORECASE)
_SPACED_THOUSANDS = re.compile(r"[-+−]?[0-9]{1,3}(?: [0-9]{3})+(?![0-9 ])")
_PHRASES: dict[str, Form] = {
    **dict.fromkeys(("all real numbers", "all reals", "all real", "any real number"), Const("reals")),
    **dict.fromkeys(("no solution", "no solutions", "no real solutions", "empty set"), Const("empty")),
}
_JOINS = {"comma": "", ";": "", "and": "", "or": "or"}
_MIRRORED = str.maketrans("()[]", ")(][")
_MATCHING = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), "lbrace": ("}", "rbrace")}


class UnreadableError(Exception):
    """The text is not wholly inside the grammar."""


@lru_cache(maxsize=4096)
def read(answer: str) -> tuple[Form, ...]:
    """The readings of an answer: one, or two where a comma may be a decimal comma.

    There is none where the grammar does not read it to its last character.
    """
    if len(answer) > MAX_CHARS:
        return ()
    text = answer if "\\begin" in answer else _TWICE_ESCAPED.sub(r"\\", answer)
    text = _ORDINAL.sub("", _SAID.sub("", text.strip().strip("`").strip(), count=1))
    said = _WHERE.split(text, maxsplit=1)
    text = _GLUED.sub(r" \1 ", said[0].strip("$") if len(said) > 1 else text)
    comma = _DECIMAL_COMMA.match(text)
    if comma and not (len(comma[2]) == 3 and len(comma[1].strip("+-− ")) < 4):
        texts = [f"{comma[1]}.{comma[2]}{text[comma.end() :]}", text]
    else:
        texts = [text]
    try:
        return tuple(map(_read, texts))
    except (UnreadableError, NoExpressionError, RecursionError):
        return ()


def _read(text: str) -> Form:
    plain = " ".join(UPRIGHT.sub(r"\1", text).split()).strip("$ .")
    if clock := _CLOCK.fullmatch(plain):
        half = (clock[3] or clock[5] or "").lower()
        return Clock(int(clock[1] or clock[4]), int(clock[2] or 0), half)
    based = _BASED.fullmatch(plain)
    if based and (value := in_base(based[1], based[2])) is not None:
        return Num(value, 0, f"{based[1]}_{based[2]}")
    tokens = tokenize(text, answer=True)
    if "\\begin" not in text:
        tokens = [t for t in tokens if not (t.kind == "break" and t.name == "\n")]
    while tokens and tokens[-1].kind == "break":
        tokens.pop()
    if _PLAIN_WORDS.fullmatch(plain) or (_has_words(tokens) and _only_words(tokens)):
        number = spoken(re.findall(r"[A-Za-z]+", plain))
        return _PHRASES.get(plain.lower()) or (Words(plain) if number is None else Num(number, 0, plain))
    reader = _Reader(tokens)
    form = reader.items(len(tokens), 0)
    if reader.at < len(tokens):
        raise UnreadableError(tokens[reader.at].name)
    return form


def _has_words(tokens: Sequence[Token]) -> bool:
    return any(t.kind == "word" and len(t.name) > 1 for t in tokens)


def _only_words(tokens: Sequence[Token]) -> bool:
    return all(t.kind in ("word", "var", "break") or t.name in (",", "-", "/", "(", ")", "'") for t in tokens)


def head(text: str) -> int:
    """Where the answer ends with which `text`, some prose, begins; 0 where it begins with none."""
    for pattern in (_CLOCK, _SPACED_THOUSANDS):
        if found := pattern.match(text):
            return found.end()
    tokens = tokenize(text)
    stop = next((i for i, t in enumerate(tokens) if t.kind == "break" and t.name != "\n"), len(tokens))
    reader = _Reader(tokens, most_words=2)
    try:
        reader.items(stop, 0)
    except (UnreadableError, NoExpressionError):
        return 0
    return tokens[reader.at - 1].end if reader.at else 0


class _Reader:
    """Recursive descent over tokens. Without `most_words` the whole of them is one answer."""

    def __init__(self, tokens: list[Token], most_words: int = 0) -> None:
        self.tokens, self.at, self.most_words = tokens, 0, most_words

    def kind(self, end: int, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].kind if self.at + ahead < end else ""

    def name(self, end: int, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].name if self.at + ahead < end else ""

    def items(self, end: int, depth: int) -> Form:
        """Parts between commas, semicolons, "and", "or"; one part stands for itself."""
        if depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        rows: list[list[Form]] = []
        found, brackets = [self.statement(end, depth)], ""
        while self.at < end and len(found) < MAX_ITEMS:
            mark = self.at
            joint = self.joint(end)
            said = found[-1].unit if found and isinstance(found[-1], Quantity) else ()
            if joint is None and measure(said) is not None and self.kind(end) == "num":
                joint = "and"  # "2 hours 30 minutes"
            if joint is None:
                break
            if joint == ";":
                rows.append(found)
                found = []
            try:
                found.append(self.statement(end, depth))
            except (UnreadableError, NoExpressionError):
                if not self.most_words and not (self.at == end and joint == "comma"):
                    raise
                self.at = mark if self.most_words else end
                break
            brackets = brackets or _JOINS[joint]
        if rows:
            return Listing(
                "", tuple(Listing("", tuple(row)) if len(row) > 1 else row[0] for row in (*rows, found))
            )
        return _summed(found) or (Listing(brackets, tuple(found)) if len(found) > 1 else found[0])

    def joint(self, end: int) -> str | None:
        """Consume what parts two items."""
        joint = None
        while self.at < end:
            token = self.tokens[self.at]
            name = token.kind if token.kind == "comma" else token.name.lower()
            if name not in _JOINS:
                break
            joint = name
            self.at += 1
        return joint

    def statement(self, end: int, depth: int) -> Form:
        sides, signs = [self.union(end, depth)], []
        while self.kind(end) == "rel":
            mark = self.at
            sign = self.name(end)
            self.at += 1
            try:
                sides.append(self.union(end, depth))
            except (UnreadableError, NoExpressionError):
                if not self.most_words:
                    raise
                self.at = mark
                break
            signs.append("=" if sign == "===" else sign)
            if sign == "===":
                self.skip_modulus(end)
        return Statement(tuple(signs), tuple(sides)) if signs else sides[0]

    def skip_modulus(self, end: int) -> None:
        """`(mod 7)`: an answer says a residue; the problem has the modulus."""
        kinds = [t.kind for t in self.tokens[self.at : self.at + 4]]
        if kinds[:1] == ["pmod"]:
            self.at += 4 if kinds[1:2] == ["open"] else 2
        elif kinds == ["open", "op", "num", "close"]:
            self.at += 4

    def union(self, end: int, depth: int) -> Form:
        parts = [self.ratio(end, depth)]
        while self.name(end) == "cup":
            self.at += 1
            parts.append(self.ratio(end, depth))
        return Union(tuple(parts)) if len(parts) > 1 else parts[0]

    def ratio(self, end: int, depth: int) -> Form:
        parts = [self.part(end, depth)]
        while self.kind(end) == "colon":
            self.at += 1
            parts.append(self.part(end, depth))
        return Listing(":", tuple(parts)) if len(parts) > 1 else parts[0]

    def part(self, end: int, depth: int) -> Form:
        if self.kind(end) in ("open", "brace") and (bracketed := self.bracketed(end, depth)):
            return bracketed
        if self.name(end) == "-" and self.kind(end, 1) in ("open", "brace"):
            self.at += 1
            if bracketed := self.bracketed(end, depth):
                return _negated(bracketed)
            self.at -= 1
        if self.kind(end) == "begin":
            return self.matrix(end, depth)
        currency: tuple[str, ...] = ()
        if self.kind(end) == "currency" or self.name(end) in ("Rs", "USD"):
            currency, self.at = unit_after(self.tokens, self.at, end, 1)
            self.at += self.name(end) == "."
        node, self.at = parse(self.tokens, self.at, end, answer=True)
        return self.with_words(node, currency, end)

    def with_words(self, value: Node, currency: tuple[str, ...], end: int) -> Form:
        """What may stand after a value: a base, a remainder, a unit, a remark."""
        word = self.name(end).lower() if self.kind(end) in ("word", "var") else ""
        if word == "base" and isinstance(value, Num) and self.kind(end, 1) == "num":
            based = in_base(value.name, self.name(end, 1))
            if based is not None:
                value = replace(value, value=based, name=f"{value.name}_{self.name(end, 1)}")
                self.at += 2
        elif word in ("r", "remainder") and self.kind(end, 1) == "num":
            rest = Num(self.tokens[self.at + 1].value, 0, self.name(end, 1))
            self.at += 2
            return Listing("R", (value, rest))
        unit, self.at = unit_after(self.tokens, self.at, end, self.most_words or 12)
        if not self.most_words:
            self.skip_remark(end)
        return Quantity(value, unit or currency) if unit or currency else value

    def skip_remark(self, end: int) -> None:
        """ "for all real x", or words in brackets, after a value."""
        if self.name(end) == "for":
            self.at = end
        elif self.kind(end) == "open" and self.kind(end, 1) in ("word", "num"):
            self.at = self.closing(end) + 1

    def closing(self, end: int) -> int:
        """The index of the bracket that closes the one at hand."""
        depth = 0
        for index in range(self.at, end):
            kind = self.tokens[index].kind
            depth += (kind in ("open", "brace")) - (kind in ("close", "endbrace"))
            if not depth:
                return index
        raise UnreadableError("an open bracket")

    def bracketed(self, end: int, depth: int) -> Form | None:
        """A list, interval or set in brackets, or the letter of a choice; None where it is an expression."""
        opener, close = self.tokens[self.at], self.closing(end)
        closer = self.tokens[close].name
        if closer not in _MATCHING.get(opener.name, ("}", "rbrace")):
            raise UnreadableError(closer)
        if close == self.at + 2 and close + 1 < end and (choice := self.choice(end, depth)):
            return choice
        if opener.kind != "brace" and not self.parted(close):
            return None
        self.at += 1
        form = self.set_builder(close, depth) if opener.kind == "brace" else self.items(close, depth + 1)
        if self.at != close:
            raise UnreadableError(self.name(close))
        self.at = close + 1
        if opener.kind == "open" and opener.name == "{":
            return form
        brackets = "{}" if opener.kind == "brace" else opener.name + closer
        if isinstance(form, Statement) or (isinstance(form, Listing) and form.brackets == "or"):
            return form
        return Listing(brackets, form.items if isinstance(form, Listing) and not form.brackets else (form,))

    def parted(self, close: int) -> bool:
        """Whether a comma stands between the bracket at hand and the one that closes it, in no other one."""
        level = 0
        for token in self.tokens[self.at + 1 : close]:
            level += (token.kind in ("open", "brace")) - (token.kind in ("close", "endbrace"))
            if not level and (token.kind == "comma" or token.name == ";"):
                return True
        return False

    def set_builder(self, close: int, depth: int) -> Form:
        """What stands between braces: `1, 2`, or the condition of `x : x > 2`."""
        if self.kind(close, 1) in ("such", "bar", "colon"):
            self.at += 2
        return self.items(close, depth + 1)

    def choice(self, end: int, depth: int) -> Form | None:
        letter = self.name(end, 1)
        if letter not in tuple("ABCDEFGHIJ") or self.kind(end, 3) in ("op", "rel", "comma"):
            return None
        self.at += 3
        return Choice(letter, self.statement(end, depth + 1))

    def matrix(self, end: int, depth: int) -> Form:
        kind, rows, row = self.name(end), [], []
        self.at += 1
        while self.kind(end) != "end":
            row.append(self.statement(end, depth + 1))
            if self.kind(end) == "amp":
                self.at += 1
                continue
            rows.append(tuple(row))
            row = []
            while self.kind(end) == "break":
                self.at += 1
        self.at += 1
        if self.tokens[self.at - 1].name != kind or len({len(r) for r in rows}) != 1:
            raise UnreadableError("matrix")
        return Matrix(tuple(rows))


def _summed(found: Sequence[Form]) -> Form | None:
    """ "2 hours and 30 minutes" is one quantity."""
    match found:
        case [Quantity(Num() as whole, unit), Quantity(Num() as rest, smaller)]:
            one, other = measure(unit), measure(smaller)
            if one and other and one.dimension == other.dimension and one.size > other.size:
                part = Binary("*", Num(other.size / one.size), rest)
                return Quantity(Binary("+", whole, part), unit)
    return None


def _negated(form: Form) -> Form:
    """`-[0, 1)` is `(-1, 0]`; the negative of a set has the negatives of its members."""
    values = expressions(form.items) if isinstance(form, Listing) else None
    if not isinstance(form, Listing) or values is None or form.brackets == "()":
        raise UnreadableError("-")  # of (1, 2): an interval, or a point?
    turned = form.brackets if form.brackets == "{}" else form.brackets[::-1].translate(_MIRRORED)
    return Listing(turned, tuple(Unary("neg", value) for value in values[::-1]))
