"""A fitted confidence: the probability that a step or an answer is right, from signals of its tokens.

Each signal is turned into its normal score, a logistic regression adds them up, and an isotonic map makes the sum a
probability. `calibration/fit.py` fits it; what is here needs no more than NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.core.records import Solved, TokenScores
from stepconf.core.signals import SIGNALS
from stepconf.errors import StepconfError

FORMAT, VERSION = "stepconf-confidence", 2
POSITION = "step_index"  # of a step in its solution, from 0; beside the signals of its tokens
_BY_NAME = {signal.name: signal for signal in SIGNALS}
_REFIT = "Fit it again: stepconf calibrate RUN --fit FILE"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """From a signal to its normal score: that of its rank among the rows that it was fitted on (van der Waerden).

    `values`: quantiles of those rows, ascending; `scores`: the quantiles of the standard normal distribution at the
    same ranks. Linear between them and constant outside, so that one wild value (a perplexity of e^80) cannot decide.
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FittedMap:
    """From the values of k signals to a probability.

    `scales` and `coefficients`: of each signal. `knots`: sums at which the isotonic map is given, ascending; `levels`:
    its probabilities there, in (0, 1), non-decreasing. Between knots it is linear, outside constant.
    """

    signals: tuple[str, ...]
    scales: tuple[Scale, ...]
    coefficients: tuple[float, ...]
    intercept: float
    knots: tuple[float, ...]
    levels: tuple[float, ...]

    def probabilities(self, values: Floats) -> Floats:
        """Of rows of values (n, k), n probabilities; NaN where a value is NaN."""
        sums = normal_scores(values, self.scales) @ np.array(self.coefficients) + self.intercept
        found: Floats = np.interp(sums, self.knots, self.levels)  # NaN where a sum is
        return found

    def of(self, scores: TokenScores, index: int = 0) -> float | None:
        """Of one span of tokens; None without tokens, or where a signal has no value.

        Raises:
            StepconfError: the tokens lack a list that a signal needs.
        """
        if not len(scores):
            return None
        values = [float(index) if name == POSITION else _value(name, scores) for name in self.signals]
        if any(value is None for value in values):
            return None
        probability = float(self.probabilities(np.array([values], dtype=float))[0])
        return None if np.isnan(probability) else probability


def normal_scores(values: Floats, scales: Sequence[Scale]) -> Floats:
    """Of rows of values (n, k) the normal scores (n, k); NaN stays."""
    columns = zip(values.T, scales, strict=True)
    return np.stack([np.interp(column, one.values, one.scores) for column, one in columns], axis=1)


def _value(name: str, scores: TokenScores) -> float | None:
    value = _BY_NAME[name].over(scores)
    if value is None and getattr(scores, _BY_NAME[name].needs) is None:
        raise StepconfError(
            f"the confidence file needs the signal {name}, which these tokens do not have.",
            "Their engine gives no varentropy, mean log-probability or second probability: fit without this signal "
            "(stepconf calibrate RUN --fit FILE --fit-signals ...), or take the engine vllm or transformers.",
        )
    return value


@dataclass(frozen=True, slots=True)
class FittedConfidence:
    """What a file of `stepconf calibrate --fit` holds.

    `model`, `revision`, `tokenizer` (digest, or empty): whose tokens it was fitted on. `labels`: the verifiers of the
    labels that it predicts. `steps` and `answers` are None where the run had too few to fit.
    """

    model: str
    revision: str
    tokenizer: str
    labels: tuple[str, ...]
    steps: FittedMap | None
    answers: FittedMap | None

    def of_step(self, scores: TokenScores, index: int) -> float | None:
        """P(the step is right), in (0, 1); None without tokens or where steps were not fitted.

        Args:
            scores: of the step's tokens.
            index: of the step in its solution, from 0.
        """
        return self.steps.of(scores, index) if self.steps else None

    def of_answer(self, scores: TokenScores) -> float | None:
        """P(the answer is right) from all tokens of its solution; None as `of_step`."""
        return self.answers.of(scores) if self.answers else None

    def on(self, solved: Solved, first: int = 0) -> Solved:
        """The solution and its steps with their `fitted_confidence`; a branch, part of a solution, has none itself.

        Args:
            solved: the solution.
            first: the index of its first own step on its whole path; see `paths.first_steps`.
        """
        steps = [
            replace(step, fitted_confidence=self.of_step(step.scores, first + step.step_index))
            for step in solved.steps
        ]
        whole = None
        if solved.solution.parent_solution_id is None:
            tokens = reduce(add, (step.scores for step in steps), TokenScores([], [], []))
            whole = self.of_answer(tokens)
        return Solved(replace(solved.solution, fitted_confidence=whole), steps)

    @staticmethod
    def of_document(document: Mapping[str, Any]) -> "FittedConfidence":
        """From the JSON of a file.

        Raises:
            StepconfError: it is no such file, of another version, or names a signal that is not in the table.
        """
        if document.get("format") != FORMAT or document.get("version") != VERSION:
            seen = f"format {document.get('format')!r}, version {document.get('version')!r}"
            raise StepconfError(f"it is no confidence file of version {VERSION} ({seen}).", _REFIT)
        try:
            return FittedConfidence(
                model=str(document["model"]),
                revision=str(document["revision"]),
                tokenizer=str(document["tokenizer"]),
                labels=tuple(map(str, document["labels"])),
                steps=_map_of(document["steps"]),
                answers=_map_of(document["answers"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StepconfError(f"it is damaged: {type(error).__name__}: {error}.", _REFIT) from error


def _map_of(part: Mapping[str, Any] | None) -> FittedMap | None:
    if part is None:
        return None
    names = tuple(map(str, part["signals"]))
    unknown = sorted({*names} - {*_BY_NAME, POSITION})
    if unknown:
        raise StepconfError(f"it needs signals that there are not: {', '.join(unknown)}.", _REFIT)
    scales = tuple(Scale(_floats(one["values"]), _floats(one["scores"])) for one in part["scales"])
    coefficients, knots, levels = (_floats(part[name]) for name in ("coefficients", "knots", "levels"))
    intercept = _floats([part["intercept"]])[0]
    if not len(names) == len(scales) == len(coefficients):
        raise ValueError("a signal lacks its scale or coefficient")
    for at, value in ((knots, levels), *((one.values, one.scores) for one in scales)):
        if not at or len(at) != len(value) or (np.diff(at) <= 0).any() or (np.diff(value) < 0).any():
            raise ValueError("a scale or the isotonic map does not ascend")
    if not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError("the isotonic map leaves (0, 1)")
    return FittedMap(names, scales, coefficients, intercept, knots, levels)


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    found = tuple(map(float, values))
    if not np.isfinite(found).all():
        raise ValueError("a number is not finite")
    return found
