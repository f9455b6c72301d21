"""Problems and solutions from every kind of source, and one clear error for every source that is none."""

import json
import os
import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepconf.core.answers import ANSWER_TYPES
from stepconf.errors import StepconfError
from stepconf.problems.load import load_problems, load_solutions
from stepconf.problems.rows import as_answer, as_text, jsonable, settled
from stepconf.problems.sets import NAMED_SETS
from stepconf.recipe import ProblemsRecipe
from tests.shared_data import is_sample, shared_path, shared_rows

ROWS = [
    {"problem": "1+1?", "answer": "2", "id": "a", "level": 1},
    {"problem": "2+2?", "answer": "4", "id": "b", "level": 2},
]


def write(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def problems(name: str, **options: Any) -> list[tuple[str, str | None, str]]:
    return [
        (p.text, p.gold_answer, p.answer_type)
        for p in load_problems(name, ProblemsRecipe(**options)).problems
    ]


# The table


CASPO_SETS = """gsm8k math math500 minerva_math olympiadbench amc23 aime24 aime25 svamp boardgameqa cruxeval
strategyqa tablebench mmlu_pro_stem humaneval livecodebench race"""


def test_the_sets_of_the_paper_are_there() -> None:
    assert set(CASPO_SETS.split()) == set(NAMED_SETS)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_every_entry_is_complete(name: str) -> None:
    entry = NAMED_SETS[name]
    assert entry.answer_type in ANSWER_TYPES
    assert entry.split in entry.all_splits
    assert entry.hub_id.count("/") == 1
    assert entry.licence
    for template in (entry.problem, entry.answer):
        places = [
            place for part in template.split("{")[1:] for place in part.split("}")[0].rstrip("?").split("|")
        ]
        text = settled(template, places)
        assert text is not None
        assert text.of(dict.fromkeys(places, "value")), template
        assert text.of({}) is None, "without its columns there is no text"


# The published files of the named sets


@pytest.mark.parametrize(
    ("name", "file", "dropped"),
    [
        ("gsm8k", "gsm8k/test.jsonl.gz", {}),
        ("gsm8k", "gsm8k/train.jsonl.gz", {}),
        ("math", "math/test.jsonl.gz", {}),
        # One problem stands there twice, and one solution ends in an empty \boxed{}.
        ("math", "math/train.jsonl.gz", {"duplicate problem": 1, "no gold answer": 1}),
        ("math500", "benchmarks/math500.jsonl.gz", {}),
        ("minerva_math", "benchmarks/minerva_math.jsonl.gz", {}),
        ("olympiadbench", "benchmarks/olympiadbench.jsonl.gz", {}),
        ("amc23", "benchmarks/amc23.jsonl.gz", {}),
        ("aime24", "benchmarks/aime24.jsonl.gz", {}),
        ("aime25", "benchmarks/aime25.jsonl.gz", {}),
        ("svamp", "benchmarks/svamp.jsonl.gz", {}),
        ("cruxeval", "benchmarks/cruxeval.jsonl.gz", {}),
        ("humaneval", "benchmarks/humaneval.jsonl.gz", {}),
        ("strategyqa", "benchmarks/strategyqa_dev.jsonl.gz", {}),
        (
            "tablebench",
            "benchmarks/tablebench.jsonl.gz",
            {"not in the set by its qtype": 393, "duplicate problem": 1},
        ),
        ("mmlu_pro_stem", "benchmarks/mmlu_pro_stem.jsonl.gz", {}),
        ("boardgameqa", "benchmarks/boardgameqa_bbeh.jsonl.gz", {}),
    ],
)
def test_every_row_of_a_published_file_is_accounted_for(
    name: str, file: str, dropped: dict[str, int]
) -> None:
    path = shared_path(file)
    loaded = load_problems(f"{name}@{path}", ProblemsRecipe())
    rows = shared_rows(file)
    assert loaded.n_rows == len(rows) == len(loaded.problems) + loaded.dropped.total()
    assert set(loaded.dropped) <= set(dropped) if is_sample(file) else loaded.dropped == dropped
    for problem in loaded.problems:
        assert problem.source == name
        assert problem.text
        assert problem.gold_answer
        assert problem.answer_type == NAMED_SETS[name].answer_type
        if problem.answer_type != "code":
            assert len(problem.gold_answer) < 300
        assert json.loads(json.dumps(problem.extra)) == problem.extra


@pytest.mark.parametrize(
    ("name", "file", "text", "gold"),
    [
        ("svamp", "svamp", "organized into 16 groups How big is each group of oranges?", "24"),
        ("amc23", "amc23", "How many miles from City $A$ will they be when they meet?", "27"),
        ("strategyqa", "strategyqa_dev", "Did Mozart ever buy anything from Dolce & Gabbana?", "no"),
        ("mmlu_pro_stem", "mmlu_pro_stem", "F. $5$\nG. $10$\nH. $8$\nI. $4$\nJ. $1$", "F"),
        ("tablebench", "tablebench", '|\n\nWhat is the average value of the "Pin (Tip)" column?', "38"),
        ("cruxeval", "cruxeval", "\n\nWhat does f({'TEXT': 7, 'CODE': 3}, 7, 3) return?", "('TEXT', 'CODE')"),
    ],
)
def test_how_rows_are_written_out(name: str, file: str, text: str, gold: str) -> None:
    loaded = load_problems(f"{name}@{shared_path(f'benchmarks/{file}.jsonl.gz')}", ProblemsRecipe())
    assert [one.gold_answer for one in loaded.problems if one.text.endswith(text)] == [gold]


def test_a_table_is_written_in_markdown() -> None:
    table = {"columns": ["season", "a|b"], "data": [["1990\n- 91", None], [3.0, True]]}
    written = "| season | a\\|b |\n| --- | --- |\n| 1990 - 91 |  |\n| 3 | yes |"
    assert as_text(table) == as_text(json.dumps(table)) == written


def test_the_plain_gsm8k_and_math_files_need_no_options() -> None:
    rows = shared_rows("gsm8k/test.jsonl.gz")[:3]
    gsm8k = load_problems(str(shared_path("gsm8k/test.jsonl.gz")), ProblemsRecipe(limit=3))
    assert [one.gold_answer for one in gsm8k.problems] == [row["answer"].split("#### ")[1] for row in rows]
    assert [one.extra["answer"] for one in gsm8k.problems] == [row["answer"] for row in rows]  # worked out
    (row,) = shared_rows("math/train.jsonl.gz")[:1]
    (first,) = load_problems(str(shared_path("math/train.jsonl.gz")), ProblemsRecipe(limit=1)).problems
    assert f"\\boxed{{{first.gold_answer}}}" in row["solution"]
    assert first.external_id == row["unique_id"]


# Local files


def test_the_forms_of_a_local_file_give_the_same_problems(tmp_path: Path) -> None:
    jsonl = load_problems(write(tmp_path / "a.jsonl", ROWS), ProblemsRecipe())
    parquet = load_problems(write_parquet(tmp_path / "a.parquet", ROWS), ProblemsRecipe())
    write_parquet(tmp_path / "folder" / "part-0.parquet", ROWS[:1])
    write_parquet(tmp_path / "folder" / "part-1.parquet", ROWS[1:])
    (tmp_path / "folder" / "part-0.json").write_text('{"n_rows": 1}')  # what else lies there is no matter
    folder = load_problems(str(tmp_path / "folder"), ProblemsRecipe())
    assert jsonl.digest == parquet.digest == folder.digest
    for loaded in (jsonl, parquet, folder):
        assert [(p.text, p.gold_answer, p.external_id, p.extra) for p in loaded.problems] == [
            ("1+1?", "2", "a", {"level": 1}),
            ("2+2?", "4", "b", {"level": 2}),
        ]
    assert [loaded.problems[0].source for loaded in (jsonl, parquet, folder)] == [
        "a.jsonl",
        "a.parquet",
        "folder",
    ]


def test_ids_and_digest_know_no_order_and_no_place(tmp_path: Path) -> None:
    rows = [{"question": f"{n}+1?", "gold_answer": n + 1} for n in range(50)]
    one = load_problems(write(tmp_path / "a.jsonl", rows), ProblemsRecipe())
    random.Random(0).shuffle(rows)
    other = load_problems(write(tmp_path / "b.jsonl", [*rows, rows[0]]), ProblemsRecipe())
    assert one.digest == other.digest
    assert {p.problem_id for p in one.problems} == {p.problem_id for p in other.problems}
    assert other.dropped == {"duplicate problem": 1}


def test_drops_are_counted_by_reason(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(120):
        deep = [deep]
    rows = [
        {"problem": "good", "answer": "1"},
        {"problem": " ", "answer": "1"},
        {"problem": None, "answer": "1"},
        {"answer": "1"},
        {"problem": ["role", "user"], "answer": "1"},
        {"problem": "no answer"},
        {"problem": "no answer either", "answer": ""},
        {"problem": "nor here", "answer": float("nan")},
        {"problem": "good ", "answer": 1.0},
        {"problem": "half a character \ud800", "answer": "1"},
        {"problem": "too deep", "answer": "1", "extra": deep},
        {"problem": "too deep", "answer": deep},
    ]
    loaded = load_problems(write(tmp_path / "a.jsonl", rows), ProblemsRecipe())
    assert loaded.dropped == {
        "no problem text": 3,
        "problem is not a text": 1,
        "no gold answer": 3,
        "duplicate problem": 1,
        "not valid Unicode": 1,
        "nested too deeply": 2,
    }
    assert (len(loaded.problems), loaded.n_rows) == (1, len(rows))
    kept = load_problems(str(tmp_path / "a.jsonl"), ProblemsRecipe(), require_gold=False)
    assert len(kept.problems) == 4
    assert "no gold answer" not in kept.dropped


@pytest.mark.parametrize(
    ("value", "gold", "answer_type"),
    [
        (" 5 ", "5", "math"),
        (5, "5", "math"),
        (27.0, "27", "math"),
        (0.5, "0.5", "math"),
        (True, "yes", "yesno"),
        (["1", "2"], "1, 2", "math"),
        ("so 2+3=5\n#### 1,234", "1,234", "math"),
        ("hence $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", "math"),
    ],
)
def test_gold_answers_of_a_plain_file(tmp_path: Path, value: Any, gold: str, answer_type: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"problem": "?", "answer": value}])
    assert problems(path) == [("?", gold, answer_type)]


