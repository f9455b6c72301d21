"""Kinds of notations, marks and layouts, each made by the hundred: what is written otherwise is the same."""

import re
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stepconf.core.answers import answer_part, find_answer, same_answer
from stepconf.core.claims import check_steps

WHOLE = st.integers(0, 10**9)
SMALL = st.integers(2, 99)


def grouped(n: int, by: str) -> str:
    return f"{n:,}".replace(",", by)


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) for c in text)


SPELLINGS = [
    str,
    lambda n: grouped(n, ","),
    lambda n: grouped(n, " "),
    lambda n: grouped(n, "\\ "),
    lambda n: grouped(n, "~"),
    lambda n: grouped(n, ",\\!"),
    lambda n: grouped(n, "'"),
    lambda n: grouped(n, "\u202f"),
    lambda n: full_width(str(n)),
    lambda n: f"{n}.0",
    lambda n: f"00{n}",
    lambda n: f"\\text{{{n} apples}}",
    lambda n: f"\\$ {n}",
    lambda n: f"x = {n}",
    lambda n: f"\\mathbf{{{n}}}",
    lambda n: f"\\color{{red}}{{{n}}}",
    lambda n: f"{n}.",
    lambda n: f"{n} (units)",
    lambda n: f"\\frac{{{3 * n}}}{{3}}",
]


@settings(deadline=None, max_examples=60)
@given(WHOLE, st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS))
def test_a_whole_number_is_the_same_in_every_notation(n: int, one, other) -> None:  # type: ignore[no-untyped-def]
    assert same_answer(one(n), other(n)).same is True
    assert same_answer(one(n), other(n + 1)).same is not True


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 999), st.integers(1, 6), st.integers(1, 999))
def test_repeating_decimals_are_their_fractions(whole: int, length: int, part: int) -> None:
    digits = str(part % 10**length).zfill(length)
    value = whole + Fraction(int(digits), 10**length - 1)
    assert same_answer(
        f"\\frac{{{value.numerator}}}{{{value.denominator}}}", f"{whole}.\\overline{{{digits}}}"
    ).same


@settings(deadline=None, max_examples=60)
@given(st.integers(10**5, 10**6), st.integers(2, 16), st.integers(2, 16))
def test_numbers_in_bases_are_compared_by_value(n: int, one: int, other: int) -> None:
    said = in_base(n, one), in_base(n, other), in_base(n + 1, other)
    assume(all(re.search("[0-9]", digits) for digits in said))  # letters alone may be variables
    assert same_answer(f"{in_base(n, one)}_{{{one}}}", f"{in_base(n, other)}_{{{other}}}").same is True
    assert same_answer(f"{in_base(n, one)}_{{{one}}}", f"{in_base(n + 1, other)}_{{{other}}}").same is False


def in_base(n: int, base: int) -> str:
    digits = ""
    while n:
        n, digit = divmod(n, base)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


UNITS = [
    ("km", "m", 1000),
    ("kg", "g", 1000),
    ("hours", "minutes", 60),
    ("L", "mL", 1000),
    ("feet", "inches", 12),
]


@given(SMALL, st.sampled_from(UNITS))
def test_units_are_converted_and_never_left_out_on_both_sides(n: int, units: tuple[str, str, int]) -> None:
    large, small, size = units
    assert same_answer(f"{n} \\text{{ {large}}}", f"{n * size} {small}").same is True
    assert same_answer(f"{n} \\text{{ {large}}}", f"{n} \\text{{ {small}}}").same is False
    assert same_answer(f"{n} {large}", str(n)).same is True
    assert same_answer(f"{n}\\text{{ cm}}^2", f"{n}\\text{{ m}}^2").same is False


MARKS = [
    "\\boxed{%s}", "So \\boxed{1}.\n\nNo, \\boxed{%s}.", "$\\boxed{%s}$ <|im_end|>", "#### %s", "The answer is %s.",
    "The final answer is $%s$. I hope it is correct.", "**Final Answer: %s** ✅", "Answer: %s 🎉", "\\[Answer: %s\\]",
    "<answer>%s</answer>", '{"answer": "%s", "confidence": 0.9}', "答案是%s。", "所以答案：%s个。", "答えは%s個です。",
    "Ответ: %s.", "La respuesta es %s.", "Die Antwort ist %s.", "The answer is %s, since 1+1=2.",
    "Answer: %s; it is so.",
    "The answer is **%s**, as required.", "The answer is %s (that many).", "The answer is %s</s>", "The answer is %s!!",
    "The answer is %s — that is all.", "Thus we are done.\n\n**%s**", "The answer is therefore exactly %s dollars.",
    "It stands in \\boxed{%s}.\n\nRule 7: use \\boxed{...}",
]  # fmt: skip
THOUGHTS = [
    "%s", "<think>\nMaybe \\boxed{3}? The answer is 4.\n</think>\n\n%s", "maybe \\boxed{3}</think>%s",
    "<thinking>#### 3</thinking>%s", "[THINK]\\boxed{3}[/THINK]%s",
    "<|channel|>analysis<|message|>\\boxed{3}<|end|><|start|>assistant<|channel|>final<|message|>%s<|return|>",
]  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.integers(5, 10**6), st.sampled_from(MARKS), st.sampled_from(THOUGHTS))
def test_an_answer_is_found_behind_every_mark(n: int, mark: str, thought: str) -> None:
    found = find_answer(thought % (mark % n))
    assert found is not None and found.marked
    assert same_answer(str(n), found.text).same is True, found


