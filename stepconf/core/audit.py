"""Verdicts against human step labels: ProcessBench's metric, and precision and recall of flagged steps.

A verifier's prediction for a solution is the index of the first step that it calls incorrect, -1 if none. In
ProcessBench (arXiv 2412.06559) people labelled a solution up to its first wrong step: a flag after that step
has no label. It counts as wrong in ProcessBench's metric and in `strict_precision`, and is left out of
`precision`; `late` says how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.core.bootstrap import Interval, cluster_bootstrap
from stepconf.core.records import Label, Verdict
from stepconf.errors import StepconfError

Weights = npt.NDArray[np.int64]
CHANCE = 0.5  # balanced accuracy of a verifier that guesses


@dataclass(frozen=True, slots=True)
class ProcessBenchMetrics:
    """ProcessBench's three numbers, in [0, 1] (published in per cent); None where there is no such sample.

    `error_accuracy`: share of wrong solutions whose first wrong step is predicted. `correct_accuracy`: share
    of correct solutions for which none is. `f1`: their harmonic mean, 0 where both are 0; `f1_interval` resamples
    problems.
    """

    error_accuracy: float | None
    correct_accuracy: float | None
    f1: float | None
    f1_interval: Interval
    n_error: int
    n_correct: int


@dataclass(frozen=True, slots=True)
class FlagMetrics:
    """How good flags are, with intervals by resampling problems.

    Counts are of solutions in ProcessBench (`hit`: the first wrong step, `early`: a right step before it,
    `late`: an unlabelled step after it, `false_alarm`: a correct solution) and of steps in PRM800K, where
    `early` and `late` are 0 and `hit` is a flagged step that people rated wrong.
    """

    precision: Interval
    strict_precision: Interval
    recall: Interval
    false_alarm_rate: Interval
    hit: int
    early: int
    late: int
    false_alarm: int
    n_wrong: int
    n_right: int


@dataclass(frozen=True, slots=True)
class OutcomeCheck:
    """How errors that a verifier finds agree with outcomes that are known: right and wrong solutions.

    A chance verdict has a balanced accuracy of 0.5: the mean of the shares of wrong solutions in which it finds an
    error and of right ones in which it finds none. The interval resamples problems.
    """

    n_right: int
    n_wrong: int
    right_flagged: int
    wrong_passed: int
    balanced_accuracy: Interval

    @property
    def tells_nothing(self) -> bool:
        """Whether it may be chance, as far as solutions of both kinds say."""
        low = self.balanced_accuracy.low
        return bool(self.n_right and self.n_wrong) and (low is None or low <= CHANCE)


def outcome_check(
    problems: Sequence[str], wrong: Sequence[bool], flagged: Sequence[bool], seed: int = 0
) -> OutcomeCheck | None:
    """Compare found errors with known outcomes; None where there is no solution.

    A right answer may hide a wrong step, and a wrong one needs one: the first share is a floor, not a truth.

    Args:
        problems: per solution, the id of its problem.
        wrong: per solution, whether it is known to be wrong.
        flagged: per solution, whether an error was found in it.
        seed: of the resampling.

    Raises:
        StepconfError: they differ in length.
    """
    _same_length(problems, wrong, flagged)
    if not problems:
        return None
    is_wrong, is_flagged = np.asarray(wrong, bool), np.asarray(flagged, bool)
    return OutcomeCheck(
        n_right=int((~is_wrong).sum()),
        n_wrong=int(is_wrong.sum()),
        right_flagged=int((is_flagged & ~is_wrong).sum()),
        wrong_passed=int((~is_flagged & is_wrong).sum()),
        balanced_accuracy=cluster_bootstrap(_balanced, list(problems), is_flagged, is_wrong, seed=seed),
    )


def _balanced(*arrays: Any, weights: Weights) -> float | None:
    flagged, wrong = arrays
    found = _ratio(flagged & wrong, wrong, weights=weights)
    passed = _ratio(~flagged & ~wrong, ~wrong, weights=weights)
    return None if found is None or passed is None else (found + passed) / 2


UNREAD = -2  # a prediction that is none: no step, and not the label of a correct solution


def first_error(labels: Sequence[Label]) -> int:
    """Index of the first `incorrect` label, -1 if there is none."""
    return next((index for index, label in enumerate(labels) if label == "incorrect"), -1)


def predicted_first_error(verdicts: Sequence[Verdict | None], must_decide: bool = False) -> int:
    """Index of the first step that a verifier calls incorrect, -1 if there is none.

    `must_decide`: where it decides of no step, such as a critic whose reply cannot be read, UNREAD, which is no label
    and so matches none, as in the published evaluation.
    """
    labels: list[Label] = ["unknown" if verdict is None else verdict.label for verdict in verdicts]
    return UNREAD if must_decide and set(labels) == {"unknown"} else first_error(labels)


def processbench_metrics(
    problems: Sequence[str], labels: Sequence[int], predictions: Sequence[int], seed: int = 0
) -> ProcessBenchMetrics:
    """ProcessBench's metric.

    Args:
        problems: per solution, the id of its problem.
        labels: per solution, the index of the first wrong step, -1 for a correct solution.
        predictions: per solution, the predicted index.
        seed: of the resampling.

    Raises:
        StepconfError: they differ in length, or there is no solution.
    """
    _same_length(labels, predictions, problems)
    label, match = np.asarray(labels), np.asarray(labels) == np.asarray(predictions)
    wrong = label >= 0
    ones = np.ones(len(label), dtype=np.int64)
    f1 = cluster_bootstrap(_f1, list(problems), match, wrong, seed=seed)
    return ProcessBenchMetrics(
        error_accuracy=_ratio(match & wrong, wrong, weights=ones),
        correct_accuracy=_ratio(match & ~wrong, ~wrong, weights=ones),
        f1=f1.estimate,
        f1_interval=f1,
        n_error=int(wrong.sum()),
        n_correct=int((~wrong).sum()),
    )


def _f1(*arrays: Any, weights: Weights) -> float | None:
    match, wrong = arrays
    return _harmonic_mean(
        _ratio(match & wrong, wrong, weights=weights), _ratio(match & ~wrong, ~wrong, weights=weights)
    )


def first_error_flags(
    problems: Sequence[str], labels: Sequence[int], predictions: Sequence[int], seed: int = 0
) -> FlagMetrics:
    """Precision and recall of the predicted first wrong steps.

    Args:
        problems: per solution, the id of its problem.
        labels: per solution, the index of the first wrong step, -1 for a correct solution.
        predictions: per solution, the predicted index.
        seed: of the resampling.

    Raises:
        StepconfError: the three differ in length, or there is no solution.
    """
    _same_length(labels, predictions, problems)
    label, prediction = np.asarray(labels), np.asarray(predictions)
    flagged, wrong = prediction >= 0, label >= 0
    hit = flagged & wrong & (prediction == label)
    early, late = flagged & wrong & (prediction < label), flagged & wrong & (prediction > label)
    return _flag_metrics(problems, hit, early, late, flagged & ~wrong, wrong, ~wrong, seed)


def step_flags(
    problems: Sequence[str], wrong: Sequence[bool | None], flagged: Sequence[bool], seed: int = 0
) -> FlagMetrics:
    """Precision and recall of flagged steps where every step has its own label (PRM800K).

    Args:
        problems: per step, the id of its problem.
        wrong: per step, whether people rated it wrong; a step with None is left out.
        flagged: per step, whether the verifier calls it incorrect.
        seed: of the resampling.

    Raises:
        StepconfError: the three differ in length, or no step has a label.
    """
    _same_length(wrong, flagged, problems)
    kept = [i for i, label in enumerate(wrong) if label is not None]
    is_wrong = np.array([bool(wrong[i]) for i in kept], dtype=bool)
    is_flagged = np.array([flagged[i] for i in kept], dtype=bool)
    none = np.zeros(len(kept), dtype=bool)
    return _flag_metrics(
        [problems[i] for i in kept],
        is_flagged & is_wrong,
        none,
        none,
        is_flagged & ~is_wrong,
        is_wrong,
        ~is_wrong,
        seed,
    )


def _flag_metrics(
    problems: Sequence[str],
    hit: npt.NDArray[np.bool_],
    early: npt.NDArray[np.bool_],
    late: npt.NDArray[np.bool_],
    false_alarm: npt.NDArray[np.bool_],
    wrong: npt.NDArray[np.bool_],
    right: npt.NDArray[np.bool_],
    seed: int,
) -> FlagMetrics:
    labelled = hit | early | false_alarm

    def share(top: npt.NDArray[np.bool_], bottom: npt.NDArray[np.bool_]) -> Interval:
        return cluster_bootstrap(_ratio, list(problems), top, bottom, seed=seed)

    return FlagMetrics(
        precision=share(hit, labelled),
        strict_precision=share(hit, labelled | late),
        recall=share(hit, wrong),
        false_alarm_rate=share(false_alarm, right),
        hit=int(hit.sum()),
        early=int(early.sum()),
        late=int(late.sum()),
        false_alarm=int(false_alarm.sum()),
        n_wrong=int(wrong.sum()),
        n_right=int(right.sum()),
    )


def _ratio(*arrays: Any, weights: Weights) -> float | None:
    top, bottom = arrays
    total = int(weights[bottom].sum())
    return int(weights[top].sum()) / total if total else None


def _harmonic_mean(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0


def _same_length(*columns: Sequence[Any]) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise StepconfError(
            f"labels, predictions and problems have {lengths} entries.",
            "Give one of each per item, in one order.",
        )
