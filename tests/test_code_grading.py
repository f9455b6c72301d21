"""Benchmarks of code: programs by their tests in the sandbox, returned values by what they are."""

import json
from pathlib import Path

import pytest

from stepconf.core.answers import extract_answer, gold_answer, same_answer
from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.evaluation.code_grading import gradable, grade_code
from stepconf.problems.load import load_problems
from stepconf.recipe import ProblemsRecipe
from stepconf.workers.sandbox import SandboxError, check_sandbox
from tests.shared_data import shared_path, shared_rows
from tests.tiny import stepconf, with_tiny

PROMPT = '''import math

def root(x: float) -> int:
    """ The whole root. """'''
TESTS = "def check(f):\n    assert f(10.0) == 3\n\ncheck(root)"


@pytest.fixture
def sandbox() -> None:
    try:
        check_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def problem(text: str = PROMPT, tests: str = TESTS, **extra: str) -> Problem:
    return Problem(f"{text}{tests}", text, tests, "code", "test", "", extra=dict(extra))


DOUBLE = "Write f, which doubles."
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n"
UNIT = """import unittest

class T(unittest.TestCase):
    def test(self):
        self.assertEqual(f(2), 4)

"""
PYTEST = "def test_f():\n    assert f(2) == 4\n"


@pytest.mark.usefixtures("sandbox")
def test_bodies_and_whole_functions_pass_or_fail() -> None:
    answers = {
        "    return int(math.sqrt(x))": True,
        "def root(x):\n    return math.isqrt(int(x))": True,
        "from math import isqrt\n\ndef root(x):\n    return isqrt(int(x))": True,
        "    return int(math.sqrt(x)) + 1": False,
        "def other(x):\n    return 3": False,
        "    return (": False,
        "raise SystemExit(0)": False,
        "import os\nos._exit(0)": False,
    }
    assert grade_code([(problem(), code) for code in answers], 2) == list(answers.values())
    prose = problem("Write f, which doubles.", "assert f(2) == 4")
    assert grade_code([(prose, "def f(x):\n    return 2 * x"), (prose, "f = abs")], 2) == [True, False]


@pytest.mark.usefixtures("sandbox")
def test_tests_that_are_none_are_refused() -> None:
    assert gradable([problem()], 2) == ([problem()], {})
    for tests in ("[]", '[{"input": "1"}]', "not python(", "x = 1"):
        with pytest.raises(StepconfError, match="no Python tests"):
            gradable([problem(tests=tests)], 1)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    "tests",
    [
        CHECK,
        PYTEST,
        "class TestF:\n    def test_f(self):\n        assert f(2) == 4",
        UNIT,
        UNIT + "unittest.TextTestRunner().run(unittest.makeSuite(T))",
        "import doctest\ndoctest.testmod()",
        "import doctest\nassert doctest.testmod().failed == 0",
        "print(f(2) == 4)",
        "print(f(2) + 1 == 5)",
        "print(f'{f(2):.2f}', sum(f(2)) == 4, f(2)[0], abs(f(2)) < 1)",
        "print(Solution().double(2) == 4)",
        "f(2) == 4",
        "assert f(2) != 3",
        "try:\n    assert f(2) == 4\nexcept AssertionError:\n    print('failed')",
        "async def test():\n    assert await f(2) == 4\ntest()",
        "import asyncio\nasync def test():\n    print(await f(2) == 4)\nasyncio.run(test())",
        "import asyncio\nprint(asyncio.run(f(2)) == 4)",
        "import threading\nthreading.Thread(target=lambda: f(2) == 1 / 0).start()",
        "def main():\n    assert f(2) == 4\nif __name__ == 'main':\n    main()",
        "check(f)",
    ],
)
@pytest.mark.parametrize("text", [DOUBLE, 'def f(x):\n    """Double it.\n\n    >>> f(2)\n    4\n    """'])
def test_tests_that_pass_without_a_solution_are_refused(text: str, tests: str) -> None:
    with pytest.raises(StepconfError, match=r"none of its 1 problems can be graded.*pass without a solution"):
        gradable([problem(text, tests)], 1)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("import sys\nsys.exit(0 if f(2) == 4 else 1)", "may end by exit"),
        ("assert f(2) == 4\nraise SystemExit", "may end by exit"),
        ("import no_such_module\nassert f(2) == 4", "cannot be run: ModuleNotFoundError.*no_such_module"),
        ("return f(2) == 4\nassert 0", "cannot be run: SyntaxError"),
    ],
)
def test_tests_that_fail_every_solution_are_refused(tests: str, reason: str) -> None:
    with pytest.raises(StepconfError, match=reason):
        gradable([problem(DOUBLE, tests)], 1)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("tests", "extra"),
    [
        ("assert f(2) == 4", {}),
        (CHECK, {"entry_point": "f"}),
        (f"{CHECK}\ncheck(f)", {"entry_point": "f"}),
        (f"{CHECK}\ndef test_check():\n    check(f)", {"entry_point": "f"}),
        (f"{PYTEST}\ntest_f()", {}),
        (f"{UNIT}unittest.main()", {}),
        (f"{UNIT}if __name__ == '__main__':\n    unittest.main(verbosity=2)", {}),
        (f"{UNIT}unittest.main(argv=[''], exit=False)", {}),
        (f"from __future__ import annotations\n{UNIT}from unittest import main\nmain()\nprint('end')", {}),
        ("import sys\nif f(2) != 4:\n    sys.exit(1)", {}),
        ("from math import *\nassert f(sqrt(4)) == 4", {}),
        ("import math\nassert math.isclose(f(2), 4) and int(f(2)) == 4 and f(2) in (4, 5)", {}),
        ("for got, wanted in zip([f(n) for n in range(3)], [0, 2, 4]):\n    assert got == wanted", {}),
        ("try:\n    f(None)\nexcept TypeError:\n    pass\nelse:\n    assert False", {}),
    ],
)
@pytest.mark.parametrize("text", [DOUBLE, 'def f(x):\n    """Double it."""'])
def test_tests_that_decide_are_believed(text: str, tests: str, extra: dict[str, str]) -> None:
    one = problem(text, tests, **extra)
    assert gradable([one], 1) == ([one], {})
    right, wrong = "def f(x):\n    return x * 2", "def f(x):\n    return 5 and x"
    leaves = "import sys\ndef f(x):\n    sys.exit(0)"
    assert grade_code([(one, right), (one, wrong), (one, leaves)], 2) == [True, False, False]


