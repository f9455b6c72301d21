"""What `--help` says of the commands: groups, options of recipe keys with their defaults, examples that are right."""

import re
import shlex
from dataclasses import replace
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.cli import GROUPS
from stepconf.commands.command import Command, folded, option_name
from stepconf.core.labels import POLICIES
from stepconf.kinds import PAIR_STRATEGIES, STRATEGIES, VERIFIERS
from stepconf.recipe import Recipe, known_keys
from stepconf.recipe.fields import first_sentence
from tests.test_cli import imported_by
from tests.tiny import stepconf

COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
OPTIONS = [(name, key) for name, command in COMMANDS.items() for key in command.keys]
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in command.examples]


@cache
def options_of(name: str) -> dict[str, str]:
    """Each option of a command and what `--help` says of it, on one line."""
    shown = stepconf(name, "--help", columns=110).out.partition("\nOptions:\n")[2].partition("\nExample")[0]
    return {
        part.split()[0]: " ".join(part.split()) for part in re.split(r"^  (?=--)", shown, flags=re.M) if part
    }


def recipe_of(name: str, *words: str) -> Recipe:
    """The recipe that the command would work by."""
    return called(name, *words)["recipe"]  # type: ignore[no-any-return]


def called(name: str, *words: str) -> dict[str, Any]:
    """The arguments with which a command line calls the command's function; the function does not run."""
    found: list[dict[str, Any]] = []

    @wraps(COMMANDS[name].body)
    def body(**arguments: Any) -> None:
        found.append(arguments)

    replace(COMMANDS[name], body=body).built().main(list(words), standalone_mode=False)
    [arguments] = found
    return arguments


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_groups_hold_all_commands_once() -> None:
    shown = stepconf("--help", columns=80).out
    listed = re.findall(r"^  ([a-z]+) +[A-Z]", shown, re.M)
    assert sorted(listed) == sorted(set(listed)) == sorted(COMMANDS)
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)
    assert re.findall(r"^([A-Z]\w+):$", shown, re.M) == ["Options", *GROUPS]
    assert all(command.summary in " ".join(shown.split()) for command in COMMANDS.values())
    assert max(map(len, shown.splitlines())) <= 80


def test_help_alone_does_not_read_the_recipe() -> None:
    assert imported_by(["--help"], {"pydantic", "stepconf.recipe", "stepconf.stores.opening"}) == set()
    assert imported_by(["status", "--help"], {"stepconf.recipe", "stepconf.stores.opening"}) == set()
    assert imported_by(["generate", "--help"], {"stepconf.recipe", "stepconf.pipeline"}) == {
        "stepconf.recipe"
    }


@pytest.mark.parametrize(("name", "key"), OPTIONS)
def test_the_default_shown_is_the_recipe_s(name: str, key: str) -> None:
    said = options_of(name)[option_name(key)]
    assert first_sentence(key) in said
    default = COMMANDS[name].defaults.get(key, value_of(Recipe(), key))
    shown = re.search(r"\[default: (.+)\]$", said)
    if default is None:
        assert shown is None and "(default: " in said, "the help says what happens without a value"
    elif default in ("", False):
        assert shown is None
    else:
        text = ",".join(default) if isinstance(default, list) else str(default)
        assert shown and shown[1] == (text or "none")
    if shown:  # what is shown may be typed, and changes nothing
        words = REQUIRED.get(name, [])
        typed = recipe_of(name, *words, option_name(key), shown[1])
        assert typed == recipe_of(name, *words)
        assert value_of(typed, key) == default


REQUIRED = {
    "generate": ["--out", "r"],
    "train": ["--out", "r"],
    "segment": ["FILE", "--out", "r"],
    "score": ["FILE", "--out", "r"],
    "verify": ["FILE", "--out", "r"],
    "audit": ["FILE", "--on", "prm800k"],
    "pairs": ["RUN"],
    "infer": ["QUESTION"],
}


@pytest.mark.parametrize("key", sorted({key for _, key in OPTIONS}))
def test_the_help_of_a_key_is_a_short_sentence(key: str) -> None:
    assert key in known_keys()
    said = first_sentence(key)
    assert said.endswith(".") and not said.endswith("..") and 15 < len(said) <= 110


