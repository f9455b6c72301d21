"""What `import stepconf` gives: these names, each with an example that runs, and nothing heavy before it is used."""

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stepconf
from stepconf import metrics, rewards
from stepconf.api import models, runs, text
from stepconf.errors import StepconfError
from tests.scripted_engine import branched_run
from tests.tiny import tiny_model

NAMES = {
    *("Model", "Scored", "infer", "load_engine", "sample", "score"),
    *("Run", "generate", "load_run", "make_pairs", "train"),
    *("check_steps", "extract_answer", "segment", "verify_answer"),
    *("metrics", "rewards"),
}


def test_the_names_are_these_and_documented() -> None:
    assert set(stepconf.__all__) == NAMES <= set(dir(stepconf))
    assert all(getattr(stepconf, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        stepconf.solve  # noqa: B018


@pytest.mark.parametrize("module", [stepconf, text, models, runs, metrics, rewards])
def test_examples_run(module: object, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"problem": "What is 3 + 4?", "answer": "7"}))
    labelled = Path(shutil.copytree(branched_run(), tmp_path / "labelled"))
    given = {"model": str(tiny_model()), "problems": str(problems), "out": tmp_path, "labelled": labelled}
    failed, tried = doctest.testmod(module, extraglobs=given)  # type: ignore[arg-type]
    assert tried and not failed


def test_bad_options_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=r"sampling\.sample'") as refused:
        stepconf.generate("gsm8k", "demo", tmp_path / "run", {"sampling.sample": 8})
    assert "sampling.samples" in refused.value.hint
    with stepconf.load_engine(str(tiny_model()), "transformers") as model:
        with pytest.raises(StepconfError, match="temprature'"):
            stepconf.sample(model, ["2 + 2?"], temprature=1.0)
        with pytest.raises(StepconfError, match="exceed the model's context"):
            stepconf.score(model, ["2 + 2?"], ["4 " * 10_000])
        with pytest.raises(StepconfError, match="unknown strategy 'guess'"):
            stepconf.infer(model, ["2 + 2?"], "guess")


def test_what_is_scored_is_what_was_sampled() -> None:
    with stepconf.load_engine(str(tiny_model()), "transformers") as model:
        (drawn,) = stepconf.sample(model, ["What is 3 + 4?"], n=3, max_tokens=12, temperature=1.0)
        again = stepconf.score(model, ["What is 3 + 4?"] * 3, [one.text for one in drawn])
        assert [one.text for one in drawn] == [one.text for one in again]
        for one, other in zip(drawn, again, strict=True):
            if one.token_ids == other.token_ids:  # a text may be other tokens than those that wrote it
                assert one.entropies == pytest.approx(other.entropies, abs=1e-4)
        assert stepconf.sample(model, ["2?"], n=3, max_tokens=12, seed=5) == (
            stepconf.sample(model, ["2?"], n=3, max_tokens=12, seed=5)
        )
        exact = model.prompter.ids("What is 3 + 4?")
        assert stepconf.score(model, [exact], [drawn[0].text]) == again[:1]


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, stepconf; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "polars", "pyarrow", "sympy", "flint", "torch", "typer"} & set(loaded)


def test_answers_that_nothing_marks_are_not_called_wrong() -> None:
    assert stepconf.verify_answer("7", "He has 3 of them, and 4 more came.") is None
    assert stepconf.verify_answer("7", "The answer is 4.") is False


def test_rewards_take_conversations_and_columns() -> None:
    said = [
        [{"role": "assistant", "content": "The answer is 4."}],
        [{"role": "assistant", "content": "He has 3 of them."}],
    ]
    assert rewards.final_answer(said, ["4", "4"], prompts=["", ""]) == [1.0, None]
    assert rewards.sound_steps(["2 + 2 = 4.\n\n2 + 2 = 5."], problem=["What is 2 + 2?"]) == [0.5]
    assert rewards.calibrated(said, ["4", "4"], confidence=[0.8, 0.5]) == [pytest.approx(0.96), None]