@pytest.mark.usefixtures("sandbox")
def test_what_cannot_be_graded_is_left_out_and_counted() -> None:
    good, math = problem(), Problem("m", "1 + 1", "2", "math", "test", "")
    bad = [problem(DOUBLE, PYTEST), problem(DOUBLE, CHECK), problem(DOUBLE, "[]")]
    kept, refused = gradable([bad[0], good, bad[1], math, bad[2]], 2)
    assert kept == [good, math]
    assert refused == {"its tests pass without a solution": 2, "its tests are no Python tests": 1}


@pytest.mark.usefixtures("sandbox")
def test_no_text_of_an_answer_swallows_its_tests() -> None:
    tests = 'assert f(2) == 4\nnote = """ the end """'
    answers = ['def f(x):\n    return 1\nnote = """', "def f(x):\n    return 1\nif 0:", "x = ("]
    assert grade_code([(problem(DOUBLE, tests), answer) for answer in answers], 2) == [False] * 3


@pytest.mark.usefixtures("sandbox")
def test_coroutines_are_asked_for_and_graded() -> None:
    tests = "import asyncio\nassert asyncio.run(f(2)) == 4"
    one = problem('async def f(x):\n    """Double it."""', tests)
    assert gradable([one], 1) == ([one], {})
    assert grade_code([(one, "    return x * 2"), (one, "    return x")], 2) == [True, False]


