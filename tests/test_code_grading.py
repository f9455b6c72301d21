"""Benchmarks of code: programs by their tests in the sandbox, returned values by what they are."""

import json
from pathlib import Path

import pytest

from stepconf.core.answers import extract_answer, gold_answer, same_answer_cheap
from stepconf.core.records import Problem
from stepconf.evaluation.code_grading import check_code_problems, grade_code, program_of
from stepconf.problems.load import ProblemOptions, load_problems
from stepconf.verifiers.sandbox import SandboxError, check_sandbox
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


def problem(text: str = PROMPT, tests: str = TESTS) -> Problem:
    return Problem("p", text, tests, "code", "test", "")


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
    check_code_problems([problem()])
    for tests in ("[]", '[{"input": "1"}]', "not python(", "x = 1"):
        with pytest.raises(Exception, match="no Python tests"):
            check_code_problems([problem(tests=tests)])


@pytest.mark.usefixtures("sandbox")
def test_humaneval_as_evaluate_grades_it() -> None:
    path = shared_path("benchmarks/humaneval.jsonl.gz")
    rows = {row["task_id"]: row for row in shared_rows("benchmarks/humaneval.jsonl.gz")[:16]}
    problems = load_problems(f"humaneval@{path}", ProblemOptions(limit=16)).problems
    right, wrong = [], []
    for one in problems:
        row = rows[one.external_id or ""]
        anew = f"Here it is:\n```python\n{row['prompt']}{row['canonical_solution']}```\nDone."
        right += [(one, row["canonical_solution"]), (one, extract_answer(anew, "code") or "")]
        wrong.append((one, "    return None"))
    assert all(grade_code(right, 2)) and not any(grade_code(wrong, 2))
    assert "check(" in program_of(*right[0])


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
    assert same_answer_cheap(gold_answer(gold, "literal"), said, "literal") is same


def test_cruxeval_gold_values_equal_themselves_in_any_form() -> None:
    for row in shared_rows("benchmarks/cruxeval.jsonl.gz"):
        gold = row["output"]
        for text in (f"So it is\n[ANSWER]{gold}[/ANSWER]", f"The output is {gold}", f"```\n{gold}\n```"):
            found = extract_answer(text, "literal")
            assert found is not None and same_answer_cheap(gold_answer(gold, "literal"), found, "literal"), (
                row
            )
        # As official scoring has it: an assertion by ==.
        assert same_answer_cheap(gold, f"[{gold}]", "literal") is False


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
