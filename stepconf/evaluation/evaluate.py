"""`stepconf evaluate`: strategies on benchmarks, graded, with intervals and compared in pairs.

OUT/recipe.json                     what decides the numbers; another one is refused
OUT/answers/BENCHMARK/STRATEGY.json one benchmark answered by one strategy, graded; written whole, then kept
    STRATEGY.part.jsonl beside it   its answers so far (`part.py`); the same command goes on from there
OUT/report.json                     every figure of the table
OUT/accuracy-tokens.svg, .png       accuracy against tokens spent
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from stepconf.calibration import figures
from stepconf.core.answers import gold_answer
from stepconf.core.bootstrap import Interval
from stepconf.core.documents import read_object
from stepconf.core.evaluation import (
    mcnemar_exact,
    mean_interval,
    paired_difference,
    pass_at_k,
    ratio_interval,
)
from stepconf.core.ids import content_id
from stepconf.core.records import Problem
from stepconf.core.votes import majority
from stepconf.engines.base import Engine
from stepconf.errors import StepconfError
from stepconf.evaluation.code_grading import gradable, grade_code
from stepconf.evaluation.infer import answers, equality, open_pool, row, with_tau
from stepconf.evaluation.part import Part, decisive
from stepconf.inference.base import GivenUp, Result
from stepconf.kinds import STRATEGIES
from stepconf.problems.load import load_problems
from stepconf.recipe import Recipe
from stepconf.run.shards import write_atomically
from stepconf.stages.models import open_engine
from stepconf.verifiers.final import compare
from stepconf.workers.pool import Pool, default_workers

_PASS_AT = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # and at the number of samples


@dataclass(frozen=True, slots=True)
class Cell:
    """A benchmark answered by a strategy: graded rows by problem, and the time it took."""

    benchmark: str
    strategy: str
    rows: list[dict[str, Any]]
    seconds: float
    seconds_outside_engine: float
    occupancy: float


def evaluate(
    recipe: Recipe,
    benchmarks: Sequence[str],
    strategies: Sequence[str],
    out: Path,
    tick: Callable[[str, int], None],
) -> dict[str, Any]:
    """Answer every benchmark by every strategy, as far as OUT does not have it, and report on all.

    Problems whose answers cannot be graded are left out, and counted in the report's `refused`.

    Raises:
        StepconfError: a benchmark or strategy is not known, its data or the model is not there, none of its
            problems can be graded, or OUT was made with another recipe.
    """
    if not benchmarks or not strategies:
        raise StepconfError(
            "no benchmark or no strategy is named.", "Add --benchmark gsm8k --strategy greedy,cat"
        )
    for name in strategies:
        STRATEGIES.load(name)
    recipe = with_tau(recipe)
    loaded = {name: _problems(name, recipe) for name in benchmarks}
    _settle(out, recipe)
    cells = []
    with ExitStack() as stack:
        pool = stack.enter_context(open_pool(recipe))
        engine = None
        for benchmark, (asked, _) in loaded.items():
            for strategy in strategies:
                file = out / "answers" / _slug(benchmark) / f"{_slug(strategy)}.json"
                cell = _kept(file, asked, strategy)
                if cell is None:
                    engine = engine or stack.enter_context(closing(open_engine(recipe)))
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with Part(file, decisive(recipe) | {"strategy": strategy}) as part:
                        cell = answered(engine, pool, benchmark, asked, strategy, recipe, tick, part=part)
                    write_atomically(file, json.dumps(asdict(cell)).encode())
                    part.remove()
                cells.append(cell)
        report: dict[str, Any] = {
            "model": recipe.model,
            "tau": recipe.infer.tau,
            "refused": {name: dict(refused) for name, (_, refused) in loaded.items() if refused},
            "results": [summarised(cell, pool) for cell in cells],
            "comparisons": [compared(a, b) for a, b in combinations(cells, 2) if a.benchmark == b.benchmark],
        }
    write_atomically(out / "report.json", json.dumps(report, indent=1).encode())
    figures.save(figures.accuracy_against_tokens(report["results"]), out, "accuracy-tokens")
    return report


def answered(
    engine: Engine,
    pool: Pool,
    benchmark: str,
    problems: Sequence[Problem],
    strategy: str,
    recipe: Recipe,
    tick: Callable[[str, int], None],
    given_up: Callable[[GivenUp], None] = lambda branch: None,
    part: Part | None = None,
) -> Cell:
    """The problems answered by a strategy, and graded; `given_up` gets each branch that a tree gives up, `part` each
    result, and those that it has are not made again."""
    tick(strategy, -len(problems))
    part = part or Part()
    found, missing = part.divide(problems)
    tick(strategy, len(found))
    clock = part.clock
    for result in answers(engine, pool, missing, strategy, recipe, clock, given_up=given_up):
        part.keep(result)
        found.append(result)
        tick(strategy, 1)
    rows = _graded(found, problems, pool)
    return Cell(benchmark, strategy, rows, clock.seconds, clock.own, clock.occupancy)


def _problems(name: str, recipe: Recipe) -> tuple[list[Problem], Counter[str]]:
    """The benchmark's problems, and how many of them cannot be graded, by reason."""
    found = load_problems(name, recipe.problems, recipe.sampling.seed).problems
    return gradable(found, recipe.verify.workers or default_workers())