def test_a_solution_column_without_an_answer_column_is_worked_out(tmp_path: Path) -> None:
    long = "We add the numbers, one after the other. " * 4
    rows = [
        {"Problem": "a", "solution": long + "So \\boxed{1} or rather \\boxed{2}"},
        {"Problem": "b", "solution": long},
        {"Problem": "c", "solution": "34"},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    loaded = load_problems(path, ProblemsRecipe())
    assert [(p.text, p.gold_answer) for p in loaded.problems][1:] == [("c", "34")]
    assert loaded.problems[0].gold_answer is not None
    assert loaded.problems[0].gold_answer.endswith("2")
    assert loaded.dropped == {"no gold answer": 1}
    assert loaded.problems[0].extra == {"solution": rows[0]["solution"]}


@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        ("svamp", "svamp", "Question"),
        ("mmlu_pro_stem", "mmlu_pro_stem", "question"),
        ("tablebench", "tablebench", "question"),
        ("cruxeval", "cruxeval", "input"),
    ],
)
def test_half_of_a_problem_is_not_read(name: str, file: str, column: str) -> None:
    path = str(shared_path(f"benchmarks/{file}.jsonl.gz"))
    with pytest.raises(StepconfError, match=f"only {column} would be read") as told:
        load_problems(path, ProblemsRecipe())
    assert f"{name}@{path}" in told.value.hint
    columns = ProblemsRecipe(problem_column=column, answer_column="idx" if name == "svamp" else None)
    if name == "svamp":
        assert load_problems(path, columns).problems


