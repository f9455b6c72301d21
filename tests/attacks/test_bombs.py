"""Small files that are large once read: each command ends soon, in one message, and nothing is left behind."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepconf.core.agreement import MAX_VERIFIERS
from tests.edited_run import edit, rewrite
from tests.report.made_run import made_run
from tests.test_bad_input import check_refused
from tests.test_pipeline import GIVEN, PROBLEMS, write_jsonl
from tests.tiny import stepconf

pytestmark = pytest.mark.slow

DEEP = "[" * 100_000


def laughs(levels: int = 30) -> str:
    """Nine to the power of `levels` texts, in some hundreds of characters."""
    lines = ["model: demo", "engine:", "  options:", "    a0: &a0 [x]"]
    lines += [f"    a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


CYCLE = "model: demo\nengine:\n  options: &a\n    again: *a\n"
DEEP_YAML = "model: demo\nengine:\n  options:\n    a: " + DEEP
RECIPES = {
    "laughs": laughs(),
    "cycle": CYCLE,
    "deep": DEEP_YAML,
    "blocks": "- " * 40_000,
    "long": "a: " + "x" * 9**7,
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(recipe: str, run: Path) -> None:
    Path("r.yaml").write_text(RECIPES[recipe])
    for command in (
        ("generate", "--problems", "p.jsonl", "--out", "o"),
        ("train", run, "--model", "demo", "--out", "o"),
        ("pairs", run),
    ):
        check_refused(stepconf(*command, "--recipe", "r.yaml"), "r.yaml", "is not YAML as a recipe is")
    (run / "recipe.yaml").write_text("command: generate\n" + RECIPES[recipe])
    for command in (
        ("status", run),
        ("relabel", run, "--policy", "majority"),
        ("report", run),
        ("pairs", run),
    ):
        check_refused(stepconf(*command), "recipe.yaml", "is not YAML as a run has it")
    check_refused(stepconf("generate", "--problems", "p", "--out", "o", "--set", f"engine.options={DEEP[:9000]}"),
                  "100 levels deep")  # fmt: skip
    assert not Path("o").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", [DEEP, '{"a":' * 50_000, "[" * 150 + "]" * 150])
def test_json_of_a_run(text: str, run: Path) -> None:
    for name in ("metrics.json", "source.json", "summary.json"):
        kept = (run / name).read_bytes() if (run / name).exists() else None
        (run / name).write_text(text)
        for command in ("status", "check", "pairs"):
            ended = stepconf(command, run)
            assert ended.code in (0, 1) and "Traceback" not in ended.err, ended
        (run / name).unlink() if kept is None else (run / name).write_bytes(kept)
    manifest = run / "manifests" / "00001.json"
    manifest.write_text(text)
    for command in ("status", "pairs", "calibrate"):
        check_refused(stepconf(command, run), "00001.json is not JSON", "100 levels deep")
    ended = stepconf("check", run)
    assert ended.code == 1 and "100 levels deep" in ended.out


def test_numbers_of_manifests(run: Path) -> None:
    """Two numbers that Python prints, whose sum it does not."""
    for file in (run / "manifests").glob("0*.json"):
        manifest = json.loads(file.read_text()) | {"tokens": int("9" * 4300)}
        manifest.pop("checksum", None)
        file.write_text(json.dumps(manifest))
    check_refused(stepconf("status", run), "has no valid 'tokens'")


@pytest.mark.timeout(60)
def test_extra_columns(run: Path) -> None:
    def spoil(rows: list[dict[str, Any]]) -> None:
        rows[0]["extra"] = DEEP

    edit(run, "solutions", spoil, "00000")
    check_refused(
        stepconf("verify", run, "--verify", "symbolic", "--out", "v"), "column extra", "100 levels deep"
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("column", ["extra", "problem", "answer", "solution", "steps", "id"])
def test_rows_of_problems(column: str) -> None:
    for value in (DEEP, '{"a":' * 50_000, "9" * 10_000):
        Path("p.jsonl").write_text(json.dumps(PROBLEMS[0])[:-1] + f', "{column}": {value}}}\n')
        check_refused(stepconf("segment", "p.jsonl", "--out", "o"), "p.jsonl, line 1", "broken JSON")
        assert not Path("o").exists()
    # Less deep than Python gives up at: a row is left out and counted, the rest is read.
    nested = GIVEN[0] | {column: json.loads("[" * 300 + "]" * 300)}
    write_jsonl(Path("p.jsonl"), [nested, GIVEN[1]])
    ended = stepconf("segment", "p.jsonl", "--out", "o")
    assert "Traceback" not in ended.err and ended.code == 0, ended
    assert json.loads(Path("o/summary.json").read_text())["solutions"] >= 1


@pytest.mark.timeout(60)
def test_a_table_in_a_text(tmp_path: Path) -> None:
    table = '{"columns": ["a"], "data": [[' + "[" * 900 + "]" * 900 + "]]}"
    write_jsonl(Path("p.jsonl"), [GIVEN[0] | {"problem": table}, GIVEN[1]])
    ended = stepconf("segment", "p.jsonl", "--out", "o")
    assert ended.code == 0, ended


@pytest.mark.timeout(120)
def test_thousands_of_verifiers(run: Path) -> None:
    def speak(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            verdict = {"version": "1", "label": "correct", "score": None, "reason": "", "seconds": 0.0}
            row["verdicts"] = [
                verdict | {"verifier": f"v{i}", "label": ("correct", "incorrect")[i % 2], "reference": None}
                for i in range(5000)
            ]

    edit(run, "steps", speak)
    ended = stepconf("relabel", run, "--policy", "majority")
    assert ended.code == 0, ended
    assert f"{5000 - MAX_VERIFIERS:,}, not compared" in ended.out
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary["verifiers"]) == MAX_VERIFIERS and summary["other_verifiers"] == 5000 - MAX_VERIFIERS
    for command in (
        ("verify", run, "--verify", "symbolic", "--out", "v", "--report"),
        ("status", run),
        ("check", run),
        ("report", run),
        ("push", run, "me/set", "--dry-run", "--partial"),
    ):
        ended = stepconf(*command)
        assert "Traceback" not in ended.err and ended.code in (0, 1), ended
        assert len(ended.out) < 100_000


def with_metadata(
    run: Path, metadata: dict[bytes, bytes], tables: tuple[str, ...] = ("solutions", "steps")
) -> None:
    for table in tables:
        for file in sorted((run / table).glob("*.parquet")):
            rows = pq.read_table(file)
            rewrite(run, file, rows.replace_schema_metadata((rows.schema.metadata or {}) | metadata))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("metadata", [{b"model": b"\xff\xfe"}, {b"\xff": b"x"}, {b"vocabulary": b"9" * 5000}])
def test_schema_metadata_of_a_run(metadata: dict[bytes, bytes], run: Path) -> None:
    with_metadata(run, metadata)
    commands: list[tuple[Any, ...]] = [
        ("relabel", run, "--policy", "majority"),
        ("compact", run),
        ("pairs", run),
        ("calibrate", run),
        ("report", run),
        ("push", run, "me/set", "--dry-run"),
        ("verify", run, "--verify", "symbolic", "--out", "v"),
        ("train", run, "--model", "demo", "--out", "t"),
    ]
    for command in commands:
        ended = stepconf(*command)
        assert "Traceback" not in ended.err and ended.code in (0, 1), (command, ended)
        if ended.code == 1:
            assert ended.err.count("stepconf: ") == 1, (command, ended)
    if b"vocabulary" not in metadata:
        ended = stepconf("check", run)
        assert ended.code == 1 and "metadata: 'utf-8' codec" in ended.out
        check_refused(
            stepconf("verify", run, "--verify", "symbolic", "--out", "v"), "cannot be read", "utf-8"
        )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("value", [b"\xff\xfe", DEEP.encode(), b'{"info": ' + DEEP.encode(), b"null"])
@pytest.mark.parametrize("key", [b"huggingface", b"pandas", b"ARROW:schema", b"\xff"])
def test_schema_metadata_of_a_file_of_problems(key: bytes, value: bytes) -> None:
    rows = pa.Table.from_pylist([{"problem": "2 + 3?", "answer": "5", "solution": "2 + 3 = 5"}])
    pq.write_table(rows.replace_schema_metadata({key: value}), "p.parquet")
    ended = stepconf("segment", "p.parquet", "--out", "o")
    assert "Traceback" not in ended.err and ended.code in (0, 1), ended
