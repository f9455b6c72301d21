"""Tests of programs: made to run, and believed only once they have failed where there is no solution.

A set may leave the call of its tests to a harness of its own (pytest's functions, HumanEval's `check`), print what
they find, or never await them. All answers would pass such tests, so each problem's are run once against stubs.
"""

import ast
import builtins
import re
import symtable
import threading
from collections.abc import Iterator

from stepconf.core.records import Problem
from stepconf.workers.sandbox import Limits, run_program

_EXITS = {"exit", "quit", "sys.exit", "os._exit", "SystemExit"}
_NOT_RUN = re.compile(r"error: (SyntaxError|IndentationError|ImportError|ModuleNotFoundError)\b")
_UNITTEST = '''
import unittest as _unittest


class _Raising(_unittest.TestProgram):
    """`unittest.main`, but a failure is raised, and success goes on to the next line."""

    def runTests(self):
        self.exit = False
        super().runTests()
        if not self.result.wasSuccessful():
            raise AssertionError("a unit test failed")


_unittest.main = _unittest.TestProgram = _Raising
'''
# None alone would not do: `print(f(2) + 1 == 5)` fails on it, though it tests nothing.
_NOTHING = '''
class _Nothing:
    """A value that equals no other, is less than none, and that any operation gives again."""

    def _self(self, *args, **kwargs):
        return self

    def _no(self, *args):
        return False

    def __iter__(self):
        yield self

    def __await__(self):
        return self
        yield

    __call__ = __getattr__ = __getitem__ = __next__ = __enter__ = __abs__ = __neg__ = __pos__ = __round__ = _self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __exit__ = _no
    __setitem__ = __delitem__ = _no
    __hash__ = object.__hash__
    __len__ = lambda self: 1
    __int__ = __index__ = lambda self: -986127
    __float__ = lambda self: float("nan")
    __format__ = lambda self, how: ""


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    setattr(_Nothing, f"__{_name}__", _Nothing._self)
    setattr(_Nothing, f"__r{_name}__", _Nothing._self)
'''


def program_of(problem: Problem, code: str) -> str:
    """The answer in its place.

    A problem that is code itself (HumanEval: the head of a function) stays in front: the answer may be the
    rest of it, or the whole function again, which may need its imports.
    """
    prompt, asked = problem.text, _asked(problem.text)
    if not asked:
        return code
    whole = re.search(rf"^(?:async )?def {re.escape(asked)}\b", code, re.MULTILINE)
    return f"{prompt}\n\n{code}" if whole else f"{prompt}\n{code}"


def tests_of(problem: Problem) -> str:
    """The problem's tests, to be run after an answer; they raise where it fails.

    `check` is called with the row's `entry_point`, as HumanEval's harness does, where they only define it.
    """
    tests = problem.gold_answer or ""
    tree, entry_point = _parsed(tests), problem.extra.get("entry_point")
    if tree is None:
        return tests
    if isinstance(entry_point, str) and _only_defines_check(tree):
        tests = f"{tests}\n\ncheck({entry_point})\n"
    if "unittest" in tests:
        lines = tests.split("\n")
        futures = [
            node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        ]
        first = max((node.end_lineno or 0 for node in futures), default=0)
        tests = "\n".join([*lines[:first], _UNITTEST, *lines[first:]])
    return tests


def refusal(problem: Problem) -> str | None:
    """Why answers cannot be graded by the problem's tests; None where they can.

    Raises:
        SandboxError: there is no sandbox here.
    """
    tree = _parsed(problem.gold_answer or "")
    if tree is None or not _can_fail(tree):
        return "its tests are no Python tests"
    if any(_may_exit_with_0(node) for node in ast.walk(tree)):
        return "its tests may end by exit, which a solution can too"
    tests = tests_of(problem)
    for stub in _stubs(problem, tests):
        ran = run_program(program_of(problem, stub), tests, limits=Limits())
        if ran.passed:
            return "its tests pass without a solution"
        if _NOT_RUN.match(ran.failure):
            return f"its tests cannot be run: {ran.failure.removeprefix('error: ')}"
    return None


def _stubs(problem: Problem, tests: str) -> Iterator[str]:
    """Answers that define what is asked for, and do nothing.

    Where the problem does not say what that is, it is what the tests use and nobody defines.
    """
    asked = _asked(problem.text)
    named = _names(tests)
    if asked is not None:
        used, bound = _names(problem.text)
        named = (named[0] | used, named[1] | bound)
    free = sorted(named[0] - named[1] - set(dir(builtins)) - {"__file__", asked})
    ways = [("def", "None"), ("def", "_Nothing()")]
    if re.search(r"\b(async|await|asyncio)\b", tests):
        ways.append(("async def", "_Nothing()"))
    for define, value in ways:
        head = f"{define} {asked or '_stub'}(*args, **kwargs):\n    return {value}\n"
        rest = f"for _name in {free}:\n    globals().setdefault(_name, {asked or '_stub'})\n"
        yield f"{_NOTHING}\n\n{head}\n\n{rest}"


def _asked(prompt: str) -> str | None:
    """The function whose head the prompt is."""
    tree = _parsed(prompt)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    asked = [node.name for node in tree.body if isinstance(node, functions)] if tree else []
    return asked[-1] if asked else None


def _names(text: str) -> tuple[set[str], set[str]]:
    """The global names that a program uses, and those that it binds."""
    try:
        module = symtable.symtable(text, "tests", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return set(), set()
    used, bound, tables = set(), set(), [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = [one for one in table.get_symbols() if table is module or one.is_global()]
        used |= {one.get_name() for one in symbols if one.is_referenced()}
        bound |= {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
    return used, bound


def _only_defines_check(tests: ast.Module) -> bool:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [node.name for node in tests.body if isinstance(node, definitions)]
    run = [node for node in tests.body if not isinstance(node, definitions)]
    called = (_called(node) for statement in run for node in ast.walk(statement))
    return "check" in defined and "check" not in called


def _can_fail(tests: ast.Module) -> bool:
    """Whether running them may raise: a list of cases in JSON is Python too, and never does."""
    return any(isinstance(node, ast.Assert | ast.Call | ast.Raise) for node in ast.walk(tests))


def _may_exit_with_0(node: ast.AST) -> bool:
    """Whether the tests may end the process as in success, or with a value that only running them shows."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
        return node.exc.id == "SystemExit"
    if not isinstance(node, ast.Call) or _called(node) not in _EXITS:
        return False
    code = node.args[0] if node.args else None
    return not (isinstance(code, ast.Constant) and code.value)


def _called(node: ast.AST) -> str:
    """The name that a call calls, with dots; "" where it is no call of a name."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


# CPython 3.11 counts the depth of a tree that it makes for all threads together, and raises where two make one.
_PARSING = threading.Lock()


def _parsed(text: str) -> ast.Module | None:
    try:
        with _PARSING:
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
