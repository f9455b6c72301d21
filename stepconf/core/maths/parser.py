"""Tokens → expression, by precedence climbing with a depth limit.

`parse` reads the longest expression that begins at a token and says where it ended. Units and remarks in
brackets after a number are read over ("3 plates × $6.00/plate", "25 (riders) - 15 (women)").
"""

from collections.abc import Sequence
from fractions import Fraction

from stepconf.core.maths.numbers import SCALES
from stepconf.core.maths.tokens import Token
from stepconf.core.maths.tree import Binary, Call, Const, Node, Num, Unary, Var
from stepconf.core.maths.units import after_units

MAX_DEPTH = 40

_POWER, _IMPLICIT, _PRODUCT, _MOD, _SUM = 40, 30, 20, 15, 10
_BINDING = {
    **dict.fromkeys(("+", "-", "pm", "mp"), _SUM),
    **dict.fromkeys("*/", _PRODUCT),
    "mod": _MOD,
    "^": _POWER,
}
_WORD_OPERATORS = {
    "plus": "+", "minus": "-", "times": "*", "multiplied": "*", "divided": "/", "x": "*", "X": "*",
}  # fmt: skip
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SKIPPABLE_FRONT = frozenset("about approximately roughly exactly around nearly only just Rs USD".split())
_OWNERS = frozenset("the her his their its those".split())
_INVERTIBLE = ("sin", "cos", "tan")
_SHORT = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}


_END = Token("", "", 0, 0, math=False, spaced=False)


class NoExpressionError(Exception):
    """No expression begins here."""


def parse(tokens: Sequence[Token], start: int, end: int, answer: bool = False) -> tuple[Node, int]:
    """The longest expression in `tokens[start:end]` that begins at `start`, and the index after it.

    Args:
        tokens: of a text.
        start, end: where in them.
        answer: whether it is (part of) an answer. Elsewhere units and remarks after a number are skipped, and
            a letter before brackets may be a function.

    Raises:
        NoExpressionError: nothing can be read there.
    """
    reader = _Reader(tokens, start, end, answer)
    node = reader.expression(0, 0)
    return node, reader.at


