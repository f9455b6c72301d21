"""Answers that are programs: graded by the problem's tests, in the sandbox."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.evaluation.code_tests import program_of, refusal, tests_of
from stepconf.workers.sandbox import Limits, SandboxError, check_sandbox, run_program


def gradable(problems: Sequence[Problem], workers: int) -> tuple[list[Problem], Counter[str]]:
    """The problems whose answers can be graded, and how many cannot, by reason; before a model is loaded.

    Raises:
        StepconfError: there is no sandbox here for programs, or none of the problems can be graded.
    """
    asked = [problem for problem in problems if problem.answer_type == "code"]
    if not asked:
        return list(problems), Counter()
    check_sandbox()
    with ThreadPoolExecutor(workers) as threads:
        found = zip(asked, threads.map(refusal, asked), strict=True)
        reasons = {problem.problem_id: reason for problem, reason in found if reason is not None}
    kept = [problem for problem in problems if problem.problem_id not in reasons]
    refused = Counter(reasons.values())
    if not kept:
        said = ", ".join(f"{reason} ({count:,})" for reason, count in refused.most_common())
        raise StepconfError(
            f"{asked[0].source}: none of its {len(asked):,} problems can be graded: {said}.",
            "Give tests that raise where the solution is wrong, such as `assert f(2) == 4`, and call those that "
            "are functions.",
        )
    return kept, refused


def grade_code(answers: Sequence[tuple[Problem, str]], workers: int) -> list[bool | None]:
    """Whether each answer, hostile text, passes all tests of its problem; None where it could not be run."""
    runs = [(program_of(problem, code), tests_of(problem)) for problem, code in answers]
    different = list(dict.fromkeys(runs))
    with ThreadPoolExecutor(workers) as threads:
        passed = dict(zip(different, threads.map(_passes, different), strict=True))
    return [passed[run] for run in runs]


def _passes(run: tuple[str, str]) -> bool | None:
    program, tests = run
    try:
        return run_program(program, tests, limits=Limits()).passed
    except SandboxError:  # it was there before (`gradable`): the machine is full, say
        return None
