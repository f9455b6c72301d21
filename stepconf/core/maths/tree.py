"""Expressions and answers as small frozen trees. Only these can be evaluated; text never is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Num:
    """A number as written: `decimals` digits after the point (0 for an integer), `name` its digits."""

    value: Fraction
    decimals: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Var:
    """A variable, subscript included in its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A named constant: `pi`, `e`, `infinity`, `empty` (the set), `reals` or `integers`."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """`neg`, `pct` (per cent), `deg` (degrees), `fact`, `abs`, `floor` or `ceil` of one expression.

    Or `pm` (±) or `mp` (∓), which have no value: see `with_sign`.
    """

    op: str
    arg: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """`+ - * / ^ mod pm mp`, or `implicit` (a product without a sign), `mixed` (2 1/2), `of` (a part of).

    `loose` is the product in `7/4t`, where the quotient comes first unless a reading says otherwise.
    `^^` is a power whose exponent has several digits and no braces: TeX sets the first digit alone.
    """

    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """A function of its arguments: `sqrt`, `root`, `sin`, `log` (argument, base), `gcd`, `binom`, ..."""

    name: str
    args: tuple["Node", ...]


Node: TypeAlias = Num | Var | Const | Unary | Binary | Call


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value in a unit; `unit` is what stands after it, word by word (`cm ^2`, `km / h`, `apples`)."""

    value: "Form"
    unit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Several forms. `brackets` is what stands around them: nothing, `or`, `{}`, `()`, `[]`, `(]`, `[)`, `R`, `:`.

    Nothing, `or` and `{}` have no order. `R` is a quotient and its remainder, `:` a ratio.
    """

    brackets: str
    items: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """Equations or inequalities: `sides[0] signs[0] sides[1] signs[1] ...`."""

    signs: tuple[str, ...]
    sides: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Union:
    """A union of sets."""

    parts: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length."""

    rows: tuple[tuple["Form", ...], ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day. `half` is `a`, `p` or empty."""

    hour: int
    minute: int
    half: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The letter of a choice with what it stands for."""

    letter: str
    value: "Form"


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words."""

    text: str


Form: TypeAlias = Node | Quantity | Listing | Statement | Union | Matrix | Clock | Choice | Words


EXPRESSIONS = (Num, Var, Const, Unary, Binary, Call)


def expressions(forms: Sequence[Form]) -> list[Node] | None:
    """The forms, where each of them is an expression; else None."""
    found = [form for form in forms if isinstance(form, EXPRESSIONS)]
    return found if len(found) == len(forms) else None


def nodes(form: Form) -> Iterator[Node]:
    """Every expression in a form, and every one inside it."""
    match form:
        case Quantity(value, _) | Choice(_, value):
            yield from nodes(value)
        case Listing(_, parts) | Statement(_, parts) | Union(parts):
            for part in parts:
                yield from nodes(part)
        case Matrix(rows):
            for row in rows:
                for cell in row:
                    yield from nodes(cell)
        case Clock() | Words():
            pass
        case _:
            yield from walk(form)


def children(node: Node) -> tuple[Node, ...]:
    """The expressions directly inside `node`."""
    match node:
        case Unary(_, arg):
            return (arg,)
        case Binary(_, left, right):
            return (left, right)
        case Call(_, args):
            return args
    return ()


def walk(node: Node) -> Iterator[Node]:
    """`node` and every expression inside it. The depth is bounded by the parser."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(children(here))


def variables(node: Node) -> frozenset[str]:
    """The names of the variables in `node`."""
    return frozenset(n.name for n in walk(node) if isinstance(n, Var))


def has_sign_choice(node: Node) -> bool:
    """Whether there is a ± or ∓ in `node`."""
    return any(isinstance(n, Unary | Binary) and n.op in ("pm", "mp") for n in walk(node))


def with_sign(node: Node, upper: bool) -> Node:
    """`node` with its upper (+ for ±, - for ∓) or its lower signs."""
    match _rebuilt(node, lambda part: with_sign(part, upper)):
        case Unary("pm" | "mp" as op, arg):
            return arg if (op == "pm") == upper else Unary("neg", arg)
        case Binary("pm" | "mp" as op, left, right):
            return Binary("+" if (op == "pm") == upper else "-", left, right)
        case other:
            return other


def is_literal(node: Node) -> bool:
    """Whether `node` is one number as written: `-3`, `20%`, `3/4`, `2 1/2`."""
    match node:
        case Num():
            return True
        case Unary(op, arg):
            return op in ("neg", "pct", "deg") and is_literal(arg)
        case Binary("/", Num(top), Num(bottom)):
            return top < bottom <= 1000
        case Binary("mixed", _, _):
            return True
    return False


def is_compound(node: Node) -> bool:
    """Whether `node` is more than a number or a variable with a sign or a factor."""
    match node:
        case Unary(_, arg):
            return is_compound(arg)
        case Binary("implicit", Num(), Var()):
            return False
        case Binary() | Call():
            return True
    return False


def has_operation(node: Node) -> bool:
    """Whether there is anything to compute in `node`."""
    return any(isinstance(n, Binary | Call) or (isinstance(n, Unary) and n.op == "fact") for n in walk(node))


def has_percent(node: Node) -> bool:
    """Whether a percentage stands in an expression."""
    return any(isinstance(n, Unary) and n.op == "pct" for n in walk(node))


def has_open_division(*nodes: Node) -> bool:
    """Whether nothing says how far a division reaches in one of the expressions: `1/2x`."""
    for node in (n for top in nodes for n in walk(top)):
        match node:
            case Binary("loose", _, _) | Binary("/", _, Binary("implicit", _, _)):
                return True
    return False


def substitute(node: Node, old: Node, new: Node) -> Node:
    """`node` with every `old` in it replaced by `new`."""
    return new if node == old else _rebuilt(node, lambda part: substitute(part, old, new))


def _rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """`node` with `change` applied to the expressions directly inside it."""
    match node:
        case Unary(op, arg):
            return Unary(op, change(arg))
        case Binary(op, left, right):
            return Binary(op, change(left), change(right))
        case Call(name, args):
            return Call(name, tuple(change(arg) for arg in args))
    return node
