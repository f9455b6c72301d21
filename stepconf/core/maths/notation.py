"""How mathematics is spelled, in plain text and TeX: the tables and the pattern of the lexer."""

import re
import unicodedata

OPERATORS = {
    "+": "+", "-": "-", "−": "-", "–": "-", "*": "*", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*",
    "∗": "*", "/": "/", "÷": "/", "∕": "/", "⁄": "/", "^": "^",
    "\\times": "*", "\\cdot": "*", "\\ast": "*", "\\div": "/", "\\bmod": "mod", "\\mod": "mod",
    "±": "pm", "\\pm": "pm", "∓": "mp", "\\mp": "mp", "∪": "cup", "\\cup": "cup",
}  # fmt: skip
RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "\\coloneqq": "=",
    **dict.fromkeys(("≈", "≅", "≃", "\\approx", "\\simeq", "\\cong", "\\doteq", "\\thickapprox"), "~"),
    "<": "<", "\\lt": "<", ">": ">", "\\gt": ">",
    **dict.fromkeys(("≤", "⩽", "<=", "\\le", "\\leq", "\\leqslant"), "<="),
    **dict.fromkeys(("≥", "⩾", ">=", "\\ge", "\\geq", "\\geqslant"), ">="),
    **dict.fromkeys(("≠", "!=", "/=", "\\ne", "\\neq"), "!="),
    "≡": "===", "\\equiv": "===", "∈": "in", "\\in": "in",
}  # fmt: skip
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan asin acos atan log ln lg exp gcd lcm max min"
    .split()
)  # fmt: skip
CONSTANTS = {
    "\\pi": "pi", "π": "pi", "\\infty": "infinity", "∞": "infinity", "\\emptyset": "empty",
    "\\varnothing": "empty", "∅": "empty", "ℝ": "reals", "ℤ": "integers",
}  # fmt: skip
CONSTANT_WORDS = {"pi": "pi", **dict.fromkeys(("infinity", "oo", "inf", "infty"), "infinity")}
BLACKBOARD = {"R": "reals", "Z": "integers"}
_GREEK = """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau
phi varphi chi psi omega ell Gamma Delta Theta Lambda Sigma Phi Psi Omega"""
GREEK = frozenset(_GREEK.split())
GREEK_LETTERS = dict(
    zip(
        "αβγδεζηθκλμνξρστφχψωΓΔΘΛΣΦΨΩ",
        (name for name in _GREEK.split() if not name.startswith("var") and name != "ell"),
        strict=True,
    )
)
SILENT = frozenset(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \middle \displaystyle \textstyle
    \limits \nonumber \hspace \, \; \: \! \> \( \) & \boxed \fbox \bf \mathit \color \textcolor \enspace
    \thinspace \phantom \hline \it \rm \large \Large \underbrace \overbrace \cancel \mathstrut \underline""".split()
) | {"\\ "}  # fmt: skip
APART = frozenset({"\\quad", "\\qquad"})  # between two formulas
COMMANDS = {  # without the backslash → the kind of token
    "frac": "frac", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "binom": "binom", "dbinom": "binom",
    "tbinom": "binom", "sqrt": "sqrt", "%": "pct", "pmod": "pmod", "pod": "pmod", "lfloor": "floor",
    "rfloor": "endfloor", "lceil": "ceil", "rceil": "endceil", "lvert": "bar", "rvert": "bar",
    "vert": "bar", "|": "bar", "mid": "such", "{": "brace", "}": "endbrace", "lbrace": "brace",
    "rbrace": "endbrace", "choose": "choose", "lbrack": "open", "rbrack": "close", "colon": "colon",
}  # fmt: skip
TEXTUAL = frozenset(
    r"""\text \textbf \textit \textrm \textnormal \mathrm \mathbf \mbox \operatorname \mathsf \emph \textsf
    \texttt""".split()
)  # fmt: skip
UPRIGHT = re.compile(r"\\(?:text\w*|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")  # what stands in it
ARROWS = frozenset(
    r"""\Rightarrow \implies \to \rightarrow \longrightarrow \Longrightarrow \iff \Leftrightarrow \leftrightarrow
    → ⇒ ⟹ ⇔ => -> --> ==> \therefore ∴ \because \mapsto""".split()
)  # fmt: skip
DOTS = frozenset(r"\cdots \ldots \dots \dotsb \dotsc \dotsm \vdots \ddots … ⋯".split())
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿˣ", "0123456789-+nx")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₐₑₒₓₕₖₗₘₙₚₛₜᵢᵣᵤᵥⱼ", "0123456789+-aeoxhklmnpstiruvj")
CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen", "₹": "rupee", "Rs": "rupee",
              "USD": "dollar", "EUR": "euro"}  # fmt: skip
UNITS_OF_LETTERS = frozenset(
    "cm mm km ft in mph kg mg lb lbs hr hrs min sec mi oz kph deg rad USD EUR ml mL am pm AM PM Rs".split()
)
LETTER_UNITS = frozenset("gmhsL")

LEX = re.compile(
    r"""
      (?P<space>[ \t\r\f\v\u00a0\u2009\u202f~]+)
    | (?P<newline>\n\s*)
    | (?P<annot><<[^<>\n]{0,200}>>)
    | (?P<fence>```)
    | (?P<shortfrac>\\[dtc]?frac[ ]*[0-9][ ]*[0-9])
    | (?P<num>[0-9]{1,3}(?:(?:,|\{,\}|,?\\[,!]\ ?|['’\u2009\u202f~]|\\\ )[0-9]{3})+(?![0-9])(?:\.[0-9]+)?
        | [0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+(?![0-9,]) | [0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9.])
        | (?:[0-9]+(?:\.[0-9]+)?)[eE][-+]?[0-9]{1,3}(?![0-9A-Za-z.])
        | [0-9]+\.(?:[0-9]+|(?=[ ]?/)) | [0-9]+ | (?<![0-9)])\.[0-9]+)
    | (?P<dots>\.\.+|…|⋯)
    | (?P<display>\\\[|\\\]|\$\$)
    | (?P<row>\\\\(?:\[[^\]\n]{0,10}\])?)
    | (?P<degree>\^[ ]*\\circ | \^\{[ ]*\\circ[ ]*\} | ° | \\degree)
    | (?P<command>\\(?:[A-Za-z]+|[^A-Za-z\s]|\ ))
    | (?P<rel>==>|=>|-->|->|==|:=|<=|>=|!=|/=|[=≈≅≃<>≤≥⩽⩾≠≡∈→⇒⟹⇔∴])
    | (?P<power>(?<=[\w)])\*\*(?=[\w(-])) | (?P<bold>\*\*)
    | (?P<op>[-+−–*×·⋅∙•∗/÷∕⁄^±∓∪])
    | (?P<super>[⁻⁺]?[²³¹⁰⁴-⁹]+ | [ⁿˣ](?![ᵃ-ᵿˢˣⁿ]))
    | (?P<lowered>[₀-₉ₐ-ₜᵢᵣᵤᵥⱼ][₀-₉₊₋ₐ-ₜᵢᵣᵤᵥⱼ]*)
    | (?P<vulgar>[¼-¾⅐-⅞])
    | (?P<open>[(\[{]) | (?P<close>[)\]}])
    | (?P<const>[π∞∅ℝℤ])
    | (?P<letters>(?:[^\W\d_²³¹⁰⁴-⁹¼-¾⅐-⅞ⁿˣ₀-₉ₐ-ₜᵢᵣᵤᵥⱼ]|ⁿᵈ)+(?:['’][a-z]+)?)
    | (?P<currency>[$€£¥₹])
    | (?P<pct>%) | (?P<bang>!+) | (?P<bar>\|) | (?P<sub>_)
    | (?P<comma>,) | (?P<stop>[.;:?]+)
    | (?P<root>√)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Folding(dict[int, str]):
    """Full-width characters, Chinese punctuation and the digits of any script as ASCII, one for one."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        digit = unicodedata.decimal(character, None)
        folded = character if digit is None else str(digit)
        if 0xFF01 <= code <= 0xFF5E:
            folded = chr(code - 0xFEE0)
        self[code] = folded
        return folded


_FOLDING = _Folding({ord("。"): ".", ord("、"): ",", ord("\u3000"): " ", ord("〜"): "~"})


def folded(text: str) -> str:
    """`text` with the characters of `_Folding` in ASCII; its length stays."""
    return text if text.isascii() else text.translate(_FOLDING)