@pytest.mark.usefixtures("sandbox")
def test_humaneval_as_evaluate_grades_it() -> None:
    path = shared_path("benchmarks/humaneval.jsonl.gz")
    rows = {row["task_id"]: row for row in shared_rows("benchmarks/humaneval.jsonl.gz")[:16]}
    problems = load_problems(f"humaneval@{path}", ProblemsRecipe(limit=16)).problems
    right, wrong = [], []
    for one in problems:
        row = rows[one.external_id or ""]
        anew = f"Here it is:\n```python\n{row['prompt']}{row['canonical_solution']}```\nDone."
        right += [(one, row["canonical_solution"]), (one, extract_answer(anew, "code") or "")]
        wrong.append((one, "    return None"))
    assert all(grade_code(right, 2)) and not any(grade_code(wrong, 2))
    assert gradable(problems[:4], 2) == (problems[:4], {})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So f returns \\boxed{[1, 'a']}.", "[1, 'a']"),
        ("\\boxed{\\{'a': 1\\}}", "{'a': 1}"),
        ("\\boxed{\\text{'abc'}}", "'abc'"),
        ("[ANSWER]\nassert f('x') == 'xx'\n[/ANSWER]", "'xx'"),
        ("[ANSWER] {'a': None} [/ANSWER] I hope.", "{'a': None}"),
        ("The answer is `(1, 2)`.", "(1, 2)"),
        ("Therefore the output is: 'the answer is 3'", "'the answer is 3'"),
        ("assert f([1, 2]) == [2, 1]", "[2, 1]"),
        ("It loops twice.\n\n```python\n'ab'\n```", "'ab'"),
        ("first 1\n-0.5\n", "-0.5"),
        ("The answer is hello", "hello"),
        ("", None),
    ],
)
def test_values_are_found(text: str, answer: str | None) -> None:
    assert extract_answer(text, "literal") == answer


@pytest.mark.parametrize(
    ("gold", "said", "same"),
    [
        ("[1, 2]", "[1,2]", True),
        ("[1, 2]", "(1, 2)", False),
        ("'a'", '"a"', True),
        ("'a'", "a", False),
        ("' a'", "'a'", False),
        ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", True),
        ("1", "1.0", True),
        ("True", "true", False),
        ("'A'", "'a'", False),
        ("'####  5'", "'####  5'", True),
        ("None", "None", True),
        ("[]", "[" * 5000 + "]" * 5000, False),
        ("1", "9" * 9999, False),
        ("1", "__import__('os').system('true') or 1", False),
        ("1", "-" * 9000 + "1", False),
        ("{}", "{[]: 1}", False),
        (r"'\d'", r"'\\d'", True),
    ],
)
def test_values_are_compared_as_python_does(gold: str, said: str, same: bool) -> None:
    assert same_answer(gold_answer(gold, "literal"), said, "literal").same is same


def test_cruxeval_gold_values_equal_themselves_in_any_form() -> None:
    for row in shared_rows("benchmarks/cruxeval.jsonl.gz"):
        gold = row["output"]
        for text in (f"So it is\n[ANSWER]{gold}[/ANSWER]", f"The output is {gold}", f"```\n{gold}\n```"):
            found = extract_answer(text, "literal")
            assert found is not None and same_answer(gold_answer(gold, "literal"), found, "literal").same, row
        # As official scoring has it: an assertion by ==.
        assert same_answer(gold, f"[{gold}]", "literal").same is False


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("name", ["humaneval", "cruxeval"])
def test_evaluate_runs_them(name: str, tmp_path: Path) -> None:
    source = shared_path(f"benchmarks/{name}.jsonl.gz")
    lines = [row for row in shared_rows(f"benchmarks/{name}.jsonl.gz") if len(json.dumps(row)) < 800][:3]
    small = tmp_path / source.name.removesuffix(".gz")
    small.write_text("".join(json.dumps(row) + "\n" for row in lines))
    ended = stepconf(
        "evaluate",
        "--benchmark",
        f"{name}@{small}",
        "--strategy",
        "greedy,self-consistency",
        "--out",
        tmp_path / "o",
        *with_tiny(),
        "--k",
        2,
        "--max-tokens",
        12,
        "--set",
        "prompt.instruction=''",
        "--json",
    )
    assert ended.code == 0, ended.err
    assert [one["questions"] for one in json.loads(ended.out)["results"]] == [3, 3]


@pytest.mark.usefixtures("sandbox")
def test_evaluate_shows_what_it_leaves_out(tmp_path: Path) -> None:
    rows = [
        {"problem": 'def f(x):\n    """Double it."""', "answer": CHECK, "entry_point": "f"},
        {"problem": DOUBLE, "answer": PYTEST},
    ]
    file, out = tmp_path / "b.jsonl", tmp_path / "o"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [*with_tiny(), "--max-tokens", 8, "--set", "problems.answer_type=code"]
    ended = stepconf("evaluate", "--benchmark", file, "--out", out, *options)
    assert ended.code == 0, ended.err
    report = json.loads((out / "report.json").read_text())
    assert report["refused"] == {str(file): {"its tests pass without a solution": 1}}
    assert [one["questions"] for one in report["results"]] == [1]
    assert "problems left out" in ended.out and "pass without a solution" in ended.out
