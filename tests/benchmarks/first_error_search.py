"""Does the binary search name the first errors that completions from every step name, and for how many tokens?

usage: python -m tests.benchmarks.first_error_search RUN [SOLUTIONS]

Takes wrong solutions of a run, of problems that some sample solves, and branches them twice with the run's model:
`first-error` and `all`. The same place draws the same completions both times: what differs is where they look.
"""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from stepconf.core.records import Solved, Step
from stepconf.recipe import Recipe, recipe_of, with_branches
from stepconf.run.tables import read_recipe, read_solved
from stepconf.stages.branch import ROLLOUT, Brancher
from stepconf.stages.chunks import Chunk
from stepconf.stages.models import open_guarded
from stepconf.stages.solutions import branch
from stepconf.stages.verify import open_pool


def main() -> None:
    """Print how often both agree, and the tokens of either."""
    run, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    recipe = recipe_of(read_recipe(run))
    solutions = wrong_solutions(run, wanted)
    n_wrong = sum(one.solution.answer_correct is False for one in solutions)
    with closing(open_guarded(recipe)) as engine, open_pool(recipe) as pool:
        found = {}
        for where in ("first-error", "all"):
            own = with_branches(branched(recipe, where), "verify")
            brancher = Brancher(own, engine, pool, lambda stage, n: None)
            (chunk,) = branch(iter([Chunk("00000", "", [], solved=list(solutions))]), brancher)
            found[where] = chunk.solved
    errors = {where: first_errors(solved) for where, solved in found.items()}
    decided = [key for key, error in errors["all"].items() if error is not None]
    same = sum(errors["first-error"][key] == errors["all"][key] for key in decided)
    tokens = {
        where: sum(
            one.solution.n_tokens for one in solved if one.solution.parent_solution_id in errors["all"]
        )
        for where, solved in found.items()
    }
    print(f"wrong solutions: {n_wrong}; with a first error by all: {len(decided)}")
    print(f"the same first error by first-error: {same} ({same / max(1, len(decided)):.3f})")
    print(f"tokens: {tokens}; ratio {tokens['first-error'] / max(1, tokens['all']):.3f}")


def branched(recipe: Recipe, where: str) -> Recipe:
    """The recipe with branches there alone, and no limit on tokens."""
    return recipe.model_copy(
        update={"branch": recipe.branch.model_copy(update={"where": [where], "budget": None})}
    )


def wrong_solutions(run: Path, wanted: int) -> list[Solved]:
    """Samples without their verdicts: so many wrong ones, and a right one of each of their problems."""
    samples = [
        Solved(one.solution, [bare(step) for step in one.steps])
        for _, part in read_solved(run)
        for one in part
        if one.solution.parent_solution_id is None and one.solution.answer_correct is not None
    ]
    right = {one.solution.problem_id: one for one in samples if one.solution.answer_correct}
    wrong = [one for one in samples if not one.solution.answer_correct and one.solution.problem_id in right][
        :wanted
    ]
    return [*(in_one_step(right[problem]) for problem in {one.solution.problem_id for one in wrong}), *wrong]


def in_one_step(one: Solved) -> Solved:
    """A right sample that shows that its problem can be solved, and has no place of its own to branch."""
    solution = replace(one.solution, n_steps=1)
    last, first = one.steps[-1], one.steps[0]
    step = replace(first, n_steps=1, text=solution.text, char_end=last.char_end, token_end=last.token_end)
    return Solved(solution, [step])


def bare(step: Step) -> Step:
    """The step without what was said of it."""

    return replace(step, verdicts=[])


def first_errors(solved: list[Solved]) -> dict[str, int | None]:
    """By wrong sample, the step that its rollouts call incorrect."""
    return {
        one.solution.solution_id: next(
            (
                step.step_index
                for step in one.steps
                if any(v.verifier == ROLLOUT and v.label == "incorrect" for v in step.verdicts)
            ),
            None,
        )
        for one in solved
        if one.solution.parent_solution_id is None and not one.solution.answer_correct
    }


if __name__ == "__main__":
    main()
