"""`stepconf check`: nothing in a good run; each seeded defect found, named, and alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepconf.core.checks.findings import CATALOGUE
from stepconf.core.ids import problem_id
from tests.edited_run import Row, edit, good_run, rewrite, with_lists_of_others
from tests.invariants import check_invariants
from tests.scripted_engine import branched_run
from tests.test_pipeline import write_jsonl
from tests.tiny import VOCABULARY, stepconf

NAN = float("nan")
Seed = Callable[[Path], None]
CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. She writes "
    "every sale into a blue book that her mother gave to her on the first day of school. How many?"
)


@pytest.fixture(scope="module")
def good() -> Path:
    return good_run()


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def found(run: Path, *options: object) -> dict[str, dict[str, Any]]:
    ended = stepconf("check", run, "--json", *options)
    report = json.loads(ended.out)
    assert ended.code == (0 if report["ok"] else 1)
    assert report["ok"] == all(one["severity"] == "warning" for one in report["findings"])
    return {one["check"]: one for one in report["findings"]}


def test_nothing_is_found_in_a_good_run(good: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in good.rglob("*")}
    assert found(good) == {}
    shown = stepconf("check", good)
    assert shown.code == 0 and "Nothing found." in shown.out
    assert {file: file.stat().st_mtime_ns for file in good.rglob("*")} == before
    rows = json.loads(stepconf("check", good, "--json").out)["facts"]["rows"]
    assert rows["solutions"] >= 24 and rows["steps"] > 24 and rows["pairs"] > 0


def test_lists_may_be_as_others_write_them(run: Path) -> None:
    for table in ("solutions", "steps", "pairs"):
        for file in (run / table).glob("*.parquet"):
            rewrite(run, file, with_lists_of_others(pq.read_table(file)))
    assert found(run) == {}


def with_tokens(rows: list[Row], n: int = 2) -> Row:
    """The first row with at least n tokens."""
    return next(row for row in rows if len(row["token_ids"]) >= n)


def many_steps(rows: list[Row]) -> Row:
    return next(row for row in rows if row["n_steps"] > 1)


def seed(table: str, change: Callable[[list[Row]], Any]) -> Seed:
    """Change the rows of one chunk."""
    return lambda run: edit(run, table, change, "00001")


def put(pick: Callable[[list[Row]], Row], **values: Any) -> Callable[[list[Row]], Any]:
    return lambda rows: pick(rows).update(values)


def first(rows: list[Row]) -> Row:
    return rows[0]


def put_token(column: str, value: float) -> Callable[[list[Row]], Any]:
    return lambda rows: with_tokens(rows)[column].__setitem__(0, value)


def truncated(run: Path) -> None:
    file = run / "steps/part-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])


def flipped(run: Path) -> None:
    file = run / "steps/part-00001.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 8
    file.write_bytes(data)


def no_column(run: Path) -> None:
    file = run / "steps/part-00001.parquet"
    rewrite(run, file, pq.read_table(file).drop_columns(["perplexity"]))


def nulls(run: Path) -> None:
    file = run / "steps/part-00001.parquet"
    rows = pq.read_table(file)
    schema = pa.schema([field.with_nullable(True) for field in rows.schema], rows.schema.metadata)
    plain = rows.to_pylist()
    plain[0]["label_source"] = None
    rewrite(run, file, pa.Table.from_pylist(plain, schema=schema))


def null_in_a_list(run: Path) -> None:
    file = run / "steps/part-00001.parquet"
    rows = with_lists_of_others(pq.read_table(file))
    plain = rows.to_pylist()
    with_tokens(plain)["token_max_probs"][0] = None
    rewrite(run, file, pa.Table.from_pylist(plain, schema=rows.schema))


def two_alike(run: Path) -> None:
    """Two problems of the chunk become one text but for a word, with ids that fit."""
    texts = [CLIPS, CLIPS.replace("How many?", "So how many?")]
    of: dict[str, tuple[str, str]] = {}

    def rename(rows: list[Row]) -> None:
        for row in rows:
            if "problem" in row:
                old = row["problem_id"]
                text = of[old][1] if old in of else texts[len(of)]
                of[old] = problem_id(text, row["gold_answer"]), text
                row["problem"] = text
            if row["problem_id"] in of:
                row["problem_id"] = of[row["problem_id"]][0]

    for table in ("solutions", "steps", "pairs"):
        edit(run, table, rename, "00001")


def copy_of_first(rows: list[Row]) -> None:
    rows.append(dict(rows[0]))


def swap_tokens(rows: list[Row]) -> None:
    row = with_tokens(rows)
    row["token_ids"][0] = (row["token_ids"][0] + 1) % VOCABULARY


def other_letter(rows: list[Row]) -> None:
    rows[0]["text"] = ("b" if rows[0]["text"][0] == "a" else "a") + rows[0]["text"][1:]


def one_shorter(rows: list[Row]) -> None:
    with_tokens(rows)["token_logprobs"].pop()


def longer(rows: list[Row]) -> None:
    rows[0]["char_end"] += 1


def mistaken_flag(rows: list[Row]) -> None:
    rows[0]["is_first_error"] = not rows[0]["is_first_error"]


def turned_over(run: Path) -> None:
    assert stepconf("relabel", run, "--policy", "first-decided", "--noise", 0.5).code == 0


def all_correct(run: Path) -> None:
    def say(rows: list[Row]) -> None:
        for row in rows:
            row["verdicts"][-1]["label"] = row["label"] = "unknown"
            row["is_first_error"] = row["after_error"] = False
            row["verdicts"] = [v | {"label": "unknown"} for v in row["verdicts"]]

    edit(run, "steps", say)


def of_tokens(run: Path) -> None:
    (run / "recipe.yaml").write_text(
        (run / "recipe.yaml").read_text() + "# key: hf_" + "aB3" * 11 + "\n", encoding="utf-8"
    )


ODD_COUNT = {"step-count", "char-spans", "token-spans", "step-text", "aggregate"}
SECRET = json.dumps({"note": "use sk-" + "Q7" * 15})
PERSONAL = json.dumps({"author": "maria.musterfrau@uni-bonn.de, +49 228 735 3333"})
SEEDS: dict[str, tuple[Seed, set[str]]] = {
    "a truncated shard": (truncated, {"shard-size", "shard-unreadable"}),
    "a flipped bit": (flipped, {"shard-checksum"}),
    "a missing shard": (lambda run: (run / "steps/part-00001.parquet").unlink(), {"shard-missing"}),
    "a missing manifest": (
        lambda run: (run / "manifests/00001.json").unlink(),
        {"incomplete", "summary", "shard-stray", "orphan-pair"},
    ),
    "a torn manifest": (
        lambda run: (run / "manifests/pairs.json").write_text('{"chunk": "pai'),  # type: ignore[misc]
        {"manifest", "summary", "shard-stray"},
    ),
    "a stopped run": (lambda run: (run / "summary.json").unlink(), {"incomplete"}),
    "a column less": (no_column, {"schema"}),
    "a missing value": (nulls, {"null"}),
    "a missing number of a token": (
        null_in_a_list,
        {"null", "entropy-range", "logprob-range", "probability-range", "aggregate"},
    ),
    "a label of another kind": (seed("steps", put(first, label="neutral")), {"value", "label-source", "first-error"}),
    "a label that nobody gave": (all_correct, {"balance"}),
    "a step twice": (seed("steps", copy_of_first), ODD_COUNT | {"duplicate-id", "summary"}),
    "a step less": (seed("steps", lambda rows: rows.remove(many_steps(rows))), ODD_COUNT | {"summary"}),
    "a step of nowhere": (seed("steps", put(many_steps, solution_id="0" * 20)), ODD_COUNT | {"orphan-step"}),
    "a pair of nowhere": (seed("pairs", put(first, solution_id="0" * 20)), {"orphan-pair"}),
    "a pair of no step": (seed("pairs", put(first, step_index=99)), {"orphan-pair"}),
    "a pair of one side": (lambda run: edit(run, "pairs", put(first, chosen="x", rejected="x")), {"pair-sides"}),
    "another problem": (seed("steps", put(first, problem_id="0" * 20)), {"foreign-problem"}),
    "an edited problem": (seed("solutions", put(first, problem="What is 2 + 30?")), {"problem-id"}),
    "a span too long": (seed("steps", longer), {"char-spans"}),
    "an edited step": (seed("steps", other_letter), {"step-text"}),
    "a token less": (seed("steps", one_shorter), {"list-lengths"}),
    "another token": (seed("steps", swap_tokens), {"token-ids"}),
    "a token beyond the vocabulary": (seed("steps", put_token("token_ids", VOCABULARY)), {"token-range", "token-ids"}),
    "an entropy above ln V": (seed("steps", put_token("token_entropies", 9.0)), {"entropy-range", "aggregate"}),
    "an entropy that is none": (seed("steps", put_token("token_entropies", NAN)), {"entropy-range", "aggregate"}),
    "a certain log-probability": (seed("steps", put_token("token_logprobs", 0.5)), {"logprob-range", "aggregate"}),
    "a probability above one": (seed("steps", put_token("token_max_probs", 1.5)), {"probability-range", "aggregate"}),
    "a negative varentropy": (seed("steps", put_token("token_varentropies", -0.1)), {"entropy-range"}),
    "a varentropy that is none": (seed("steps", put_token("token_varentropies", NAN)), {"entropy-range"}),
    "a mean log-probability above 0": (seed("steps", put_token("token_mean_logprobs", 0.1)), {"logprob-range"}),
    "a second above the first": (seed("steps", put_token("token_second_probs", 1.1)), {"probability-range"}),
    "a varentropy less": (seed("steps", lambda rows: with_tokens(rows)["token_varentropies"].pop()), {"list-lengths"}),
    "a certain fitted confidence": (seed("steps", put(with_tokens, fitted_confidence=1.2)), {"value"}),
    "a mean of something else": (seed("steps", put(with_tokens, entropy_mean=0.123)), {"aggregate"}),
    "a negated confidence": (seed("steps", put(with_tokens, confidence=-0.5)), {"aggregate", "value"}),
    "labels turned over": (turned_over, {"noise"}),
    "a flag on the wrong step": (seed("steps", mistaken_flag), {"first-error"}),
    "a prefix of something else": (seed("steps", put(first, prefix_id="0" * 20)), {"prefix-id"}),
    "a prefix that is missing": (seed("steps", put(first, prefix_id=None)), {"prefix-id"}),
    "a score out of range": (seed("steps", lambda rows: first(rows)["verdicts"][-1].update(score=1.5)), {"verdict"}),
    "a key in a source's column": (seed("solutions", put(first, extra=SECRET)), {"secret"}),
    "a key in the recipe": (of_tokens, {"secret"}),
    "a person": (seed("solutions", put(first, extra=PERSONAL)), {"personal"}),
    "two problems alike": (two_alike, {"near-duplicate"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_defect_is_found_and_named(run: Path, name: str) -> None:
    plant, expected = SEEDS[name]
    plant(run)
    seen = found(run)
    if name == "a flipped bit":  # what else a flipped bit does depends on where it falls
        assert "shard-checksum" in seen
        return
    # A step more or less may also move the first error, as it happens to be labelled, and the steps beside others.
    moved = {"first-error", "after-error", "prefix-id"}
    allowed = expected | (moved if name.startswith("a step ") else set())
    assert expected <= set(seen) <= allowed, {check: one["examples"] for check, one in seen.items()}
    assert all(one["count"] >= 1 and one["examples"] and all(one["examples"]) for one in seen.values())


def test_a_damaged_shard_is_named(run: Path) -> None:
    truncated(run)
    shown = stepconf("check", run, columns=160)
    assert shown.code == 1 and "steps/part-00001.parquet" in shown.out and "were written" in shown.out


def test_a_secret_is_not_repeated(run: Path) -> None:
    edit(run, "solutions", put(first, extra=SECRET), "00001")
    ended = stepconf("check", run)
    assert ended.code == 1 and "Q7Q7" not in ended.out + ended.err and "sk-Q" in ended.out


def test_a_run_need_not_be_finished(run: Path) -> None:
    (run / "summary.json").unlink()
    assert set(found(run)) == {"incomplete"} and found(run, "--partial") == {}


def test_leaks_are_found_in_long_and_short_problems(run: Path, tmp_path: Path) -> None:
    two_alike(run)
    long = write_jsonl(
        tmp_path / "long.jsonl", [{"problem": "It is known that " + CLIPS.upper(), "answer": "72"}]
    )
    other = write_jsonl(
        tmp_path / "other.jsonl", [{"problem": CLIPS.replace("of her", "of his"), "answer": "72"}]
    )
    short = write_jsonl(tmp_path / "short.jsonl", [{"problem": "What is 0 + 1?", "answer": "1"}])
    against = [part for file in (long, other, short) for part in ("--against", file)]
    seen = found(run, *against)
    assert set(seen) == {"near-duplicate", "leak"}
    assert seen["leak"]["count"] == 4, "two problems in the first, and in the second where enough words agree"
    facts = json.loads(stepconf("check", run, "--json", *against).out)["facts"]["leaks"]
    assert [leak["problems"] for leak in facts.values()] == [2, 2, 0], "five words say nothing"


def test_what_is_no_run_and_what_is_no_set(good: Path, tmp_path: Path) -> None:
    assert "not a run folder" in stepconf("check", tmp_path).err
    ended = stepconf("check", good, "--against", tmp_path / "nothing.jsonl")
    assert ended.code == 1 and "nothing.jsonl" in ended.err


def a_branch(rows: list[Row]) -> Row:
    return next(row for row in rows if row["parent_solution_id"])


def a_late_branch(rows: list[Row]) -> Row:
    """One whose every step comes after an error of its parent."""
    return next(row for row in rows if row["step_index"] == 0 and row["after_error"])


def before_the_parent(rows: list[Row]) -> None:
    rows.insert(0, rows.pop(rows.index(a_branch(rows))))


def as_a_stranger(rows: list[Row]) -> None:
    """Its parent becomes a solution of another problem."""
    branch = a_branch(rows)
    other = next(row for row in rows if row["problem_id"] != branch["problem_id"])
    branch["parent_solution_id"] = other["solution_id"]
    rows.append(rows.pop(rows.index(branch)))


def of_other_tokens(rows: list[Row]) -> None:
    ids = a_branch(rows)["prompt_token_ids"]
    ids[-1] = (ids[-1] + 1) % VOCABULARY


def of_a_shorter_prompt(rows: list[Row]) -> None:
    a_branch(rows)["prompt_token_ids"].pop()


IN_BRANCHES: dict[str, tuple[str, Callable[[list[Row]], Any], set[str]]] = {
    "no parent": ("solutions", put(a_branch, parent_solution_id="0" * 20), {"branch-parent"}),
    "a parent after it": ("solutions", before_the_parent, {"branch-parent"}),
    "a parent of another problem": ("solutions", as_a_stranger, {"branch-parent"}),
    "no such step": ("solutions", put(a_branch, branch_step=99), {"branch-parent"}),
    "a step below 0": ("solutions", put(a_branch, branch_step=-1), {"branch-parent"}),
    "no step at all": ("solutions", put(a_branch, branch_step=None), {"branch-parent"}),
    "another prompt": ("solutions", of_other_tokens, {"branch-prompt", "prefix-id"}),
    "a shorter prompt": ("solutions", of_a_shorter_prompt, {"branch-prompt", "prefix-id"}),
    "another prefix than its sibling": ("steps", put(first, prefix_id="0" * 20), {"prefix-id"}),
    "an error forgotten": ("steps", put(a_late_branch, after_error=False), {"after-error"}),
    "an error invented": ("steps", put(first, after_error=True), {"after-error"}),
}


def test_nothing_is_found_in_a_good_run_with_branches() -> None:
    assert set(found(branched_run())) <= {"repeated-samples"}
    check_invariants(branched_run(), VOCABULARY)


@pytest.mark.parametrize("name", IN_BRANCHES)
def test_a_defect_of_branches_is_found(name: str, tmp_path: Path) -> None:
    table, plant, expected = IN_BRANCHES[name]
    run = Path(shutil.copytree(branched_run(), tmp_path / "run"))
    edit(run, table, plant, "00000")
    # What hangs on its parent cannot be checked without it.
    allowed = expected | ({"after-error", "first-error"} if expected == {"branch-parent"} else set())
    assert expected <= set(found(run)) <= allowed | {"repeated-samples"}


def test_most_of_the_catalogue_is_seeded() -> None:
    expected = set().union(*(checks for *_, checks in [*SEEDS.values(), *IN_BRANCHES.values()]))
    assert set(CATALOGUE) - expected <= {
        "shard-rows",
        "problem-id",
        "no-steps",
        "leak",
        "duplicate-problem",
        "repeated-samples",
        "shard-checksum",
    }