def test_named_columns_go_before_everything(tmp_path: Path) -> None:
    row = {"problem": "p", "question": "q", "a{b|c}": "r", "answer": "1", "key": "2", "id": 7, "row": 8}
    path = write(tmp_path / "a.jsonl", [row])
    options = ProblemsRecipe(
        problem_column="a{b|c}", answer_column="key", id_column="row", answer_type="string"
    )
    (problem,) = load_problems(path, options).problems
    assert (problem.text, problem.gold_answer, problem.external_id, problem.answer_type) == (
        "r",
        "2",
        "8",
        "string",
    )
    assert problem.extra == {"problem": "p", "question": "q", "answer": "1", "id": 7}
    assert problems(f"gsm8k@{path}", problem_column="problem") == [("p", "1", "number")]


def test_the_limit_counts_usable_problems_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"problem": "", "answer": "1"}, *({"problem": f"{n}?", "answer": n} for n in range(200))]
    write(path, rows)
    with path.open("a") as file:
        file.write("broken")
    loaded = load_problems(str(path), ProblemsRecipe(limit=3))
    assert ([p.text for p in loaded.problems], loaded.n_rows) == (["0?", "1?", "2?"], 4)


def test_everything_carried_along_is_json(tmp_path: Path) -> None:
    import datetime

    row = {
        "problem": "?",
        "answer": "1",
        "when": datetime.date(2024, 1, 2),
        "raw": b"\0\1",
        "x": float("inf"),
    }
    (problem,) = load_problems(write_parquet(tmp_path / "a.parquet", [row]), ProblemsRecipe()).problems
    assert problem.extra == {"when": "2024-01-02", "raw": "<2 bytes>", "x": None}
    assert json.dumps(jsonable({1: {3, 2}, "\ud800": ("a", 1.5)})) == '{"1": [2, 3], "?": ["a", 1.5]}'
    assert as_answer([]) is None


