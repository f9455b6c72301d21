"""Accuracy for tokens: strategies on the same problems, paired against voting (self-consistency).

    python -m tests.benchmarks.strategies_on_tokens --problems svamp@FILE --model MODEL --limit 100 --k 8 --out DIR

With --out every draw is kept in DIR/draws.jsonl: the same command goes on after a kill, and a strategy that stops
early (adaptive, esc, cges, gate) or votes otherwise is answered by the very samples of voting. DIR gets report.json
and accuracy-tokens.svg and .png too. Without --out nothing is kept, and the share of the time outside the engine is
printed: what strategies cost besides tokens.

`--strategies greedy,cat:30` takes cat on the first 30 problems, and compares it with voting on these. `cat` is
algorithm 2 with exp(-H); `cat-lazy` takes the greedy candidate where its confidence is at least --expand-below;
`cat-counted` counts duplicates besides; `cat-fitted` and `cat-fitted-lazy` have the confidence of --confidence FILE
(calibrate --fit), and so have all strategies but the first three CaTs. `adaptive@threshold=0.9` is a row of its own
with another value of infer.threshold. With --pruned N, up to N of the branches that
a tree gives up for a question are completed greedily and graded: how many right ones CaT prunes, by step and by C.

Arithmetic chains, for a model that was trained on such (`tests.benchmarks.arithmetic_chains` says how):

    python -m tests.benchmarks.strategies_on_tokens --model solver/model --learnt gold.jsonl --limit 48 --k 8 \\
        --recipe recipes/smollm2-135m/chains.yaml \\
        --problems 'reasoning-gym:chain_sum?min_terms=3&max_terms=4&min_digits=1&max_digits=1&size=96' \\
        --confidence FILE --strategies greedy,self-consistency,...,cat,cat-lazy,cat-counted,cat-fitted,cat-fitted-lazy
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from stepconf.calibration import figures
from stepconf.core.answers import extract_answer, gold_answer
from stepconf.core.records import Problem
from stepconf.engines.base import Engine, SampleRequest, Sampling
from stepconf.evaluation.evaluate import Cell, answered, compared, summarised
from stepconf.evaluation.evaluate_view import render
from stepconf.evaluation.infer import open_pool
from stepconf.inference.base import GivenUp
from stepconf.problems.load import load_problems
from stepconf.recipe import Recipe, load_recipe, with_options
from stepconf.stages.models import Prompter, open_engine
from stepconf.ui.numbers import interval
from stepconf.verifiers.final import compare
from stepconf.workers.pool import Pool
from tests.benchmarks.kept_draws import KeptDraws

VOTING = "self-consistency"
SEED = 100_000  # row i of a reasoning-gym set has the seed plus i: far from what a model was trained on
# By the name of a row: the strategy, what it sets, and whether it takes the fitted confidence.
ROWS: dict[str, tuple[str, dict[str, Any], bool]] = {
    **{name: (name, {}, True) for name in ("greedy", VOTING, "best-of-n", "cisc", "deepconf")},
    **{name: (name, {}, True) for name in ("adaptive", "adaptive-k", "esc", "cges", "gate")},
    **{name: (name, {}, True) for name in ("deepconf-online", "particle")},
    "cat": ("cat", {}, False),
    "cat-lazy": ("cat", {"expand_below": 0.9}, False),
    "cat-counted": ("cat", {"expand_below": 0.9, "count_duplicates": True}, False),
    "cat-fitted": ("cat", {}, True),
    "cat-fitted-lazy": ("cat", {"expand_below": 0.9}, True),
}
DEPTHS = (1, 2, 3, 5, 9)  # from which step to which, in the table of pruned branches
LEVELS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0)


@dataclass
class Pruned:
    """The branches that one row of the table has given up, and what became of those that were completed."""

    branches: list[GivenUp] = field(default_factory=list)
    is_right: list[bool] = field(default_factory=list)


def main() -> None:
    """Print the table, the pairs, the ratios and what was pruned."""
    options = _options()
    recipe = _recipe(options)
    problems = _problems(options, recipe)
    cells: dict[str, Cell] = {}
    pruned: dict[str, Pruned] = {}
    with closing(open_engine(recipe)) as own, open_pool(recipe) as pool:
        engine = own
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            engine = kept = KeptDraws(own, options.out / "draws.jsonl")
        for name, limit in _wanted(options):
            strategy, how = _how(name, recipe, options)
            asked = problems[:limit]
            given_up: list[GivenUp] = []
            before = kept.fresh if options.out else 0
            cell = answered(
                engine,
                pool,
                _label(options.problems),
                asked,
                strategy,
                how,
                lambda stage, n: None,
                given_up.append,
            )
            cells[name] = replace(cell, strategy=name)
            if options.pruned and given_up:
                chosen = _chosen(given_up, options.pruned)
                pruned[name] = Pruned(chosen, _completed(engine, pool, recipe, asked, cell, chosen))
            right, tokens = (sum(row[key] or 0 for row in cell.rows) for key in ("correct", "tokens"))
            drawn = f", {kept.fresh - before:,} of them new" if options.out else ""
            print(
                f"{name}: {right} of {len(asked)}, {tokens:,} tokens{drawn}, {cell.seconds:.1f} s", flush=True
            )
        found = [
            summarised(replace(cell, strategy=ROWS[name.partition("@")[0]][0]), pool)
            for name, cell in cells.items()
        ]
    found = [one | {"strategy": name} for one, name in zip(found, cells, strict=True)]
    _report(options, cells, found, pruned)


def _report(
    options: argparse.Namespace,
    cells: dict[str, Cell],
    found: Sequence[dict[str, Any]],
    pruned: dict[str, Pruned],
) -> None:
    pairs = [compared(cell, cells[VOTING]) for name, cell in cells.items() if name != VOTING]
    report = {"model": options.model, "results": found, "comparisons": pairs, "refused": {}}
    # The pairs have a line each below.
    for table in render(report | {"comparisons": []}):
        Console(width=150).print(table)
    if options.out:
        (options.out / "report.json").write_text(json.dumps(report, indent=1))
        figures.save(figures.accuracy_against_tokens(found), options.out, "accuracy-tokens")
    for name, one in pruned.items():
        _show_pruned(name, one, cells[name])
    for pair in pairs:
        label = _plain(pair["first"])
        print(
            f"{pair['first']} - {VOTING} on {pair['questions']}: accuracy "
            f"{interval(pair['accuracy_difference'])}, tokens {interval(pair['tokens_ratio'], 2)}"
        )
        print(f"ratio {label}_tokens_over_voting: {pair['tokens_ratio']['estimate']:.2f}")
    if not options.out:
        for one in found:
            print(f"ratio {_plain(one['strategy'])}_outside_engine: {one['seconds_outside_engine']:.4f}")


def _chosen(given_up: Sequence[GivenUp], most: int) -> list[GivenUp]:
    """At most so many of a question, drawn at random with its own seed."""
    by_key: dict[str, list[GivenUp]] = {}
    for one in given_up:
        by_key.setdefault(one.key, []).append(one)
    return [
        one
        for key, branches in by_key.items()
        for one in random.Random(key).sample(branches, min(most, len(branches)))
    ]


def _completed(
    engine: Engine,
    pool: Pool,
    recipe: Recipe,
    problems: Sequence[Problem],
    cell: Cell,
    branches: Sequence[GivenUp],
) -> list[bool]:
    """Whether each branch, completed greedily, comes to the right answer; one that finds no room does not."""
    by_id = {problem.problem_id: problem for problem in problems}
    prompts = {row["problem_id"]: row["prompt_ids"] for row in cell.rows}
    stop = Prompter(engine.tokenizer, recipe.prompt).stop
    requests = []
    for i, one in enumerate(branches):
        prefix = prompts[one.key] + one.token_ids
        room = min(recipe.sampling.max_tokens - len(one.token_ids), engine.info.max_model_len - len(prefix))
        if room > 0:
            how = Sampling(0.0, room, recipe.sampling.top_p, stop)
            requests.append(SampleRequest(str(i), prefix, 1, 0, how))
    pairs, places = [], []
    for request, (completion,) in engine.sample(requests):
        one = branches[int(request.key)]
        problem = by_id[one.key]
        text = "".join(engine.tokenizer.pieces(one.token_ids)) + "".join(completion.pieces)
        said = extract_answer(text, problem.answer_type)
        if said is not None:
            gold = gold_answer(problem.gold_answer or "", problem.answer_type)
            pairs.append((gold, said, problem.answer_type))
            places.append(int(request.key))
    right = [False] * len(branches)
    for place, outcome in zip(places, compare(pool, pairs), strict=True):
        right[place] = bool(outcome.value and outcome.value.same)
    return right


def _show_pruned(name: str, pruned: Pruned, cell: Cell) -> None:
    """Right branches among those given up: by reason, by step, by C, and how often that may have cost the answer."""
    rows = list(zip(pruned.branches, pruned.is_right, strict=True))
    print(f"{name}: {len(rows)} branches that were given up, completed greedily")
    for reason, n in Counter(one.reason for one, _ in rows).items():
        print(
            f"  {reason}: {_share([right for one, right in rows if one.reason == reason])} right; {n} in all"
        )
    for low, high in pairwise((*DEPTHS, 10**9)):
        here = [right for one, right in rows if low <= one.depth < high]
        if here:
            print(f"  from step {low}: {_share(here)} right")
    for high, low in pairwise(LEVELS):
        here = [right for one, right in rows if low <= min(one.cumulative_confidence, 0.999999) < high]
        if here:
            print(f"  C from {low:g} to {high:g}: {_share(here)} right; below a tau of {high:g}")
    wrong = {row["problem_id"] for row in cell.rows if row["correct"] is not True}
    had = {one.key for one, right in rows if right} & wrong
    print(f"  of {len(wrong)} questions without a right answer, {len(had)} gave up a branch that had it")


def _share(right: Sequence[bool]) -> str:
    return f"{sum(right)} of {len(right)}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]", "_", name)


def _label(problems: str) -> str:
    """A short name of them."""
    return Path(problems.partition("?")[0].rpartition(":")[2]).name.partition(".")[0]


def _wanted(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Names of rows and how many problems each is asked; voting is always there."""
    found = {}
    for one in options.strategies.split(","):
        name, _, limit = one.partition(":")
        if name.partition("@")[0] not in ROWS:
            raise SystemExit(f"unknown row {name!r}. Choose from: {', '.join(ROWS)}.")
        found[name] = int(limit or options.limit)
    return list(({VOTING: options.limit} | found).items())


