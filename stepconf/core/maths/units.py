"""Units of measurement: which words are units, and what they measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from stepconf.core.maths.notation import CURRENCIES, UNITS_OF_LETTERS
from stepconf.core.maths.tokens import Token, is_glued
from stepconf.core.maths.vocabulary import NOT_UNITS

MAX_WORDS = 6
_MAX_REMARK = 40  # tokens


@dataclass(frozen=True, slots=True)
class Measure:
    """What a unit measures: exponents of base dimensions, and how many base units one of it is."""

    dimension: tuple[tuple[str, int], ...]  # sorted, no exponent zero
    size: Fraction


# base dimension: names of a unit → its size in the first unit of the line
_TABLE: dict[str, dict[str, str | int]] = {
    "length": {
        "m meter metre": 1, "km kilometer kilometre": 1000, "cm centimeter centimetre": "1/100",
        "mm millimeter millimetre": "1/1000", "nm nanometer": "1/1000000000", "in inch inche": "127/5000",
        "ft foot feet": "381/1250", "yd yard": "1143/1250", "mi mile": "201168/125",
    },
    "mass": {
        "g gram": 1, "kg kilogram kilo": 1000, "mg milligram": "1/1000", "ton tonne": 1000000,
        "oz ounce": "45359237/1600000", "lb pound": "45359237/100000",
    },
    "time": {
        "s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86400, "week": 604800,
        "year": 31557600, "month": 2629800,
    },
    "angle": {"rad radian": 1, "deg degree": 0},  # 0: no rational size
    "dollar": {"dollar buck usd": 1, "cent penny pennie": "1/100", "nickel": "1/20", "dime": "1/10"},
    "euro": {"euro eur": 1},
    "rupee": {"rupee rs": 1},
    "yen": {"yen": 1},
    "temperature": {"celsius": 1, "fahrenheit": 0},
}  # fmt: skip
_LITRES = {
    "l liter litre": "1/1000",
    "ml milliliter millilitre": "1/1000000",
    "gallon gal": "473176473/125000000000",
}
_SPEEDS = {"mph": ("mile", "hour"), "kph": ("km", "hour")}
_CASED = {"L": "l", "mL": "ml", "Kg": "kg", "KG": "kg", "M": "", "G": "", "H": "", "S": ""}


def _measures() -> dict[str, Measure]:
    found = {
        name: Measure(((dimension, 1),), Fraction(size))
        for dimension, line in _TABLE.items()
        for names, size in line.items()
        for name in names.split()
    }
    for names, size in _LITRES.items():
        found |= {name: Measure((("length", 3),), Fraction(size)) for name in names.split()}
    for name, (way, time) in _SPEEDS.items():
        found[name] = Measure((("length", 1), ("time", -1)), found[way].size / found[time].size)
    return found


_MEASURES: Mapping[str, Measure] = _measures()
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
CONVERTIBLE = (
    frozenset(_MEASURES) | {name + "s" for name in _MEASURES if len(name) > 1} | {"dozen", "percent"}
)


def measure_of(word: str) -> Measure | None:
    """What one word measures; None for words that are no known unit."""
    word = _CASED.get(word, word).rstrip(".").lower()
    return _MEASURES.get(word) or _MEASURES.get(word.removesuffix("s"))


def sizes_of(dimension: tuple[tuple[str, int], ...]) -> frozenset[Fraction]:
    """The sizes of all units of a dimension that have a rational one."""
    return frozenset(one.size for one in _MEASURES.values() if one.dimension == dimension and one.size)


def measure(unit: Sequence[str]) -> Measure | None:
    """What a unit of several words measures (`km / h`, `square cm`, `cm ^2`); None where a word is not known."""
    dimension: dict[str, int] = {}
    size, sign, power = Fraction(1), 1, 1
    last: Measure | None = None
    for word in unit:
        if word in ("/", "per"):
            sign, last = -1, None
            continue
        if word.lower() in _POWERS and last is None:
            power = _POWERS[word.lower()]
            continue
        raised = int(word[1:]) - 1 if word.startswith("^") else _POWERS.get(word.lower(), 1) - 1
        if raised and last is not None:
            one, times = last, sign * raised
        else:
            found = measure_of(word)
            if found is None or not found.size:
                return None
            one, times, last, power = found, sign * power, found, 1
        for name, exponent in one.dimension:
            dimension[name] = dimension.get(name, 0) + exponent * times
        size *= one.size**times
    return Measure(tuple(sorted((n, e) for n, e in dimension.items() if e)), size) if dimension else None


def unit_after(
    tokens: Sequence[Token], at: int, end: int, most: int = MAX_WORDS
) -> tuple[tuple[str, ...], int]:
    """The words of the unit of an answer from `at`, at `most` so many, and the index after them."""
    words: list[str] = []
    while at < end and len(words) < most:
        token, after = tokens[at], tokens[at + 1 : at + 4]
        power = [t.kind for t in after] if words and token.name == "^" else []
        if token.kind == "currency":
            words.append(CURRENCIES.get(token.name, token.name).split()[0])
        elif is_unit_word(token) or (words[-1:] == ["/"] and token.kind == "var"):
            words.append(token.name)
        elif words and token.name == "/":
            words.append("/")
        elif power[:1] == ["num"]:
            words.append("^" + after[0].name)
            at += 1
        elif power == ["open", "num", "close"]:
            words.append("^" + after[1].name)
            at += 3
        else:
            break
        at += 1
    return tuple(words), at


def is_unit_word(token: Token) -> bool:
    """Whether a word can belong to the unit of an answer."""
    return token.kind == "word" and token.name.lower() not in ("and", "or", "r", "remainder", "base", "for")


def after_units(tokens: Sequence[Token], at: int, end: int, in_brackets: bool) -> int:
    """The index after "apples", "cm^2", "/hour", "per day", "(total riders)" in a step that begin at `at`."""
    for _ in range(MAX_WORDS):
        after = _after_one(tokens, at, end, in_brackets)
        if after == at:
            return at
        at = after
    return at


def _after_one(tokens: Sequence[Token], at: int, end: int, in_brackets: bool) -> int:
    if at >= end:
        return at
    token = tokens[at]
    if token.math and not tokens[at - 1].math:
        return at  # a formula begins
    if is_product(token):
        return at
    if is_unit(token):
        if at + 1 < end and tokens[at + 1].kind == "open" and is_glued(token, tokens[at + 1]):
            return at  # `2 abs(-5)`
        squared = at + 2 < end and tokens[at + 1].name == "^" and tokens[at + 2].kind == "num"
        return at + 3 if squared else at + 1
    if token.kind == "op" and at + 1 < end and is_unit(tokens[at + 1]):
        hyphen = token.name == "-" and not token.spaced and not tokens[at + 1].spaced and not in_brackets
        return at + 2 if token.name == "/" or hyphen else at
    if token.kind == "open" and token.name == "(":
        glued = not token.spaced and all(
            t.name.isascii() for t in tokens[at + 1 : at + 2]
        )  # 5（个） is a remark
        return at if glued else _after_remark(tokens, at, end)
    return at


def is_unit(token: Token) -> bool:
    """Whether `token` can be (part of) a unit after a number in a step."""
    if token.kind != "word" or token.name.lower() in NOT_UNITS or token.name == "of":
        return False
    # a capital begins a sentence or a name: "A = 5 Total = 7"
    return not (token.name[0].isupper() and token.name[1:].islower())


def is_product(token: Token) -> bool:
    """Whether a word right after a number or brackets is one of variables: `1/2bh`, but not `5cm`."""
    name = token.name
    if token.kind != "word" or token.spaced or token.math or not (name.isascii() and name.islower()):
        return False
    return 2 <= len(name) <= 3 and name not in UNITS_OF_LETTERS and measure_of(name) is None


def _after_remark(tokens: Sequence[Token], at: int, end: int) -> int:
    """The index after a remark in brackets that begins at `at`; `at` if it may be part of the expression."""
    depth = words = 0
    for index in range(at, min(end, at + _MAX_REMARK)):
        token = tokens[index]
        if token.kind == "open":
            depth += 1
        elif token.kind == "close":
            depth -= 1
            if depth == 0:
                return index + 1 if words else at
        elif token.kind in ("op", "rel", "break", "frac", "pct") and token.name not in ("-", "/"):
            return at
        words += token.kind == "word"
    return at