# Solutions


def test_processbench_is_taken_as_it_is() -> None:
    rows = shared_rows("processbench/math_dev.jsonl.gz")
    loaded = load_solutions(str(shared_path("processbench/math_dev.jsonl.gz")), ProblemsRecipe())
    assert loaded.n_rows == len(rows) == len(loaded.rows)
    assert not loaded.dropped
    for row, solution in zip(rows, loaded.rows, strict=True):
        assert solution.steps == row["steps"]
        assert solution.text is None
        assert solution.external_id == row["id"]
        assert solution.problem.gold_answer is None
        assert solution.extra == {key: row[key] for key in ("generator", "final_answer_correct", "label")}
    n_problems = len({row["problem"] for row in rows})
    assert len({solution.problem.problem_id for solution in loaded.rows}) == n_problems, "problems are shared"


def test_the_columns_of_solutions(tmp_path: Path) -> None:
    both = {
        "question": "q",
        "answer": "#### 3",
        "solution": "one\n\ntwo ",
        "steps": ["one", "two"],
        "extra": 1,
    }
    path = write(tmp_path / "a.jsonl", [both])
    (as_steps,) = load_solutions(path, ProblemsRecipe()).rows
    assert (as_steps.text, as_steps.steps) == (None, ["one", "two"])
    (as_text_,) = load_solutions(path, ProblemsRecipe(solution_column="solution")).rows
    assert (as_text_.text, as_text_.steps) == ("one\n\ntwo ", None), "exactly as it is given"
    assert as_text_.problem.gold_answer == "3"
    assert as_text_.extra == {"answer": "#### 3", "steps": ["one", "two"], "extra": 1}
    assert as_steps.problem.problem_id == as_text_.problem.problem_id
    for column in ("text", "response"):
        (solution,) = load_solutions(
            write(tmp_path / "b.jsonl", [{"problem": "p", column: "s"}]), ProblemsRecipe()
        ).rows
        assert (solution.text, solution.problem.gold_answer) == ("s", None)


def test_a_solution_is_not_its_own_gold_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"problem": "p", "solution": "\\boxed{1}"}])
    assert load_solutions(path, ProblemsRecipe()).rows[0].problem.gold_answer is None
    assert load_solutions(f"math@{path}", ProblemsRecipe()).rows[0].problem.gold_answer is None


