"""Rows of local files: every form that is read, and every way in which a file is broken."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.errors import StepconfError
from stepconf.problems.files import file_kind, json_rows

ROWS = [{"problem": "1+1?", "answer": "2"}, {"problem": "Größe “x”\u2028?", "answer": 3}]


def read(path: Path) -> list[dict[str, Any]]:
    return list(json_rows(path, file_kind(path)))


def zipped(data: bytes) -> bytes:
    """Without the time of day: test processes must agree on the names of the tests."""
    return gzip.compress(data, mtime=0)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(ROWS)),
        ("a.ndjson", lines(ROWS)),
        ("a.jsonl.gz", zipped(lines(ROWS))),
        ("zipped_without_saying_so.jsonl", zipped(lines(ROWS))),
        ("two_members.jsonl.gz", zipped(lines(ROWS[:1])) + zipped(lines(ROWS[1:]))),
        ("bom.jsonl", b"\xef\xbb\xbf" + lines(ROWS)),
        ("windows.jsonl", lines(ROWS).replace(b"\n", b"\r\n")),
        ("blank.jsonl", b"\n\n" + lines(ROWS).replace(b"\n", b"\n  \n")),
        ("no_last_newline.jsonl", lines(ROWS).rstrip()),
        ("no_suffix", lines(ROWS)),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json.gz", zipped(json.dumps(ROWS).encode())),
        ("under_a_key.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("lines_called.json", lines(ROWS)),
        ("list_called.jsonl", json.dumps(ROWS).encode()),
    ],
)
def test_forms(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path) == ROWS


def test_an_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "problem": "1+1?",\n "options": []\n}')
    assert read(path) == [{"problem": "1+1?", "options": []}]


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3), st.text() | st.none() | st.integers() | st.lists(st.text(max_size=2))
        )
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rows:
        assert read(path) == rows


def test_a_line_of_a_hundred_thousand_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"problem": "x" * 100_000}, *ROWS]))
    assert [len(row["problem"]) for row in read(path)] == [100_000, 4, 11]


TRUNCATED = zipped(lines(ROWS * 5000))[:-20]
PARQUET = b"PAR1" + b"\0" * 100


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b" \n\n", "the file is empty but for white space"),
        ("a.jsonl", lines(ROWS) + b'{"problem": "to', r"line 3: broken JSON .*'\{\"problem\": \"to'"),
        ("a.jsonl", lines(ROWS) + b"{'problem': 1}\n" + lines(ROWS), "line 3: broken JSON .* at character 2"),
        ("a.jsonl", b"problem,answer\n1,2\n", "line 1: broken JSON .*'problem,answer'"),
        ("a.jsonl", lines(ROWS) + b"[" * 100_000, r"line 3: broken JSON .*\[…'"),
        ("a.jsonl", lines(ROWS) + b'{"n": ' + b"1" * 5000 + b"}", "line 3: broken JSON .*digits"),
        ("a.jsonl", lines([ROWS[0], 7]), "line 2: a number, not an object with columns: '7'"),
        ("a.jsonl", lines([ROWS[0], None]), "line 2: null, not an object"),
        ("a.jsonl", lines(ROWS) + '{"problem": "Größe"}\n'.encode("latin-1"), "line 3: not UTF-8: byte 0xf6"),
        ("a.jsonl", '{"problem": 1}'.encode("utf-16"), "line 1: not UTF-8: byte 0xff"),
        ("a.jsonl.gz", TRUNCATED, "gzip file is cut off or corrupt after line"),
        ("a.jsonl.gz", TRUNCATED[:15], "gzip file is cut off or corrupt at its start"),
        ("a.json.gz", zipped(json.dumps(ROWS * 5000).encode())[:-20], "corrupt before its end"),
        ("a.json", b'[{"problem": 1},\n{"problem" 2}]', "line 2: broken JSON"),
        ("a.json", b"[" * 100_000, "line 1: broken JSON"),
        ("a.json", b'[{"problem": 1}, 2]', "item 1 of the list is a number"),
        ("a.json", b"7", "a number where a list of rows is needed"),
        ("a.json", b'[\n\n{"problem": "\xf6"}]', "line 3: not UTF-8"),
        ("a.parquet", PARQUET, "Parquet file is truncated: its 104 bytes"),
        ("a.parquet", lines(ROWS), "not a Parquet file"),
        ("a.csv", b"problem,answer\n", "not a file of rows: it starts with b'p'"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StepconfError, match=said) as error:
        read(path)
    assert str(path) in error.value.problem
    assert error.value.hint
    assert len(str(error.value)) < 600


def test_rows_before_a_broken_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(ROWS) + b"{")
    rows = json_rows(path, "jsonl")
    assert [next(rows), next(rows)] == ROWS
    with pytest.raises(StepconfError, match="line 3"):
        next(rows)
