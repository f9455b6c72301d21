"""From the notation of an answer, TeX or plain, to tokens."""

import re
from dataclasses import dataclass

MAX_CHARS = 600  # longer answers are left to the checker behind this one


class UnreadableError(Exception):
    """The text is outside the grammar that this package reads."""


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: number, name (a letter or a TeX command), word (plain letters), text (set as text), or sign."""

    kind: str
    text: str
    spaced: bool  # whether white space stood before it


FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "ln", "log", "exp", "sqrt",
    "arcsin", "arccos", "arctan", "asin", "acos", "atan",
})  # fmt: skip
_CHARACTERS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/",
        "\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u2248": "\\approx ", "\u00b1": "\\pm ",
        "\u03c0": "\\pi ", "\u221a": "\\sqrt ", "\u221e": "\\infty ", "\u222a": "\\cup ", "\u2208": "\\in ",
        "\u00b0": "^\\circ ", "\u00b2": "^2", "\u00b3": "^3", "\u00bd": " 1/2", "\u00bc": " 1/4",
        "\u20ac": "", "\u00a3": "", "\u00a5": "", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
        "\uff0c": ",", "\uff08": "(", "\uff09": ")", "\u201c": "", "\u201d": "",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)  # fmt: skip
_REWRITES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\\\(?=[A-Za-z{}$%])", r"\\"),  # escaped twice on its way here
        (r"(?<=[0-9])(?:\{,\}|,\\[!,;]|\\[!,;],?)\s*(?=[0-9]{3}(?![0-9]))", ","),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathstrut)(?![A-Za-z])\.?", " "),
        (r"\\(?:[,;:! ]|q?quad(?![a-z])|hspace\{[^{}]*\})|~|\\quad", " "),
        (r"\\?\$", " "),
        (r"\\%", "%"),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\^\s*\{?\s*(?:\\circ|\\degree)\s*\}?|\\degree(?![a-z])", r"\\deg "),
        (r"\\(?:leqslant|leq|le)(?![a-z])", "<="),
        (r"\\(?:geqslant|geq|ge)(?![a-z])", ">="),
        (r"\\(?:neq|ne)(?![a-z])|\\not\s*=|/=", "!="),
        (r"\\lt(?![a-z])", "<"),
        (r"\\gt(?![a-z])", ">"),
        (r"\\(?:equiv|coloneqq)(?![a-z])", "="),
        (r"\\(?:approx|simeq|thickapprox|sim)(?![a-z])", r"\\approx "),
        (r"\\(?:times|cdot|ast)(?![a-z])", "*"),
        (r"\\div(?![a-z])", "/"),
        (r"\\(?:colon|vert|lvert|rvert|mid)(?![a-z])", lambda m: ":" if "colon" in m.group() else "|"),
        (r"\\(?:lbrace|rbrace)(?![a-z])", lambda m: "\\{" if "lb" in m.group() else "\\}"),
        (r"\*\*", "^"),
        (r"(?i)\\text\s*\{\s*(?:percent|pct)\s*\}|(?<![a-z])(?:percent|per cent|pct)(?![a-z])", "%"),
        (r"(?<=[0-9)}\]])\s*(?:and|or)\s*(?=[A-Za-z(\\0-9-])", ", "),
        (r"(?<=[a-z])\s+in\s+(?=[\[(])", r" \\in "),
    )
)
_TEXT = (
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|mathrm|mathbf|mathit|mathsf|operatorname|rm|bf)\s*\{([^{}]*)\}"
)
_TOKEN = re.compile(
    rf"(?P<text>{_TEXT})|(?P<command>\\[A-Za-z]+)|(?P<escaped>\\[{{}}|\\])|(?P<word>[A-Za-z]{{2,}})"
    r"|(?P<letter>[A-Za-z])|(?P<sign><=|>=|!=|==|[-+*/^_=<>!%,;:()\[\]{}|&])"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4}(?![0-9A-Za-z]))?|\.[0-9]+)"
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"([-+]?\s*[0-9]+),([0-9]+)(?=\s*(?:%|[A-Za-z]|$))")
_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """The answer in one spelling: no spacing commands, no delimiters, no currency signs, ASCII operators."""
    text = text.translate(_CHARACTERS)
    if "\\begin" in text:
        text = text.replace("\\\\", " \\cr ")
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    return _SPACE.sub(" ", text).strip().rstrip(".").strip()


def with_decimal_point(text: str) -> str | None:
    """`normalise`d text with its one decimal comma ("2,74") as a point; None if there is no such comma.

    The comma may as well part two numbers; a comma before three digits is taken to part thousands.
    """
    comma = _DECIMAL_COMMA.match(text)
    if not comma or (len(comma[2]) == 3 and len(comma[1].strip("+- ")) < 4):
        return None
    return f"{comma[1]}.{comma[2]}{text[comma.end() :]}"


def without_text_commands(text: str) -> str:
    """`normalise`d text with `\\text{...}` replaced by what it holds."""
    return re.sub(_TEXT, r"\1", text).strip()


def tokens(text: str) -> list[Token]:
    """The tokens of `normalise`d text. Raises `UnreadableError` at the first sign outside the notation."""
    found: list[Token] = []
    at = depth = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        spaced = at > 0 and text[at - 1] == " "
        match = (not depth and _GROUPED.match(text, at)) or _TOKEN.match(text, at)
        if not match:
            raise UnreadableError(text[at])
        at = match.end()
        kind, value = match.lastgroup or "number", match.group()
        if match.re is _GROUPED:
            value = value.replace(",", "")
        depth += {"(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1}.get(value, 0)
        found += _classified(kind if match.re is _TOKEN else "number", value, spaced)
    return found


def _classified(kind: str, value: str, spaced: bool) -> list[Token]:
    if kind == "text":
        words = re.sub(_TEXT, r"\1", value).strip()
        if len(letter := words.strip("() ")) == 1 and letter.isalpha():
            return [Token("name", letter, spaced)]
        if _NUMBER.fullmatch(words):
            return [Token("number", words, spaced)]
        joins = words.strip(" ,").lower() in ("and", "or", "")
        return [Token("sign", ",", spaced) if joins else Token("text", words, spaced)]
    if kind == "word":
        if value.lower() in ("and", "or"):
            return [Token("sign", ",", spaced)]
        if value in FUNCTIONS or value in ("pi", "infty"):
            return [Token("name", "\\" + value, spaced)]
        if value in ("infinity", "oo", "inf"):
            return [Token("name", "\\infty", spaced)]
        return [Token("word", value, spaced)]
    if kind in ("letter", "command"):
        return [Token("name", value, spaced)]
    return [Token("number" if kind == "number" else "sign", value, spaced)]
