"""Over 300 hostile answers, built by code: what any parser of model output must survive.

`hostile_strings(canary)` returns the strings; those that carry code would, if it ran, create the file
`canary`.
"""

import itertools

# Ways to run code, each of which would create the file {c}.
_PAYLOADS = (
    "__import__('os').system('touch {c}')",
    "open('{c}','w').write('x')",
    "exec(\"open('{c}','w')\")",
    "eval(compile(\"open('{c}','w')\",'s','exec'))",
    "[x for x in ().__class__.__base__.__subclasses__() if x.__name__=='Popen'][0](['touch','{c}'])",
    "(lambda: open('{c}','w'))()",
    "Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{c}','w')",
    "sympify(\"open('{c}','w')\")",
    "x.subs(x, open('{c}','w'))",
    "f\"{{open('{c}','w')}}\"",
    "$(touch {c})",
    "`touch {c}`",
    "1; touch {c}",
    "1 | touch {c}",
    "\\write18{{touch {c}}}",
    "\\input{{|touch {c}}}",
    "\\immediate\\write18{{touch {c}}}",
    "cos\nsystem\n(S'touch {c}'\ntR.",
    "!!python/object/apply:os.system ['touch {c}']",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}} {{% import os %}}{{{{ os.system('touch {c}') }}}}",
)
_CARRIERS = (
    "{}",
    "\\boxed{{{}}}",
    "#### {}",
    "The answer is {}.",
    "so x = {} and",
    "${}$",
    "2 + {} = 4",
    "\\frac{{1}}{{{}}}",
    "\\operatorname{{{}}}(1)",
)

_EXPENSIVE = (
    "9^{9^{9^{9}}}", "9**9**9**9", "2^{2^{2^{2^{2^{2}}}}}", "(10^9)!", "100000000!", "((9!)!)!", "9!!!!!!",
    "\\binom{10^9}{5 \\cdot 10^8}", "\\prod_{k=1}^{10^9} k", "\\sum_{k=1}^{10^9} k^k", "1e999999999",
    "1e-999999999", "0.1^{-9^{9^9}}", "(9^{9^9})^{\\frac{1}{9^{9^9}}}", "10^{10^{10}} \\bmod 7",
    "\\sqrt[9^{9^9}]{2}", "\\log(9^{9^{9^9}})", "\\sin(9^{9^{9^9}})", "e^{e^{e^{e^{e}}}}",
    "i^{i^{i^{i^{i^{i}}}}}", "7^{7^{7^7}} = 3", "(x+y+z+w)^{2000}", "(1+x)^{10^7}", "x^{100000} - 1 = 0",
    "x^{23} + 3x^{7} - x + 1 = 0", "\\int_0^\\infty \\frac{\\sin(x^x)}{e^{x^2}+x} dx",
    "\\int \\sqrt{\\tan(\\ln(x^2+\\sin x))} dx", "\\int_0^1 \\int_0^1 \\frac{dx dy}{1 - xy e^{xy}}",
    "\\lim_{x \\to 0} \\frac{\\sin(\\tan x) - \\tan(\\sin x)}{x^{50}}",
    "\\sum_{n=1}^{\\infty} \\frac{\\sin(n^n)}{n!}",
    "\\sqrt{2+\\sqrt{3+\\sqrt{5+\\sqrt{7+\\sqrt{11+\\sqrt{13}}}}}} - x = 0",
    "|x-1|+|x-2|+|x-3|+|x-4| \\le |x^9 - 1|", "\\sin(x) = x^7 - 3", "\\tan(x) \\cdot x^{x^x} > \\log_x(7)",
    "\\begin{pmatrix} x & y \\\\ z & w \\end{pmatrix}^{999999}", "\\gcd(10^{10^8}, 7)",
    "999999999^{999999999}", "\\frac{1}{9^{9^{9}}}", "2^{-9^{9^{9}}}", "9^{9^{9}} - 9^{9^{9}} + 4",
    "\\{1, 9^{9^{9^{9}}}\\}", "(9^{9^{9^9}}, 1)", "x = 9^{9^{9^{9}}}", "9^{9^{9^{9}}}\\%",
    "9^{9^{9^{9}}} \\text{ cm}", "[0, (10^{9})!]", "1 < x < (10^9)!",
)  # fmt: skip