class _Reader:
    def __init__(self, tokens: Sequence[Token], start: int, end: int, answer: bool) -> None:
        self.tokens, self.at, self.end, self.answer = tokens, start, end, answer
        self.groups = 0
        self.bracketed: dict[int, Node] = {}  # by identity: what brackets stand around, and fractions of TeX

    def peek(self, ahead: int = 0) -> Token:
        index = self.at + ahead
        return self.tokens[index] if index < self.end else _END

    def kind(self, ahead: int = 0) -> str:
        return self.peek(ahead).kind

    def take(self, *kinds: str) -> Token | None:
        """The next token, consumed if it is of one of these kinds."""
        token = self.peek()
        if token.kind not in kinds:
            return None
        self.at += 1
        return token

    def expect(self, kind: str, name: str = "") -> None:
        token = self.take(kind)
        if token is None or (name and token.name != name):
            raise NoExpressionError

    def expression(self, binding: int, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise NoExpressionError
        left = self.operand(depth)
        while True:
            mark = self.at
            operator = self.operator(left)
            if operator is None or operator[1] < binding:
                self.at = mark
                return left
            op, power = operator
            try:
                digits = op == "^" and self.is_bare_number()
                right = self.exponent(depth + 1) if op == "^" else self.expression(power + 1, depth + 1)
            except NoExpressionError:
                self.at = mark
                return left
            left = self.joined("^^" if digits else op, left, right, prose=not self.tokens[mark].math)

    def joined(self, op: str, left: Node, right: Node, prose: bool) -> Node:
        """`left op right`; `loose` where no brackets say how far a division reaches (`7/4t`, but not `7/(4t)`)."""
        match op, left, right:
            case "/", _, Binary("implicit", above, below) if id(right) in self.bracketed:
                return Binary("/", left, Binary("*", above, below))
            case "/", Num(), Binary("implicit", Num() as below, rest) if prose:
                return Binary("loose", Binary("/", left, below), rest)
            case "*", Binary("/", _, Num(below)), Binary("^" | "^^", Num(base), _) if base == 10:
                if not self.answer and id(left) not in self.bracketed and 1 <= below < 10:
                    return Binary("loose", left, right)  # a × 10^n is one number
        return Binary(op, left, right)

    def is_bare_number(self) -> bool:
        """Whether several digits without braces stand next, in TeX."""
        return self.kind() == "num" and len(self.peek().name) > 1

    def exponent(self, depth: int) -> Node:
        """What stands after `^`: a group, one signed factor, or another power (right-associative)."""
        if self.take("op"):
            return Unary("neg", self.exponent(depth + 1))
        return self.expression(_POWER, depth)

    def operator(self, left: Node) -> tuple[str, int] | None:
        """Consume the operator after `left`, if there is one: its name and how tightly it binds."""
        if self.kind(1) == "op":
            self.take("currency")
        token = self.peek()
        if not token.kind:
            return None
        if token.kind == "op" and token.name in _BINDING:
            self.at += 1
            return token.name, _BINDING[token.name]
        if token.kind in ("word", "var") and token.name in _WORD_OPERATORS:
            spelled = self.word_operator(token, left)
            if spelled:
                return spelled
        if token.kind == "word" and token.name == "of" and self.is_part(left):
            self.at += 1
            while self.peek().name in _OWNERS:
                self.at += 1
            return "of", _PRODUCT
        if self.multiplies(token, left):
            return "implicit", _PRODUCT if self.answer else _IMPLICIT
        return None

    def word_operator(self, token: Token, left: Node) -> tuple[str, int] | None:
        following = self.peek(1)
        if token.name in ("x", "X"):
            apart = token.spaced and following.spaced if self.answer else not token.math
            if (
                not apart
                or following.kind not in ("num", "open", "currency", "frac")
                or isinstance(left, Var)
            ):
                return None
        elif token.name in ("multiplied", "divided"):
            if following.name != "by":
                return None
            self.at += 1
        self.at += 1
        return _WORD_OPERATORS[token.name], _BINDING[_WORD_OPERATORS[token.name]]

    @staticmethod
    def is_part(left: Node) -> bool:
        match left:
            case Unary("pct", _) | Binary("/", Num(), Num()):
                return True
        return False

    def multiplies(self, token: Token, left: Node) -> bool:
        """Whether `token` begins a factor that follows `left` without a sign."""
        if token.kind == "open":
            return (token.name != "[" or token.math) and token.math == self.tokens[self.at - 1].math
        if token.kind == "num" and self.answer:
            return self.tokens[self.at - 1].kind == "close"
        if token.kind in ("var", "const", "func", "frac", "sqrt", "binom", "floor", "ceil"):
            previous = self.tokens[self.at - 1]
            if token.math != previous.math or (token.spaced and not token.math):
                return False
            return token.kind != "frac" or not isinstance(left, Num)
        return False

    def operand(self, depth: int) -> Node:
        node = self.postfix(self.primary(depth))
        if not self.answer:
            self.at = after_units(self.tokens, self.at, self.end, self.groups > 0)
        return node

    def primary(self, depth: int) -> Node:
        while self.kind() == "currency" or self.peek().name in _SKIPPABLE_FRONT:
            self.at += 1
        token = self.peek()
        self.at += 1
        match token.kind:
            case "op" if token.name in "+-":
                inner = self.expression(_PRODUCT, depth + 1)
                return Unary("neg", inner) if token.name == "-" else inner
            case "op" if token.name in ("pm", "mp"):
                return Unary(token.name, self.expression(_PRODUCT, depth + 1))
            case "num":
                return self.mixed(Num(token.value, token.decimals, token.name), depth)
            case "vulgar":
                return Num(token.value, 0, token.name)
            case "var":
                return self.variable(token, depth)
            case "word" if len(token.name) == 1:
                return Const("e") if token.name == "e" else Var(token.name)
            case "const":
                return Const(token.name)
            case "open":
                return self.group(token, depth)
            case "frac":
                return self.fraction(depth)
            case "binom":
                return Call("binom", (self.argument(depth), self.argument(depth)))
            case "sqrt":
                return self.root(depth)
            case "func":
                return self.function(token.name, depth)
            case "bar":
                inner = self.expression(0, depth + 1)
                self.expect("bar")
                return Unary("abs", inner)
            case "floor" | "ceil":
                inner = self.expression(0, depth + 1)
                self.expect("end" + token.kind)
                return Unary(token.kind, inner)
        raise NoExpressionError

    def mixed(self, whole: Num, depth: int) -> Node:
        """`2\\frac{1}{2}` and `2 1/2`; the two-number forms of a product without a sign."""
        mark, token = self.at, self.peek()
        if token.kind == "word" and token.name.lower() in SCALES:
            self.at += 1
            return Binary("implicit", whole, Num(Fraction(SCALES[token.name.lower()])))
        if whole.decimals or whole.value.denominator != 1:
            return whole
        if self.take("vulgar"):
            return Binary("mixed", whole, Num(token.value))
        if self.take("frac"):
            try:
                part = self.fraction(depth + 1)
            except NoExpressionError:
                self.at = mark
                return whole
            simple = isinstance(part, Binary) and isinstance(part.left, Num) and isinstance(part.right, Num)
            return Binary("mixed" if simple else "implicit", whole, part)
        slash, below = self.peek(1), self.peek(2)
        if token.kind == below.kind == "num" and slash.name == "/" and token.value < below.value <= 100:
            self.at += 3
            return Binary("mixed", whole, Binary("/", Num(token.value), Num(below.value)))
        return whole

    def variable(self, token: Token, depth: int) -> Node:
        following = self.peek()
        if token.name == "e" and following.name == "^":
            return Const("e")
        letter = token.name.split("_")[0]
        called = following.kind == "open" and not following.spaced
        called = called and (letter not in "abcxyznmkrst" or self.kind(2) == "close")
        function = (
            letter in "fghFGHPQpq" and token.math and (following.kind == "open" or following.name == "^")
        )
        if not self.answer and (called or function):
            raise NoExpressionError
        return Var(token.name)

    def group(self, token: Token, depth: int) -> Node:
        closing = _CLOSING[token.name]
        self.groups += 1
        inner = self.expression(0, depth + 1)
        self.groups -= 1
        if self.take("choose"):
            inner = Call("binom", (inner, self.expression(0, depth + 1)))
        while self.take("currency"):
            pass
        self.expect("close", closing)
        self.bracketed[id(inner)] = inner
        return inner

    def argument(self, depth: int) -> Node:
        """The argument of a command: a braced group or one token."""
        token = self.take("open", "num", "var")
        if token is None:
            raise NoExpressionError
        if token.kind == "open":
            return self.group(token, depth)
        return Var(token.name) if token.kind == "var" else Num(token.value, token.decimals, token.name)

    def fraction(self, depth: int) -> Node:
        node = self.joined("/", self.argument(depth + 1), self.argument(depth + 1), prose=False)
        self.bracketed[id(node)] = node
        return node

    def root(self, depth: int) -> Node:
        token = self.peek()
        if token.name == "[" and self.take("open"):
            degree = self.group(token, depth)
            return Call("root", (self.argument(depth), degree))
        return Call("sqrt", (self.argument(depth),))

    def function(self, name: str, depth: int) -> Node:
        power: Node | None = None
        base: tuple[Node, ...] = ()
        if sub := self.take("sub"):
            if not sub.name.isascii() or not (len(sub.name) == 1 or sub.name.isdigit()):
                raise NoExpressionError
            base = (Num(Fraction(sub.name)) if sub.name.isdigit() else Var(sub.name),)
        if self.peek().name == "^":
            self.at += 1
            power = self.exponent(depth + 1)
        if token := self.take("open"):
            arguments = [self.expression(0, depth + 1)]
            while self.take("comma"):
                arguments.append(self.expression(0, depth + 1))
            self.expect("close", _CLOSING[token.name])
        else:
            arguments = [self.bare_argument(depth + 1)]
        inverse = self.answer and power == Unary("neg", Num(Fraction(1), 0, "1")) and name in _INVERTIBLE
        call: Node = Call(_SHORT.get(name, "arc" + name if inverse else name), (*arguments, *base))
        if inverse:
            return call
        return Binary("^", call, power) if power is not None else call

    def bare_argument(self, depth: int) -> Node:
        """What `\\sin` without brackets applies to: `2x`, `x^2`, `30^\\circ`, not the next function."""
        node = self.expression(_POWER, depth)
        while self.kind() in ("var", "const", "sqrt") and not (
            isinstance(node, Call) and node.name != "sqrt"
        ):
            node = Binary("implicit", node, self.expression(_POWER, depth))
        return node

    def postfix(self, node: Node) -> Node:
        while True:
            token = self.peek()
            kind = "pct" if token.name in ("percent", "pct") else token.kind
            if kind not in ("pct", "deg", "fact"):
                return node
            self.at += 1
            node = Unary(kind, node)
