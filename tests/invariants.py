"""What every run must satisfy, whatever made it: the laws of the data model, checked row by row."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from stepconf.core.ids import prefix_ids

Row = dict[str, Any]
_AGGREGATES = ("entropy_mean", "entropy_max", "logprob_sum", "perplexity", "max_prob_mean", "confidence")


def rows_of(run: Path, table: str) -> list[Row]:
    """The rows of a table, in the order of its shards."""
    files = sorted((run.absolute() / table).glob("*.parquet"))
    return [row for file in files for row in pl.read_parquet(file, glob=False).to_dicts()]


def samples_of(run: Path, table: str) -> list[Row]:
    """The rows of samples, of solutions or steps: those of no branch."""
    branches = {one["solution_id"] for one in rows_of(run, "solutions") if one.get("parent_solution_id")}
    return [row for row in rows_of(run, table) if row["solution_id"] not in branches]


def check_invariants(run: Path, vocabulary: int | None = None) -> tuple[list[Row], list[Row]]:
    """The solutions and steps of the run, after checking all of them. `vocabulary` bounds the entropies."""
    solutions, steps = rows_of(run, "solutions"), rows_of(run, "steps")
    for rows, key in ((solutions, "solution_id"), (steps, "step_id")):
        assert len({row[key] for row in rows}) == len(rows), f"{key} is not unique"
    assert {step["solution_id"] for step in steps} == {one["solution_id"] for one in solutions}
    by_solution: dict[str, list[Row]] = {}
    for step in steps:
        by_solution.setdefault(step["solution_id"], []).append(step)
    seen: dict[str, Row] = {}
    for solution in solutions:
        own = by_solution[solution["solution_id"]]
        check_solution(solution, own, vocabulary)
        if "parent_solution_id" in solution:  # runs of schema 1.0 have none of what follows
            check_path(solution, own, seen.get(solution["parent_solution_id"] or ""), by_solution)
        seen[solution["solution_id"]] = solution
    return solutions, steps


def check_path(
    solution: Row, steps: list[Row], parent: Row | None, by_solution: dict[str, list[Row]]
) -> None:
    """What a solution owes to its parent, which stands before it, and its steps to those before them."""
    late = False
    if solution["parent_solution_id"] is None:
        assert solution["branch_step"] is None
    else:
        assert parent is not None and parent["problem_id"] == solution["problem_id"]
        theirs, node = by_solution[parent["solution_id"]], solution["branch_step"]
        assert 0 <= node <= len(theirs)
        end = theirs[node]["token_start"] if node < len(theirs) else parent["n_tokens"]
        assert solution["prompt_token_ids"] == parent["prompt_token_ids"] + parent["token_ids"][:end]
        late = any(one["label"] == "incorrect" or one["after_error"] for one in theirs[:node])
        if node < len(theirs):
            assert steps[0]["prefix_id"] == theirs[node]["prefix_id"], "they are siblings"
    tokens = solution["prompt_token_ids"] + solution["token_ids"]
    ends = [len(solution["prompt_token_ids"]) + step["token_start"] for step in steps]
    prefixes = prefix_ids(tokens, ends) if solution["token_ids"] else [None] * len(steps)
    assert [step["prefix_id"] for step in steps] == prefixes
    for step in steps:
        is_wrong = step["label"] == "incorrect"
        assert (step["after_error"], step["is_first_error"]) == (late, is_wrong and not late)
        late = late or is_wrong


def check_solution(solution: Row, steps: list[Row], vocabulary: int | None) -> None:
    """The laws of one solution and its steps."""
    n = len(steps)
    assert [step["step_index"] for step in steps] == list(range(n)) and solution["n_steps"] == n >= 1
    assert solution["n_tokens"] == len(solution["token_ids"])
    _check_partition([(s["char_start"], s["char_end"]) for s in steps], len(solution["text"]))
    _check_partition([(s["token_start"], s["token_end"]) for s in steps], solution["n_tokens"], empty=True)
    assert "".join(step["text"] for step in steps) == solution["text"]
    scored = any(step["token_entropies"] for step in steps)
    log_cumulative = 0.0
    for step in steps:
        assert step["n_steps"] == n and step["problem_id"] == solution["problem_id"]
        assert step["text"] == solution["text"][step["char_start"] : step["char_end"]] != ""
        check_scores(step, vocabulary)
        if scored:
            assert step["token_ids"] == solution["token_ids"][step["token_start"] : step["token_end"]]
            log_cumulative += math.log(step["confidence"]) if step["confidence"] is not None else 0.0
            assert math.isclose(step["cumulative_confidence"], math.exp(log_cumulative), rel_tol=1e-9)
        else:
            assert step["cumulative_confidence"] is None
    _check_labels(steps)
    if scored:
        entropies = [h for step in steps for h in step["token_entropies"]]
        assert math.isclose(solution["entropy_mean"], sum(entropies) / len(entropies), rel_tol=1e-5)
        assert math.isclose(solution["confidence"], math.exp(-solution["entropy_mean"]), rel_tol=1e-9)


def check_scores(step: Row, vocabulary: int | None) -> None:
    """List lengths, ranges and aggregates of one step; its lists are float32, its aggregates float64."""
    logprobs, entropies, max_probs = (
        step[f"token_{name}"] for name in ("logprobs", "entropies", "max_probs")
    )
    n = len(step["token_ids"])
    assert len(logprobs) == len(entropies) == len(max_probs) == n
    if n == 0:
        assert all(step[name] is None for name in _AGGREGATES)
        return
    assert step["token_end"] - step["token_start"] == n
    assert all(x <= 0 for x in logprobs) and all(0 < p <= 1 for p in max_probs)
    assert all(h >= 0 for h in entropies)
    if vocabulary is not None:
        assert all(h <= math.log(vocabulary) for h in entropies)
        assert all(0 <= token < vocabulary for token in step["token_ids"])
    # The most probable token bounds the sampled one, and the entropy from below.
    assert all(x <= math.log(p) + 1e-5 for x, p in zip(logprobs, max_probs, strict=True))
    assert all(h >= -math.log(p) - 1e-5 for h, p in zip(entropies, max_probs, strict=True))
    expected = {
        "entropy_mean": sum(entropies) / n,
        "entropy_max": max(entropies),
        "logprob_sum": sum(logprobs),
        "perplexity": math.exp(-sum(logprobs) / n),
        "max_prob_mean": sum(max_probs) / n,
        "confidence": math.exp(-sum(entropies) / n),
    }
    for name, value in expected.items():
        assert math.isclose(step[name], value, rel_tol=1e-5, abs_tol=1e-6), name


def _check_partition(spans: list[tuple[int, int]], length: int, *, empty: bool = False) -> None:
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(start < end or (empty and start == end) for start, end in spans)


def _check_labels(steps: list[Row]) -> None:
    wrong = [
        step["step_index"] for step in steps if step["label"] == "incorrect" and not step.get("after_error")
    ]
    assert [step["step_index"] for step in steps if step["is_first_error"]] == wrong[:1]
    for step in steps:
        assert step["label"] in ("correct", "incorrect", "unknown")
        names = [verdict["verifier"] for verdict in step["verdicts"]]
        assert len(set(names)) == len(names), "a verifier speaks twice"
        for verdict in step["verdicts"]:
            assert verdict["label"] in ("correct", "incorrect", "unknown")
            assert verdict["score"] is None or 0 <= verdict["score"] <= 1
            assert verdict["seconds"] >= 0
