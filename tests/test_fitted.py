"""A fitted confidence: against scikit-learn's own composition, on simulated rows, and through the commands."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from stepconf.calibration import fit
from stepconf.calibration.fit import Rows, fit_confidence, folds, held_out_probabilities, write_confidence
from stepconf.calibration.fitted import load_confidence
from stepconf.calibration.signals import Units
from stepconf.core.confidence import FittedConfidence
from stepconf.core.records import TokenScores
from stepconf.core.signals import SIGNALS
from stepconf.errors import StepconfError
from tests.edited_run import good_run, label_some
from tests.invariants import rows_of
from tests.test_pipeline import write_jsonl
from tests.tiny import stepconf, with_tiny

N_PROBLEMS, OF_EACH = 60, 25


def simulated(seed: int = 0, problems: int = N_PROBLEMS, **columns: np.ndarray) -> Units:
    """Steps whose chance to be right falls with entropy and position; exp(-entropy) is far too high."""
    rng = np.random.default_rng(seed)
    n = problems * OF_EACH
    entropy, length = rng.exponential(0.3, n), rng.integers(1, 40, n).astype(float)
    position = np.tile(np.arange(OF_EACH) % 5, problems)
    hardness = np.repeat(rng.normal(size=problems), OF_EACH)
    logit = 1.0 - 3.0 * entropy - 0.4 * position + 0.5 * hardness
    correct = rng.random(n) < 1 / (1 + np.exp(-logit))
    signals = {"entropy_mean": entropy, "length": length, **columns}
    ids = np.array([f"p{i:03}" for i in range(problems)])
    return Units(
        "steps", np.repeat(ids, OF_EACH), correct, np.exp(-entropy), signals,
        dict.fromkeys(signals, False), positions=position, after_error=np.zeros(n, bool),
    )  # fmt: skip


def rows_of_units(units: Units) -> Rows:
    names = (*units.signals, "step_index")
    values = np.stack([*units.signals.values(), units.positions.astype(float)], axis=1)
    return Rows(names, values, units.correct, units.problems, units.confidence)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return fit_confidence(good_run(), {"steps": simulated()}, None, 50, 0)


class NormalScores(TransformerMixin, BaseEstimator):
    """Each column by its ranks among the rows fitted on, at 33 of them; what is equal there has the mean score."""

    def fit(self, values: np.ndarray, _: object = None) -> "NormalScores":
        ranks = (np.arange(1, 34) - 0.5) / 33
        self.columns_ = []
        for column in np.sort(values, axis=0).T:
            at = column[[int(np.ceil(rank * len(column) - 1e-9)) - 1 for rank in ranks]]
            scores = [norm.ppf(ranks[at == value]).mean() for value in sorted({*at})]
            self.columns_.append((sorted({*at}), scores))
        return self

    def transform(self, values: np.ndarray) -> np.ndarray:
        return np.array([np.interp(x, *own) for x, own in zip(values.T, self.columns_, strict=True)]).T


def composed(rows: Rows) -> CalibratedClassifierCV:
    """The same model out of scikit-learn's own parts."""
    linear = make_pipeline(NormalScores(), LogisticRegression(C=fit.INVERSE_PENALTY, max_iter=1000))
    model = CalibratedClassifierCV(linear, method="isotonic", cv=list(folds(rows)), ensemble=False)
    return model.fit(rows.values, rows.correct)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-9 but for rows between two knots that all but touch, where the rounding of a sum shows."""
    assert np.isclose(found, expected, rtol=0, atol=1e-9).mean() > 0.99
    assert found == pytest.approx(expected, abs=2e-3)


def test_the_map_is_scikit_learn_s(document: dict[str, Any]) -> None:
    rows, fitted = rows_of_units(simulated()), FittedConfidence.of_document(document)
    assert fitted.steps is not None and fitted.steps.signals == rows.names
    least = 1 / (len(rows.correct) + 2)
    expected = np.clip(composed(rows).predict_proba(rows.values)[:, 1], least, 1 - least)
    assert_same(fitted.steps.probabilities(rows.values), expected)


def test_held_out_figures_are_of_problems_not_fitted_on(document: dict[str, Any]) -> None:
    rows = rows_of_units(simulated())
    found = held_out_probabilities(rows)
    expected = np.empty(len(found))
    for fitting, apart in folds(rows):
        assert not set(rows.problems[fitting]) & set(rows.problems[apart])
        part = Rows(
            rows.names,
            *(one[fitting] for one in (rows.values, rows.correct, rows.problems, rows.as_is)),
        )
        least = 1 / (len(fitting) + 2)
        expected[apart] = np.clip(composed(part).predict_proba(rows.values[apart])[:, 1], least, 1 - least)
    assert_same(found, expected)


def test_figures_are_scikit_learn_s(document: dict[str, Any]) -> None:
    rows = rows_of_units(simulated())
    expected = held_out_probabilities(rows)
    held = document["steps"]["held_out"]
    assert held["fitted"]["brier"]["estimate"] == pytest.approx(
        brier_score_loss(rows.correct, expected), abs=1e-9
    )
    assert held["fitted"]["auroc"]["estimate"] == pytest.approx(
        roc_auc_score(rows.correct, expected), abs=1e-9
    )
    by_problem = []
    for problem in set(rows.problems):
        own = rows.problems == problem
        n = rows.correct[own].sum() * (~rows.correct[own]).sum()
        if n:
            by_problem.append((roc_auc_score(rows.correct[own], expected[own]) * n, n))
    within = sum(won for won, _ in by_problem) / sum(n for _, n in by_problem)
    assert held["fitted"]["auroc_within"]["estimate"] == pytest.approx(within, abs=1e-9)
    assert held["fitted"]["auroc_within"]["informative"] == len(by_problem)
    assert sum(one["count"] for one in held["fitted"]["reliability"]) == len(rows.correct)


def test_it_is_calibrated_where_exp_minus_entropy_is_not(document: dict[str, Any]) -> None:
    held = document["steps"]["held_out"]
    assert held["as_is"]["ece_10"]["low"] > 0.2
    assert held["fitted"]["ece_10"]["estimate"] < 0.06
    assert held["fitted"]["auroc"]["estimate"] > held["as_is"]["auroc"]["estimate"]


def test_noise_is_worth_nothing_on_other_problems() -> None:
    """Fitted and measured on the same problems, a signal per problem would seem to tell; here it does not."""
    rng = np.random.default_rng(5)
    units = simulated()
    noise = {f"{name}": rng.normal(size=units.correct.size) for name in ("entropy_mean", "spikes", "margin")}
    lucky = replace(
        units, correct=rng.random(units.correct.size) < 0.7, signals=noise, positions=np.zeros(units.correct.size),
        higher_is_better=dict.fromkeys(noise, True),
    )  # fmt: skip
    held = fit_confidence(good_run(), {"steps": lucky}, ["entropy_mean", "spikes", "margin"], 200, 0)[
        "steps"
    ]["held_out"]
    assert held["fitted"]["auroc"]["low"] <= 0.5 <= held["fitted"]["auroc"]["high"] + 0.02


TOKENS = TokenScores([-0.1, -0.4, -2.0], [0.2, 0.5, 1.0], [0.9, 0.6, 0.4])


def test_a_file_is_read_as_it_was_fitted(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "confidence.json"
    write_confidence(document, file)
    fitted = load_confidence(file, document["model"])
    assert fitted.labels == tuple(document["labels"]) == ("final", "symbolic")
    assert (
        fitted.steps is not None
        and fitted.answers is None
        and fitted.tokenizer == document["tokenizer"] != ""
    )
    by_name = {signal.name: signal for signal in SIGNALS}
    for index in (0, 3):
        values = [
            float(index) if name == "step_index" else by_name[name].over(TOKENS)
            for name in fitted.steps.signals
        ]
        expected = fitted.steps.probabilities(np.array([values], float))[0]
        assert fitted.of_step(TOKENS, index) == expected and 0 < expected < 1
    assert fitted.of_step(TokenScores([], [], []), 0) is None
    assert fitted.of_answer(TOKENS) is None, "answers were not fitted"
    rows = np.array([[np.nan, 3.0, 1.0], [0.2, 3.0, 1.0]])
    assert np.isnan(fitted.steps.probabilities(rows)).tolist() == [True, False]


def test_a_file_of_another_model_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "confidence.json"
    write_confidence(document, file)
    with pytest.raises(StepconfError, match="not 'other/model'") as told:
        load_confidence(file, "other/model")
    assert "confidence_force=true" in told.value.hint
    assert load_confidence(file, "other/model", force=True).model == document["model"]


def of_steps(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: document | {"steps": document["steps"] | changes}


DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another version": (lambda d: d | {"version": 1}, "no confidence file of version 2"),
    "another file": (lambda d: {"model": "m"}, "no confidence file"),
    "a list": (lambda d: [d], "no object"),
    "no model": (lambda d: {k: v for k, v in d.items() if k != "model"}, "damaged"),
    "an unknown signal": (of_steps(signals=["entropy_mean", "length", "karma"]), "karma"),
    "too few coefficients": (of_steps(coefficients=[1.0]), "damaged"),
    "a NaN": (of_steps(intercept=float("nan")), "damaged"),
    "a scale of nothing": (of_steps(scales=[{"values": [], "scores": []}] * 3), "damaged"),
    "a scale that falls": (of_steps(scales=[{"values": [0.0, 1.0], "scores": [1.0, 0.0]}] * 3), "damaged"),
    "scales of an older version": (of_steps(scales=[1.0, 1.0, 1.0]), "damaged"),
    "too few scales": (of_steps(scales=[{"values": [0.0], "scores": [0.0]}]), "damaged"),
    "knots that fall": (of_steps(knots=[1.0, 0.0], levels=[0.2, 0.3]), "damaged"),
    "levels that fall": (of_steps(knots=[0.0, 1.0], levels=[0.4, 0.3]), "damaged"),
    "a certainty": (of_steps(knots=[0.0, 1.0], levels=[0.4, 1.0]), "damaged"),
    "no knots": (of_steps(knots=[], levels=[]), "damaged"),
    "a text": (of_steps(coefficients=["a", 1.0, 2.0]), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    change, said = DAMAGED[name]
    file = tmp_path / "confidence.json"
    file.write_text(json.dumps(change(document)))
    with pytest.raises(StepconfError, match=said) as told:
        load_confidence(file, document["model"])
    assert str(file) in told.value.problem and "stepconf calibrate" in told.value.hint


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match="no confidence file: No such file"):
        load_confidence(tmp_path / "absent.json", "m")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(StepconfError, match="is no confidence file"):
        load_confidence(tmp_path / "broken.json", "m")


def test_tokens_without_a_list_that_a_signal_needs_are_refused(document: dict[str, Any]) -> None:
    part = document["steps"] | {"signals": ["entropy_mean", "length", "margin"]}
    fitted = FittedConfidence.of_document(document | {"steps": part})
    with pytest.raises(StepconfError, match="needs the signal margin"):
        fitted.of_step(TOKENS, 0)


def changed(**changes: Any) -> Units:
    return replace(simulated(), **changes)


def with_gaps(rows_kept: int = N_PROBLEMS * OF_EACH, only_right: bool = False) -> Units:
    """A margin that most rows lack, or all wrong ones."""
    units, rows = simulated(), np.arange(N_PROBLEMS * OF_EACH)
    there = (rows < rows_kept) & (units.correct | (not only_right))
    return simulated(margin=np.where(there, rows % 7, np.nan))


def none_wrong() -> Units:
    return changed(correct=np.ones(N_PROBLEMS * OF_EACH, bool))


@pytest.mark.parametrize(
    ("units", "names", "said"),
    [
        (lambda: simulated(problems=29), None, "29 problems .* a fit needs 30"),
        (none_wrong, None, "0 of 60 problems have decided and scored steps that are wrong"),
        (lambda: simulated(committal=np.full(N_PROBLEMS * OF_EACH, 2.0)), ["committal"], "committal is 2 on all"),
        (lambda: with_gaps(rows_kept=6), ["margin"], "1 problems have steps with a value of margin; a fit needs 30"),
        (lambda: with_gaps(rows_kept=29 * OF_EACH), ["length", "margin"], "29 problems .* a value of margin"),
        (lambda: with_gaps(only_right=True), ["margin"], "0 of 60 problems .* value of margin that are wrong"),
        (simulated, ["margin"], "margin has no value"),
        (simulated, ["karma"], "no signal to fit on: karma"),
        (simulated, ["cumulative_confidence"], "no signal to fit on: cumulative_confidence"),
    ],
    ids=["few problems", "one class", "a constant", "few values", "values of few problems", "values of one class",
         "a missing signal", "an unknown one", "not of tokens"],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(
    units: Callable[[], Units], names: list[str] | None, said: str
) -> None:
    with pytest.raises(StepconfError, match=said) as told:
        fit_confidence(good_run(), {"steps": units()}, names, 10, 0)
    assert told.value.hint


def test_as_few_wrong_problems_as_are_allowed_give_no_warning() -> None:
    wrong = np.isin(np.arange(N_PROBLEMS * OF_EACH), np.arange(5) * OF_EACH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_confidence(good_run(), {"steps": changed(correct=~wrong)}, None, 5, 0)
    assert found["steps"]["problems"] == N_PROBLEMS


def test_rows_without_a_value_are_left_out_and_constants_too() -> None:
    n = N_PROBLEMS * OF_EACH
    gaps = np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) % 7)
    units = simulated(spikes=gaps, committal=np.zeros(n))
    chosen = fit_confidence(good_run(), {"steps": units}, ["entropy_mean", "spikes"], 10, 0)["steps"]
    assert chosen["n"] == int((~np.isnan(gaps)).sum())
    usual = fit_confidence(good_run(), {"steps": units}, None, 10, 0)["steps"]
    assert usual["n"] == n and list(usual["signals"]) == ["entropy_mean", "length", "step_index"]


def test_a_wild_value_counts_as_a_large_one(document: dict[str, Any]) -> None:
    fitted = FittedConfidence.of_document(document).steps
    assert fitted is not None
    rows = np.array([[3.0, 20.0, 0.0], [1e30, 20.0, 0.0], [np.inf, 20.0, 0.0]])
    likely, *wild = fitted.probabilities(rows).tolist()
    assert wild == [likely, likely]


def test_ties_and_a_perfect_signal() -> None:
    units = simulated()
    perfect = np.where(units.correct, 1.0, 0.0)
    found = fit_confidence(good_run(), {"steps": simulated(margin=perfect)}, ["margin"], 20, 0)["steps"]
    assert found["held_out"]["fitted"]["auroc"]["estimate"] == 1.0
    assert 0 < found["levels"][0] < 0.01 and 0.99 < found["levels"][-1] < 1


def test_one_kind_of_two_may_be_fitted() -> None:
    answers = replace(simulated(problems=10), kind="answers")
    found = fit_confidence(good_run(), {"steps": simulated(), "answers": answers}, None, 10, 0)
    assert found["steps"] is not None and found["answers"] is None
    assert "10 problems" in found["not_fitted"]["answers"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 problems, a sample each, whose steps an invented verifier labels."""
    folder = tmp_path_factory.mktemp("fitted")
    problems = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(32)]
    file = write_jsonl(folder / "problems.jsonl", problems)
    options = ["--verify", "final,symbolic", "--samples", 2, "--max-tokens", 40]
    made = stepconf("generate", "--problems", file, "--out", folder / "run", *with_tiny(), *options)
    assert made.code == 0, made.err
    label_some(folder / "run")
    ended = stepconf(
        "calibrate", folder / "run", "--resamples", 5, "--fit", folder / "confidence.json", columns=240
    )
    assert ended.code == 0, ended.err
    assert "fitted confidence, measured on problems not fitted on" in ended.out
    assert "AUROC by protocol" in ended.out and f"--set confidence={folder}" in ended.out
    return folder / "run"


