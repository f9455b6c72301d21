"""Accuracy and tokens of CaT against greedy, self-consistency, best-of-n and deepconf, in one run of vLLM.

Problems: arithmetic chains (reasoning-gym chain_sum, seed 100,000). Three CaTs: `cat` takes K candidates of every
branch, as algorithm 2 has it; `cat-lazy` takes the greedy one, and K - 1 sampled ones only where its confidence is
below `--expand-below`; `cat-counted` does so, and counts duplicates (`infer.count_duplicates`). best-of-n and
deepconf choose among the very samples of self-consistency (one seed), so these are drawn once and their seconds are
shared. float32, temperature 0.7.

    python -m tests.benchmarks.cat_vs_voting [--model FOLDER --zero-shot --learnt FILE] [--limit N] [--k K] [--tau T]

`tests.benchmarks.arithmetic_chains` says how to train a model that solves such problems.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from stepconf.core.evaluation import paired_difference, ratio_interval
from stepconf.demo import RECIPE
from stepconf.engines.base import Completion, Engine, SampleRequest
from stepconf.evaluation.evaluate import Cell, answered, compared, summarised
from stepconf.evaluation.evaluate_view import interval, render
from stepconf.evaluation.infer import open_pool
from stepconf.problems.load import load_problems
from stepconf.recipe import ProblemsRecipe, Recipe, load_recipe
from stepconf.stages.models import open_engine

TERMS = "min_terms=3&max_terms=4&min_digits=1&max_digits=1"  # as the demo's
SEED = 100_000  # row i of a reasoning-gym set has the seed plus i: far from what a model was trained on
SHARED = ("self-consistency", "best-of-n", "deepconf")
STRATEGIES = ("greedy", "self-consistency", "best-of-n", "deepconf", "cat-counted", "cat-lazy", "cat")


class Replay:
    """An engine that remembers its first pass over some requests, and answers every later pass from memory."""

    def __init__(self, engine: Engine) -> None:
        self.info, self.tokenizer, self._engine = engine.info, engine.tokenizer, engine
        self._known: dict[tuple[object, ...], list[Completion]] = {}
        self.score, self.close = engine.score, engine.close

    def sample(
        self, requests: Iterable[SampleRequest | None]
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """As the engine answered them the first time."""
        if self._known:
            for request in requests:
                if request is not None:
                    yield request, self._known[_content(request)]
            return
        for request, completions in self._engine.sample(requests):
            self._known[_content(request)] = completions
            yield request, completions


def learnt(file: Path | None) -> set[str]:
    """The problems of a JSONL file."""
    return {json.loads(line)["problem"] for line in file.read_text().splitlines()} if file else set()


def _content(request: SampleRequest) -> tuple[object, ...]:
    return (tuple(request.prompt_ids), request.n, request.seed, request.sampling)


def main() -> None:
    """Print the table, the pairs and the ratios."""
    options = _options()
    recipe = _recipe(options)
    source = f"reasoning-gym:chain_sum?{options.terms}&size={2 * options.limit}"
    known = learnt(options.learnt)
    problems = [
        problem
        for problem in load_problems(source, ProblemsRecipe(), SEED).problems
        if problem.text not in known
    ][: options.limit]
    assert len(problems) == options.limit, "the model has learnt too many of these"
    trees = {
        "cat": recipe,
        "cat-lazy": _with(recipe, expand_below=options.expand_below),
        "cat-counted": _with(recipe, expand_below=options.expand_below, count_duplicates=True),
    }
    cells: dict[str, Cell] = {}
    with closing(open_engine(recipe)) as engine, open_pool(recipe) as pool:
        replay = Replay(engine)
        for name in STRATEGIES:
            strategy, how = ("cat", trees[name]) if name in trees else (name, recipe)
            asked = replay if strategy in SHARED else engine
            cell = answered(asked, pool, "chain_sum", problems, strategy, how, lambda stage, n: None)
            timed = cells["self-consistency"] if strategy in SHARED[1:] else cell
            cells[name] = replace(timed, strategy=name, rows=cell.rows)
            right, tokens = (sum(row[key] or 0 for row in cell.rows) for key in ("correct", "tokens"))
            print(f"{name}: {right} of {len(problems)}, {tokens:,} tokens, {timed.seconds:.1f} s", flush=True)
        found = [summarised(cell, pool) for cell in cells.values()]
    pairs = [compared(cells[name], cells["self-consistency"]) for name in cells if name != "self-consistency"]
    for table in render({"model": options.model, "results": found, "comparisons": pairs}):
        Console(width=150).print(table)
    for one in found:
        counts = {
            key: sum(row[key] for row in cells[one["strategy"]].rows)
            for key in ("merged", "below_tau", "outranked", "overtaken", "no_answer")
        }
        print(
            f"{one['strategy']}: {one['tokens']:,} tokens, {cells[one['strategy']].seconds:.1f} s, "
            f"{one['seconds_outside_engine']:.2%} of them outside the engine, "
            f"{one['occupancy']:.1f} under way on average; {counts}"
        )
    for name in trees:
        _against_voting(name, cells)


def _against_voting(name: str, cells: dict[str, Cell]) -> None:
    tree, voting = cells[name].rows, cells["self-consistency"].rows
    ids = [row["problem_id"] for row in tree]
    right = [[float(row["correct"] is True) for row in rows] for rows in (tree, voting)]
    tokens = [[row["tokens"] for row in rows] for rows in (tree, voting)]
    label = name.replace("-", "_")
    difference, ratio = paired_difference(ids, *right), ratio_interval(ids, *tokens)
    print(
        f"{name} - self-consistency, accuracy, paired 95 % interval: {interval(_plain(difference))}; "
        f"tokens {interval(_plain(ratio), 2)}"
    )
    print(f"ratio {label}_tokens_over_self_consistency: {ratio.estimate:.2f}")


def _plain(value: object) -> dict[str, float]:
    return {name: getattr(value, name) for name in ("estimate", "low", "high")}


def _with(recipe: Recipe, **infer: object) -> Recipe:
    return recipe.model_copy(update={"infer": recipe.infer.model_copy(update=infer)})


def _recipe(options: argparse.Namespace) -> Recipe:
    values = {
        "model": options.model,
        "infer.k": options.k,
        "infer.tau": options.tau,
        "sampling.max_tokens": 80,
        "sampling.temperature": options.temperature,
    }
    if options.zero_shot:
        return load_recipe(
            None,
            values
            | {
                "engine.dtype": "float32",
                "engine.max_model_len": 512,
                "prompt.style": "plain",
                "prompt.instruction": "",
                "segment.mode": "lines",
            },
        )
    return load_recipe(RECIPE, values)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--zero-shot", action="store_true", help="for a model trained on such problems")
    parser.add_argument(
        "--learnt", type=Path, help="JSONL; problems that the model was trained on are left out"
    )
    parser.add_argument("--terms", default=TERMS, help="of reasoning-gym's chain_sum")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--tau", type=float, default=0.05)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--expand-below", type=float, default=0.9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
