"""`evaluate --compare A B`, tau as a quantile, and the plot of an evaluation, as from a shell."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stepconf.calibration.signals import lowest_on_the_way
from stepconf.core.prune import tau_at
from stepconf.errors import StepconfError
from stepconf.evaluation.infer import with_tau
from stepconf.recipe import load_recipe
from tests.edited_run import edit, good_run
from tests.invariants import rows_of
from tests.test_infer import SMALL
from tests.test_pipeline import write_jsonl
from tests.tiny import stepconf, with_tiny


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two evaluations of the same four problems, and one problem only in the first."""
    folder = tmp_path_factory.mktemp("compare")
    file = write_jsonl(
        folder / "p.jsonl", [{"problem": f"What is {i} + 4?", "answer": str(i + 4)} for i in range(5)]
    )
    outs = []
    for name, options in (
        ("a", ["--strategy", "greedy,cat"]),
        ("b", ["--strategy", "cat,greedy", "--limit", 4]),
    ):
        outs.append(folder / name)
        command = ["evaluate", "--benchmark", file, "--out", outs[-1], *with_tiny(), *SMALL, *options]
        ended = stepconf(*command, "--seed", len(name))
        assert ended.code == 0, ended.err
        assert "accuracy-tokens.svg" in ended.out
        assert {"accuracy-tokens.svg", "accuracy-tokens.png"} <= {one.name for one in outs[-1].iterdir()}
    return outs[0], outs[1]


def judge(out: Path, strategy: str, right: list[int]) -> None:
    """Say which problems a strategy had right: a random model has none."""
    for file in out.glob(f"answers/*/{strategy}.json"):
        cell = json.loads(file.read_text())
        for i, row in enumerate(cell["rows"]):
            row["correct"] = i in right
        file.write_text(json.dumps(cell))