def test_calibrate_writes_what_it_shows(run: Path) -> None:
    written = json.loads((run.parent / "confidence.json").read_text())
    report = json.loads((run / "calibration/calibration.json").read_text())
    assert report["fit"] == written and {"varentropy", "margin"} <= set(written["steps"]["signals"])
    assert (run / "calibration/reliability-fitted-steps.svg").exists()
    for name, one in report["steps"]["protocols"].items():
        assert one["pooled"]["estimate"] == report["steps"]["signals"][name]["auroc"]["estimate"], name
        assert one["within"]["informative"] <= 32 and one["null"]["low"] <= 0.5 <= one["null"]["high"]
    assert report["steps"]["protocols"]["length"]["equal"]["estimate"] in (0.5, None)


def test_commands_use_the_file(run: Path, tmp_path: Path) -> None:
    file, again = run.parent / "confidence.json", tmp_path / "again"
    ended = stepconf("verify", run, "--verify", "none", "--set", f"confidence={file}", "--out", again)
    assert ended.code == 0, ended.err
    assert stepconf("check", again).code == 0
    fitted = load_confidence(file, rows_of(run, "solutions")[0]["model"])
    steps = pl.read_parquet(again / "steps/*.parquet")
    for row in steps.iter_rows(named=True):
        scores = TokenScores(*(row[f"token_{name}"] for name in (
            "logprobs", "entropies", "max_probs", "varentropies", "mean_logprobs", "second_probs")))  # fmt: skip
        assert row["fitted_confidence"] == pytest.approx(fitted.of_step(scores, row["step_index"]), abs=1e-4)
        assert row["confidence"] == pytest.approx(np.exp(-np.mean(scores.entropies)), rel=1e-4)
    assert steps["fitted_confidence"].null_count() == 0
    plain = pl.read_parquet(run / "steps/*.parquet")
    assert plain["fitted_confidence"].null_count() == plain.height


