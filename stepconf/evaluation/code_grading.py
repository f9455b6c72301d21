"""Answers that are programs: graded by the problem's tests, in the sandbox."""

import ast
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.verifiers.sandbox import Limits, SandboxError, check_sandbox, run_program


def check_code_problems(problems: Sequence[Problem]) -> None:
    """Say before a model is loaded that programs cannot be graded.

    Raises:
        StepconfError: there is no sandbox here, or the tests of a problem are not Python.
    """
    asked = [problem for problem in problems if problem.answer_type == "code"]
    if not asked:
        return
    check_sandbox()
    for problem in asked:
        if not _can_fail(_parsed(problem.gold_answer or "")):
            raise StepconfError(
                f"the tests of {problem.source} are no Python tests: {(problem.gold_answer or '')[:60]!r}",
                "Give tests that raise where the solution is wrong, such as `assert f(2) == 4`.",
            )


def grade_code(answers: Sequence[tuple[Problem, str]], workers: int) -> list[bool | None]:
    """Whether each answer, hostile text, passes all tests of its problem; None where it could not be run."""
    programs = list(dict.fromkeys(program_of(problem, code) for problem, code in answers))
    with ThreadPoolExecutor(workers) as threads:
        passed = dict(zip(programs, threads.map(_passes, programs), strict=True))
    return [passed[program_of(problem, code)] for problem, code in answers]


def program_of(problem: Problem, code: str) -> str:
    """The answer in its place, and the tests behind it.

    A problem that is code itself (HumanEval: the head of a function) stays in front: the answer may be the
    rest of it, or the whole function anew, which may need its imports.
    """
    prompt, tests = problem.text, problem.gold_answer or ""
    tree = _parsed(prompt)
    asked = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    if not asked:
        return f"{code}\n\n{tests}\n"
    whole = re.search(rf"^(?:async )?def {re.escape(asked[-1])}\b", code, re.MULTILINE)
    return f"{prompt}\n\n{code}\n\n{tests}\n" if whole else f"{prompt}\n{code}\n\n{tests}\n"


def _passes(program: str) -> bool | None:
    try:
        return run_program(program, limits=Limits()).passed
    except SandboxError:  # it was there before (`check_code_problems`): the machine is full, say
        return None


def _can_fail(tests: ast.Module | None) -> bool:
    """Whether running them may raise: a list of cases in JSON is Python too, and never does."""
    deciding = (ast.Assert, ast.Call, ast.Raise)
    return tests is not None and any(isinstance(node, deciding) for node in ast.walk(tests))


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
