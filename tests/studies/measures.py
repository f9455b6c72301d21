"""What a policy is measured by on held-out problems: figures of its runs, resampled over problems."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stepconf.api.runs import load_run
from stepconf.core.calibration import auroc, brier, ece
from stepconf.core.calibration.posthoc import fit_platt
from stepconf.core.votes import Equal, majority

RESAMPLES = 500
TURNS = re.compile(r"\b(?:Wait|Let's)\b")
Weights = npt.NDArray[np.int64]  # how often each problem was drawn


@dataclass(frozen=True, slots=True)
class Measured:
    """An estimate, and its value on each resample of the problems; None where it is undefined."""

    estimate: float | None
    resamples: list[float | None]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % percentiles of the resamples that have a value."""
        known = [value for value in self.resamples if value is not None]
        if not known:
            return None
        low, high = np.quantile(known, [0.025, 0.975])
        return float(low), float(high)

    def minus(self, other: "Measured") -> "Measured":
        """The paired difference: both saw the same draws of the same problems."""
        pairs = zip((self.estimate, *self.resamples), (other.estimate, *other.resamples), strict=True)
        first, *rest = (None if a is None or b is None else a - b for a, b in pairs)
        return Measured(first, rest)


def measure(
    sampled: str,
    greedy: str,
    tree: list[dict[str, Any]],
    problems: Sequence[str],
    samples: int,
    same: Callable[[str], Equal],
) -> dict[str, Measured]:
    """Every measure by name.

    Args:
        sampled: a run with several samples a problem. greedy: a run with one, at temperature 0.
        tree: CaT's rows of the same problems or some of them (`problem_id`, `correct`, `tokens`); may be empty.
        problems: all that were asked, by id. samples: of each; one that the run lacks had no text, and is not right.
        same: of a type of answers, what says whether two of a problem are the same.
    """
    place = {problem: i for i, problem in enumerate(sorted(problems))}
    statistics = {
        **_of_answers(sampled, greedy, tree, place, samples, same),
        **_of_steps(sampled, place),
    }
    draw = np.random.default_rng(0)
    n = len(place)
    draws = [np.bincount(draw.integers(0, n, n), minlength=n) for _ in range(RESAMPLES)]
    ones = np.ones(n, dtype=np.int64)
    return {
        name: Measured(_value(statistic, ones), [_value(statistic, own) for own in draws])
        for name, statistic in statistics.items()
    }


def _value(statistic: Callable[[Weights], float | None], weights: Weights) -> float | None:
    value = statistic(weights)
    return None if value is None or np.isnan(value) else float(value)


def _mean(rows: list[tuple[str, float]], place: Mapping[str, int]) -> Callable[[Weights], float | None]:
    """The mean of values of problems; one without a row counts nowhere."""
    at = np.array([place[problem] for problem, _ in rows if problem in place], dtype=np.int64)
    values = np.array([value for problem, value in rows if problem in place], dtype=float)

    def mean(weights: Weights) -> float | None:
        own = weights[at]
        return float(np.average(values, weights=own)) if own.sum() else None

    return mean


def _of_answers(
    sampled: str,
    greedy: str,
    tree: list[dict[str, Any]],
    place: Mapping[str, int],
    samples: int,
    same: Callable[[str], Equal],
) -> dict[str, Callable[[Weights], float | None]]:
    columns = ["problem_id", "predicted_answer", "answer_type", "answer_correct", "n_tokens", "text"]
    many, one = (
        load_run(run)
        .solutions.filter(pl.col("parent_solution_id").is_null())
        .select(columns)
        .collect()
        .to_dicts()
        for run in (sampled, greedy)
    )
    votes: dict[str, list[dict[str, Any]]] = {problem: [] for problem in place}
    for row in many:
        votes.setdefault(row["problem_id"], []).append(row)
    inside = [row for row in tree if row["problem_id"] in place]
    asked = {row["problem_id"] for row in inside}
    of_votes = [(problem, _vote(rows, same)) for problem, rows in votes.items()]
    right = Counter(row["problem_id"] for row in many if row["answer_correct"])
    right_greedily = {row["problem_id"] for row in one if row["answer_correct"]}
    spent = [(problem, float(sum(row["n_tokens"] for row in rows))) for problem, rows in votes.items()]
    found = {
        "pass@1 greedy": [(problem, float(problem in right_greedily)) for problem in place],
        "pass@1 sampled": [(problem, right[problem] / samples) for problem in place],
        "maj@n": of_votes,
        "CaT": [(row["problem_id"], float(row["correct"] is True)) for row in inside],
        "voting, CaT's problems": [row for row in of_votes if row[0] in asked],
        "CaT tokens": [(row["problem_id"], float(row["tokens"] or 0)) for row in inside],
        "voting tokens": [row for row in spent if row[0] in asked],
        "tokens a solution": [(row["problem_id"], float(row["n_tokens"])) for row in many],
        "turns a solution": [(row["problem_id"], float(len(TURNS.findall(row["text"])))) for row in many],
    }
    return {name: _mean(rows, place) for name, rows in found.items()}


