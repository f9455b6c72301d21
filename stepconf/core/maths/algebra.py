"""Our trees as SymPy objects, through its constructors and never through a parser; what it decides.

SymPy has no bounds of its own: only workers that can be killed call this module.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from stepconf.core.maths.tree import (
    Binary,
    Call,
    Const,
    Node,
    Num,
    Statement,
    Unary,
    Var,
    expressions,
    variables,
)
from stepconf.core.maths.values import TooLargeError, UndecidableError, evaluate

MAX_EXPONENT = 200


def fix_draws() -> None:
    """Let SymPy, which tests expressions at points of its own drawing, draw the same ones for each question."""
    from sympy.core.random import seed

    seed(0)


def equal(a: Node, b: Node) -> bool | None:
    """Whether SymPy shows that two expressions are the same; or, without variables, that they are not.

    With variables its no means one point of difference, which `sqrt(x^2)` and `x` have, too: it counts as None.

    Raises:
        UndecidableError: an expression is none that SymPy may be given.
    """
    found = (expression(a) - expression(b)).equals(0)
    if found is None or (not found and variables(a) | variables(b)):
        return None
    return bool(found)


def solutions(statement: Statement) -> Any:
    """The real numbers that satisfy an equation or inequality in one variable, as a SymPy set.

    Raises:
        UndecidableError: it is none, or SymPy does not find them.
    """
    import sympy

    nodes = expressions(statement.sides)
    names = {name for node in nodes or () for name in variables(node)}
    if nodes is None or len(names) != 1:
        raise UndecidableError("not one variable")
    symbol = sympy.Symbol(names.pop(), real=True)
    sides = [expression(node) for node in nodes]
    relations = {"=": sympy.Eq, "!=": sympy.Ne, "<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge}
    found: Any = sympy.S.Reals
    for sign, left, right in zip(statement.signs, sides, sides[1:], strict=False):
        if sign not in relations:
            raise UndecidableError(sign)
        try:
            one = sympy.solveset(relations[sign](left, right), symbol, sympy.S.Reals)
        except (NotImplementedError, ValueError, TypeError) as error:  # how solveset says that it gives up
            raise UndecidableError(str(error)) from error
        found = found.intersect(one)
    if found.atoms(sympy.ConditionSet, sympy.ImageSet):
        raise UndecidableError("no closed form")
    return found


def expression(node: Node) -> Any:
    """`node` as a SymPy expression; its variables are real.

    Raises:
        UndecidableError: there is no such object, or it is out of bounds.
    """
    import sympy

    match node:
        case Num(value):
            return sympy.Rational(value.numerator, value.denominator)
        case Var("i"):
            return sympy.I
        case Var(name):
            return sympy.Symbol(name, real=True)
        case Const(name):
            constants = {"pi": sympy.pi, "e": sympy.E, "infinity": sympy.oo}
            if name not in constants:
                raise UndecidableError(name)
            return constants[name]
        case Unary(op, arg):
            return _operation(op, node, expression(arg))
        case Binary("^" | "^^", left, right):
            return _power(left, right)
        case Binary(op, left, right):
            return _operation(op, node, expression(left), expression(right))
        case Call(name, args):
            return _call(name, [expression(arg) for arg in args])
    raise UndecidableError("no expression")


def _operation(op: str, node: Node, *values: Any) -> Any:
    import sympy

    if op == "fact":
        evaluate(node, {})  # out of bounds, or no natural number: it raises
    operations: dict[str, Callable[..., Any]] = {
        "neg": operator.neg, "pct": lambda x: x / 100, "deg": sympy.rad, "abs": sympy.Abs,
        "fact": sympy.factorial, "floor": sympy.floor, "ceil": sympy.ceiling,
        "+": operator.add, "mixed": operator.add, "-": operator.sub, "/": operator.truediv,
        **dict.fromkeys(("*", "implicit", "loose", "of"), operator.mul),
    }  # fmt: skip
    if op not in operations:
        raise UndecidableError(op)
    return operations[op](*values)


def _power(base: Node, exponent: Node) -> Any:
    a, b = expression(base), expression(exponent)
    if b.is_number and not abs(b) <= MAX_EXPONENT:
        raise TooLargeError("power out of bounds")
    if a.is_number and b.is_number:
        evaluate(Binary("^", base, exponent), {})  # a tower: it raises
    return a**b


def _call(name: str, args: Sequence[Any]) -> Any:
    import sympy

    one = "sin cos tan cot sec csc sinh cosh tanh exp sqrt log".split()
    renamed = {
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
        "ln": "log",
        "gcd": "igcd",
        "lcm": "ilcm",
    }
    match name, args:
        case "root", [value, degree]:
            real = value.is_real and degree.is_odd
            return sympy.real_root(value, degree) if real else sympy.root(value, degree)
        case "lg", [value]:
            return sympy.log(value, 10)
        case "log", [value, base]:
            return sympy.log(value, base)
        case (("gcd" | "lcm"), _) if not all(value.is_Integer for value in args):
            raise UndecidableError(f"{name} of what is not an integer")
    if name not in renamed and (name not in one or len(args) > 1):
        raise UndecidableError(f"function {name}")
    return getattr(sympy, renamed.get(name, name))(*args)