def _settle(out: Path, recipe: Recipe) -> None:
    """Keep what decides the numbers beside them; refuse a folder that was made otherwise."""
    mine = decisive(recipe)
    file = out / "recipe.json"
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(mine, indent=1).encode())
        return
    theirs = read_kept(file)
    differing = sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key))
    if differing:
        raise StepconfError(
            f"{out} was made with another recipe: {', '.join(differing)} differ.", "Give another --out."
        )


def _slug(benchmark: str) -> str:
    plain = re.sub(r"[^\w.-]+", "-", benchmark).strip("-.")[:60]
    return plain if plain == benchmark else f"{plain}-{content_id(benchmark)[:6]}"


def _kept(file: Path, asked: Sequence[Problem], strategy: str) -> Cell | None:
    """What an earlier run has written, if it is of these problems and this strategy."""
    if not file.exists():
        return None
    cell = read_cell(file)
    same = {one["problem_id"] for one in cell.rows} == {problem.problem_id for problem in asked}
    return cell if same and cell.strategy == strategy else None


def read_cell(file: Path) -> Cell:
    """The answers that `evaluate` has kept in a file; raises as `read_kept`."""
    try:
        return Cell(**read_kept(file))
    except TypeError as error:
        raise _not_kept(file, error) from error


def read_kept(file: Path) -> dict[str, Any]:
    """An object of JSON in a folder of `evaluate`.

    Raises:
        StepconfError: the file holds something else.
    """
    try:
        return read_object(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _not_kept(file, error) from error


def _not_kept(file: Path, error: Exception) -> StepconfError:
    return StepconfError(
        f"{file} is not what stepconf evaluate has written: {error}",
        "Delete it and type the command that made it again.",
    )


def _graded(results: Sequence[Result], problems: Sequence[Problem], pool: Pool) -> list[dict[str, Any]]:
    """Rows in the order of the problems, every answer and sample graded: true, false, or null if undecided."""
    by_id = {result.key: result for result in results}
    pairs, places = [], []
    programs, holders = [], []
    rows = []
    for problem in problems:
        result = by_id[problem.problem_id]
        one = row(result, problem) | {"answer_type": problem.answer_type, "correct": False}
        rows.append(one)
        for holder in (one, *one["samples"]):
            holder["correct"] = False
            if holder["answer"] is not None and problem.answer_type == "code":
                programs.append((problem, holder["answer"]))
                holders.append(holder)
            elif holder["answer"] is not None:
                gold = gold_answer(problem.gold_answer or "", problem.answer_type)
                pairs.append((gold, holder["answer"], problem.answer_type))
                places.append(holder)
    for holder, passed in zip(holders, grade_code(programs, pool.workers), strict=True):
        holder["correct"] = passed
    for holder, outcome in zip(places, compare(pool, pairs), strict=True):
        holder["correct"] = outcome.value.same if outcome.value else None
    return rows


def summarised(cell: Cell, pool: Pool) -> dict[str, Any]:
    """The figures of a cell; an undecided answer counts as wrong, and is counted."""
    rows, ids = cell.rows, [one["problem_id"] for one in cell.rows]
    found = figures_of(cell) | {
        "seconds_per_question": cell.seconds / len(rows),
        "seconds_outside_engine": cell.seconds_outside_engine / cell.seconds if cell.seconds else 0.0,
        "occupancy": cell.occupancy,
        "peak_branches": max(one["peak_branches"] for one in rows),
        "undecided": sum(one["correct"] is None for one in rows),
        "failures": dict(Counter(_kind(one["failure"]) for one in rows if one["failure"])),
    }
    if STRATEGIES.load(cell.strategy).draws == "k":
        found |= _of_samples(rows, ids, pool)
    return found


def figures_of(cell: Cell) -> dict[str, Any]:
    """Accuracy and tokens, with intervals over problems."""
    rows, ids = cell.rows, [one["problem_id"] for one in cell.rows]
    tokens = [one["tokens"] for one in rows]
    return {
        "benchmark": cell.benchmark,
        "strategy": cell.strategy,
        "questions": len(rows),
        "pass@1": asdict(mean_interval(ids, [float(bool(one["correct"])) for one in rows])),
        "tokens_per_question": asdict(mean_interval(ids, tokens)),
        "tokens": sum(tokens),
    }


def _kind(failure: str) -> str:
    return failure.partition(":")[0]


def _of_samples(rows: Sequence[dict[str, Any]], ids: Sequence[str], pool: Pool) -> dict[str, Any]:
    """pass@k and maj@k where the samples of each problem are independent draws; one that had no room is wrong."""
    n = max(len(one["samples"]) for one in rows)
    if not n:
        return {}
    right = [sum(sample["correct"] is True for sample in one["samples"]) for one in rows]
    ks = sorted({n, *(k for k in _PASS_AT if k < n)})
    passed = {str(k): asdict(mean_interval(ids, [pass_at_k(n, c, k) for c in right])) for k in ks}
    voted = []
    for one in rows:
        said = [sample["answer"] for sample in one["samples"]]
        tallies = majority(said, equality(pool, one["answer_type"]))
        voted.append(float(bool(tallies) and one["samples"][tallies[0].members[0]]["correct"] is True))
    return {"pass@k": passed, f"maj@{n}": asdict(mean_interval(ids, voted))}


def compared(first: Cell, second: Cell) -> dict[str, Any]:
    """The two on the same problems: paired differences, and McNemar's exact test."""
    theirs = {one["problem_id"]: one for one in second.rows}
    pairs = [(one, theirs[one["problem_id"]]) for one in first.rows if one["problem_id"] in theirs]
    ids = [one["problem_id"] for one, _ in pairs]
    a, b = ([float(one[side]["correct"] is True) for one in pairs] for side in (0, 1))
    tokens_a, tokens_b = ([one[side]["tokens"] for one in pairs] for side in (0, 1))
    only_first = sum(x > y for x, y in zip(a, b, strict=True))
    only_second = sum(x < y for x, y in zip(a, b, strict=True))
    accuracy: Interval = paired_difference(ids, a, b)
    return {
        "benchmark": first.benchmark,
        "first": first.strategy,
        "second": second.strategy,
        "questions": len(pairs),
        "accuracy_difference": asdict(accuracy),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": mcnemar_exact(only_first, only_second),
        "tokens_ratio": asdict(ratio_interval(ids, tokens_a, tokens_b)),
    }