_ODD = (
    "", " ", "\n", "\x00", "4\x00", "\x004", "4\x002", "\ufeff4", "4\u200b2", "\u202e24\u202c",
    "\u20664\u2069", "\u0664\u0662", "\uff14\uff12", "\U0001d7d2\U0001d7d0", "\u096a\u0968", "\u2463",
    "\u00b2", "4\u0301", "\u0b68", "\u0430 = 4", "\u03bf", "4\u2044 2", "\u221e", "\u2212\u2212\u22124",
    "\U0001f4a9" * 50, "\ud800", "4\udcff", "\x1b[31m4\x1b[0m", "\r4\r\n", "\u2028" * 9, "\x7f",
    "\ufffd" * 100, "<script>alert(4)</script>", "'; DROP TABLE;--", "%s%s%s%n", "{0.__class__}", "${4}",
    "../../../etc/passwd", "NaN", "nan", "-inf", "inf - inf", "Infinity/Infinity", "zoo", "oo", "-oo",
    "None", "True", "0/0", "1/0", "\\frac{1}{0}", "\\frac{0}{0}", "0^0", "0^{-1}", "\\log 0",
    "\\sqrt[0]{4}", "\\sqrt{-1}", "\\tan 90^\\circ", "(-8)^{1/3}", "4_{-1}", "4_0", "4_{999999}", "99_2",
    ":", "4:0", "0:0", "::", "4::4", "\\%", "%", "4%%%%", "4!%!%!", "^", "_", "&", "\\", "\\\\", "$", "$$",
    "$$$", "{", "}", "{}", "\\{", "\\}", "(", ")", "()", "[]", "[)", "(]", "[1,2", "1,2)", "(,)", ",",
    ",,,", "1,,2", ";", "and", "or", "=", "= =", "x =", "= x", "x = = 4", "<", "< <", "x <", "x \\in",
    "\\in", "\\cup", "1 \\cup", "\\pm", "\\pm \\pm 4", "\\frac", "\\frac{", "\\frac{1", "\\frac{1}",
    "\\frac{1}{", "\\frac{1}{2", "\\frac12345", "\\sqrt", "\\sqrt{", "\\sqrt[", "\\left(", "\\right)",
    "\\left. 4 \\right|", "\\begin{pmatrix}", "\\end{pmatrix}", "\\begin{}4\\end{}",
    "\\begin{pmatrix} 1 & 2 \\\\ 3 \\end{pmatrix}", "\\begin{pmatrix} & & \\end{pmatrix}", "\\text{",
    "\\text{4", "\\text{\\text{\\text{4}}}", "\\boxed", "\\boxed{", "\\boxed{}", "\\boxed{\\boxed{\\boxed{",
    "\\boxed{4", "####", "#### ", "####4####", "Answer:", "The answer is",
    "the answer is the answer is the answer is", "\\def\\x{\\x\\x}\\x", "\\newcommand{\\a}{\\a\\a}\\a",
    "\\csname end\\endcsname", "\\loop\\iftrue\\repeat", "\\mathrm{\\mathrm{", "^^41", "\\unicode{x34}",
    "\\char`4", "~" * 300, "--------4", "+-+-+-+-4", "4.4.4.4", "4..4", ".", "..", "4.", ".4", "4e", "4e+",
    "e4", "0x4", "4j", "1_000", "4 4 4", "4 1/0", "4 0/5", "4\\frac{0}{0}", "1,0000,0", "1,00", ",100",
    "1e5,000",
)  # fmt: skip

_NESTS = (
    ("(", ")"), ("{", "}"), ("[", "]"), ("\\left(", "\\right)"), ("\\frac{1}{", "}"), ("\\sqrt{", "}"),
    ("\\boxed{", "}"), ("\\text{", "}"), ("x^{", "}"), ("-(", ")"), ("|", "|"), ("\\{", "\\}"),
    ("\\sin(", ")"), ("\\begin{pmatrix}", "\\end{pmatrix}"),
)  # fmt: skip
_REPEATED = (
    "x+", "1", "9.", "\\frac", "$", "answer is ", "#### ", "\\boxed{", " ", "\n", "(", "^", "\\", "1,",
    "=1", "A: \n", "and ", "\\text{a}", "%", "-", "|", "x_", "1/", "\u202e", "\x00", "```\n", "Answer",
    "\\(", "$x$,",
)  # fmt: skip


def hostile_strings(
    canary: str = "/nonexistent/canary", large: int = 1_000_000, expensive: bool = True
) -> list[str]:
    """The corpus.

    Args:
        canary: the file that code would create if it ran.
        large: the length in characters of the largest strings.
        expensive: with the expressions that take algebra seconds, or for ever.
    """
    injections = [
        carrier.format(payload.format(c=canary))
        for payload, carrier in itertools.product(_PAYLOADS, _CARRIERS)
    ]
    nests = [
        text
        for (opener, closer), depth in itertools.product(_NESTS, (200, 5000))
        for text in (opener * depth + "4" + closer * depth, opener * depth + "4")
    ]
    repeated = [sign * (large // len(sign)) for sign in _REPEATED]
    costly = [*_EXPENSIVE, *(f"\\boxed{{{text}}}" for text in _EXPENSIVE)] if expensive else []
    return list(dict.fromkeys([*injections, *costly, *_ODD, *nests, *repeated]))
