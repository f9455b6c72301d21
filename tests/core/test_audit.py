"""The metrics of an audit against literal transcriptions, and their laws."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from stepconf.core.audit import (
    ProcessBenchMetrics,
    first_error,
    first_error_flags,
    outcome_check,
    processbench_metrics,
    step_flags,
)
from stepconf.core.records import Solved, Verdict
from stepconf.errors import StepconfError
from stepconf.labels.audit import audit, render
from stepconf.verifiers.critic.forms import FORMS
from stepconf.verifiers.critic.replies import BadReplyError

PAIRS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=40)


def published(labels: list[int], predictions: list[int]) -> tuple[float, float, float]:
    """ProcessBench's evaluation, line by line: match, split by label, mean, harmonic mean, in per cent."""
    rows = [{"label": a, "match": a == b} for a, b in zip(labels, predictions, strict=True)]
    error_rows = [row for row in rows if row["label"] != -1]
    correct_rows = [row for row in rows if row["label"] == -1]
    acc1 = np.mean([row["match"] for row in error_rows]) * 100
    acc2 = np.mean([row["match"] for row in correct_rows]) * 100
    return float(acc1), float(acc2), float(2 * acc1 * acc2 / (acc1 + acc2))


def metrics_of(labels: list[int], predictions: list[int]) -> ProcessBenchMetrics:
    return processbench_metrics([str(i) for i in range(len(labels))], labels, predictions)


@settings(deadline=None)
@given(PAIRS)
def test_the_processbench_metric_is_the_published_one(pairs: list[tuple[int, int]]) -> None:
    # One match of each kind, so that the published formula divides by no zero.
    labels, predictions = [-1, 0, *(a for a, _ in pairs)], [-1, 0, *(b for _, b in pairs)]
    ours = metrics_of(labels, predictions)
    low, high = ours.f1_interval.low, ours.f1_interval.high
    assert low is None or high is None or 0 <= low <= high <= 1
    assert ours.error_accuracy is not None and ours.correct_accuracy is not None and ours.f1 is not None
    assert (100 * ours.error_accuracy, 100 * ours.correct_accuracy, 100 * ours.f1) == pytest.approx(
        published(labels, predictions)
    )


PREDICTIONS = Path(__file__).parents[1] / "data" / "processbench_predictions.jsonl"


def test_the_metric_on_a_file_of_given_predictions() -> None:
    """Replies as a critic gives them, read and scored: the published numbers of these predictions, by hand."""
    rows = [json.loads(line) for line in PREDICTIONS.read_text(encoding="utf-8").splitlines()]
    predictions = []
    for row in rows:
        try:
            found = FORMS["index"].parse(row["reply"], row["n_steps"]).first_error
        except BadReplyError:
            # ProcessBench counts a reply without a number as a miss, whatever the label.
            assert row["prediction"] is None
            predictions.append(-2)
            continue
        assert (-1 if found is None else found) == row["prediction"]
        predictions.append(row["prediction"])
    labels = [row["label"] for row in rows]
    ours = metrics_of(labels, predictions)
    # Of 10 wrong solutions 6 are predicted, of 8 right ones 5.
    assert (ours.n_error, ours.n_correct) == (10, 8)
    assert (ours.error_accuracy, ours.correct_accuracy) == (0.6, 0.625)
    assert ours.f1 == pytest.approx(2 * 0.6 * 0.625 / (0.6 + 0.625))
    assert [100 * ours.error_accuracy, 100 * ours.correct_accuracy, 100 * ours.f1] == pytest.approx(
        published(labels, predictions)
    )


