"""The symbolic checks on single steps: what holds, what fails, what is left alone."""

import pytest

from stepconf.core.claims import check_steps

HOLDS = [
    "47 + 38 = 85",
    "2/3 = 0.67",
    r"\frac{2}{3} \approx 0.667",
    "3 * $2 = $6",
    "5 apples + 3 apples = 8 apples",
    "60 minutes/hour * 2 hours = 120 minutes",
    "20% of 50 = 10",
    "20% * 50 = 10",
    "15% = 0.15",
    "5/20 * 100 = 25%",
    "12 plus 3 is 15",
    r"\(2\frac{1}{2} \times 4 = 10\)",
    "2 1/2 * 4 = 10",
    r"$1{,}000 + 2,500 = 3500$",
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.",
    r"\[ \sqrt{16} + 2^3 = 4 + 8 = 12 \]",
    r"$\sin 30^\circ = \frac12$",
    r"$\log_2 8 = 3$",
    r"$\binom{5}{2} = 10$ and $5! = 120$",
    r"$120 = 2^3 \cdot 3 \cdot 5$",
    r"\$12.50 \div 5 = \$2.50",
    "25 (total riders) - 15 (women) = 10",
    "3 plates × $6.00/plate = $18.00",
    "7 − 9 = −2",
    r"$100\pi \approx 314$",
    r"$\left( 3 + 4 \right)^2 = 49$",
    "$4!=4\\cdot 3\\cdot 2$",
    "4!=24",
    "$7!=7\\cdot 6!$",
    "$$5 \\cdot 9 - 5\n(2 + 3) = 20$$",  # a line of a formula that states nothing goes on in the next
    r"$\cos 10^\circ \cos 30^\circ = \cos 10^\circ \cdot \frac{\sqrt{3}}{2}$",
]
FAILS = [
    ("47 + 38 = 86", "47 + 38 = 86"),
    ("Thus 2/5 * 4000 = 800 gallons.", "2/5 * 4000 = 800 gallons"),
    (r"\(13\cdot 13.75=182.5\)", r"13\cdot 13.75=182.5"),
    ("495 students * $15/student = $7455.", "495 students * $15/student = $7455"),
    ("7 * 70 - 40 = 470 - 40 = 430", "7 * 70 - 40 = 470 - 40"),
    (r"\[ 168 = 2^3 \times 7 \]", r"168 = 2^3 \times 7"),
    ("20% of 50 = 15", "20% of 50 = 15"),
    ("20% = 0.02", "20% = 0.02"),
    ("4!=4*3", "4!=4*3"),
    ("12 plus 3 is 16", "12 plus 3 is 16"),
    ("<<16-3-4=8>>8 eggs", "16-3-4=8"),
    ("10% of 400 + 50 = 100", "10% of 400 + 50 = 100"),
    ("The shop loses 5 thousand dollars a day, so 5 * 3 = 16000", "5 * 3 = 16000"),
    ("5 * 3 = 15000, which is 15 thousand", "5 * 3 = 15000"),
    ("Now we have 5 - 3 = 0", "5 - 3 = 0"),
]
LEFT_ALONE = [
    "",
    "2x + 3 = 9",
    "There are 5 days a week = 5 * 5",
    "The units digit of $16^{17}$ is 6.",
    r"\( \frac{1}{2} \text{ inch} = 20 \text{ miles} \)",
    "4.5 pounds = 72 ounces",
    "Is 3 + 4 = 8?",
    "If 3 + 4 = 8 were true",
    "10:30 + 45 = 11:15",
    "3!=5",
    r"$1 + 2 + \cdots + 100 = 5050$",
    r"$36 = 50 - 50 \cos \angle PXS$",
    "9^{9^{9^{9}}} = 7",
    "She saves 10% of the $400 + $1580 = $1980.",
    "The shop loses 5 thousand dollars a day, so it loses 5 * 3 = $15,000.",
]


@pytest.mark.parametrize("step", HOLDS)
def test_holds(step: str) -> None:
    assert check_steps("", [step])[0].label == "correct", check_steps("", [step])


@pytest.mark.parametrize(("step", "span"), FAILS)
def test_fails_and_names_the_span(step: str, span: str) -> None:
    found = check_steps("", [step])[0]
    assert found.label == "incorrect", found
    claim = next(claim for claim in found.claims if claim.holds is False)
    assert claim.text == span == step[claim.start : claim.end]
    assert repr(span)[1:-1] in found.reason


@pytest.mark.parametrize("step", LEFT_ALONE)
def test_left_alone(step: str) -> None:
    assert check_steps("", [step])[0].label == "unknown", check_steps("", [step])


RAISED_OR_LOWERED = [
    "2x² + 8 = 40",
    "3x² - 12 = 0",
    "h = 5t² + 20 = 40",
    "-16t² + 64 = 0",
    "πr² = 25π",
    "2x₁ + 3x₂ = 12",
    "5² = 3² + x²",
    "2ⁿ + 1 = 9",
    "2aₙ + 3 = 7",
    "2 a² + 3 = 11",
    "2 × 9.8 m/sec² = 19.6 m/sec²",
]


@pytest.mark.parametrize("step", RAISED_OR_LOWERED)
def test_a_letter_with_an_exponent_or_a_subscript_is_no_unit(step: str) -> None:
    """`x²` and `x₁` were one word, skipped after a number like "apples"."""
    assert check_steps("", [step])[0].label == "unknown", check_steps("", [step])


