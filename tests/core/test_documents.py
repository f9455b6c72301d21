"""YAML and JSON within bounds: what is ordinary is read as the libraries read it, the rest is one ValueError."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.documents import MAX_DEPTH, MAX_YAML, read_json, read_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_values_come_back(value: object) -> None:
    text = json.dumps(value)
    assert read_json(text) == read_json(text.encode()) == value
    # Without aliases, as no value of a recipe is in two places.
    assert read_yaml(yaml.safe_dump(json.loads(text))) == yaml.safe_load(yaml.safe_dump(value))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_depth_has_a_bound(read) -> None:  # type: ignore[no-untyped-def]
    assert json.dumps(read(deep(MAX_DEPTH))) == deep(MAX_DEPTH)
    assert read(f'["{deep(10_000)}"]') == [deep(10_000)]
    for text in (
        deep(MAX_DEPTH + 1),
        deep(40_000),
        "[" * 90_000,
        '{"a": ' * 10_000,
        f'{{"a": {deep(MAX_DEPTH)}}}',
    ):
        with pytest.raises(ValueError, match=r"100 levels deep"):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",  # grows as 2^n
        "a: &a {b: *a}",  # holds itself
        "a: &a 1",
        "<<: *a",
        "a: !!binary aGk=",
        "a: !!bool perhaps",
        "a: !!python/object/apply:os.system [ls]",
        "- " * 30_000 + "a",
        "a: " + "x" * MAX_YAML,
        "a: 0x" + "f" * 20_000,  # a number that Python cannot print
        "a: 1" + ":59" * 30_000,
        "a: 1" + ":59" * 30_000 + ".5",
        "a: 2020-99-99",
        "a: 0b_",
        "{[1]: 2}",
        "a: \x1b",
        "a: [",
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_yaml(text)


@pytest.mark.parametrize("text", ["", "{", "[1] 2", "9" * 5000, b'"\xff"', b"\xff\xfe"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)