def test_dropped_solutions(tmp_path: Path) -> None:
    texts: list[Any] = ["fine", "fine", "", "  ", None, 7, "\udc00"]
    path = write(tmp_path / "a.jsonl", [{"problem": "p", "text": text} for text in texts])
    loaded = load_solutions(path, ProblemsRecipe())
    assert (len(loaded.rows), loaded.n_rows) == (2, 7)
    reasons = {"no solution text": 3, "solution is not a text": 1, "not valid Unicode": 1}
    assert loaded.dropped == Counter(reasons)
    lists: list[Any] = [["fine"], [], None, "text", [1], [" "], ["\ud800"]]
    path = write(tmp_path / "b.jsonl", [{"problem": "p", "steps": steps} for steps in lists])
    loaded = load_solutions(path, ProblemsRecipe())
    assert (len(loaded.rows), loaded.n_rows) == (1, 7)
    assert loaded.dropped == {"no steps": 3, "steps are not a list of texts": 2, "not valid Unicode": 1}


# reasoning-gym


def test_reasoning_gym_is_the_same_for_the_same_seed() -> None:
    name = "reasoning-gym:gsm_symbolic"
    one, same, other = (load_problems(name, ProblemsRecipe(limit=6), seed) for seed in (1, 1, 2))
    assert len(one.problems) == 6
    assert one == same
    assert one.digest != other.digest
    assert load_problems(f"{name}?seed=2", ProblemsRecipe(limit=6), seed=1).digest == other.digest
    assert one.problems[0].answer_type == "number"
    assert one.problems[0].extra["answer_cot"]
    longer = load_problems(name, ProblemsRecipe(limit=60), seed=1)
    assert longer.problems[:6] == one.problems


