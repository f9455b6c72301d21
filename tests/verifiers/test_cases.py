"""Cases after public reports, each with the labels that are right; read as `stepconf verify` reads a file of them."""

from collections.abc import Iterator

import pytest

from stepconf.workers.pool import Pool
from tests.golden_verdicts import VERIFIERS, solutions
from tests.shared_data import Row, sample_rows

CASES = [row for row in sample_rows("cases.jsonl.gz") if row["id"].startswith(("final", "sym"))]
LABELS = ("correct", "incorrect", "unknown")


@pytest.fixture(scope="module")
def labels() -> Iterator[dict[str, list[str]]]:
    """By case, the label of each step that the verifier judges."""
    found: dict[str, list[str]] = {}
    with Pool(deadline_s=60) as pool:
        for name, start in (("final", "final"), ("symbolic", "sym")):
            read = solutions([row for row in CASES if row["id"].startswith(start)])
            verdicts = VERIFIERS[name](pool).verify(list(read.values()))
            found |= {one: [v.label for v in row if v] for one, row in zip(read, verdicts, strict=True)}
    yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_labels_are_right(case: Row, labels: dict[str, list[str]]) -> None:
    expected = case["expected"]
    if case["id"] not in labels:
        assert "left out" in expected, "the file was read without it"
        return
    wanted = expected if isinstance(expected, list) else [expected]
    assert len(labels[case["id"]]) == len(wanted)
    for label, want in zip(labels[case["id"]], wanted, strict=True):
        assert label in allowed(want), case["why"]


def allowed(want: str) -> set[str]:
    """`correct or unknown`, `left out, or unknown`: either; `not incorrect`: all but that."""
    if want.startswith("not "):
        return set(LABELS) - {want.removeprefix("not ")}
    return {label for label in want.replace(",", "").split(" or ") if label in LABELS}
