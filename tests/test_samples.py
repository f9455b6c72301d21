"""The samples in `tests/data`: what their README says is there, and what the script makes of the large sets."""

import re

from tests.data.make import SETS, chosen, sample_name
from tests.shared_data import SAMPLES, is_sample, large_rows, sample_rows

MAX_BYTES = 400_000


def test_each_sample_is_in_the_readme_with_its_rows_and_licence() -> None:
    listed = re.findall(
        r"^\| `(\S+)` \| (\d+) \| [\d,]+ \|.*(?:MIT \(\d|Apache-2\.0).*\|$",
        (SAMPLES / "README.md").read_text(),
        re.MULTILINE,
    )
    there = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*.gz")}
    assert {file for file, _ in listed} == there == {sample_name(name) for name, _, _ in SETS}
    assert {file: int(n) for file, n in listed} == {file: len(sample_rows(file)) for file in there}


def test_the_samples_stay_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*.gz")) < MAX_BYTES


def test_the_samples_are_what_the_script_makes() -> None:
    for name, column, count in SETS:
        rows = sample_rows(sample_name(name))
        assert len(rows) <= count
        if not is_sample(name):
            assert chosen(large_rows(name), column, count) == rows


def test_the_choice_depends_on_the_ids_alone() -> None:
    rows = sample_rows("gsm8k/train.jsonl.gz")
    first = chosen(rows, "question", 7)
    assert len(first) == 7 and first != rows[:7]
    assert chosen(rows[::-1], "question", 7) == first[::-1]
    assert chosen([{**row, "answer": ""} for row in rows], "question", 7) == [
        {**row, "answer": ""} for row in first
    ]
