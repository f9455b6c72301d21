"""Right steps that look like wrong arithmetic are left alone; wrong ones beside them are still found."""

import pytest

from stepconf.core.claims import check_steps

LABELS = {"?": "unknown", "+": "correct", "-": "incorrect"}

SHARES = [
    ("40% = 80, so 1% = 2 and 100% = 200.", "?"),
    ("30 out of 120 = 25%", "?"),
    ("60 decreased by 25% = 45", "?"),
    ("60 increased by 5 × 2 = 70", "?"),
    ("5 more than 3 × 4 = 17", "?"),
    ("It is twice 4 + 2 = 10", "?"),
    ("100% - 40% = 60% = $30", "+"),
    ("1 - 1/3 = 2/3 = 40 pages", "+"),
    ("5 + 5 = 10 = 25%", "+"),
    ("Tax (5%) = $0.60", "?"),
    ("Tax (5%) = 0.60 dollars", "?"),
    ("20% = 0.02", "-"),
    ("25% = 1/3", "-"),
    ("40/60 = 3/4", "-"),
    ("10/50 × 100 = 25%", "-"),
    ("They sell 5 × 2 = 11", "-"),
]
NAMES = [
    ("Day 2 = Day 1 + 5 = 15", "?"),
    ("Week 2 = Week 1 × 3 = 30", "?"),
    ("Day 1 × 2 = 20 pages", "?"),
    ("Group 2 = Group 1 - 3 = 7", "?"),
    ("Year 2: Year 1 + 10% = 110", "?"),
    ("On day 1 × 2 = 20 pages", "?"),
    ("Factory 1 + 5 = 15", "?"),
    ("Then 5 × 3 = 16", "-"),
    ("She earns 5 × 3 = 16", "-"),
    ("Day 1: 5 × 3 = 16", "-"),
]
CONVERSIONS = [
    ("60 × 2 = 120 = 2 hours", "+"),
    ("7 + 7 = 14 = 2 weeks", "+"),
    ("3 × 12 = 36 = 3 feet", "+"),
    ("1000 + 500 = 1500 = 1.5 kg", "+"),
    ("20 * 5 = 100 = $1", "+"),
    ("6 × 4 = 24 = 2 boxes", "+"),
    ("3 × 25 = $0.75", "?"),
    ("3 × 0.25 = 75 cents", "?"),
    ("60 × 2 = 2 hours", "?"),
    ("365 + 365 = 2 years", "?"),
    ("1 hour + 1 hour = 120", "?"),
    ("2 feet + 3 inches = 27", "?"),
    ("5 miles / hour × 2 = 11", "-"),
    ("60 × 2 = 3 hours", "-"),
    ("3 × 25 = $85", "-"),
    ("5 × 3 = $150", "-"),
    ("11 AM + 3 hours = 2 PM", "?"),
    ("5 PM - 9 AM = 8 hours", "?"),
    ("10 PM + 4 hours = 2 AM", "?"),
    ("9 + 5 = 2 p.m.", "?"),
]
READINGS = [
    ("50 + 20% = 70", "?"),
    ("20% × 50 = 1000", "?"),
    ("50 × 20% = 10%", "?"),
    ("50% + 20% = 60%", "?"),
    ("5% = 0.005", "?"),
    ("2 1/2 + 1 = 2", "?"),
    ("8/4/2 = 4", "?"),
    ("10/3 = 3.4", "?"),
    ("sqrt(2) = 1.5", "?"),
    ("2/3 = 0.66", "?"),
    ("50 + 20% = 60", "+"),
    ("100 - 40% = 60%", "+"),
    ("20% + 30% = 50", "+"),
    ("5/20 * 100 = 25%", "+"),
    ("100 - 75 = 25%", "+"),
    ("10/3 = about 3.4", "+"),
    ("10/3 is approximately 3.4", "+"),
    ("10/3 = 3.33", "+"),
    ("3 × 0.33 = 1", "+"),
    (r"$10\pi = 31.4$", "+"),
    ("$1/2(6) = 3$", "+"),
]
SOLUTIONS = [
    ("Amy buys 3 shirts at $20. Sales tax is 10%.", ["Subtotal: 3 × $20 = $60", "Tax (10%) = $6"]),
    ("", ["2 × 5 = 10", "The tax of 5% = 0.5"]),
    ("", ["x - 20% = 40", "x = 50"]),
    ("", ["40% = 80", "100% = x", "x = 200"]),
    ("", ["Arrival = 11 AM + 3 hours = 2 PM", "Arrival = 2 PM"]),
]


@pytest.mark.parametrize(("step", "sign"), SHARES + NAMES + CONVERSIONS + READINGS)
def test_each_meaning(step: str, sign: str) -> None:
    found = check_steps("", [step])[0]
    assert found.label == LABELS[sign], found


@pytest.mark.parametrize(("problem", "steps"), SOLUTIONS)
def test_right_steps_are_not_flagged(problem: str, steps: list[str]) -> None:
    found = check_steps(problem, steps)
    assert all(step.label != "incorrect" for step in found), found
