"""`stepconf infer` and `stepconf evaluate`, as from a shell, on a real tiny model."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepconf.core.printable import printable
from stepconf.core.records import Problem, TokenScores
from stepconf.core.votes import majority
from stepconf.errors import StepconfError
from stepconf.evaluation.evaluate import Cell, _graded, compared, summarised
from stepconf.evaluation.infer import COMPARING_S, confidences, equality, questions_of, with_tau
from stepconf.inference.base import Question, Result, Sample, Spent, failed
from stepconf.recipe import load_recipe
from stepconf.workers.pool import Outcome, Pool
from tests.tiny import stepconf, with_tiny

SMALL = ["--k", 2, "--max-tokens", 24, "--set", "sampling.temperature=1.0"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [{"id": i, "problem": f"What is {i} + 4?", "answer": str(i + 4)} for i in range(4)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_question_answered_by_the_tree() -> None:
    ended = stepconf("infer", "What is 3 + 4?", *with_tiny(), *SMALL, "--tau", 0)
    assert ended.code == 0, ended.err
    assert "cat: " in ended.out and "tokens in" in ended.out and "outside the engine" in ended.out
    # Every step has its number: colour is never the only cue.
    found = json.loads(stepconf("infer", "What is 3 + 4?", *with_tiny(), *SMALL, "--tau", 0, "--json").out)
    numbers = re.findall(r"^ {0,2}\d+  (\d\.\d{3})  ", ended.out, re.MULTILINE)
    assert numbers == [f"{step['confidence']:.3f}" for step in found["steps"]]


def test_a_question_longer_than_a_file_name() -> None:
    question = "A farmer has 3 cows, and each of them eats 4 bales of hay. " * 10
    (problem,) = questions_of(question, load_recipe(None, {}))
    assert problem.text == question


@pytest.mark.parametrize(
    "strategy", ["cat", "self-consistency", "dipt", "adaptive", "particle", "deepconf-online"]
)
def test_json_of_a_file(strategy: str, file: Path) -> None:
    ended = stepconf("infer", file, *with_tiny(), *SMALL, "--strategy", strategy, "--json")
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["external_id"] for row in rows] == ["0", "1", "2", "3"]
    for row in rows:
        assert row["strategy"] == strategy and row["tokens"] > 0
        assert "".join(step["text"] for step in row["steps"]) == row["text"]
        assert bool(row["failure"]) == (row["answer"] is None)


def test_the_same_in_every_format(file: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a.jsonl", "b.parquet"):
        ended = stepconf("infer", file, *with_tiny(), *SMALL, "--out", tmp_path / name)
        assert ended.code == 0, ended.err
        text = tmp_path / name
        found.append(
            pq.read_table(text).to_pylist()
            if name.endswith("parquet")
            else [json.loads(line) for line in text.read_text().splitlines()]
        )
    for a, b in zip(*found, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", 0], "infer.k"),
        (["--k", 100000], "infer.k"),
        (["--tau", 1.5], "infer.tau"),
        (["--tau", -0.1], "infer.tau"),
        (["--set", "infer.threshold=1"], "infer.threshold"),
        (["--set", "infer.cisc_temperature=0"], "infer.cisc_temperature"),
        (["--set", "infer.warm_up=0"], "infer.warm_up"),
        (["--strategy", "mcts"], "unknown strategy 'mcts'"),
        (["--set", "prompt.style=chat"], "no chat template"),
        (["--out", "answers.csv"], "neither .jsonl nor .parquet"),
        (["--out", "no/such/folder/a.jsonl"], "there is no folder no/such/folder"),
    ],
)
def test_bad_input(options: list[object], said: str) -> None:
    ended = stepconf("infer", "What is 3 + 4?", *with_tiny(), *options)
    assert ended.code == 1 and said in ended.err, ended.err
    assert "Traceback" not in ended.err


def test_the_fitted_confidence_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, bool]] = []

    def load(path: str, model: str, force: bool) -> SimpleNamespace:
        asked.append((path, model, force))
        steps = None if path == "answers.json" else "fitted"
        return SimpleNamespace(
            steps=steps, answers="fitted", of_step=lambda scores, index: 0.25, of_answer=lambda scores: 0.5
        )

    monkeypatch.setitem(sys.modules, "stepconf.calibration.fitted", SimpleNamespace(load_confidence=load))
    two = TokenScores([-1.0, -1.0], [0.0, 0.0], [0.5, 0.5])
    of_step, of_answer = confidences(load_recipe(None, {"model": "demo", "confidence": "both.json"}))
    assert (of_step(two, 0), of_answer(two)) == (0.25, 0.5) and asked == [("both.json", "demo", False)]
    of_step, of_answer = confidences(load_recipe(None, {"model": "demo", "confidence": "answers.json"}))
    assert (of_step(two, 0), of_answer(two)) == (1.0, 0.5), "what the file lacks stays exp(-mean entropy)"
    plain = confidences(load_recipe(None, {"model": "demo"}))
    assert [plain[0](two, 3), plain[1](two)] == [1.0, 1.0] and len(asked) == 2
    quantile = {"confidence": "both.json", "infer.tau_run": "runs/small", "infer.tau_quantile": 0.05}
    with pytest.raises(StepconfError, match="another scale"):
        with_tau(load_recipe(None, quantile))


class _Stalled(Pool):
    """Over one of `bombs` a worker takes `seconds` and is ended; any other pair it compares as ours do."""

    def __init__(self, bombs: list[str], seconds: float) -> None:
        super().__init__(1)
        self.bombs, self.seconds, self.asked = bombs, seconds, 0

    def map(self, function: Any, items: Any) -> list[Outcome[Any]]:
        self.asked += len(items)
        return [
            Outcome(None, "timeout", self.seconds)
            if set(self.bombs).intersection(pair)
            else Outcome(function(pair), "", 0.0)
            for pair in items
        ]


def test_a_vote_over_answers_that_stall_does_not_hold_the_engine() -> None:
    """64 answers, each of which ends a worker with any other: 2,016 comparisons, of five seconds each."""
    bombs = [rf"\prod_{{k=1}}^{{{9999 - i}i}}(1+\frac{{x}}{{k}})" for i in range(64)]
    stalled = _Stalled(bombs, 5.0)
    equal = equality(stalled, "math")
    assert len(majority(bombs * 2, equal)) == 64, "identical texts are the same without a worker"
    assert stalled.asked * stalled.seconds <= COMPARING_S
    assert not equal("0.5", r"\frac{1}{2}"), "its time is over"
    assert equality(stalled, "math")("0.5", r"\frac{1}{2}"), "another question has its own"


def test_one_answer_that_stalls_is_given_to_a_worker_once() -> None:
    bomb, same, others = r"\prod_{k=1}^{9999i}(1+\frac{x}{k})", ["x^2-1", "(x-1)(x+1)"], ["0.5", "x+7"]
    for answers in ([bomb, *others, *same], [*others, bomb, *same], [*others, *same, bomb]):
        stalled = _Stalled([bomb], 5.0)
        tallies = majority(answers, equality(stalled, "math"))
        assert [len(one.members) for one in tallies] == [2, 1, 1, 1]
        assert stalled.asked == 1


def test_a_file_that_is_not_there() -> None:
    ended = stepconf("infer", "missing.jsonl", *with_tiny())
    assert ended.code == 1 and "no such file" in ended.err


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_is_not_the_current_folder(
    question: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    ended = stepconf("infer", question, *with_tiny())
    assert ended.code == 1 and "question is empty" in ended.err


def test_a_context_too_small() -> None:
    ended = stepconf("infer", "3 + 4?", *with_tiny(), "--set", "engine.max_model_len=16", "--json")
    assert ended.code == 0
    assert "context" in json.loads(ended.out)["failure"]


def test_model_output_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\n\tc") == r"a\x1b[31mb\r" + "\n\tc"


def test_evaluate_and_continue(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    command = ["evaluate", "--benchmark", file, "--out", out, *with_tiny(), *SMALL]
    ended = stepconf(*command, "--strategy", "greedy", columns=160)
    assert ended.code == 0, ended.err
    kept = {path: path.stat().st_mtime_ns for path in out.glob("answers/*/*.json")}
    ended = stepconf(*command, "--strategy", "greedy,self-consistency,cat", columns=160)
    assert ended.code == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    report = json.loads((out / "report.json").read_text())
    assert [one["strategy"] for one in report["results"]] == ["greedy", "self-consistency", "cat"]
    assert len(report["comparisons"]) == 3
    for one in report["results"]:
        assert one["questions"] == 4 and 0 <= one["pass@1"]["estimate"] <= 1
        assert one["tokens"] > 0
    voting = report["results"][1]
    assert set(voting["pass@k"]) == {"1", "2"} and "maj@2" in voting
    assert voting["maj@2"]["estimate"] == voting["pass@1"]["estimate"]
    assert "paired by problem" in ended.out and f"{out}/report.json" in ended.out


def test_evaluate_takes_the_strategy_that_a_recipe_names(file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("infer: {strategy: cat, k: 2}\n")
    named = ["--set", "infer.strategy=self-consistency"]
    for options, strategies in (
        ([], ["greedy"]),
        (["--recipe", recipe], ["cat"]),
        (named, ["self-consistency"]),
        ([*named, "--strategy", "cat,greedy"], ["cat", "greedy"]),
    ):
        command = ["evaluate", "--benchmark", file, "--out", tmp_path / "e", *with_tiny(), *SMALL, *options]
        ended = stepconf(*command, "--json")
        assert ended.code == 0, ended.err
        assert [one["strategy"] for one in json.loads(ended.out)["results"]] == strategies


def test_evaluate_refuses_another_recipe(file: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--benchmark", file, "--out", tmp_path / "e", *with_tiny(), "--max-tokens", 8]
    assert stepconf(*command).code == 0
    ended = stepconf(*command, "--k", 3)
    assert ended.code == 1 and "another recipe: infer differ" in ended.err
    assert json.loads(stepconf(*command, "--json").out)["results"][0]["questions"] == 4


def test_evaluate_names_what_is_unknown(file: Path, tmp_path: Path) -> None:
    for name, said in (("no-such-set", "Unknown problem set"), ("missing.jsonl", "no such file")):
        ended = stepconf("evaluate", "--benchmark", name, "--out", tmp_path / "x", *with_tiny())
        assert ended.code == 1 and said in ended.err
    ended = stepconf(
        "evaluate", "--benchmark", file, "--strategy", "best", "--out", tmp_path / "y", *with_tiny()
    )
    assert ended.code == 1 and "unknown strategy 'best'" in ended.err


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("math", "What is half of 1?", "\\frac{1}{2}"),
        ("number", "What is 3 + 4?", "7"),
        ("choice", "Which is even? A) 1 B) 2", "B"),
        ("yesno", "Is 4 even?", "yes"),
        ("string", "What is the capital of France?", "Paris"),
        ("literal", "What does f('a') return?", "['a', 1]"),
    ],
)
def test_evaluate_every_answer_type(kind: str, text: str, answer: str, tmp_path: Path) -> None:
    rows = [{"problem": f"{text} ({i})", "answer": answer} for i in range(2)]
    path = tmp_path / "b.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [*with_tiny(), *SMALL, "--set", f"problems.answer_type={kind}", "--json"]
    ended = stepconf(
        "evaluate",
        "--benchmark",
        path,
        "--strategy",
        "self-consistency,cat",
        "--out",
        tmp_path / "o",
        *options,
    )
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert [one["questions"] for one in report["results"]] == [2, 2]


def test_tests_that_cannot_fail_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps({"problem": "Write f.", "answer": '[{"input": "1", "output": "2"}]'}) + "\n")
    ended = stepconf(
        "evaluate",
        "--benchmark",
        path,
        "--out",
        tmp_path / "o",
        *with_tiny(),
        "--set",
        "problems.answer_type=code",
    )
    assert ended.code == 1 and ("are no Python tests" in ended.err or "no sandbox" in ended.err)


def test_answers_are_graded_and_compared() -> None:
    """Grading and figures over scripted answers: one right by value, one wrong, one without an answer."""
    problems = [Problem(name, name, "1/2", "math", "test", "") for name in "abc"]

    def said(name: str, answer: str, samples: list[str | None]) -> Result:
        found = [Sample(one, 0.5, 3) for one in samples]
        return Result(name, name, answer, "", answer, [1], [2], [], 0.5, found, Spent(tokens=9))

    with Pool(1) as pool:
        results = [
            said("a", "0.5", ["0.5", "\\frac{1}{2}", "3"]),
            said("b", "3", ["3", "3", "1/2"]),
            failed(Question("c", "c", ([1],)), "no solution has an answer: 3 cut", Spent(tokens=9)),
        ]
        rows = _graded(results[::-1], problems, pool)
        assert [row["correct"] for row in rows] == [True, False, False]
        one = Cell("b", "self-consistency", rows, 6.0, 0.6, 1.0)
        two = Cell("b", "cat", [row | {"correct": True, "tokens": 3} for row in rows], 3.0, 0.3, 1.0)
        found = summarised(one, pool)
    assert found["pass@1"]["estimate"] == pytest.approx(1 / 3)
    assert found["failures"] == {"no solution has an answer": 1} and found["seconds_per_question"] == 2
    paired = compared(two, one)
    assert (paired["only_first_right"], paired["only_second_right"]) == (2, 0)
    assert paired["tokens_ratio"]["estimate"] == pytest.approx(1 / 3) and paired["mcnemar_p"] == 0.5
