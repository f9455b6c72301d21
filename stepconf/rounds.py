"""The iterative loop (arXiv 2605.07353, eq. 3): each round learns from what the policy before it wrote.

OUT/round-0/eval                       the policy to begin with, on held-out problems
OUT/round-1/run, training, eval        sampled by policy 0 -> pairs -> policy 1 -> the same held-out problems
OUT/rounds.json                        the figures of every round so far

Every stage continues where it was stopped: type the same command again. Other options need another OUT.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from stepconf.calibration.measures import measure_run
from stepconf.core.documents import differences, read_object
from stepconf.demo_model import resolve_model
from stepconf.engines.guard import Guard
from stepconf.errors import StepconfError
from stepconf.pairs.make import make_pairs
from stepconf.pipeline import generate
from stepconf.recipe import Recipe
from stepconf.run.events import Tick
from stepconf.run.new_folder import check_continued
from stepconf.run.shards import write_atomically
from stepconf.run.tables import pairs_manifest, read_shards
from stepconf.stages.models import open_guarded
from stepconf.stages.verify import waits_for_engine
from stepconf.trainer import Report, train

Announce = Callable[[str], None]


def train_rounds(
    recipe: Recipe, out: Path, announce: Announce, tick: Tick, report: Report
) -> list[dict[str, Any]]:
    """Run the recipe's rounds; the measures of each round on held-out problems, round 0 first.

    Raises:
        StepconfError: no problems or no held-out problems are named, OUT holds something else, or what a stage
            raises.
    """
    if not recipe.problems.source or not recipe.loop.evaluation.source:
        raise StepconfError(
            "rounds need problems to learn from and others to be measured on.",
            "Name problems.source and loop.evaluation.source in the recipe; see recipes/.",
        )
    check_continued(out, "folder of rounds", _has_rounds, [Path(resolve_model(recipe.model))])
    for number in range(1, recipe.loop.rounds + 1):
        _check_made(recipe, out / f"round-{number}", number)
    policy, measured = recipe.model, []
    for number in range(recipe.loop.rounds + 1):
        folder = out / f"round-{number}"
        held_out = out / f"round-{number}" / "eval"
        with engine_of(recipe, policy) as engine:
            announce(f"round {number}: held-out problems")
            generate(evaluation_recipe(recipe, policy), held_out, tick, engine)
            measured.append({"round": number, "policy": policy, **measure_run(held_out)})
            write_atomically(out / "rounds.json", json.dumps(measured, indent=1).encode())
            if number == recipe.loop.rounds:
                break
            folder = out / f"round-{number + 1}"
            announce(f"round {number + 1}: sample")
            generate(round_recipe(recipe, policy, number + 1), folder / "run", tick, engine)
        announce(f"round {number + 1}: pairs")
        if pairs_manifest(folder / "run") is None:
            options = recipe.pairs.model_copy(update={"round": number + 1})
            make_pairs(folder / "run", options, tick, recipe.engine.trust_remote_code, recipe.model)
        announce(f"round {number + 1}: train")
        if not (folder / "training" / "summary.json").exists():
            learner = recipe.model_copy(update={"model": policy, "model_revision": _revision(recipe, policy)})
            held, name = problem_ids(held_out), f"{out.name}-round-{number + 1}"
            train(folder / "run", learner, folder / "training", report, held, name)
        policy = str(folder / "training" / "model")
    return measured


def _check_made(recipe: Recipe, folder: Path, number: int) -> None:
    """Raise StepconfError where round `number` has pairs or a policy that were made with other options."""
    run, summary = folder / "run", folder / "training" / "summary.json"
    made = pairs_manifest(run)
    if made is not None:
        options = recipe.pairs.model_copy(update={"round": number})
        _check_made_with(made["options"], options.model_dump(mode="json"), "pairs", run)
    if summary.exists():
        try:
            kept = read_object(summary.read_bytes())["recipe"]
        except (ValueError, KeyError) as error:
            raise StepconfError(
                f"{summary} is not the summary of a training: {error}",
                "Delete it and type the same command again.",
            ) from error
        _check_made_with(kept, recipe.train.deciding(), "train", folder / "training")


def _check_made_with(kept: dict[str, Any], wanted: dict[str, Any], section: str, place: Path) -> None:
    differing = differences({key: kept.get(key) for key in wanted}, wanted, section)
    if differing:
        raise StepconfError(
            f"{place} was made with other options; they differ in: {'; '.join(differing)}.",
            "Give the same options to continue, or another --out.",
        )


def round_recipe(recipe: Recipe, policy: str, number: int) -> Recipe:
    """What round `number` samples: with the round's temperature, and seeds of its own."""
    temperatures = recipe.loop.temperatures or [recipe.sampling.temperature]
    temperature = temperatures[min(number, len(temperatures)) - 1]
    sampling = recipe.sampling.model_copy(
        update={"temperature": temperature, "seed": recipe.sampling.seed + 1000 * number}
    )
    update = {"model": policy, "model_revision": _revision(recipe, policy), "sampling": sampling}
    return recipe.model_copy(update=update)


def evaluation_recipe(recipe: Recipe, policy: str) -> Recipe:
    """What every round is measured on: the same problems, samples and seeds."""
    held_out = recipe.loop.evaluation
    problems = recipe.problems.model_copy(
        update={"source": held_out.source, "split": held_out.split, "limit": held_out.limit}
    )
    sampling = recipe.sampling.model_copy(
        update={"samples": held_out.samples, "temperature": held_out.temperature, "seed": held_out.seed}
    )
    update = {
        "model": policy,
        "model_revision": _revision(recipe, policy),
        "problems": problems,
        "sampling": sampling,
        "branch": recipe.branch.model_copy(update={"where": []}),
    }
    return recipe.model_copy(update=update)


def _has_rounds(out: Path) -> bool:
    return (out / "round-0").is_dir()


def _revision(recipe: Recipe, policy: str) -> str | None:
    return recipe.model_revision if policy == recipe.model else None


@contextmanager
def engine_of(recipe: Recipe, policy: str) -> Iterator[Callable[[], Guard] | None]:
    """The policy's engine, loaded when first asked for: a stage that is done already needs none.

    None where a verifier waits for its memory: then each stage loads and closes it.
    """
    if waits_for_engine(round_recipe(recipe, policy, 1)):
        yield None
        return
    with ExitStack() as stack:

        @cache
        def engine() -> Guard:
            loaded = open_guarded(round_recipe(recipe, policy, 1))
            stack.callback(loaded.close)
            return loaded

        yield engine


def problem_ids(run: Path) -> set[str]:
    """The problems of a run."""
    return {row["problem_id"] for rows in read_shards(run, "solutions", ["problem_id"]) for row in rows}