def _vote(rows: list[dict[str, Any]], same: Callable[[str], Equal]) -> float:
    """Whether the commonest answer is right; the first of those that are as common."""
    if not rows:
        return 0.0
    tallies = majority([row["predicted_answer"] for row in rows], same(rows[0]["answer_type"]))
    return float(bool(tallies) and rows[tallies[0].members[0]]["answer_correct"] is True)


def _of_steps(sampled: str, place: Mapping[str, int]) -> dict[str, Callable[[Weights], float | None]]:
    """Of labelled steps; confidence is exp(-mean entropy)."""
    rows = (
        load_run(sampled)
        .steps.filter(pl.col("label") != "unknown", pl.col("entropy_mean").is_not_null())
        .join(
            load_run(sampled).solutions.filter(pl.col("parent_solution_id").is_null()).select("solution_id"),
            on="solution_id",
        )
        .sort("problem_id", "solution_id", "step_index")
        .select("problem_id", "entropy_mean", "confidence", (pl.col("label") == "correct").alias("right"))
        .collect()
    )
    at = np.array([place[problem] for problem in rows["problem_id"]], dtype=np.int64)
    entropy, confidence, right = (rows[name].to_numpy() for name in ("entropy_mean", "confidence", "right"))

    def weighted(
        of: Callable[..., float | None], *columns: npt.NDArray[Any]
    ) -> Callable[[Weights], float | None]:
        return lambda weights: of(*columns, weights=weights[at]) if weights[at].sum() else None

    def entropy_of(wanted: bool) -> Callable[[Weights], float | None]:
        def mean(weights: Weights) -> float | None:
            own = weights[at] * (right == wanted)
            return float(np.average(entropy, weights=own)) if own.sum() else None

        return mean

    def gap(weights: Weights) -> float | None:
        wrong, correct = entropy_of(False)(weights), entropy_of(True)(weights)
        return None if wrong is None or correct is None else wrong - correct

    return {
        "step accuracy": lambda weights: (
            float(np.average(right, weights=weights[at])) if len(at) and weights[at].sum() else None
        ),
        "ECE raw": weighted(ece, confidence, right),
        "ECE fitted": _ece_fitted(at, -entropy, right),
        "Brier": weighted(brier, confidence, right),
        "AUROC pooled": weighted(auroc, -entropy, right),
        "AUROC within": _within(at, entropy, right, len(place)),
        "entropy right": entropy_of(True),
        "entropy wrong": entropy_of(False),
        "entropy gap": gap,
    }


def _ece_fitted(
    at: npt.NDArray[np.int64], scores: npt.NDArray[Any], right: npt.NDArray[Any]
) -> Callable[[Weights], float | None]:
    """ECE of probabilities by Platt scaling, of each half of the problems by a fit on the other, anew in each draw."""
    half = at % 2 == 0

    def fitted(weights: Weights) -> float | None:
        own, found = weights[at], np.empty(len(at))
        for part in (half, ~half):
            drawn = np.repeat(np.arange(len(at)), own * ~part)
            if not drawn.size or not own[part].any():
                return None
            found[part] = fit_platt(scores[drawn], right[drawn]).predict(scores[part])
        return ece(found, right, weights=own)

    return fitted


def _within(
    at: npt.NDArray[np.int64], entropy: npt.NDArray[Any], right: npt.NDArray[Any], n: int
) -> Callable[[Weights], float | None]:
    """The share of pairs of a right and a wrong step of one problem in which the right one has less entropy."""
    wins, pairs = np.zeros(n), np.zeros(n)
    for problem in range(n):
        correct, wrong = entropy[(at == problem) & right], entropy[(at == problem) & ~right]
        difference = wrong[:, None] - correct[None, :]
        wins[problem] = (difference > 0).sum() + 0.5 * (difference == 0).sum()
        pairs[problem] = difference.size
    return lambda weights: float(wins @ weights / (pairs @ weights)) if pairs @ weights else None
