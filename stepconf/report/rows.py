"""Rows of the tables as the page shows them. Pure: rows of plain values in, plain values for JSON out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from stepconf.core import schema
from stepconf.core.records import CUT

Row = Mapping[str, Any]

# The signals of a step and their units, in the order in which the page shows them.
SHOWN_SIGNALS = [
    *((one.name, one.unit) for one in schema.STEP_SIGNALS),
    ("cumulative_confidence", ""),
    ("fitted_confidence", ""),
]

SOLUTION_COLUMNS = [
    "solution_id", "problem_id", "external_id", "source", "split", "problem", "gold_answer", "model", "text",
    "token_ids", "temperature", "top_p", "seed", "sample_index", "finish_reason", "predicted_answer",
    "answer_correct", "n_steps", "n_tokens", "entropy_mean", "confidence",
    "fitted_confidence",
]  # fmt: skip
BRANCH_COLUMNS = [name for name in SOLUTION_COLUMNS if name not in ("problem", "source", "split")]
STEP_COLUMNS = [
    "step_id", "step_index", "text", "char_start", "token_start", "token_ids", "token_logprobs",
    "token_entropies", "token_max_probs", *dict(SHOWN_SIGNALS), "verdicts", "label", "label_source",
    "is_first_error", "part", "is_reconsidering",
]  # fmt: skip
PAIR_COLUMNS = [
    "pair_id", "kind", "prefix", "chosen", "rejected", "chosen_is_terminal", "rejected_is_terminal",
    "chosen_confidence", "rejected_confidence", "chosen_source", "rejected_source", "round",
]  # fmt: skip
_SHOWN_OF_SOLUTION = [
    "solution_id", "model", "temperature", "top_p", "seed", "sample_index", "finish_reason", "predicted_answer",
    "answer_correct", "n_steps", "n_tokens", "entropy_mean", "confidence",
    "fitted_confidence",
]  # fmt: skip
_SHOWN_OF_STEP = [
    "step_id", "step_index", *dict(SHOWN_SIGNALS), "label", "label_source", "is_first_error", "part",
    "is_reconsidering",
]  # fmt: skip
_SHOWN_OF_VERDICT = ("verifier", "version", "label", "score", "reason", "reference", "seconds")


def problem_row(solution: Row) -> dict[str, Any]:
    """What is said of a problem as a whole, from one of its solutions."""
    names = ("problem_id", "external_id", "source", "split", "problem", "gold_answer")
    return {name: solution[name] for name in names}


def solution_row(solution: Row) -> dict[str, Any]:
    """A solution in the list of its problem's: without its text."""
    return {name: _plain(solution[name]) for name in _SHOWN_OF_SOLUTION}


def branch_row(solution: Row, steps: Sequence[Row]) -> dict[str, Any]:
    """A branch below the step where it leaves, with its steps as `step_rows` gives them, and how it came out."""
    outcomes = {True: "right", False: "wrong"}
    otherwise = "cut" if solution["finish_reason"] in CUT else "unknown"
    outcome = outcomes.get(solution["answer_correct"], otherwise)
    return solution_row(solution) | {"outcome": outcome, "steps": steps}


def with_branches(steps: list[dict[str, Any]], branches: Mapping[int, Sequence[Row]]) -> list[dict[str, Any]]:
    """The steps of a solution with the branches that leave it, by the step before which they do.

    What leaves it at its end is `branches_after` of its last step.
    """
    for index, step in enumerate(steps):
        if own := branches.get(index):
            step["branches"] = own
    if steps and (after := branches.get(len(steps))):
        steps[-1]["branches_after"] = after
    return steps


def step_rows(
    steps: Iterable[Row], pairs: Mapping[int, Sequence[Row]], starts: Sequence[int] | None
) -> list[dict[str, Any]]:
    """The steps of a solution, with their tokens, verdicts and pairs.

    Args:
        steps: its rows of `steps`.
        pairs: rows of `pairs`, by the index of the step they were made from.
        starts: the character of the solution's text where each of its tokens starts; None where that is not known.
    """
    ordered = sorted(steps, key=lambda step: int(step["step_index"]))
    return [_step_row(step, pairs.get(step["step_index"], ()), starts) for step in ordered]


def _step_row(step: Row, pairs: Sequence[Row], starts: Sequence[int] | None) -> dict[str, Any]:
    n = len(step["token_ids"])
    own = None if starts is None else starts[step["token_start"] : step["token_start"] + n]
    fits = own is not None and len(own) == n > 0
    pieces = (
        cut(step["text"], [start - step["char_start"] for start in own or ()]) if fits else [step["text"]]
    )
    return {
        **{name: _plain(step[name]) for name in _SHOWN_OF_STEP},
        # The text before the first token, then that of each token; all of it where tokens have no known text.
        "pieces": pieces,
        "ids": step["token_ids"],
        "entropies": shortest(step["token_entropies"]),
        "logprobs": shortest(step["token_logprobs"]),
        "max_probs": shortest(step["token_max_probs"]),
        "verdicts": [
            {name: _plain(verdict[name]) for name in _SHOWN_OF_VERDICT} for verdict in step["verdicts"]
        ],
        "pairs": [{name: _plain(pair[name]) for name in PAIR_COLUMNS} for pair in pairs],
    }


def cut(text: str, starts: Sequence[int]) -> list[str]:
    """`text` in len(starts) + 1 parts that join to it: what is before the first start, then from start to start."""
    bounds = [0, *(min(max(start, 0), len(text)) for start in starts), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def shortest(values: Sequence[float]) -> list[float | None]:
    """Single-precision values as the shortest decimals that mean the same single-precision values.

    0.1 is stored as 0.100000001490116...; read back as a float32, both are the stored value. None where it is no
    number at all: JSON has no other word for it.
    """
    return [_plain(float(str(value))) for value in np.asarray(values, dtype=np.float32)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
