"""The study of CASPO runs to its table on a model that does arithmetic by script, and is continued where it stopped."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from stepconf.api.text import pool
from stepconf.evaluation.infer import equality
from tests.invariants import rows_of
from tests.scripted_engine import PROBLEMS, ArithmeticEngine
from tests.studies import caspo
from tests.studies.measures import Measured, _vote, measure
from tests.test_pipeline import write_jsonl
from tests.tiny import tiny_model

METHODS = [name for name in caspo.METHODS if "noise" not in name]
KEYS = [
    "prompt.instruction=Add.",
    "prompt.shots=[]",
    "train.max_steps=2",
    "sampling.max_tokens=80",
    "verify.workers=1",
]


def study(folder: Path, methods: list[str]) -> None:
    learnt = write_jsonl(folder / "learnt.jsonl", PROBLEMS[:5])
    held_out = write_jsonl(folder / "held.jsonl", PROBLEMS[5:])
    sources = [f"problems.source={learnt}", f"loop.evaluation.source={held_out}", "engine.max_model_len=256"]
    sets = [part for key in (*KEYS, *sources) for part in ("--set", key)]
    with patch("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine(0.45)):
        caspo.main(
            [
                "demo",
                "--out",
                str(folder / "out"),
                "--model",
                str(tiny_model()),
                "--methods",
                ",".join(methods),
                *sets,
            ]
        )


@pytest.mark.slow
def test_every_method_comes_to_the_table(tmp_path: Path) -> None:
    study(tmp_path, METHODS[:2])
    first = (tmp_path / "out/seed-0/sft/training/model/model.safetensors").stat().st_mtime_ns
    study(tmp_path, METHODS)
    assert (tmp_path / "out/seed-0/sft/training/model/model.safetensors").stat().st_mtime_ns == first
    table = json.loads((tmp_path / "out/table.json").read_text())
    own = [row for row in table if row["measure"] == "step accuracy"]
    assert [row["method"] for row in own] == ["base", *METHODS]
    assert all(
        row["low"] <= row["estimate"] <= row["high"] and row["minus_caspo_low"] is not None for row in own
    )
    for name in METHODS:
        summary = json.loads((tmp_path / f"out/seed-0/{name}/training/summary.json").read_text())
        steps = sum(stage["last_step"]["of"] for stage in summary["stages"])
        assert steps == 2 * caspo.METHODS[name].share, name


def test_measures_are_those_of_the_rows(tmp_path: Path) -> None:
    from tests.scripted_engine import branched_run

    run = branched_run()
    problems = sorted({row["problem_id"] for row in rows_of(run, "solutions")})
    found = measure(str(run), str(run), [], problems, 4, lambda kind: str.__eq__)
    roots = {row["solution_id"] for row in rows_of(run, "solutions") if row["parent_solution_id"] is None}
    steps = [
        row for row in rows_of(run, "steps") if row["solution_id"] in roots and row["label"] != "unknown"
    ]
    right = [row["label"] == "correct" for row in steps]
    assert found["step accuracy"].estimate == pytest.approx(sum(right) / len(right))
    wins, pairs = 0.0, 0
    for good in (row for row in steps if row["label"] == "correct"):
        for bad in steps:
            if bad["label"] == "incorrect" and bad["problem_id"] == good["problem_id"]:
                pairs += 1
                wins += (bad["entropy_mean"] > good["entropy_mean"]) + 0.5 * (
                    bad["entropy_mean"] == good["entropy_mean"]
                )
    assert found["AUROC within"].estimate == pytest.approx(wins / pairs)
    assert found["CaT"].estimate is None
    blank = measure(
        str(run), str(run), [], [*problems, "of which all samples were empty"], 8, lambda kind: str.__eq__
    )
    n = len(problems)
    for name, samples in (("pass@1 greedy", 1), ("pass@1 sampled", 2), ("maj@n", 1)):
        expected = (found[name].estimate or 0) * n / (n + 1) / samples
        assert blank[name].estimate == pytest.approx(expected) and expected > 0, name
    low, high = found["step accuracy"].interval or (1, 0)
    assert low <= sum(right) / len(right) <= high


def test_equal_answers_vote_together() -> None:
    said = ["12", "5", "12.0", "5", r"\\frac{24}{2}"]
    rows = [
        {"predicted_answer": one, "answer_type": "math", "answer_correct": one != "5"}
        for one in (*said, None)
    ]
    assert _vote(rows, lambda kind: equality(pool(), kind)) == 1
    assert _vote(rows, lambda kind: str.__eq__) == 0
    assert _vote(rows[-1:], lambda kind: str.__eq__) == 0


def test_a_study_is_not_continued_with_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch.object(caspo, "evaluate"), patch.object(caspo, "run_seed"), patch.object(caspo, "tabulate"):
        typed = ["demo", "--out", str(tmp_path), "--set", "train.max_steps=8"]
        caspo.main(typed)
        caspo.main([*typed, "--seeds", "0,1", "--methods", "sft"])
        with pytest.raises(SystemExit):
            caspo.main([*typed[:-1], "train.max_steps=16"])
    assert "train.max_steps (there 8, now 16)" in capsys.readouterr().err


def test_differences_are_paired() -> None:
    a, b = Measured(0.5, [0.4, 0.6, None]), Measured(0.3, [0.3, 0.5, 0.1])
    assert a.minus(b).resamples == pytest.approx([0.1, 0.1, None]) and a.minus(b).estimate == pytest.approx(
        0.2
    )
    assert a.minus(a).interval == (0, 0)
