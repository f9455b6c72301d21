"""`stepconf calibrate` on a real run: every figure recomputed from the run's rows by other means."""

import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from stepconf.calibration.protocols import protocols
from stepconf.calibration.signals import read_units
from stepconf.calibration.truncated import topk_entropies
from stepconf.core.calibration import problem_split
from stepconf.core.signals import SIGNALS as TABLE
from stepconf.core.signals import Signal
from stepconf.run.tables import read_recipe
from tests.edited_run import Row, edit, good_run
from tests.engines.reference import top_probabilities
from tests.invariants import rows_of, samples_of
from tests.scripted_engine import branched_run
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import stepconf

LISTS = ("token_entropies", "token_max_probs", "token_logprobs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run whose answers are decided too, all but one."""
    folder = Path(shutil.copytree(good_run(), tmp_path_factory.mktemp("calibrate") / "run"))

    def decide(rows: list[Row]) -> None:
        for i, row in enumerate(rows):
            row["answer_correct"] = i % 3 == 0
        [row for row in rows if not row["parent_solution_id"]][-1]["answer_correct"] = None

    edit(folder, "solutions", decide)
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Any:
    ended = stepconf("calibrate", run, "--resamples", 30, "--json")
    assert ended.code == 0, ended.err
    written = json.loads((run / "calibration" / "calibration.json").read_text())
    assert json.loads(ended.out) == written
    return written


def tokens_of(run: Path, kind: str) -> tuple[list[Row], np.ndarray]:
    """The decided rows of a kind with the lists of their tokens, and which are correct."""
    steps = [row for row in samples_of(run, "steps") if row["token_entropies"]]
    if kind == "steps":
        rows = [row for row in steps if row["label"] != "unknown"]
        return rows, np.array([row["label"] == "correct" for row in rows])
    rows = []
    for solution in samples_of(run, "solutions"):
        own = [step for step in steps if step["solution_id"] == solution["solution_id"]]
        if own and solution["answer_correct"] is not None:
            lists = {name: [x for step in own for x in step[name]] for name in LISTS}
            last = max(own, key=lambda step: step["step_index"])
            rows.append(solution | lists | {"cumulative_confidence": last["cumulative_confidence"]})
    return rows, np.array([row["answer_correct"] for row in rows])


def agreement(run: Path) -> dict[tuple[str, int], float]:
    """Of each step after which two branches or more go on, the share of the most frequent of their answers."""
    answers: dict[tuple[str, int], list[str | None]] = {}
    for row in rows_of(run, "solutions"):
        if row["parent_solution_id"]:
            place = (row["parent_solution_id"], row["branch_step"] - 1)
            answers.setdefault(place, []).append(row["predicted_answer"])
    known = {place: Counter(one for one in own if one is not None) for place, own in answers.items()}
    return {
        place: known[place].most_common(1)[0][1] / len(own)
        for place, own in answers.items()
        if len(own) > 1 and known[place]
    }


# Each by its definition; the formulas of the others are tested by themselves.
SIGNALS: dict[str, Callable[[Row], float]] = {
    "length": lambda row: len(row["token_entropies"]),
    "max_prob_mean": lambda row: float(np.mean(row["token_max_probs"])),
    "perplexity": lambda row: math.exp(-float(np.mean(row["token_logprobs"]))),
    "entropy_mean": lambda row: float(np.mean(row["token_entropies"])),
    "entropy_max": lambda row: max(row["token_entropies"]),
    "entropy_sum": lambda row: math.fsum(row["token_entropies"]),
    "cumulative_confidence": lambda row: row["cumulative_confidence"],
}


@pytest.mark.parametrize("k", [3, 100_000])
def test_the_entropy_of_the_likeliest_tokens(run: Path, k: int) -> None:
    """Against the long way; with the whole vocabulary it is the exact entropy that the run holds."""
    found = topk_entropies(run, k, lambda stage, n: None)
    texts = {row["solution_id"]: row for row in rows_of(run, "solutions")}
    for step in (row for row in rows_of(run, "steps") if row["token_entropies"]):
        solution, own = texts[step["solution_id"]], slice(step["token_start"], step["token_end"])
        model = read_recipe(run)["model"]
        top = top_probabilities(model, solution["prompt_token_ids"], solution["token_ids"], k)[own]
        expected = np.mean([-(row[row > 0] * np.log(row[row > 0])).sum() for row in top])
        assert found[step["step_id"]] == pytest.approx(expected, abs=1e-4)
        exact = pytest.approx(step["entropy_mean"], abs=1e-4)
        assert found[step["step_id"]] == exact if k > 3 else found[step["step_id"]] < exact.expected
    of_steps, of_answers = (read_units(run, kind, found) for kind in ("steps", "answers"))
    assert np.isfinite(of_steps.signals["entropy_topk"]).all()
    assert (of_answers.scores["entropy_topk"] == -of_answers.signals["entropy_topk"]).all()
    if k > 3:
        assert of_answers.signals["entropy_topk"] == pytest.approx(
            of_answers.signals["entropy_mean"], abs=1e-4
        )


@pytest.mark.parametrize("kind", ["steps", "answers"])
def test_signals_are_those_of_the_tokens(run: Path, report: Any, kind: Any) -> None:
    rows, correct = tokens_of(run, kind)
    units = read_units(run, kind)
    ranking = {one.name for one in TABLE if one.higher_is_better is not None} | {"cumulative_confidence"}
    ranking |= {"picsar"} if kind == "answers" else set()
    found = set(units.signals)
    assert found == set(report[kind]["signals"]) == set(report[kind]["protocols"]) == ranking
    assert units.without_value == (
        ("entropy_topk", "branch_agreement") if kind == "steps" else ("entropy_topk",)
    )
    assert report[kind]["n"] == len(rows) == units.correct.size > 10
    assert report[kind]["n"] + report[kind]["left_out"] == len(
        samples_of(run, "steps" if kind == "steps" else "solutions")
    )
    for name, compute in SIGNALS.items():
        expected = [compute(row) for row in rows]
        assert sorted(units.signals[name].tolist()) == pytest.approx(sorted(expected), rel=1e-4), name
        ours = report[kind]["signals"][name]
        # Reference figures from our own columns: float32 lists round ties away.
        scores = units.scores[name]
        assert ours["auroc"]["estimate"] == pytest.approx(roc_auc_score(units.correct, scores), abs=1e-9)
        assert ours["auprc_errors"] == pytest.approx(
            average_precision_score(~units.correct, -scores), abs=1e-9
        )
        gap = ours["auroc"]["estimate"] - report[kind]["signals"]["entropy_mean"]["auroc"]["estimate"]
        assert ours["auroc_minus_entropy"]["estimate"] == pytest.approx(gap, abs=1e-12)
    assert report[kind]["signals"]["length"]["length_controlled_auroc"]["estimate"] == 0.5
    assert sorted(units.confidence.tolist()) == pytest.approx(
        sorted(math.exp(-SIGNALS["entropy_mean"](row)) for row in rows), rel=1e-4
    )
    assert sum(units.correct) == sum(correct)


def test_branches_say_how_far_their_answers_agree() -> None:
    run = branched_run()
    agreed = agreement(run)
    labelled = [row for row in samples_of(run, "steps") if row["label"] != "unknown"]
    places = [(row["solution_id"], row["step_index"]) for row in labelled]
    expected = [agreed[place] for place in places if place in agreed]
    found = read_units(run, "steps").signals["branch_agreement"]
    assert sorted(found[~np.isnan(found)].tolist()) == pytest.approx(sorted(expected))
    assert len(expected) > 3 and len(found) == len(labelled)


def test_first_errors_are_ranked_among_all_scored_steps_of_their_chain() -> None:
    run = branched_run()
    chains: dict[str, list[Row]] = {}
    for row in samples_of(run, "steps"):
        chains.setdefault(row["solution_id"], []).append(row)
    ranks = []
    for steps in chains.values():
        for error in (step for step in steps if step["is_first_error"] and len(steps) > 1):
            others = [step["entropy_mean"] for step in steps if step is not error]
            below = sum((h < error["entropy_mean"]) + (h == error["entropy_mean"]) / 2 for h in others)
            ranks.append(below / len(others))
    found = protocols(read_units(run, "steps"), 5, 0)["entropy_mean"]
    assert len(ranks) > 3 and found["first_error_rank"]["estimate"] == pytest.approx(np.mean(ranks))


def test_steps_of_branches_count_where_they_are_asked_for() -> None:
    run = branched_run()
    both = read_units(run, "steps", branches=True)
    labelled = [row for row in rows_of(run, "steps") if row["label"] != "unknown"]
    assert both.correct.size == len(labelled) > read_units(run, "steps").correct.size
    solutions = {row["solution_id"]: row for row in rows_of(run, "solutions")}

    def steps_before(row: Any) -> int:
        parent = row["parent_solution_id"]
        return 0 if parent is None else row["branch_step"] + steps_before(solutions[parent])

    parents = {row["parent_solution_id"] for row in solutions.values()} - {None}
    assert any(steps_before(solutions[parent]) for parent in parents), "there are branches of branches"
    expected = [row["step_index"] + steps_before(solutions[row["solution_id"]]) for row in labelled]
    assert sorted(both.positions.tolist()) == sorted(expected)
    answers = read_units(run, "answers", branches=True)
    assert answers.correct.size == read_units(run, "answers").correct.size


@pytest.mark.parametrize("kind", ["steps", "answers"])
def test_honesty_equals_scikit_learn(run: Path, report: Any, kind: Any) -> None:
    units, found = read_units(run, kind), report[kind]
    p, y = units.confidence, units.correct
    assert found["accuracy"]["estimate"] == pytest.approx(y.mean())
    assert found["brier"]["estimate"] == pytest.approx(brier_score_loss(y, p), abs=1e-9)
    assert found["log_loss"]["estimate"] == pytest.approx(log_loss(y, p), abs=1e-9)
    parts = [found["brier_decomposition"][part] for part in ("reliability", "resolution", "uncertainty")]
    assert parts[2] == pytest.approx(y.mean() * (1 - y.mean())) and min(parts) >= 0
    bins = found["reliability"]
    assert sum(one["count"] for one in bins) == y.size
    ece = sum(one["count"] * abs(one["accuracy"]["estimate"] - one["confidence"]) for one in bins) / y.size
    assert found["ece_10"]["estimate"] == pytest.approx(ece, abs=1e-12)
    for one in bins:
        assert one["low"] <= one["confidence"] <= one["high"]
    for name in ("accuracy", "brier", "auroc", "ece_10"):
        assert found[name]["low"] <= found[name]["high"] and found[name]["n_clusters"] == found["problems"]


def test_posthoc_is_fitted_on_other_problems(run: Path, report: Any) -> None:
    units, found = read_units(run, "steps"), report["steps"]["posthoc"]
    fitting = problem_split(units.problems.tolist(), 0.5, 0)
    score, y = units.scores["entropy_mean"], units.correct
    reference = IsotonicRegression(out_of_bounds="clip").fit(score[fitting], y[fitting].astype(float))
    expected = brier_score_loss(y[~fitting], reference.predict(score[~fitting]))
    assert found["isotonic"]["brier"]["estimate"] == pytest.approx(expected, abs=1e-9)
    as_is = brier_score_loss(y[~fitting], units.confidence[~fitting])
    assert found["as_is"]["brier"]["estimate"] == pytest.approx(as_is, abs=1e-9)
    assert found["problems_fitted"] + found["problems_measured"] == report["steps"]["problems"]


def test_the_figures_are_there(run: Path, report: Any) -> None:
    folder = run / "calibration"
    names = [
        f"{what}-{kind}"
        for what in ("entropy", "reliability", "risk-coverage")
        for kind in ("answers", "steps")
    ]
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["calibration.json", *(f"{name}.{suffix}" for name in names for suffix in ("png", "svg"))]
    )
    assert stepconf("check", run).code == 0, "the run is as good as before"