def test_rewards_take_the_columns_that_datasets_have() -> None:
    said = [r"It is \boxed{72}.", r"It is \boxed{71}.", r"It is \boxed{72}."]
    solution = "Natalia sold 48/2 = 24 clips in May.\nAltogether 48 + 24 = 72.\n#### 72"
    for answer in (72, 72.0, "72", solution):
        assert rewards.final_answer(said, [answer, answer, None]) == [1.0, 0.0, None]
    assert rewards.sound_steps(["2 + 2 = 4."], problem=[None]) == [1.0]
    empty: list[dict[str, str]] = []
    assert rewards.final_answer([empty, [{"role": "assistant", "content": None}]], ["4", "4"]) == [None, None]


@pytest.mark.parametrize(
    ("said", "confidence"),
    [
        ("Confidence: 85%", 0.85), ("My confidence is 0.4.", 0.4), ("confidence = 1", 1.0),
        (r"**Confidence:** 73\%", 0.73), (r"\confidence{0.25}", 0.25), ("confidence level of 90 %", 0.9),
        ("Confidence: 0", 0.0), ("confidence: 250%", None), ("I gained confidence in 3 steps", None), ("", None),
        ("Confidence: 1/1000", 0.001), ("Confidence: 5 out of 10000", 0.0005),
        ("Confidence: 9/10", 0.9), ("confidence of 8 out of 10", 0.8), ("Confidence: 1 percent", 0.01),
        ("Confidence: 0,85", 0.85), ("Confidence (0-100): 85", 0.85), ("Confidence (%): 40", 0.4),
        ("Confidence - 85%", 0.85), ("Confidence: about 0.6", 0.6), ("Confidence: $0.8$", 0.8),
        ("Confidence: 1.2", None), ("Confidence: 5", None), ("Confidence: 1000", None), ("confidence of -0.5", None),
        ("Confidence: 9/0", None), ("Confidence: 11/10", None), ("Confidence: 1.2.3", None),
        ("the 95% confidence interval", None), ("confidence interval 0.95", None),
        ("Confidence: 0.9, later confidence: 7", None),
        ("Confidence: 1e-3", 0.001), ("Confidence: 1E\N{MINUS SIGN}3.", 0.001), ("Confidence: 5e+1%", 0.5),
        ("Confidence: 9.5e-1", 0.95), ("Confidence: 1e2", None), ("Confidence: 1e400", None),
        ("Confidence: 1e-4444", None), ("Confidence: 1e-3.5", None), ("Confidence: 1e-3e1", None),
        ("Confidence: 1 x 10^-3", None), (r"Confidence: $1 \times 10^{-3}$", None), ("Confidence: 1*10**-3", None),
        ("Confidence: 0.9^5", None), ("Confidence: 0.9 each", 0.9), ("Confidence: 0.8 x 100", 0.8),
        ("**Confidence: 0.8** 10 more", 0.8),
    ],
)  # fmt: skip
def test_confidence_is_read_where_it_is_stated(said: str, confidence: float | None) -> None:
    assert rewards.stated_confidence(said) == confidence
    (score,) = rewards.calibrated([rf"So it is \boxed{{4}}. {said}"], ["4"])
    assert score == (None if confidence is None else pytest.approx(1 - (confidence - 1) ** 2))


def test_a_proper_score_is_best_at_the_true_share() -> None:
    def expected(stated: float, share: float = 0.7) -> float:
        right, wrong = rewards.calibrated(
            ["The answer is 4.", "The answer is 5."], ["4", "4"], confidence=[stated] * 2
        )
        return share * (right or 0.0) + (1 - share) * (wrong or 0.0)

    assert max((i / 20 for i in range(21)), key=expected) == pytest.approx(0.7)


def test_hostile_completions_cost_their_own_reward_alone() -> None:
    bombs = ["9^{9^{9^{9}}} = 1. Confidence: " + "9" * 5000, "(" * 20_000, "1 + 1 = 2"]
    assert rewards.sound_steps(bombs)[-1] == 1.0
    assert len(rewards.calibrated(bombs, ["1"] * 3)) == 3


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepconfError):
        stepconf.load_run(tmp_path)