@pytest.mark.slow
def test_reasoning_gym_is_the_same_in_another_process() -> None:
    code = """
        from stepconf.problems.load import *; from stepconf.recipe import ProblemsRecipe
        for task in ("gsm_symbolic", "chain_sum", "knights_knaves"):
            print(load_problems("reasoning-gym:" + task, ProblemsRecipe(limit=5)).digest)
        """
    runs = [run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == 3


def test_settings_of_reasoning_gym() -> None:
    name = "reasoning-gym:basic_arithmetic?min_terms=3&max_terms=3&operators=+,-&allow_negation=False&size=7"
    loaded = load_problems(name, ProblemsRecipe())
    assert loaded.n_rows == 7 == len(loaded.problems) + loaded.dropped.total()
    assert all(problem.extra["num_terms"] == 3 for problem in loaded.problems)
    assert all(not set("*/") & set(problem.extra["expression"]) for problem in loaded.problems)
    assert loaded.problems[0].source == "reasoning-gym:basic_arithmetic"


@pytest.mark.parametrize(
    ("task", "answer_type"),
    [("polynomial_multiplication", "math"), ("syllogism", "string"), ("lcm", "number")],
)
def test_answer_types_of_reasoning_gym(task: str, answer_type: str) -> None:
    (problem,) = load_problems(f"reasoning-gym:{task}", ProblemsRecipe(limit=1)).problems
    assert problem.answer_type == answer_type
    assert json.loads(json.dumps(problem.extra)) == problem.extra


# Sets in the Hub's form


@pytest.fixture
def hub_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A set named org/name, as `datasets` finds it on the Hub or in the working folder."""
    folder = tmp_path / "org" / "name"
    write(folder / "main" / "train.jsonl", [{"question": "train?", "answer": "#### 1"}])
    write(folder / "main" / "test.jsonl", [{"question": "test?", "answer": "#### 2"}])
    write(folder / "extra" / "test.jsonl", [{"question": "extra?", "answer": "#### 3"}])
    (folder / "README.md").write_text(
        textwrap.dedent("""\
            ---
            configs:
            - config_name: main
              data_files:
              - {split: train, path: main/train.jsonl}
              - {split: test, path: main/test.jsonl}
            - config_name: extra
              data_files:
              - {split: test, path: extra/test.jsonl}
            ---
            """)
    )
    monkeypatch.chdir(tmp_path)
    return "org/name"


def test_a_hub_set_with_configs_and_splits(hub_set: str) -> None:
    assert problems(f"{hub_set}:extra") == [("extra?", "3", "math")]
    assert problems(f"{hub_set}:main", split="train") == [("train?", "1", "math")]
    loaded = load_problems(f"{hub_set}:main", ProblemsRecipe(split="test"))
    assert (loaded.problems[0].source, loaded.problems[0].split) == ("org/name:main", "test")
    with pytest.raises(StepconfError, match="several splits") as error:
        problems(f"{hub_set}:main")
    assert error.value.hint == "Choose with --split: train, test."
    with pytest.raises(StepconfError, match="Config name is missing") as error:
        problems(hub_set)
    assert "org/name:config" in error.value.hint
    with pytest.raises(StepconfError, match="nothere") as error:
        problems(f"{hub_set}:nothere")
    assert "org/name:config" in error.value.hint
    with pytest.raises(StepconfError, match="nothere") as error:
        problems(f"{hub_set}:main", split="nothere")
    assert "--split" in error.value.hint


def test_a_folder_in_the_hubs_form(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", ROWS)
    write_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", ROWS[:1])
    assert len(problems(str(tmp_path / "set"), split="train")) == 2
    assert len(problems(str(tmp_path / "set"), split="test")) == 1


@pytest.mark.parametrize("prefix", ["", "gsm8k@"])
def test_a_folder_of_several_splits(prefix: str, tmp_path: Path) -> None:
    for i, split in enumerate(("train", "test", "train_sft")):
        rows = [{"question": f"{i}?", "answer": f"#### {i}"}]
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", rows)
    place = f"{prefix}{tmp_path}"
    with pytest.raises(StepconfError, match="several splits") as error:
        problems(place)
    assert error.value.hint == "Choose with --split: test, train, train_sft."
    assert [text for text, *_ in problems(place, split="train")] == ["0?"]
    with pytest.raises(StepconfError, match="tra"):
        problems(place, split="tra")


def test_a_folder_of_files_of_any_name_is_one_set(tmp_path: Path) -> None:
    for i, name in enumerate(("part-00000.parquet", "part-00001.parquet", "train-00000-of-00001.parquet")):
        write_parquet(tmp_path / name, [{"question": f"{i}?", "answer": f"#### {i}"}])
    assert [text for text, *_ in problems(str(tmp_path))] == ["0?", "1?", "2?"]
    assert [text for text, *_ in problems(str(tmp_path), split="part")] == ["0?", "1?"]


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    code = """
        from stepconf.errors import StepconfError
        from stepconf.problems.load import *; from stepconf.recipe import ProblemsRecipe
        for name in ("gsm8k", "tablebench", "org/not-there", "org/not-there:config"):
            try:
                load_problems(name, ProblemsRecipe())
            except StepconfError as error:
                print(error.problem, "HINT", error.hint)
        """
    said = run_python(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)).strip().split("\n")
    assert len(said) == 4
    assert said[0].startswith("openai/gsm8k on the Hub: cannot be loaded (")
    assert said[1].startswith("Multilingual-Multimodal-NLP/TableBench on the Hub: cannot be loaded (")
    assert said[2].startswith("org/not-there on the Hub: cannot be loaded (")
    assert all("HINT Check the name" in line for line in said)


def test_importing_is_light() -> None:
    code = """
        import sys, stepconf.problems.load
        print(sorted({"datasets", "reasoning_gym", "torch", "pyarrow", "numpy", "sympy"} & set(sys.modules)))
        """
    assert run_python(code).strip() == "[]"


# Errors


@pytest.mark.parametrize(
    ("name", "options", "said", "hint"),
    [
        ("gsm8", {}, "Unknown problem set 'gsm8'", "Did you mean gsm8k"),
        ("zzz", {}, "Unknown problem set 'zzz'", "Named sets: aime24, aime25"),
        ("nowhere/file.jsonl", {}, "no such file", "path"),
        ("file.parquet", {}, "no such file", "path"),
        ("./nowhere/folder", {}, "no such file", "path"),
        ("gsm8k@nowhere.jsonl", {}, "nowhere.jsonl: no such file", "path"),
        ("gsm8k", {"split": "dev"}, "gsm8k has no split 'dev'", "train, test"),
        ("reasoning-gym:chain_sums", {}, "no task 'chain_sums'", "Did you mean chain_sum"),
        ("reasoning-gym:", {}, "no task ''", "Its tasks: ab, "),
        ("reasoning-gym:chain_sum?min_term=3", {}, "no setting 'min_term'", "Did you mean min_terms"),
        ("reasoning-gym:chain_sum?min_terms", {}, "no setting 'min_terms' \\(in", "Its settings: "),
        ("reasoning-gym:chain_sum?min_terms=9&max_terms=2", {}, "settings are refused", "'max_terms': 2"),
        ("reasoning-gym:chain_sum?min_terms=many", {}, "settings are refused", "'many'"),
        ("reasoning-gym:chain_sum?size=1e3", {}, "size=1000.0 is no number", "size=1000"),
        ("reasoning-gym:chain_sum?size=many", {}, "size='many' is no number", "size=1000"),
        ("reasoning-gym:chain_sum?size=99999999999999999999", {}, "size=9+ is no number", "size=1000"),
        (
            "reasoning-gym:chain_sum",
            {"answer_type": "maths"},
            "Unknown answer type 'maths'",
            "Choose one of math",
        ),
    ],
)
def test_sources_that_are_none(name: str, options: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(StepconfError, match=said) as error:
        load_problems(name, ProblemsRecipe(**options))
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("rows", "options", "said", "hint"),
    [
        (
            [{"task": 1, "key": 1}],
            {},
            "no column with the problem .*seen: task, key",
            "--problem-column COLUMN",
        ),
        (
            [{"questoin": 1}],
            {"problem_column": "question"},
            "called 'question'",
            "--problem-column questoin?",
        ),
        ([{"problem": "?"}], {}, "no column with the gold answer", "--answer-column COLUMN"),
        ([{"problem": 1, "key": 1}], {"answer_column": "keys"}, "called 'keys'", "--answer-column key?"),
        ([{"problem": 1, "answer": 1}], {"id_column": "uid"}, "called 'uid'", "--id-column COLUMN"),
        ([{"problem": 1, "answer": ""}] * 3, {}, r"can be used: no gold answer \(3\)", "--answer-column"),
        ([{}], {}, "no rows in it", "one row"),
    ],
)
def test_files_without_problems(
    tmp_path: Path, rows: list[Any], options: dict[str, Any], said: str, hint: str
) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(StepconfError, match=said) as error:
        load_problems(path, ProblemsRecipe(**options))
    assert error.value.problem.startswith(path)
    assert hint in error.value.hint


def test_a_set_name_with_a_file_of_another_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(StepconfError, match=r"tried table, question\); columns seen: problem, answer"):
        load_problems(f"tablebench@{path}", ProblemsRecipe())


def test_files_without_solutions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(
        StepconfError, match="tried solution, text, response, Solution, completion, steps"
    ) as error:
        load_solutions(path, ProblemsRecipe())
    assert error.value.hint == "Name it: --solution-column COLUMN"
    with pytest.raises(StepconfError, match="called 'lvel'") as error:
        load_solutions(path, ProblemsRecipe(steps_column="lvel"))
    assert error.value.hint == "Did you mean --steps-column level?"


def test_broken_parquet_and_folders(tmp_path: Path) -> None:
    whole = Path(write_parquet(tmp_path / "a.parquet", ROWS)).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    with pytest.raises(StepconfError, match="Parquet file is truncated"):
        problems(str(tmp_path / "cut.parquet"))
    (tmp_path / "hole.parquet").write_bytes(whole[:60] + whole[90:])
    with pytest.raises(StepconfError, match=r"hole.parquet: cannot be loaded \(") as error:
        problems(str(tmp_path / "hole.parquet"))
    assert "whole" in error.value.hint
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "shards").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS)[:0], tmp_path / "shards" / "0.parquet")
    with pytest.raises(StepconfError, match="no rows in it"):
        problems(str(tmp_path / "shards" / "0.parquet"))
    write_parquet(tmp_path / "shards" / "1.parquet", ROWS)
    assert len(problems(str(tmp_path / "shards"))) == 2, "an empty shard among others is no error"
    (tmp_path / "empty").mkdir()
    with pytest.raises(StepconfError, match=r"empty: cannot be loaded .*doesn't contain any data files"):
        problems(str(tmp_path / "empty"))


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return run.stdout
