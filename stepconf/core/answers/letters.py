"""Letters in answers that may be units, and those whose names are free."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from stepconf.core.maths.tree import (
    EXPRESSIONS,
    Binary,
    Const,
    Form,
    Node,
    Num,
    Quantity,
    Statement,
    Unary,
    Var,
    nodes,
    substitute,
    variables,
    walk,
)
from stepconf.core.maths.units import Measure, measure, measure_of

_ONE = Num(Fraction(1))
_COUNTERS = frozenset("klmn")  # that usually run through the integers
_UNIT_LETTERS = frozenset("A C F H J K N T V W mu Omega".split())
_SCALES = {"celsius": "C", "centigrade": "C", "fahrenheit": "F"}


def without_domain(items: Sequence[Form]) -> Sequence[Form]:
    """Parts of a list without remarks as "k in Z" on a letter in the values of the others."""
    kept = [item for item in items if not _is_domain(item)]
    values = [item.sides[-1] if isinstance(item, Statement) else item for item in kept]
    if any(isinstance(item, Statement) and item.signs != ("=",) for item in kept):
        return items  # "x > 3, x in Z" is a condition
    used = {node.name for value in values for node in nodes(value) if isinstance(node, Var)}
    dropped = [item.sides[0] for item in items if isinstance(item, Statement) and _is_domain(item)]
    return kept if all(isinstance(var, Var) and var.name in used for var in dropped) else items


def _is_domain(item: Form) -> bool:
    match item:
        case Statement(("in",), (Var(), Const("integers" | "reals"))):
            return True
    return False


def coefficient(node: Node) -> Node | None:
    """The number before the letters of a product, as `5` of `5 m/s`; None for a sum, and where there is none."""
    bare = _without_letters(node)
    written = bare is not None and any(isinstance(n, Num) and n.name for n in walk(bare))
    return bare if written and variables(node) else None


def units_in_letters(node: Node) -> bool:
    """Whether `node` is a number times letters that are units: `5 \\frac{m}{s}`, `42\\mu`."""
    names = variables(node) - {"i"}
    known = all(name in _UNIT_LETTERS or measure_of(name) for name in names)
    return bool(names) and known and coefficient(node) is not None


def power_of_unit(node: Node) -> Measure | None:
    """What a number times the power of a letter measures where that is a unit: `4 m^2`."""
    match node:
        case Binary("implicit", value, Binary("^" | "^^", Var(letter), Num() as power)) if not variables(
            value
        ):
            return measure((letter, f"^{power.name}")) if power.name in ("2", "3") else None
    return None


def _without_letters(node: Node) -> Node | None:
    """A product with each letter as 1."""
    match node:
        case Var() | Binary("^" | "^^", Var(), Num() | Unary("neg", Num())):
            return _ONE
        case Unary("neg" | "deg" as op, arg):
            inner = _without_letters(arg)
            return Unary(op, inner) if inner is not None else None
        case Binary("implicit" | "*" | "/" as op, left, right):
            one, other = _without_letters(left), _without_letters(right)
            return Binary(op, one, other) if one is not None and other is not None else None
    return None if variables(node) else node


def renamed(a: Node, b: Node) -> Iterator[Node]:
    """`b` with the one letter that only it has named as the one that only `a` has.

    Of periodic values also with the letter shifted: `pi/6 + 2 pi k` and `13 pi/6 + 2 pi n`.
    """
    if isinstance(a, Var) or isinstance(b, Var):
        return  # the letters of two choices
    own, other = variables(a) - variables(b), variables(b) - variables(a)
    periodic = any(n == Const("pi") or (isinstance(n, Unary) and n.op == "deg") for n in walk(b))
    if len(own) == len(other) == 1:
        old, new = Var(*other), Var(*own)
        yield substitute(b, old, new)
    elif not own and not other and periodic and len(counters := _COUNTERS & variables(b)) == 1:
        old = new = Var(*counters)
    else:
        return
    if periodic:
        for shifted in (Unary("neg", new), Binary("+", new, _ONE), Binary("-", new, _ONE)):
            yield substitute(b, old, shifted)


def temperature(form: Form) -> tuple[Node, str] | None:
    """The number of degrees and the scale, C or F: `5^\\circ C`, "5 degrees Celsius"."""
    unit = form.unit if isinstance(form, Quantity) else ()
    value = form.value if isinstance(form, Quantity) else form
    if not isinstance(value, EXPRESSIONS):
        return None
    for word in unit:
        if scale := _SCALES.get(word.lower()):
            return _without_degree(value), scale
    match value:
        case Unary("neg", arg) if not unit and (found := temperature(arg)):
            return Unary("neg", found[0]), found[1]
        case Binary("implicit", Unary("deg", degrees), Var("C" | "F" as scale)) if not unit:
            return degrees, scale
    if unit in (("C",), ("F",)) and _without_degree(value) != value:
        return _without_degree(value), unit[0]
    return None


def _without_degree(node: Node) -> Node:
    match node:
        case Unary("deg", arg):
            return arg
        case Unary("neg", arg):
            return Unary("neg", _without_degree(arg))
    return node


def in_celsius(degrees: Node, scale: str) -> Node:
    """Degrees of either scale in degrees Celsius."""
    if scale == "C":
        return degrees
    return Binary("*", Binary("-", degrees, Num(Fraction(32))), Num(Fraction(5, 9)))