def test_before_and_after(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    edit(other, "solutions", lambda rows: [row.update(answer_correct=True) for row in rows])
    options = ["--resamples", 20, "--top-k", 3, "--out", tmp_path / "c"]
    ended = stepconf("calibrate", other, "--before", run, *options, columns=140)
    assert ended.code == 0, ended.err
    assert "after - before" in ended.out and "Platt" in ended.out
    found = json.loads((tmp_path / "c" / "calibration.json").read_text())
    assert all("entropy_topk" in found[kind]["signals"] for kind in ("steps", "answers"))
    same = found["change"]["steps"]
    assert all(one["estimate"] == one["low"] == one["high"] == 0 for one in same.values()), (
        "the very same steps"
    )
    changed = found["change"]["answers"]
    before = found["before"]["answers"]["accuracy"]["estimate"]
    assert changed["accuracy"]["estimate"] == pytest.approx(1 - before)
    assert changed["auroc"]["estimate"] is None, "one class only after: no AUROC, so no change of it"


def test_bad_input(run: Path, tmp_path: Path) -> None:
    said = stepconf("calibrate", tmp_path)
    assert said.code == 1 and "not a run folder" in said.err
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    assert stepconf("verify", file, "--out", tmp_path / "unscored").code == 0
    said = stepconf("calibrate", tmp_path / "unscored")
    assert said.code == 1 and "scored and decided" in said.err and "stepconf score" in said.err
    assert stepconf("calibrate", run, "--resamples", 0).code == 2


TAIL = '''"""A signal of one's own: only the least certain tokens count."""

from stepconf.core.signals import Signal


def mean_of_tail(scores):
    largest = sorted(scores.entropies)[-3:]
    return sum(largest) / len(largest)


def of_long_steps(scores):
    return scores.entropies[3]


tail = Signal("tail", "nats", "mean of the three largest token entropies", False, mean_of_tail, low=0)
long_only = Signal("long_only", "nats", "entropy of the fourth token", False, of_long_steps, low=0)
never = Signal("never", "", "nothing", True, lambda scores: None)
taken = Signal("perplexity", "", "another one", False, mean_of_tail)
aimless = Signal("aimless", "", "of no direction", None, mean_of_tail)
'''


@pytest.fixture
def my_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a user, outside of the checkout, with a module of signals."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab/signals.py").write_text(TAIL)
    assert len(TAIL.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_lab", "my_lab.signals"):
        sys.modules.pop(name, None)


def test_a_signal_of_ones_own_stands_beside_the_others(run: Path, my_lab: Path) -> None:
    own = ["--signal", "my_lab.signals:tail", "--signal", "my_lab.signals:long_only"]
    ended = stepconf("calibrate", run, "--resamples", 5, *own, "--out", "c", columns=200)
    assert ended.code == 0, ended.err
    found = json.loads((my_lab / "c/calibration.json").read_text())
    assert found["settings"]["signals"] == ["tail", "long_only"]
    for kind in ("steps", "answers"):
        rows, correct = tokens_of(run, kind)
        for name, compute, lacking in (
            ("tail", lambda tokens: np.mean(sorted(tokens)[-3:]), 0),
            ("long_only", lambda tokens: tokens[3], sum(len(row["token_entropies"]) < 4 for row in rows)),
        ):
            one = found[kind]["signals"][name]
            there = [i for i, row in enumerate(rows) if len(row["token_entropies"]) > 3 or name == "tail"]
            scores = [-compute(rows[i]["token_entropies"]) for i in there]
            assert one["auroc"]["estimate"] == pytest.approx(roc_auc_score(correct[there], scores))
            entropies = [-SIGNALS["entropy_mean"](rows[i]) for i in there]
            gap = one["auroc"]["estimate"] - roc_auc_score(correct[there], entropies)
            assert one["auroc_minus_entropy"]["estimate"] == pytest.approx(gap, abs=1e-4)
            assert one["auroc"]["low"] is not None and one["aurc"] is not None
            assert one["without_value"] == lacking and one["why"] == (
                "IndexError: list index out of range" if lacking else ""
            )
    lacking = found["steps"]["signals"]["long_only"]["without_value"]
    assert lacking > 0 and f"long_only has no value on {lacking} steps: IndexError" in ended.out
    assert "tail" in ended.out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_lab.nothing:tail", "No module named 'my_lab.nothing'"),
        ("my_lab.signals:head", "no 'head' in my_lab.signals"),
        ("my_lab.signals", "module:name"),
        ("my_lab.signals:mean_of_tail", "is of type function, and no signal"),
        ("my_lab.signals:taken", "more than one signal of the name 'perplexity'"),
        ("my_lab.signals:aimless", "higher_is_better is None"),
        ("my_lab.signals:never", "no value on any of"),
    ],
)
def test_a_signal_that_is_none_is_refused(name: str, said: str, run: Path, my_lab: Path) -> None:
    ended = stepconf("calibrate", run, "--resamples", 2, "--signal", name, "--out", "c", columns=300)
    assert ended.code == 1 and said in ended.err and "Traceback" not in ended.err
    assert not (my_lab / "c").exists()


def test_a_signal_in_the_table_is_a_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = Signal(
        "max_prob_min",
        "",
        "least of token_max_probs",
        True,
        lambda scores: min(scores.max_probs),
        low=0,
        high=1,
    )
    monkeypatch.setattr("stepconf.calibration.signals.SIGNALS", (*TABLE, least))
    ended = stepconf("calibrate", run, "--resamples", 2, "--out", tmp_path, columns=200)
    assert ended.code == 0 and "max_prob_min" in ended.out
    found = json.loads((tmp_path / "calibration.json").read_text())
    for kind in ("steps", "answers"):
        rows, correct = tokens_of(run, kind)
        auroc = roc_auc_score(correct, [min(row["token_max_probs"]) for row in rows])
        assert found[kind]["signals"]["max_prob_min"]["auroc"]["estimate"] == pytest.approx(auroc)
