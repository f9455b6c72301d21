"""Reasoning models through the commands: parts of solutions and steps, labels, pairs, calibration and the page."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, SampleRequest, finish
from tests.invariants import check_invariants, rows_of, samples_of
from tests.scripted_engine import ArithmeticEngine
from tests.test_pipeline import write_jsonl
from tests.thinking_shapes import SHAPES
from tests.tiny import VOCABULARY, stepconf, tiny_model, with_tiny

BY_NAME = {shape.name: shape for shape in SHAPES}
OPENING = "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"


def ok(*arguments: object) -> str:
    ended = stepconf(*arguments)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the shapes: others wrote it, so that nothing is known of the prompts."""
    rows = [
        {
            "id": shape.name,
            "problem": "What is 5 + 7?",
            "answer": "12",
            "solution": shape.text,
            **({"finish_reason": "length"} if shape.cut else {}),
        }
        for shape in SHAPES
        if shape.name != "never_ends_after_the_template"  # without the prompt, nothing says that it thinks
    ]
    return write_jsonl(tmp_path_factory.mktemp("shapes") / "shapes.jsonl", rows)


@pytest.fixture(scope="module")
def scored(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scored"
    ok("score", shapes, "--out", out, *with_tiny(), "--verify", "final,symbolic")
    return out


def check_shapes(run: Path) -> None:
    """Parts, answers, labels and steps of the shapes as a person would have them."""
    solutions, steps = check_invariants(run, VOCABULARY)
    assert {one["external_id"] for one in solutions} == set(BY_NAME) - {"never_ends_after_the_template"}
    for solution in solutions:
        shape = BY_NAME[solution["external_id"]]
        own = [step for step in steps if step["solution_id"] == solution["solution_id"]]
        assert [(step["part"], step["text"].strip()) for step in own] == list(shape.steps), shape.name
        assert solution["predicted_answer"] == shape.answer, shape.name
        ending = ("length_in_reasoning" if shape.endless else "length") if shape.cut else "imported"
        assert solution["finish_reason"] == ending, shape.name
        assert (solution["reasoning_end"] is None) == (shape.name in ("marks_in_code", "no_thinking")), (
            shape.name
        )
        right = None if shape.cut else shape.answer == "12"
        assert solution["answer_correct"] is right, shape.name


def test_shapes_through_verify(shapes: Path, tmp_path: Path) -> None:
    ok("verify", shapes, "--verify", "final,symbolic", "--out", tmp_path / "run")
    check_shapes(tmp_path / "run")


def test_shapes_through_segment(shapes: Path, tmp_path: Path) -> None:
    ok("segment", shapes, "--verify", "final", "--out", tmp_path / "run")
    check_shapes(tmp_path / "run")
    ok("verify", tmp_path / "run", "--verify", "final", "--out", tmp_path / "again")
    check_shapes(tmp_path / "again")


def test_shapes_through_pairs_and_report(scored: Path, tmp_path: Path) -> None:
    check_shapes(scored)
    ok("check", scored)
    assert "cut off inside it" in ok("pairs", scored, "--strategy", "dpo-vp"), "the table counts them"
    summary = json.loads((scored / "summary.json").read_text())
    n_cut = sum(shape.cut for shape in SHAPES) - 1
    assert summary["pair_drops"]["cut off inside its thinking"] == n_cut
    assert summary["reasoning"]["cut"] == n_cut and summary["reasoning"]["turns_per_solution"] > 0
    assert summary["reasoning"]["parts"].keys() == {"reasoning", "answer"}
    pairs = rows_of(scored, "pairs")
    assert pairs and all("The answer" in one["chosen"] or "12" in one["chosen"] for one in pairs)
    ok("report", scored, "--out", tmp_path / "page.html")
    assert '"part": "reasoning"' in (tmp_path / "page.html").read_text().replace('":"', '": "')


def test_the_recipe_says_that_nothing_is_thinking(tmp_path: Path) -> None:
    text = "<think>\nMaybe \\boxed{10}?\n</think>\n"
    file = write_jsonl(tmp_path / "one.jsonl", [{"problem": "P", "answer": "10", "solution": text}])
    ok("verify", file, "--verify", "final", "--reasoning", "none", "--out", tmp_path / "run")
    (solution,) = rows_of(tmp_path / "run", "solutions")
    assert solution["predicted_answer"] == "10" and solution["reasoning_end"] is None
    refused = stepconf("verify", file, "--reasoning", "thinkk", "--out", tmp_path / "other")
    assert refused.code == 1 and "thinkk" in refused.err and "harmony" in refused.err


class Thinker(ArithmeticEngine):
    """Thinks in paragraphs, takes some errors back, and answers."""

    def _complete(self, request: SampleRequest, index: int) -> Completion:
        prompt = self.tokenizer.decode(request.prompt_ids)
        assert prompt.endswith("<think>\n"), "the template opens the thinking"
        a, b = map(int, re.findall(r"What is (\d+) \+ (\d+)", prompt)[-1])
        n = (request.seed + index) % 4
        wrong = f"We add: {a} + {b} = {a + b + 1}.\n\n"
        right = f"We add: {a} + {b} = {a + b}.\n\n"
        thought = [right, f"{wrong}Wait, let me check.\n\n{right}", wrong, right * 9][n]
        said = a + b + (n == 2)
        text = f"{thought}</think>\n\n{a} + {b} = {said}\n\nThe answer is \\boxed{{{said}}}"
        ids = self.tokenizer.encode(text)
        cut = ids[: 30 if n == 3 else request.sampling.max_tokens]
        entropies = [0.05 + 0.01 * (i % 7) + (0.5 if n == 2 else 0.0) for i in range(len(cut))]
        scores = TokenScores([-h for h in entropies], entropies, [exp(-h) for h in entropies])
        return finish(cut, scores, len(cut) == len(ids), request.sampling, self.tokenizer)


def opened_model(folder: Path, source: Path) -> Path:
    """A copy of a model whose chat template opens the thinking."""
    shutil.copytree(source, folder)
    for file in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
        if not file.exists():
            continue
        if file.suffix == ".jinja":
            file.write_text(file.read_text().rstrip() + OPENING)
        elif "chat_template" in (config := json.loads(file.read_text())):
            file.write_text(
                json.dumps(config | {"chat_template": config["chat_template"].rstrip() + OPENING})
            )
    return folder


def test_a_template_that_opens_the_thinking(tmp_path: Path) -> None:
    model = opened_model(tmp_path / "model", tiny_model(chat=True))
    problems = [{"question": f"What is {i} + {i + 3}?", "answer": str(2 * i + 3)} for i in range(2, 8)]
    file, run = write_jsonl(tmp_path / "problems.jsonl", problems), tmp_path / "run"
    with patch("stepconf.stages.models.open_engine", lambda recipe: Thinker(model=model)):
        ok(
            *("generate", "--problems", file, "--model", model, "--engine", "transformers", "--samples", 4),
            *("--max-tokens", 200, "--verify", "final,symbolic", "--branch", "none", "--out", run),
        )
    check_invariants(run, VOCABULARY)
    solutions, steps = rows_of(run, "solutions"), rows_of(run, "steps")
    endings = Counter(one["finish_reason"] for one in solutions)
    assert endings["length_in_reasoning"] and endings["stop"]
    assert {one["reasoning_start"] for one in solutions} == {0}
    back = [step for step in steps if step["label_source"] == "taken back later"]
    assert back and {step["label"] for step in back} == {"unknown"}
    assert any(step["part"] == "reasoning" and step["label"] == "incorrect" for step in steps)
    ok("calibrate", run, "--resamples", 10, "--out", tmp_path / "figures")
    by_part = json.loads((tmp_path / "figures" / "calibration.json").read_text())["by_part"]
    assert by_part["reasoning"]["n"] + by_part["answer"]["n"] == sum(
        step["label"] != "unknown" for step in steps
    )
    ok("relabel", run, "--policy", "consensus")
    ok("check", run)


@pytest.mark.parametrize("part", ["all", "reasoning", "answer"])
def test_pairs_of_a_part(part: str, tmp_path: Path, branched_thoughts: Callable[[], Path]) -> None:
    run = shutil.copytree(branched_thoughts(), tmp_path / "run")
    ok("pairs", run, "--set", f"pairs.part={part}", "--set", "pairs.tau=1")
    of = {(one["solution_id"], one["step_index"]): one["part"] for one in rows_of(Path(run), "steps")}
    found = {of[one["solution_id"], one["step_index"]] for one in rows_of(Path(run), "pairs")}
    assert found == ({"reasoning", "answer"} if part == "all" else {part})


@pytest.fixture(scope="module")
def branched_thoughts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Runs whose solutions share beginnings in both parts, verified by their sums."""
    folder = tmp_path_factory.mktemp("thoughts")

    def made() -> Path:
        if not (run := folder / "run").exists():
            thought, answer = "<think>\n5 + 7 = {}\n</think>\n\n", "5 + 7 = {}\n\nThe answer is \\boxed{{12}}"
            texts = [thought.format(a) + answer.format(b) for a, b in ((12, 12), (13, 12), (12, 13))]
            rows = [{"problem": "What is 5 + 7?", "answer": "12", "solution": text} for text in texts]
            file = write_jsonl(folder / "given.jsonl", rows)
            ok("score", file, "--out", run, *with_tiny(), "--verify", "symbolic")
        return run

    return made


MODELS = os.environ.get("STEPCONF_TEST_MODELS")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not MODELS, reason="STEPCONF_TEST_MODELS names no folder of models")
def test_a_chat_model_made_to_think(tmp_path: Path) -> None:
    """The whole job on a real chat model whose template opens the thinking, with tables by part."""
    source = Path(str(MODELS)) / "qwen2.5-coder-0.5b-instruct"
    model = opened_model(tmp_path / "model", source)
    problems = [
        {"question": f"What is {i} + {i + 13} * 2?", "answer": str(i + (i + 13) * 2)} for i in range(4, 7)
    ]
    file, run = write_jsonl(tmp_path / "problems.jsonl", problems), tmp_path / "run"
    system = (
        "Think inside <think> and </think>, then answer. Show each sum as an equation on a line of its own."
    )
    shown = {
        "problem": "What is 3 + 8 * 2?",
        "solution": "8 * 2 = 16\n3 + 16 = 19\n</think>\nThe answer is 19.",
    }
    ok(
        *("generate", "--problems", file, "--model", model, "--engine", "transformers", "--samples", 3),
        *("--max-tokens", 128, "--verify", "final,symbolic", "--branch", "none", "--out", run),
        *(
            "--set",
            f"prompt.system={json.dumps(system)}",
            "--set",
            "prompt.chat_template_kwargs={enable_thinking: true}",
        ),
        *("--set", f"prompt.shots={json.dumps([shown])}"),
    )
    solutions = samples_of(run, "solutions")
    assert {one["reasoning_start"] for one in solutions} == {0}
    assert any(
        one["finish_reason"] == "stop" and one["reasoning_end"] < len(one["text"]) for one in solutions
    )
    check_invariants(run)
    told: dict[str, Any] = json.loads((run / "summary.json").read_text())["reasoning"]
    assert told["solutions"] == len(solutions) and told["parts"].keys() == {"reasoning", "answer"}
    ok("pairs", run, "--set", "pairs.tau=1")
    assert "steps of the thinking and of the answer" in ok(
        "calibrate", run, "--resamples", 50, "--out", tmp_path / "c"
    )
    ok("report", run, "--out", tmp_path / "page.html")
    ok("check", run)