def test_two_models_problem_by_problem(evaluations: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = (Path(shutil.copytree(one, tmp_path / one.name)) for one in evaluations)
    judge(a, "greedy", [0, 1, 2, 4])
    judge(b, "greedy", [1])
    ended = stepconf("evaluate", "--compare", a, b, "--out", tmp_path / "c", columns=160)
    assert ended.code == 0, ended.err
    assert "paired by problem" in ended.out and str(a) in ended.out
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    shown = json.loads(stepconf("evaluate", "--compare", a, b, "--json").out)
    assert shown == found
    assert "second: greedy" in (tmp_path / "c" / "accuracy-tokens.svg").read_text()
    greedy = next(one for one in found["comparisons"] if one["first"] == "greedy")
    assert {one["first"] for one in found["comparisons"]} == {"greedy", "cat"}
    assert greedy["questions"] == 4, "those that both have answered"
    assert (greedy["only_first_right"], greedy["only_second_right"], greedy["mcnemar_p"]) == (2, 0, 0.5)
    assert greedy["accuracy_difference"]["estimate"] == 0.5
    back = json.loads(stepconf("evaluate", "--compare", b, a, "--json").out)["comparisons"]
    mirrored = next(one for one in back if one["first"] == "greedy")
    assert mirrored["accuracy_difference"]["estimate"] == -0.5 and mirrored["mcnemar_p"] == 0.5


def test_one_strategy_each_is_compared(evaluations: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = (Path(shutil.copytree(one, tmp_path / one.name)) for one in evaluations)
    next(a.glob("answers/*/cat.json")).unlink()
    next(b.glob("answers/*/greedy.json")).unlink()
    (one,) = json.loads(stepconf("evaluate", "--compare", a, b, "--json").out)["comparisons"]
    assert (one["first"], one["second"]) == ("greedy", "cat")


def test_what_cannot_be_compared(evaluations: tuple[Path, Path], tmp_path: Path) -> None:
    a = evaluations[0]
    said = stepconf("evaluate", "--compare", a, tmp_path)
    assert said.code == 1 and "not a folder of stepconf evaluate" in said.err
    other = Path(shutil.copytree(a, tmp_path / "other"))
    for file in other.glob("answers/*/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"benchmark": "another"}))
    said = stepconf("evaluate", "--compare", a, other)
    assert said.code == 1 and "in common" in said.err
    strange = Path(shutil.copytree(a, tmp_path / "strange"))
    for file in strange.glob("answers/*/*.json"):
        file.write_text(file.read_text().replace('"problem_id": "', '"problem_id": "x'))
    said = stepconf("evaluate", "--compare", a, tmp_path / "strange")
    assert said.code == 1 and "in common" in said.err
    for missing in (["--out", tmp_path / "o"], ["--benchmark", "gsm8k"]):
        said = stepconf("evaluate", *missing, *with_tiny())
        assert said.code == 1 and "is missing" in said.err


@pytest.mark.parametrize(
    "ignored",
    [
        ["--benchmark", "gsm8k"],
        ["--strategy", "greedy"],
        ["--model", "demo", "--k", "3"],
        ["--set", "chunk=2"],
    ],
)
def test_options_that_a_comparison_would_ignore_are_refused(
    ignored: list[str], evaluations: tuple[Path, Path], tmp_path: Path
) -> None:
    said = stepconf("evaluate", "--compare", *evaluations, "--out", tmp_path / "c", *ignored)
    hint = " ".join(ignored[::2])
    assert said.code == 1 and f"{ignored[0]} does nothing with --compare" in said.err
    assert f"Leave out {hint}." in said.err and not (tmp_path / "c").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(good_run(), tmp_path_factory.mktemp("tau") / "run"))
    edit(
        folder,
        "solutions",
        lambda rows: [row.update(answer_correct=i % 2 == 0) for i, row in enumerate(rows)],
    )
    return folder


def lowest(run: Path, normalised: bool) -> list[float]:
    """By the definition, from the rows."""
    steps, found, seen = rows_of(run, "steps"), [], set()
    for solution in sorted(rows_of(run, "solutions"), key=lambda row: row["sample_index"]):
        usable = solution["answer_correct"] and solution["entropy_mean"] is not None
        if usable and solution["problem_id"] not in seen:
            seen.add(solution["problem_id"])
            on_the_way, c = [1.0], 1.0
            own = [step for step in steps if step["solution_id"] == solution["solution_id"]]
            for n, step in enumerate(sorted(own, key=lambda step: step["step_index"])[:-1], 1):
                c *= step["confidence"]
                on_the_way.append(c ** (1 / n) if normalised else c)
            found.append(min(on_the_way))
    return sorted(found)


@pytest.mark.parametrize("normalised", [False, True])
def test_tau_of_a_run(run: Path, normalised: bool) -> None:
    expected = lowest(run, normalised)
    assert len(expected) > 5
    assert len(expected) < sum(bool(row["answer_correct"]) for row in rows_of(run, "solutions"))
    assert sorted(lowest_on_the_way(run, normalised).tolist()) == pytest.approx(expected, rel=1e-9)
    sets = [f"infer.tau_run={run}", "infer.tau_quantile=0.4", f"infer.length_normalised={normalised}"]
    recipe = with_tau(load_recipe(sets=sets))
    assert recipe.infer.tau == pytest.approx(tau_at(expected, 0.4), rel=1e-9)
    assert 0 < recipe.infer.tau < 1 and recipe.infer.tau_quantile == 0.4


def test_tau_from_a_run_is_what_infer_and_evaluate_take(run: Path, tmp_path: Path) -> None:
    tau: Any = ["--set", f"infer.tau_run={run}", "--set", "infer.tau_quantile=0.5"]
    value = tau_at(lowest(run, False), 0.5)
    strict = stepconf("infer", "What is 3 + 4?", *with_tiny(), *SMALL, *tau, "--json")
    plain = stepconf("infer", "What is 3 + 4?", *with_tiny(), *SMALL, "--tau", value * (1 + 1e-9), "--json")
    assert strict.code == plain.code == 0, strict.err
    drop = ("seconds",)
    rows = [{k: v for k, v in json.loads(one.out).items() if k not in drop} for one in (strict, plain)]
    assert rows[0] == rows[1]
    file = write_jsonl(tmp_path / "p.jsonl", [{"problem": "What is 1 + 1?", "answer": "2"}])
    command = [
        "evaluate",
        "--benchmark",
        file,
        "--strategy",
        "cat",
        "--out",
        tmp_path / "e",
        *with_tiny(),
        *SMALL,
    ]
    assert stepconf(*command, *tau).code == 0
    assert json.loads((tmp_path / "e/report.json").read_text())["tau"] == pytest.approx(value, rel=1e-9)
    assert json.loads((tmp_path / "e/recipe.json").read_text())["infer"]["tau"] == pytest.approx(
        value, rel=1e-9
    )


def test_a_share_of_right_solutions_is_of_c_as_the_run_has_it() -> None:
    with pytest.raises(StepconfError, match=r"infer\.count_duplicates makes it smaller"):
        load_recipe(sets=["infer.tau_run=r", "infer.tau_quantile=0.1", "infer.count_duplicates=true"])


def test_no_tau_without_a_right_solution(tmp_path: Path) -> None:
    run = Path(shutil.copytree(good_run(), tmp_path / "run"))
    edit(run, "solutions", lambda rows: [row.update(answer_correct=None) for row in rows])
    sets = ["--set", f"infer.tau_run={run}", "--set", "infer.tau_quantile=0.1"]
    said = stepconf("infer", "3 + 4?", *with_tiny(), *sets)
    assert said.code == 1 and "is right, so there is no quantile" in said.err
    for alone, other in ((sets[:2], "infer.tau_quantile"), (sets[2:], "infer.tau_run")):
        said = stepconf("infer", "3 + 4?", *with_tiny(), *alone)
        assert said.code == 1 and "given alone" in said.err and other in said.err
    said = stepconf("infer", "3 + 4?", *with_tiny(), "--set", f"infer.tau_run={tmp_path}", *sets[2:])
    assert said.code == 1 and "not a run folder" in said.err
