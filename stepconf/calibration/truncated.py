"""The entropy that others compute, beside ours: over the k likeliest tokens alone, of the tokens of a run."""

from collections.abc import Iterator
from contextlib import closing
from math import fsum
from pathlib import Path

from stepconf.demo_model import check_model_of_run, resolve_model
from stepconf.engines.base import ScoreRequest
from stepconf.engines.classes import open_transformers
from stepconf.recipe import Recipe, with_policy_of
from stepconf.run.events import Tick
from stepconf.run.tables import read_recipe, read_solved


def topk_entropies(run: Path, k: int, tick: Tick) -> dict[str, float]:
    """By id of each scored step of a sample its mean top-k entropy, by one forward of the run's model over each sample.

    Args:
        run: a run with scored steps.
        k: likeliest tokens that count, at least 1. Endpoints give 5 to 20.
        tick: progress, a solution at a time.

    Returns:
        Nats, at most the step's exact mean entropy but for rounding.

    Raises:
        StepconfError: the run names no model, or one at a URL; or it cannot be loaded.
    """
    return dict(_steps(run, k, tick))


def _steps(run: Path, k: int, tick: Tick) -> Iterator[tuple[str, float]]:
    made = read_recipe(run)
    # Whatever engine made the run: this one alone gives the k likeliest of each token.
    made["engine"] = made["engine"] | {"name": "transformers"}
    recipe = with_policy_of(Recipe(), made)
    hint = f"Bring it here, and name its folder as `model` in {run}/recipe.yaml."
    check_model_of_run(recipe.model, hint)
    with closing(open_transformers(resolve_model(recipe.model), recipe)) as engine:
        for _, solved in read_solved(run):
            samples = [one for one in solved if one.solution.parent_solution_id is None]
            tick("top-k", -len(samples))
            for one in samples:
                solution, scored = one.solution, [step for step in one.steps if step.token_entropies]
                if scored:
                    asked = ScoreRequest(solution.solution_id, solution.prompt_token_ids, solution.token_ids)
                    found = engine.topk_entropies(asked, k)
                    for step in scored:
                        own = found[step.token_start : step.token_end]
                        yield step.step_id, fsum(own) / len(own)
                tick("top-k", 1)