def test_a_critic_that_guesses_tells_nothing() -> None:
    wrong = [i % 2 == 0 for i in range(200)]
    problems = [str(i // 2) for i in range(200)]
    for flagged, nothing in (
        ([False] * 200, True),
        ([True] * 200, True),
        ([i % 3 == 0 for i in range(200)], True),
        (wrong, False),
        ([one and i % 10 != 0 for i, one in enumerate(wrong)], False),
    ):
        found = outcome_check(problems, wrong, flagged)
        assert found is not None and found.tells_nothing == nothing
        assert (found.n_right, found.n_wrong) == (100, 100)
        assert found.right_flagged == sum(f and not w for f, w in zip(flagged, wrong, strict=True))
        assert found.wrong_passed == sum(w and not f for f, w in zip(flagged, wrong, strict=True))
    one_kind = outcome_check(["a", "b"], [True, True], [False, True])
    assert one_kind is not None and one_kind.balanced_accuracy.estimate is None and not one_kind.tells_nothing
    assert outcome_check([], [], []) is None


def test_the_metric_without_one_kind_of_sample() -> None:
    assert metrics_of([-1, -1], [-1, 2]).f1 is None
    assert metrics_of([0, -1], [1, 2]).f1 == 0


@settings(max_examples=15, deadline=None)
@given(PAIRS)
def test_flags_are_counted_once_each(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = [a for a, _ in pairs], [b for _, b in pairs]
    found = first_error_flags([str(i // 2) for i in range(len(pairs))], labels, predictions)
    assert found.hit + found.early + found.late + found.false_alarm == sum(b >= 0 for b in predictions)
    assert found.n_wrong + found.n_right == len(pairs)
    counted = found.hit + found.early + found.false_alarm
    assert found.precision.estimate == (found.hit / counted if counted else None)
    assert found.recall.estimate == (found.hit / found.n_wrong if found.n_wrong else None)
    for share in (found.precision, found.recall, found.strict_precision):
        if share.low is not None:
            assert 0 <= share.low <= share.high <= 1


def test_the_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(25):
        problem_rates = generator.beta(6, 4, 60)
        wrong = [bool(generator.random() < rate) for rate in problem_rates for _ in range(4)]
        found = step_flags([str(i // 4) for i in range(240)], wrong, [True] * 240, seed=trial)
        assert found.precision.low is not None and found.precision.high is not None
        covered += found.precision.low <= 0.6 <= found.precision.high
    assert covered >= 20  # about 24 expected at 95 %


def test_steps_without_a_label_are_left_out() -> None:
    found = step_flags(["a", "a", "b"], [True, None, False], [True, True, True])
    assert (found.hit, found.false_alarm, found.n_wrong, found.n_right) == (1, 1, 1, 1)


def test_lengths_must_match() -> None:
    with pytest.raises(StepconfError, match="entries"):
        processbench_metrics(["a"], [1], [1, 2])


def test_first_error() -> None:
    assert first_error(["correct", "unknown", "incorrect", "incorrect"]) == 2
    assert first_error(["correct", "unknown"]) == -1


class Oracle:
    """Calls a step incorrect where it says WRONG."""

    name, version = "oracle", "1"

    def verify(self, solved: list[Solved]) -> list[list[Verdict | None]]:
        return [
            [
                Verdict("oracle", "1", "incorrect" if "WRONG" in step.text else "correct", None, "", 0.5)
                for step in one.steps
            ]
            for one in solved
        ]


def test_audit_of_a_processbench_file(tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "steps": ["a", "WRONG"], "label": 1},
        {"problem": "p", "steps": ["a", "b"], "label": -1},
        {"problem": "q", "steps": ["a", "b", "WRONG"], "label": 0},
        {"problem": "r", "steps": [], "label": -1},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = audit("processbench", path, [Oracle()])
    result = report.results[0]
    assert result.processbench is not None
    assert (result.processbench.error_accuracy, result.processbench.correct_accuracy) == (0.5, 1.0)
    assert (result.flags.hit, result.flags.late, result.flags.precision.estimate) == (1, 1, 1.0)
    assert result.seconds_per_solution == pytest.approx(7 * 0.5 / 4)
    assert json.loads(json.dumps(report.to_dict()))["n_solutions"] == 4
    console = Console(width=200)
    with console.capture() as shown:
        console.print(render(report))
    assert "oracle 1" in shown.get()


def test_audit_of_a_prm800k_file(tmp_path: Path) -> None:
    rows = [
        {"instruction": "p", "responses": ["a"], "next_response": "WRONG", "rating": -1},
        {"instruction": "p", "responses": ["WRONG"], "next_response": "b", "rating": 1},
        {"instruction": "p", "responses": [], "next_response": "WRONG", "rating": 0},
        {"instruction": "p", "responses": [], "next_response": "c", "rating": None},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = audit("prm800k", path, [Oracle()]).results[0]
    assert (result.flags.hit, result.flags.false_alarm, result.flags.n_wrong) == (1, 1, 1)
    assert result.processbench is None


def test_a_row_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1+1"}\n')
    with pytest.raises(StepconfError, match="row 1: not a row of ProcessBench"):
        audit("processbench", path, [Oracle()])