def _how(name: str, recipe: Recipe, options: argparse.Namespace) -> tuple[str, Recipe]:
    """The strategy of a row, and the recipe with what the row sets: NAME@KEY=VALUE@..."""
    row, *given = name.split("@")
    strategy, own, is_fitted = ROWS[row]
    if row.startswith("cat-fitted") and not options.confidence:
        raise SystemExit(f"{row} needs --confidence FILE.")
    own = {key: options.expand_below if key == "expand_below" else value for key, value in own.items()}
    own |= {key: json.loads(value) for key, _, value in (one.partition("=") for one in given)}
    values = {f"infer.{key}": value for key, value in own.items()}
    return strategy, with_options(recipe, values | {"confidence": options.confidence if is_fitted else None})


def _problems(options: argparse.Namespace, recipe: Recipe) -> list[Problem]:
    known = set()
    if options.learnt:
        known = {json.loads(line)["problem"] for line in options.learnt.read_text().splitlines()}
    found = [
        one
        for one in load_problems(options.problems, recipe.problems, SEED).problems
        if one.text not in known
    ]
    if len(found) < options.limit:
        raise SystemExit(f"{options.problems} has {len(found)} problems, not {options.limit}.")
    return found[: options.limit]


def _recipe(options: argparse.Namespace) -> Recipe:
    values: dict[str, Any] = {"model": options.model, "infer.k": options.k, "infer.tau": options.tau}
    return load_recipe(options.recipe, values, options.set)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--problems", required=True, help="as problems.source: a file, a set, reasoning-gym:..."
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--tau", type=float, default=0.001)
    parser.add_argument("--expand-below", type=float, default=0.9)
    parser.add_argument("--confidence", help="a file of calibrate --fit")
    parser.add_argument(
        "--learnt", type=Path, help="JSONL; problems that the model was trained on are left out"
    )
    parser.add_argument("--pruned", type=int, default=0, help="branches of a question to complete; 0: none")
    usual = [name for name in ROWS if not name.startswith("cat-fitted")]
    parser.add_argument("--strategies", default=",".join(usual), help="NAME or NAME:PROBLEMS, with commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