def test_a_file_that_was_fitted_anew_does_not_continue_a_run(run: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(run.parent / "confidence.json", tmp_path / "c.json"))
    usual = ["verify", run, "--verify", "none", "--set", f"confidence={file}", "--out", tmp_path / "again"]
    assert stepconf(*usual).code == 0
    assert stepconf(*usual).code == 0
    file.write_text(json.dumps(json.loads(file.read_text()) | {"policy": "consensus"}))
    ended = stepconf(*usual, columns=400)
    assert ended.code == 1 and "another recipe" in ended.err and "confidence_digest" in ended.err


def test_tau_is_compared_with_the_fitted_confidence(run: Path, tmp_path: Path) -> None:
    file, again = run.parent / "confidence.json", tmp_path / "again"
    verified = stepconf("verify", run, "--set", f"confidence={file}", "--verify", "none", "--out", again)
    assert verified.code == 0, verified.err
    for folder in (run, again):
        assert stepconf("relabel", folder, "--policy", "first-decided").code == 0
        assert stepconf("pairs", folder).code == 0
    taus = [json.loads((folder / "manifests/pairs.json").read_text())["tau"] for folder in (run, again)]
    steps = pl.read_parquet(again / "steps/*.parquet").filter(pl.col("label") == "correct")
    assert taus[1] == pytest.approx(steps["fitted_confidence"].quantile(0.5, "linear"))
    assert taus[0] == pytest.approx(steps["confidence"].quantile(0.5, "linear")) != taus[1]


