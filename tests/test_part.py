"""`infer` and `evaluate` that end before the last question, and the same command again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stepconf.core.records import Problem
from stepconf.engines.base import EngineCrashed
from stepconf.evaluation.part import Part
from stepconf.inference.base import Question, Result, Sample, Spent, StepScore, failed
from tests.scripted_engine import PROBLEMS, ArithmeticEngine
from tests.test_pipeline import write_jsonl
from tests.tiny import Ended, stepconf, with_tiny

USUAL = ["--strategy", "self-consistency", "--k", 2, "--max-tokens", 96, "--set", "prompt.instruction=Add."]
BAD = "9 - 4 - 2"


class Counting(ArithmeticEngine):
    """Counts what it is asked, and raises in the place of the answer number `after`, or over a prompt with `bad`."""

    def __init__(self, after: int = 1000, error: BaseException | None = None, bad: str = "no") -> None:
        super().__init__()
        self.asked, self.after, self.error, self.bad = 0, after, error, bad

    def _complete(self, request: Any, index: int) -> Any:
        if self.bad in self.tokenizer.decode(request.prompt_ids):
            raise EngineCrashed("it refuses a request.")
        if index == 0:
            if self.asked == self.after and self.error is not None:
                raise self.error
            self.asked += 1
        return super()._complete(request, index)


Run = Callable[[Counting], Ended]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "p.jsonl", PROBLEMS)


def inferred(problems: Path, out: Path, *options: object) -> Run:
    def run(engine: Counting) -> Ended:
        with patch("stepconf.evaluation.infer.open_engine", lambda recipe: engine):
            return stepconf("infer", problems, "--out", out, *with_tiny(), *USUAL, *options)

    return run


def evaluated(problems: Path, out: Path, *options: object) -> Run:
    def run(engine: Counting) -> Ended:
        with patch("stepconf.evaluation.evaluate.open_engine", lambda recipe: engine):
            return stepconf("evaluate", "--benchmark", problems, "--out", out, *with_tiny(), *USUAL, *options)

    return run


def rows_at(folder: Path) -> list[dict[str, Any]]:
    """What a command has answered, in its order, without the times."""
    (file,) = [*folder.glob("a.jsonl"), *folder.glob("e/answers/*/self-consistency.json")]
    text = file.read_text()
    rows = json.loads(text)["rows"] if file.suffix == ".json" else map(json.loads, text.splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def parts_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part.jsonl"))


COMMANDS = pytest.mark.parametrize(("command", "name"), [(inferred, "a.jsonl"), (evaluated, "e")])


@COMMANDS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), EngineCrashed("it died.", dead=True)])
def test_what_was_answered_is_kept(
    command: Callable[..., Run], name: str, error: BaseException, problems: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert command(problems, whole / name)(Counting()).code == 0
    run = command(problems, cut / name)
    assert run(Counting(4, error)).code != 0
    (part,) = parts_in(cut)
    assert len(part.read_text().splitlines()) == 1 + 4 and not (cut / "a.jsonl").exists()
    part.write_bytes(part.read_bytes() + b'{"result": {"key": "to')  # torn
    assert run(Counting(1, error)).code != 0
    again = Counting()
    assert run(again).code == 0
    assert again.asked == len(PROBLEMS) - 5
    assert rows_at(cut) == rows_at(whole) and not parts_in(tmp_path)


@COMMANDS
def test_answers_of_other_options_are_not_mixed_in(
    command: Callable[..., Run], name: str, problems: Path, tmp_path: Path
) -> None:
    assert command(problems, tmp_path / name)(Counting(4, KeyboardInterrupt())).code != 0
    if command is evaluated:
        (tmp_path / "e" / "recipe.json").unlink()  # which refuses other options before
    other = Counting()
    assert command(problems, tmp_path / name, "--seed", 5)(other).code == 0
    assert other.asked == len(PROBLEMS) and not parts_in(tmp_path)


@COMMANDS
def test_a_question_that_the_engine_refuses_is_a_failure(
    command: Callable[..., Run], name: str, problems: Path, tmp_path: Path
) -> None:
    run = command(problems, tmp_path / name)
    assert run(Counting(4, KeyboardInterrupt(), bad=BAD)).code != 0
    again = Counting(bad=BAD)
    assert run(again).code == 0
    assert again.asked == len(PROBLEMS) - 1 - 4, "it alone is asked again"
    rows = {row["question"]: row for row in rows_at(tmp_path)}
    assert [question for question, row in rows.items() if row["failure"]] == [f"What is {BAD}?"]
    bad = rows[f"What is {BAD}?"]
    assert bad["failure"] == "crashed the engine: it refuses a request." and bad["answer"] is None
    assert bad["strategy"] == "self-consistency"


def some(key: str) -> Result:
    steps = [StepScore("x\ud800", [1, 2], 0.1, None, 0.3)]
    samples = [Sample("1/3", 0.1, 4), Sample(None, None, 0)]
    return Result(
        key, "Q?\n", "1/3", "", "x\ud800", [1], [1, 2], steps, 1 / 3, samples, Spent(9, 2), 0.7, "s"
    )


def lines_of(file: Path) -> Iterator[bytes]:
    return iter(file.read_bytes().splitlines(keepends=True))


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    target, settings = tmp_path / "a.parquet", {"model": "m", "tau": 0.1}
    with Part(target, settings) as part:
        part.clock.seconds, part.clock.own = 2.5, 0.1
        part.keep(some("a"))
        part.keep(failed(Question("b", "", ([1],)), "crashed the engine: why", Spent()))
        part.keep(some("c"))
    asked = [Problem(key, key, None, "math", "typed", "") for key in "abcd"]
    with Part(target, settings) as again:
        kept, missing = again.divide(asked)
        assert kept == [some("a"), some("c")] and [one.text for one in missing] == ["b", "d"]
        assert asdict(again.clock) == asdict(part.clock)
    assert Part(target, settings | {"tau": 0.2}).found == {}
    file = tmp_path / "a.part.jsonl"
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with Part(target, settings) as torn:
            assert list(torn.found) == ["a", "c"][: max(0, whole[:end].count(b"\n") - 1)]
            torn.keep(some("d"))
        assert list(Part(target, settings).found) == [*torn.found]
        assert all(line.endswith(b"\n") for line in lines_of(file))
    part.remove()
    assert not list(tmp_path.iterdir())
