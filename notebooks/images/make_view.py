"""Draw `view.png`, the picture of the README: `python -m notebooks.images.make_view [RUN]`.

RUN is a run of `stepconf demo` (default: demo-run; `make demo` writes it). The picture is the part of `stepconf view`
that shows one solution, down to its first error: the step before is right, and the wrong step is in a pair.
"""

import sys
import tempfile
from pathlib import Path

import polars as pl

import stepconf
from stepconf.report.write import write_report
from tests.report.browser import Reader, launched

PICTURE = Path(__file__).with_name("view.png")
WINDOW = {"width": 1200, "height": 1600}  # CSS pixels
MARGIN = 12


def chosen_solution(run: stepconf.Run) -> tuple[str, str]:
    """The problem and the solution to show, the same ones for the same run.

    Raises:
        SystemExit: the run has no such solution.
    """
    step = pl.col("step_index")
    paired = run.pairs.select("solution_id", "step_index")
    errors = run.steps.filter(pl.col("is_first_error"), step > 0).join(
        paired, on=["solution_id", "step_index"]
    )
    samples = run.solutions.filter(pl.col("parent_solution_id").is_null(), pl.col("n_steps") > 2)
    first = run.steps.filter(step == 0, pl.col("label") == "correct").select("solution_id", "entropy_mean")
    shown = (
        samples.join(errors.select("solution_id"), on="solution_id")
        .join(first, on="solution_id", suffix="_first")
        .sort("entropy_mean_first", "solution_id")
        .select("problem_id", "solution_id")
        .collect()
    )
    if shown.is_empty():
        raise SystemExit("no solution of this run has a right step before its first error, with a pair")
    problem, solution = shown.row(0)
    return problem, solution


def draw(folder: Path, picture: Path = PICTURE) -> None:
    """Write the picture of a run."""
    problem, solution = chosen_solution(stepconf.load_run(folder))
    with tempfile.TemporaryDirectory() as scratch, launched() as browser:
        page = Path(scratch) / "page.html"
        write_report(str(folder), page, partial=False, tick=lambda stage, n: None)
        reader = Reader(browser, page.as_uri(), viewport=WINDOW, color_scheme="light")
        reader.open(f"#/explorer?p={problem}&s={solution}")
        reader.page.wait_for_selector(f".samples a[aria-current][data-id='{solution}']")
        top = reader.page.locator(".detail").bounding_box()
        end = reader.page.locator(".step:has(.badge:has-text('first error')) .verdicts").bounding_box()
        clip = {"x": top["x"] - MARGIN, "y": top["y"] - MARGIN, "width": top["width"] + 2 * MARGIN}
        height = end["y"] + end["height"] + MARGIN - clip["y"]
        reader.page.screenshot(path=picture, clip=clip | {"height": height})
        reader.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-run"))