def test_a_file_for_another_model_costs_no_sampling(run: Path, tmp_path: Path) -> None:
    file, out = run.parent / "confidence.json", tmp_path / "run"
    problems = write_jsonl(tmp_path / "problems.jsonl", [{"question": "What is 1 + 1?", "answer": "2"}])
    usual = ["generate", "--problems", problems, "--out", out, *with_tiny(chat=True), "--max-tokens", 8]
    ended = stepconf(*usual, "--set", f"confidence={file}", columns=400)
    assert ended.code == 1 and "was fitted on tokens of the model" in ended.err and not out.exists()
    forced = stepconf(*usual, "--set", f"confidence={file}", "--set", "confidence_force=true")
    assert forced.code == 0, forced.err
    assert all(row["fitted_confidence"] for row in rows_of(out, "steps"))


def test_calibrate_refuses_before_it_measures(tmp_path: Path) -> None:
    ended = stepconf(
        "calibrate", good_run(), "--fit", tmp_path / "c.json", "--out", tmp_path / "out", columns=200
    )
    assert ended.code == 1 and "6 problems" in ended.err and "a fit needs 30" in ended.err
    assert not (tmp_path / "c.json").exists() and not (tmp_path / "out").exists()
    ended = stepconf("calibrate", good_run(), "--fit", tmp_path / "none/c.json", columns=400)
    assert ended.code == 1 and f"there is no folder {tmp_path / 'none'}" in ended.err
    ended = stepconf("calibrate", good_run(), "--fit-signals", "length")
    assert ended.code == 1 and "--fit-signals is given without --fit" in ended.err
