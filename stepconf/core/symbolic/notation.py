"""How mathematics is spelled, in plain text and LaTeX: the tables and patterns of the lexer."""

import re

OPERATORS = {
    "+": "+", "-": "-", "−": "-", "–": "-", "*": "*", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*",
    "∗": "*", "/": "/", "÷": "/", "∕": "/", "⁄": "/", "^": "^",
    "\\times": "*", "\\cdot": "*", "\\ast": "*", "\\div": "/", "\\bmod": "mod", "\\mod": "mod",
    "±": "pm", "\\pm": "pm", "∓": "mp", "\\mp": "mp",
}  # fmt: skip
RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "≈": "~", "≅": "~", "≃": "~", "\\approx": "~", "\\simeq": "~",
    "\\cong": "~", "\\doteq": "~", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "<=": "<=", ">=": ">=", "\\le": "<=",
    "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "≠": "!=",
    "!=": "!=", "\\ne": "!=", "\\neq": "!=", "≡": "===", "\\equiv": "===",
}  # fmt: skip
FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "arcsin", "arccos", "arctan", "gcd", "lcm",
    "max", "min", "lg", "sinh", "cosh", "tanh",
}  # fmt: skip
CONSTANTS = {"\\pi": "pi", "π": "pi"}
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "theta", "lambda", "mu", "nu", "omega", "phi",
    "varphi", "rho", "sigma", "tau", "zeta", "eta", "kappa", "xi", "chi", "psi", "ell", "Delta", "Omega",
}  # fmt: skip
SILENT = {
    "\\left", "\\right", "\\big", "\\Big", "\\bigg", "\\Bigg", "\\bigl", "\\bigr", "\\Bigl", "\\Bigr",
    "\\biggl",
    "\\biggr", "\\middle", "\\displaystyle", "\\textstyle", "\\quad", "\\qquad", "\\limits", "\\nonumber",
    "\\hspace", "\\,", "\\;", "\\:", "\\!", "\\ ", "\\>", "\\(", "\\)", "&", "\\&", "~",
    "\\boxed", "\\fbox", "\\bf", "\\mathit", "\\color", "\\enspace",
    "\\thinspace",
    "\\phantom", "\\hline", "\\it", "\\rm", "\\large", "\\Large", "\\underbrace", "\\cancel",
}  # fmt: skip
COMMANDS = {  # without the backslash → the kind of token
    "frac": "frac", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "binom": "binom", "dbinom": "binom",
    "tbinom": "binom", "sqrt": "sqrt", "%": "pct", "pmod": "pmod", "pod": "pmod", "lfloor": "floor",
    "rfloor": "endfloor", "lceil": "ceil", "rceil": "endceil", "lvert": "bar", "rvert": "bar",
    "vert": "bar", "mid": "other", "{": "other", "}": "other", "choose": "choose", "lbrack": "open",
    "rbrack": "close",
}  # fmt: skip
TEXTUAL = {"\\text", "\\textbf", "\\textit", "\\textrm", "\\mathrm", "\\mbox", "\\operatorname", "\\mathsf",
            "\\emph", "\\textsf", "\\texttt"}  # fmt: skip
ARROWS = {"\\Rightarrow", "\\implies", "\\to", "\\rightarrow", "\\longrightarrow", "\\Longrightarrow",
           "\\iff",
           "\\Leftrightarrow", "\\leftrightarrow", "→", "⇒", "⟹", "⇔", "=>", "->", "-->", "==>",
           "\\therefore",
           "∴", "\\because", "\\mapsto"}  # fmt: skip
DOTS = {"\\cdots", "\\ldots", "\\dots", "\\dotsb", "\\dotsc", "\\vdots", "\\ddots", "…", "⋯"}
SUPERSCRIPTS = {"²": 2, "³": 3, "⁴": 4, "⁵": 5, "¹": 1, "⁰": 0, "⁶": 6, "⁷": 7, "⁸": 8, "⁹": 9}
VULGAR = {
    "½": (1, 2),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "⅕": (1, 5),
    "⅛": (1, 8),
    "⅜": (3, 8),
}
UNITS_OF_LETTERS = {"cm", "mm", "km", "ft", "in", "mph", "kg", "mg", "lb", "lbs", "hr", "hrs", "min", "sec",
                     "mi", "oz", "kph", "deg", "rad", "USD", "ml", "mL"}  # fmt: skip

LEX = re.compile(
    r"""
      (?P<space>[ \t\r\f\v\u00a0\u2009\u202f]+)
    | (?P<newline>\n\s*)
    | (?P<annot><<[^<>\n]{0,200}>>)
    | (?P<shortfrac>\\[dtc]?frac[ ]*[0-9][ ]*[0-9])
    | (?P<num>[0-9]{1,3}(?:(?:,|\{,\}|,\\!|\\,|\\!)[0-9]{3})+(?![0-9])(?:\.[0-9]+)?
        | [0-9]+\.[0-9]+ | [0-9]+ | (?<![0-9A-Za-z)])\.[0-9]+)
    | (?P<dots>\.\.+|…|⋯)
    | (?P<display>\\\[|\\\]|\$\$)
    | (?P<row>\\\\(?:\[[^\]\n]{0,10}\])?)
    | (?P<degree>\^[ ]*\\circ | \^\{[ ]*\\circ[ ]*\} | ° | \\degree)
    | (?P<command>\\(?:[A-Za-z]+|[^A-Za-z\s]))
    | (?P<rel>==>|=>|-->|->|==|:=|<=|>=|!=|[=≈≅≃<>≤≥≠≡→⇒⟹⇔∴])
    | (?P<bold>\*\*)
    | (?P<op>[-+−–*×·⋅∙•∗/÷∕⁄^±∓])
    | (?P<super>[²³⁴⁵¹⁰⁶⁷⁸⁹])
    | (?P<vulgar>[½¼¾⅓⅔⅕⅛⅜])
    | (?P<open>[(\[{]) | (?P<close>[)\]}])
    | (?P<letters>[A-Za-z]+(?:['’][a-z]+)?)
    | (?P<currency>[$€£¥¢₹])
    | (?P<pct>%) | (?P<bang>!+) | (?P<bar>\|) | (?P<sub>_)
    | (?P<comma>,) | (?P<stop>[.;:?]+)
    | (?P<root>√) | (?P<pi>π)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
