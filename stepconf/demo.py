"""`stepconf demo`: the main job, small, on what is built in. The recipe is `demo.yaml` beside this file."""

from pathlib import Path

from stepconf.pairs.make import make_pairs
from stepconf.pipeline import generate
from stepconf.recipe import load_recipe
from stepconf.ui.console import console
from stepconf.ui.progress import StageProgress
from stepconf.ui.summary import show_summary

RECIPE = Path(__file__).with_name("demo.yaml")


def run_demo(out: Path, sets: list[str]) -> None:
    """Sample solutions of generated problems with the built-in model, verify them, and make pairs."""
    recipe = load_recipe(RECIPE, None, sets)
    problems = f"{recipe.problems.limit} problems ({recipe.problems.source.partition('?')[0]})"
    console.print(f"1/2 generate: {problems} x {recipe.sampling.samples} samples with {recipe.model}")
    with StageProgress() as tick:
        generate(recipe, out, tick)
    console.print("2/2 pairs: CASPO's rules on the steps of the run")
    with StageProgress() as tick:
        summary = make_pairs(out, recipe.pairs, tick, model=recipe.model)
    show_summary(summary, out)