def test_choices_that_the_recipe_reads_as_names_are_all_named() -> None:
    for name in STRATEGIES.built_in:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", stepconf("infer", "--help").out)
    for name in VERIFIERS.built_in:
        assert re.search(rf"\b{name}\b", options_of("verify")["--verify"])
    for name in POLICIES:
        assert re.search(rf"\b{name}\b", options_of("relabel")["--policy"])
    for name in PAIR_STRATEGIES.built_in:
        assert re.search(rf"\b{name}\b", options_of("pairs")["--strategy"])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_value_is_called_by_its_python_type(name: str) -> None:
    assert not re.search(r"<\w+>", stepconf(name, "--help").out)


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_examples_are_right_and_end_the_help(name: str, line: str) -> None:
    program, command, *words = shlex.split(line)
    assert (program, command) == ("stepconf", name)
    called(name, *words)  # parsed, and the recipe checked
    for columns in (60, 80, 110):
        shown = stepconf(name, "--help", columns=columns).out
        examples = re.split(r"^Examples?:\n", shown, flags=re.M)[1]
        assert line in re.sub(r" \\\n +", " ", examples)
        assert max(map(len, shown.splitlines())) <= columns


def test_every_command_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(COMMANDS)


@given(st.lists(st.text("abc-", min_size=1, max_size=9).map(str.strip), min_size=1), st.integers(20, 99))
def test_a_folded_example_is_the_same_command(words: list[str], width: int) -> None:
    line = " ".join(["stepconf", *words])
    joined = "\n".join(folded(line, width)).replace("\\\n", "")  # as a shell joins them
    assert shlex.split(joined) == shlex.split(line)


def test_option_over_set_over_file_over_the_command_s_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("verify: {verifiers: [final]}\nsampling: {samples: 2}\n")
    words = ["FILE", "--out", "r"]
    assert recipe_of("segment", *words).verify.verifiers == []
    assert recipe_of("segment", *words, "--recipe", str(file)).verify.verifiers == ["final"]
    both = [*words, "--recipe", str(file), "--verify", "symbolic, prm"]
    assert recipe_of("segment", *both).verify.verifiers == ["symbolic", "prm"]
    assert recipe_of("segment", *both, "--set", "verify.verifiers=[critic]").verify.verifiers == ["critic"]
    generated = ["--out", "r", "--recipe", str(file)]
    assert recipe_of("generate", *generated).sampling.samples == 2
    assert recipe_of("generate", *generated, "--samples", "3").sampling.samples == 3


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([], None),
        (["--branch", "none"], []),
        (["--branch", ""], []),
        (["--branch", "all"], ["all"]),
        (["--branch", "first-error, uncertain"], ["first-error", "uncertain"]),
    ],
)
def test_lists_of_names(words: list[str], where: list[str] | None) -> None:
    assert recipe_of("generate", "--out", "r", *words).branch.where == where


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("generate", ["--out", "r", "--verify", "final,my_lab.checks:units"], "'my_lab.checks:units'"),
        ("generate", ["--out", "r", "--engine", "my_lab.engines:Fast"], "'my_lab.engines:Fast'"),
        ("pairs", ["r", "--strategy", "my_lab.pairs:mine"], "'my_lab.pairs:mine'"),
        ("infer", ["1 + 1?", "--strategy", "my_lab.search:mine"], "'my_lab.search:mine'"),
    ],
)
def test_a_name_of_one_s_own_reaches_the_recipe(
    name: str, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "stepconf.recipe.load_recipe", lambda file, options, *rest: seen.update(options) or Recipe()
    )
    called(name, *words)
    assert said in str(seen)


def test_flags_are_the_recipe_s_only_where_they_are_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("serve: {insecure: true}\n")
    assert recipe_of("serve", "--recipe", str(file)).serve.insecure
    assert recipe_of("serve", "--insecure").serve.insecure
    assert not recipe_of("serve").serve.insecure


def test_rounds_and_a_run_exclude_each_other_but_the_file_may_say_rounds(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("loop: {rounds: 3}\n")
    refused = stepconf("train", tmp_path / "r", "--out", tmp_path / "o", "--model", "m", "--rounds", 2)
    assert refused.code == 1 and "a run and --rounds are both given" in refused.err
    ended = stepconf("train", tmp_path / "r", "--out", tmp_path / "o", "--recipe", file)
    assert ended.code == 1 and "no model is named" in ended.err


def test_a_key_without_a_docstring_cannot_be_an_option() -> None:
    command = Command(lambda recipe: None, ("train.weight_decay",), (), {})
    with pytest.raises(KeyError):
        command.built()
