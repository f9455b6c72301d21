"""A verifier's verdicts change only with its version: on the samples, on hostile text."""

import pytest

from tests.golden_verdicts import VERIFIERS, Golden, current, moved, read, refusal, write


@pytest.mark.parametrize("name", VERIFIERS)
def test_verdicts_change_only_with_the_version(name: str) -> None:
    old, new = read(name), current(name)
    assert not (why := refusal(name, old, new)), why
    rewrite = "run `python -m tests.golden_verdicts`, which keeps today's verdicts"
    assert new.version == old.version, f"{name} has another version than its file: {rewrite}"
    assert new.verdicts.keys() == old.verdicts.keys(), f"other solutions are judged: {rewrite}"


OLD = Golden("2", {"a": ["+ words"], "b": [None, "- balls"], "c": ["- words"]})


@pytest.mark.parametrize(
    ("version", "changed", "refused"),
    [
        ("2", {}, ""),
        ("2", {"d": ["?"]}, ""),
        ("2", {"a": ["? timeout"]}, "did not finish ['a']"),
        ("3", {"b": [None, "? memory"]}, "did not finish ['b']"),
        ("2", {"a": ["- words"]}, "1 solutions changed"),
        ("2", {"a": ["+ balls"]}, "stepconf/verifiers/final.py"),
        ("2", {"b": ["- balls"]}, "1 solutions changed"),
        ("2", {"a": ["? crash: signal 11"]}, "1 solutions changed"),
        ("3", {"a": ["- words"], "b": [None, "+ SymPy"]}, ""),
        ("10", {}, ""),
        ("1", {}, "older"),
    ],
)
def test_what_may_replace_the_file(version: str, changed: dict[str, list[str | None]], refused: str) -> None:
    why = refusal("final", OLD, Golden(version, {**OLD.verdicts, **changed}))
    assert refused in why and bool(why) == bool(refused)


def test_a_change_is_shown_with_what_it_was() -> None:
    (change,) = moved(OLD, Golden("3", {**OLD.verdicts, "b": [None, "? undecided"]}))
    assert change.split() == ["b", "was", "[null,", '"-', 'balls"]', "is", "[null,", '"?', 'undecided"]']


def test_solutions_that_went_or_came_have_not_changed() -> None:
    assert moved(OLD, Golden("2", {"a": ["+ words"], "d": ["?"]})) == []


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_file_is_written_as_it_was_read(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    write(name, read(name), tmp_path)
    assert read(name, tmp_path) == read(name)
