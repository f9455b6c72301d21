"""Hostile text: nothing raises, nothing runs, nothing is flagged for being strange; and the spans are true."""

import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepconf.core.claims import check_steps
from stepconf.core.claims.check import MAX_EFFORT
from stepconf.core.maths import rounding, values
from stepconf.core.maths.tree import Node, walk
from tests.verifiers.hostile import hostile_strings

PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "1",
                "2.5",
                "1,000",
                "x",
                "y",
                "=",
                "+",
                "-",
                "*",
                "/",
                "^",
                "(",
                ")",
                "{",
                "}",
                "[",
                "]",
                "%",
                "$",
                "!",
            ),
            *(
                r"\frac",
                r"\sqrt",
                r"\(",
                r"\)",
                r"\[",
                r"\]",
                r"\text{ a}",
                r"\pmod",
                r"\log_",
                r"\begin{align}",
            ),
            *(
                "is",
                "prime",
                "divisible by",
                "mod",
                "<<",
                ">>",
                "\n",
                " ",
                "|",
                ":",
                ",",
                "≡",
                "≈",
                "<",
                "½",
                "²",
            ),
            *(
                "½",
                "\u0000",
                "\u202e",
                "\u0661",
                "[asy]",
                "_{",
                "_",
                "**",
                "%",
                "\\",
                "\\\\",
                "&",
                "case",
                "if",
                r"\pm",
                r"\implies",
                "expanding",
                "sides",
            ),
        ]
    ),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "canary"


def test_hostile_strings_neither_raise_nor_run(canary: Path) -> None:
    strings = hostile_strings(str(canary))
    for text in strings[::3]:
        check_steps(text[:3000], [text[:3000], "2 + 2 = 4"])
    assert not canary.exists()


@settings(max_examples=600, deadline=None)
@example("²_2.5")
@example("12_7_2 = 3")
@given(PIECES)
def test_fuzzed_formulas(text: str) -> None:
    check_and_compare(text)


@settings(max_examples=600, deadline=None)
@given(st.text(alphabet=string.printable + "×÷−√π≤≥²³½°·", max_size=80))
def test_fuzzed_text(text: str) -> None:
    check_and_compare(text)


def check_and_compare(text: str) -> None:
    for found in check_steps(text, [text, text]):
        failed = [claim for claim in found.claims if claim.holds is False]
        assert (found.label == "incorrect") == bool(failed)
        assert (found.label == "correct") == (not failed and any(claim.holds for claim in found.claims))
        for claim in found.claims:
            assert 0 <= claim.start <= claim.end <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "=".join(["x"] * 100_000),
        "(" * 50_000 + "1" + ")" * 50_000 + " = 2",
        "x^{24}+y^{24}=" * 1000,
        "\\(" * 9000,
        "2^{7999}*" * 500 + "1=2",
        "400!*" * 300 + "1=1",
        "9^{9^{9^{9}}} = (10^9)!",
    ],
)
def test_work_is_bounded(text: str) -> None:
    assert check_steps(text, [text])[0].label in ("unknown", "correct")


# 2,880 readings of one relation, with a percentage on the other side
MANY_READINGS = r"2\frac{1}{2} + \log 5 + 8/4/2 + 1.123 + 50\% + 30^\circ + \arctan 1 + 1/2\pi"
MORE_PERCENT = r" + 50\%" * 18


@pytest.mark.parametrize(
    "step",
    [
        rf"${MANY_READINGS} = 7777\%$",
        rf"$7777\% = {MANY_READINGS}{MORE_PERCENT}$",
        rf"$7777 = {MANY_READINGS}{' + 1.2345' * 30}$",
    ],
)
def test_few_readings_of_one_relation_are_tried(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[object] = set()

    def evaluate(node: object, *rest: object) -> object:
        tried.add(rest[-1])
        return values.evaluate(node, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rounding, "evaluate", evaluate)
    assert check_steps("", [step])[0].label == "unknown"
    assert 0 < len(tried) <= 2 * rounding.MAX_READINGS


def test_one_solution_cannot_ask_for_more_than_so_many_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = 0

    def evaluate(node: Node, *rest: object) -> object:
        nonlocal nodes
        nodes += sum(1 for _ in walk(node))
        return values.evaluate(node, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rounding, "evaluate", evaluate)
    step = "$7777 = 1.23 + 50\\% + 8/4/2" + " + 1.2345" * 30 + "$"
    labels = [found.label for found in check_steps("", [step] * 40)]
    assert nodes <= MAX_EFFORT
    assert labels[-1] == "unknown"


@pytest.mark.parametrize("right", ["13", "45%", "7777%"])
def test_a_claim_with_some_readings_is_still_decided(right: str) -> None:
    assert check_steps("", [f"20% of 50 + 8/4/2 = {right}"])[0].label == "incorrect"
