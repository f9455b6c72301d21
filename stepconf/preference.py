"""`stepconf pairs`: preference pairs out of a run, one shard of pairs per chunk of solutions."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepconf.chunks import Tick
from stepconf.core.pairs import caspo
from stepconf.core.records import Solution, Solved
from stepconf.demo_model import resolve_model
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.recipe import PairsRecipe
from stepconf.shards import (
    PAIRS_PREFIX,
    Run,
    read_metadata,
    read_recipe,
    read_shards,
    read_solved,
    shard_files,
)
from stepconf.summary import confidence_quantile, write_summary


def make_pairs(path: Path, options: PairsRecipe, tick: Tick) -> dict[str, Any]:
    """Make the run's pairs anew and return its summary with them.

    Raises:
        StepconfError: the folder is not a run, or has no scored steps.
    """
    recipe = read_recipe(path)
    metadata = read_metadata(path)
    if "tokenizer" not in metadata:
        raise StepconfError(
            f"{path} has no scored tokens, and pairs are made of exact tokens.",
            f"Type: stepconf score {path}/solutions --model MODEL --out ANOTHER, or stepconf generate",
        )
    tau = options.tau if options.tau is not None else confidence_quantile(path, options.tau_quantile)
    # A run made by `verify` out of another names no model of its own.
    source = recipe if recipe["model"] else metadata
    tokenizer = Tokenizer(resolve_model(source["model"]), source["model_revision"] or None)

    @lru_cache(maxsize=4096)
    def decode(ids: tuple[int, ...]) -> str:
        return tokenizer.decode(list(ids))

    def prompt_text(solution: Solution) -> str:
        return decode(tuple(solution.prompt_token_ids))

    with Run(path, recipe) as run:
        run.clear_pairs()
        run.metadata = metadata
        tick("pairs", -sum(m["solutions"] for m in run.manifests()))
        for name, part in _by_problem(path):
            dropped: Counter[str] = Counter()
            pairs = list(caspo(part, tau, options.after_error, prompt_text, dropped))
            facts = {"drops": dict(dropped), "tau": tau, "options": options.model_dump()}
            run.commit(PAIRS_PREFIX + name, {"pairs": pairs}, facts)
            tick("pairs", len(part))
        return write_summary(run)


def _by_problem(path: Path) -> Iterator[tuple[str, list[Solved]]]:
    """Each chunk's name, with all solutions of the problems that end in it.

    Where solutions were imported, those of one problem may lie in several chunks, and siblings apart.
    """
    last = {
        row["problem_id"]: file.stem.removeprefix("part-")
        for file, rows in zip(
            shard_files(path, "solutions"), read_shards(path, "solutions", ["problem_id"]), strict=True
        )
        for row in rows
    }
    held: dict[str, list[Solved]] = {}
    for name, part in read_solved(path):
        for one in part:
            held.setdefault(one.solution.problem_id, []).append(one)
        ended = [problem for problem in held if last[problem] == name]
        yield name, [one for problem in ended for one in held.pop(problem)]