@pytest.mark.parametrize(
    "step",
    ["2cos²(60°) - 1 = -1/2", "log₂(8) + 1 = 4", "log₂ 8 = 3", "5 cm² + 3 cm² = 8 cm²", "1½ + 2½ = 4"],
)
def test_a_function_a_base_and_a_unit_may_carry_one(step: str) -> None:
    assert check_steps("", [step])[0].label == "correct", check_steps("", [step])


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ("r = 20/(2π) = 3.18", "correct"),
        ("1/(2√3) = √3/6", "correct"),
        ("x = 8/(2(2)) = 2", "correct"),
        ("100/(5(4)) = 5", "correct"),
        ("12/(2(3)) = 18", "incorrect"),
        (r"$\frac{12}{2(3)} = 18$", "incorrect"),
        ("1/2π = 0.159", "correct"),
        ("1/2π = 1.57", "correct"),
        ("1/2π = 1.67", "incorrect"),
        ("(1/2)π = 0.159", "incorrect"),
        (r"$6 \times 10^6 / 3 \times 10^2 = 2 \times 10^4$", "correct"),
        (r"$6 \times 10^6 / 3 \times 10^2 = 3 \times 10^4$", "incorrect"),
        (r"$\frac{6}{3} \times 10^2 = 0.02$", "incorrect"),
    ],
)
def test_only_a_bare_division_reaches_as_far_as_it_must(step: str, label: str) -> None:
    assert check_steps("", [step])[0].label == label, check_steps("", [step])


@pytest.mark.parametrize(
    "steps",
    [
        ["12/(2x) = 3", "x = 2"],
        ["60/(5x) = 4", "15 = 5x"],
        ["12/2x = 3", "x = 2"],
        ["12/2x = 3", "x = 1/2"],
        ["$1/2x + 3 = 5$", "$x = 4$"],
        ["$1/2x + 3 = 5$", "$x = 1/4$"],
    ],
)
def test_either_meaning_of_a_bare_division_may_be_followed(steps: list[str]) -> None:
    assert [found.label for found in check_steps("", steps)] == ["unknown", "unknown"]


def test_a_denominator_in_brackets_has_one_meaning() -> None:
    assert check_steps("", ["12/(2x) = 3", "x = 1/2"])[1].label == "incorrect"


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ("-$20 + $50 = $30", "correct"),
        ("So the total is -$20 + $50 = $30", "correct"),
        ("-$20 - $30 = -$50", "correct"),
        ("Loss: -$5 × 4 = -$20", "correct"),
        ("−£20 + £50 = £30", "correct"),
        ("–€20 + €50 = €30", "correct"),
        (r"-\$20 + \$50 = \$30", "correct"),
        ("-$5 + $10 = $6", "incorrect"),
        ("-$5 + $10 = $15", "unknown"),
        ("- $5 + $10 = $15", "correct"),
        ("Cost per item -$5 × 4 = $20", "unknown"),
    ],
)
def test_a_minus_before_money_is_read(step: str, label: str) -> None:
    """A dash is a bullet only where white space follows it; else it may still be one."""
    assert check_steps("", [step])[0].label == label, check_steps("", [step])


NAMED = [
    "abs(-5) + 1 = 6",
    "2 abs(-5) = 10",
    "factorial(4) + 1 = 25",
    "15 = 3 factorial(2) + 9",
    "profit(10) - 5 = 20",
    "area of circle1 + 3 = 5",
    "3x1 + 2x2 = 10",
    "10 = 3x1 + 2x2",
]


@pytest.mark.parametrize("step", NAMED)
def test_what_is_glued_to_a_name_begins_no_side(step: str) -> None:
    """The argument of a named function was taken for a number: `(4) + 1 = 25`."""
    assert check_steps("", [step])[0].label == "unknown", check_steps("", [step])


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ("log2(8) = 3", "correct"),
        ("log10(100) + 1 = 3", "correct"),
        ("log2(8) + 1 = 9", "incorrect"),
        ("log₂(8) + 1 = 9", "incorrect"),
        ("3x4 = 12", "correct"),
        ("3x4 = 13", "incorrect"),
        ("他有5+3=9个", "incorrect"),  # where no spaces part words
        ("共(5+3)×2=16个", "correct"),
    ],
)
def test_a_base_may_be_glued_to_a_logarithm(step: str, label: str) -> None:
    assert check_steps("", [step])[0].label == label, check_steps("", [step])


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ("So 5 + 3 = 8!", "correct"),
        ("So **5 + 3 = 8!** Great.", "correct"),
        ("The total is 5 + 3 = $8! Then 8 + 2 = 10!", "correct"),
        ("So 5 + 3 = 9!", "incorrect"),
        ("6 * 20 = 5!", "correct"),
        ("6 * 20 = 5! = 5 * 4 * 3 * 2", "correct"),
        ("5 + 3 = 8! + 1", "incorrect"),
    ],
)
def test_an_exclamation_may_end_a_sentence(step: str, label: str) -> None:
    assert check_steps("", [step])[0].label == label, check_steps("", [step])


@pytest.mark.parametrize("steps", [["x + 3 = 8", "So x = 5!"], ["x - 3 = 117", "So x = 5!", "x = 120"]])
def test_the_value_of_a_variable_may_be_exclaimed(steps: list[str]) -> None:
    assert {found.label for found in check_steps("", steps)} == {"unknown"}


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ("A = 1/2bh = 1/2(6)(4) = 12", "correct"),
        ("2xy + 3 = 9", "unknown"),
        ("P = 2lw + 4 = 20", "unknown"),
        ("3cm + 4cm = 7cm", "correct"),
        ("3km + 4km = 8km", "incorrect"),
        ("3 pcs + 4 pcs = 8 pcs", "incorrect"),
    ],
)
def test_letters_glued_to_a_number_are_variables_unless_they_measure(step: str, label: str) -> None:
    assert check_steps("", [step])[0].label == label, check_steps("", [step])