def test_what_only_thinks_says_nothing() -> None:
    assert find_answer("<think>\nSo \\boxed{5}") is None
    assert answer_part("<think>a</think>b</s>c") == "b"


@settings(deadline=None)
@given(st.integers(5, 10**6))
def test_a_lone_variable_and_an_accident_are_no_marked_answers(n: int) -> None:
    found = find_answer(f"There are \\({n - 1} + 1 = {n}\\) values of \\(n\\).")
    assert found is not None and not found.marked and same_answer(str(n), found.text).same is True


LAYOUTS = [
    "{a} × {b} = {c}", "{a}*{b}={c}", "So ${a} \\cdot {b} = {c}$.", "\\[{a} \\times {b} = {c}\\]", "{a}×{b}={c}，所以",
    "{a}×{b}={c}（个）", "We get ${a} \\cdot\n{b} = {c}$.", "\\begin{{align*}}\n{a} \\cdot {b} &= {c}\n\\end{{align*}}",
    "${a} \\cdot {b} = {c} \\qquad {b} \\cdot {a} = {c}$", "- Total: {a} * {b} = {c} apples", "${a}\\cdot {b}\n= {c}$",
    "{a} apples times {b} = {c} apples", "\\({a} \\cdot {b} = {c}\\), and so on",
]  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(SMALL, SMALL, st.sampled_from(LAYOUTS))
def test_products_are_checked_in_every_layout(a: int, b: int, layout: str) -> None:
    assert check_steps("", [layout.format(a=a, b=b, c=a * b)])[0].label == "correct"
    assert check_steps("", [layout.format(a=a, b=b, c=a * b + 1)])[0].label == "incorrect"


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 99), SMALL)
def test_european_decimals_are_read_where_an_operator_shows_them(whole: int, part: int, factor: int) -> None:
    product = Fraction(whole * 100 + part, 100) * factor
    text = f"{whole},{part:02d} * {factor} = {float(product):.2f}".replace(".", ",")
    assert check_steps("", [text])[0].label != "incorrect"


OTHERWISE = [
    "In base {m}, {a} + {b} = {r}.", "Modulo {m}, {a} + {b} = {r}.", "{a} + {b} = {r} in Z_{m}",
    "The last digit: {a} * {b} = {r}",
    "On a clock, {a} + {b} = {r}.", "```python\nx = {a}\nx = x + {b}\n```", "{a} XOR {b} = {r}",
]  # fmt: skip


@given(SMALL, SMALL, st.integers(2, 12), st.sampled_from(OTHERWISE))
def test_other_arithmetic_is_left_alone(a: int, b: int, m: int, text: str) -> None:
    found = check_steps("", [text.format(a=a, b=b, m=m, r=(a + b) % m)])
    assert found[0].label != "incorrect"


@pytest.mark.parametrize(
    "text",
    [
        "If we plug it back in, we get $|-10| = 3$, so it is no root.",
        "Simplifying gives $0=8$, which has no solutions.",
        "a $6-8-10 = 3-4-5$ triangle",
        "$1.00 - $0.25 = 75 cents",
        "$\\frac{60\\text{ minutes}}{1\\text{ hour}} = 1$",
        "$3^25^2 = 15^2$",
        "$ab = (\\pm \\sqrt{10})(\\pm \\sqrt{26}) = \\pm 2 \\sqrt{65}$",
        "$2, 4, 6 = 2 \\cdot 1, 2 \\cdot 2, 2 \\cdot 3$",
        "15% increase of 200 = 230",
        "the probability that $\\theta < \\pi/2$ is 1/2",
        "$\\frac{3 \\pi}{2} = \\frac{180^\\circ}{\\pi} \\cdot \\frac{3 \\pi}{2} = 270^\\circ$",
    ],
)
def test_what_claims_no_arithmetic_is_left_alone(text: str) -> None:
    assert check_steps("", [text])[0].label != "incorrect"


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("5x^2", "5x²", True),
        ("x_1", "x₁", True),
        ("2^n", "2ⁿ", True),
        ("1", "x² + 1", False),
        ("20", "20 m²", True),
        ("20 cm^2", "20 cm²", True),
    ],
)
def test_raised_and_lowered_characters_are_exponents_and_subscripts(
    reference: str, answer: str, same: bool
) -> None:
    assert same_answer(answer, reference).same is same
