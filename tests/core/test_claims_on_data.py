"""The symbolic checks on solutions labelled by people; skipped where the data is not at hand."""

import re

import pytest

from stepconf.core.claims import check_steps
from tests.shared_data import shared_rows


@pytest.mark.parametrize("shown", ["with annotations", "without"])
def test_gold_solutions_of_gsm8k_are_rarely_flagged(shown: str) -> None:
    """About every second flag on the reference solutions is an error in them (`192*100 = $1920`)."""
    rows = shared_rows("gsm8k/train.jsonl.gz")[:500]
    flagged = 0
    for row in rows:
        text = row["answer"] if shown == "with annotations" else re.sub("<<.*?>>", "", row["answer"])
        found = check_steps(row["question"], text.split("\n")[:-1])
        flagged += any(one.label == "incorrect" for one in found)
    assert flagged <= 0.01 * len(rows)


def test_gold_solutions_of_math_are_rarely_flagged() -> None:
    rows = shared_rows("math/train.jsonl.gz")[:300]
    flagged = 0
    for row in rows:
        steps = re.split(r"\n\n|(?<=\.) +(?=[A-Z])", row["solution"])
        flagged += any(one.label == "incorrect" for one in check_steps(row["problem"], steps))
    assert flagged <= 0.01 * len(rows)
