"""Whatever is wrong with the input ends in one clear message and exit code 1, or in a counted drop."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from stepconf.run.tables import read_manifests
from tests.forked import forked
from tests.invariants import check_invariants, rows_of, samples_of
from tests.test_pipeline import GIVEN, PROBLEMS, write_jsonl
from tests.tiny import CONTEXT, VOCABULARY, Ended, stepconf, with_tiny

COMMAND = [sys.executable, "-c", "from stepconf.cli import main; main()"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)


@pytest.fixture
def given_file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "given.jsonl", GIVEN)


def check_refused(ended: Ended, *said: str) -> None:
    """Exit code 1, nothing on stdout, one `stepconf: ...` message with all of `said` and no traceback."""
    assert ended.code == 1, ended
    assert ended.out == ""
    assert ended.err.count("stepconf: ") == 1, ended.err
    assert "Traceback" not in ended.err
    for part in said:
        assert part in ended.err, f"{part!r} is not in: {ended.err}"


def drops_of(run: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((run / "summary.json").read_text())["drops"]
    return found


def _generate(*options: object) -> Ended:
    return stepconf("generate", "--out", "r", *with_tiny(), "--samples", 1, "--max-tokens", 4, *options)


# Sources


def test_unknown_problem_set() -> None:
    check_refused(_generate("--problems", "gsm9k"), "'gsm9k'", "gsm8k")


def test_no_such_file() -> None:
    check_refused(_generate("--problems", "none.jsonl"), "none.jsonl", "no such file")
    check_refused(stepconf("segment", "none.jsonl", "--out", "r"), "none.jsonl", "no such file")


def test_no_problems_named() -> None:
    check_refused(_generate(), "--problems")


@pytest.mark.parametrize("command", ["generate", "segment", "score", "verify"])
def test_missing_column(command: str, problems: Path, given_file: Path) -> None:
    if command == "generate":
        check_refused(
            _generate("--problems", problems, "--answer-column", "gold"), "'gold'", "answer", "level"
        )
        return
    check_refused(stepconf(command, problems, "--out", "r"), "solution", "--solution-column", "question")
    check_refused(
        stepconf(command, given_file, "--out", "r", "--problem-column", "task"), "'task'", "generator"
    )
    check_refused(stepconf(command, given_file, "--out", "r", "--id-column", "uid"), "'uid'", "generator")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _broken_line(path: Path) -> None:
    path.write_text('{"problem": "1 + 1?", "answer": "2", "solution": "2"}\n{"problem": "2 + 2?", "answ\n')


def _not_utf8(path: Path) -> None:
    path.write_bytes('{"problem": "1 + 1?", "answer": "2", "solution": "zwei für eins"}\n'.encode("latin-1"))


def _half_gzip(path: Path) -> None:
    line = b'{"problem": "1 + 1?", "answer": "2", "solution": "2"}\n'
    path.write_bytes(gzip.compress(line * 1000)[:-40])


def _half_parquet(path: Path) -> None:
    pl.DataFrame({"problem": ["1 + 1?"] * 100, "answer": ["2"] * 100, "solution": ["2"] * 100}).write_parquet(
        path
    )
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("command", ["generate", "segment", "score", "verify"])
@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (_empty, "a.jsonl", ["a.jsonl", "empty"]),
        (_broken_line, "a.jsonl", ["a.jsonl", "line 2", "broken JSON"]),
        (_not_utf8, "a.jsonl", ["a.jsonl", "line 1", "UTF-8", "0xfc"]),
        (_half_gzip, "a.jsonl.gz", ["a.jsonl.gz", "cut off"]),
        (_half_parquet, "a.parquet", ["a.parquet", "truncated"]),
    ],
)
def test_broken_files(command: str, spoil: Callable[[Path], None], name: str, said: list[str]) -> None:
    spoil(Path(name))
    if command == "generate":
        check_refused(_generate("--problems", name), *said)
    else:
        check_refused(stepconf(command, name, "--out", "r"), *said)
    assert not Path("r").exists(), "a run folder is left behind"


# Models


@pytest.mark.parametrize("command", ["generate", "score"])
def test_no_model(command: str, problems: Path, given_file: Path) -> None:
    where = ["generate", "--problems", problems] if command == "generate" else ["score", given_file]
    check_refused(stepconf(*where, "--out", "r", "--engine", "transformers"), "no model", "--model")
    for name in ("no-such-org/no-such-model", "./no-such-folder", "no such model"):
        ended = stepconf(*where, "--out", "r", "--engine", "transformers", "--model", name)
        check_refused(ended, f"'{name}'", "demo")
        assert len(ended.err) < 1000, ended.err
    Path("empty").mkdir()
    check_refused(stepconf(*where, "--out", "r", "--engine", "transformers", "--model", "empty"), "'empty'")


def test_a_wrong_model_does_not_spoil_the_folder(problems: Path) -> None:
    options = ["--problems", problems, "--out", "r", "--samples", 1, "--max-tokens", 4, "--verify", ""]
    ended = stepconf("generate", *options, "--engine", "transformers", "--model", "no-such-org/no-such-model")
    check_refused(ended, "no-such-org/no-such-model")
    assert _generate("--problems", problems, "--verify", "").code == 0


@pytest.mark.slow  # it waits for a network that is not there
def test_a_model_that_does_not_exist_ends_soon_without_a_network(problems: Path) -> None:
    """As a user would meet it: nothing says that we are offline."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    arguments = ["generate", "--problems", str(problems), "--out", "r", "--engine", "transformers"]
    ended = subprocess.run(
        [*COMMAND, *arguments, "--model", "no-such-org/no-such-model"],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    check_refused(Ended(ended.returncode, ended.stdout, ended.stderr), "'no-such-org/no-such-model'")


def test_a_chat_is_refused_without_a_template(problems: Path) -> None:
    check_refused(_generate("--problems", problems, "--set", "prompt.style=chat"), "chat template", "plain")


# Recipes and options


def test_unknown_recipe_key(problems: Path) -> None:
    Path("mine.yaml").write_text("sampling:\n  temprature: 1\n")
    ended = _generate("--problems", problems, "--recipe", "mine.yaml")
    check_refused(ended, "'sampling.temprature'", "mine.yaml", "sampling.temperature")
    ended = _generate("--problems", problems, "--set", "sampling.temprature=1")
    check_refused(ended, "'sampling.temprature'", "sampling.temperature")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", 0], ["limit", "0"]),
        (["--samples", 0], ["samples", "0"]),
        (["--temperature", -1], ["temperature", "-1"]),
        (["--verify", "final,oracle"], ["'oracle'", "final", "symbolic"]),
        (["--set", "verify.policy=oldest"], ["'oldest'", "first-decided"]),
        (["--engine", "llama"], ["llama", "vllm", "transformers"]),
        (["--set", "segment.mode=words"], ["words", "lines"]),
        (["--set", "chunk"], ["'chunk'", "="]),
        (["--set", "chunk=[1"], ["chunk=[1"]),
        (["--set", "segment.min_chars=9", "--set", "segment.max_chars=5"], ["min_chars", "9", "5"]),
        (["--recipe", "none.yaml"], ["none.yaml"]),
        (["--recipe", "list.yaml"], ["list.yaml", "list"]),
        (["--recipe", "broken.yaml"], ["broken.yaml", "YAML"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_options_out_of_range(options: list[object], said: list[str], problems: Path) -> None:
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("a: [1\n")
    check_refused(_generate("--problems", problems, *options), *said)
    assert not Path("r").exists(), "a run folder is left behind"


# Output folders


@pytest.mark.parametrize("command", ["generate", "segment"])
def test_output_folders_that_are_none(command: str, problems: Path, given_file: Path) -> None:
    where = (
        ["generate", "--problems", problems, *with_tiny(), "--verify", "", "--max-tokens", 4]
        if command == "generate"
        else ["segment", given_file]
    )
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    check_refused(stepconf(*where, "--out", "full"), "full", "not empty", "--out")
    assert [file.name for file in Path("full").iterdir()] == ["notes.txt"], "nothing is left or lost"
    check_refused(stepconf(*where, "--out", problems), "is a file", "--out")
    check_refused(stepconf(*where, "--out", problems / "below"), "problems.jsonl")
    Path("other").mkdir()
    Path("other/recipe.yaml").write_text("a: [1\n")
    Path("other/solutions").mkdir()
    Path("other/solutions/mine.parquet").write_text("mine")
    check_refused(stepconf(*where, "--out", "other"), "other")
    assert Path("other/solutions/mine.parquet").read_text() == "mine"
    Path("other/recipe.yaml").write_text("sampling: {temperature: 1}\n")
    check_refused(stepconf(*where, "--out", "other"), "other")
    assert Path("other/solutions/mine.parquet").read_text() == "mine"


def test_pairs_of_what_is_no_run(given_file: Path) -> None:
    Path("empty").mkdir()
    check_refused(stepconf("pairs", "empty"), "empty is not a run")
    check_refused(stepconf("pairs", "absent"), "absent is not a run")
    check_refused(stepconf("pairs", given_file), "is not a run")
    assert not Path("absent").exists()


def test_pairs_of_a_run_without_scores(given_file: Path) -> None:
    assert stepconf("segment", given_file, "--out", "r").code == 0
    check_refused(stepconf("pairs", "r"), "no scored tokens", "stepconf score")


def test_pairs_of_a_run_without_correct_steps(given_file: Path) -> None:
    assert stepconf("score", given_file, "--out", "r", *with_tiny(), "--verify", "").code == 0
    check_refused(stepconf("pairs", "r"), "no step", "correct", "--tau")
    made = stepconf("pairs", "r", "--tau", 0.5)
    assert made.code == 0, made.err
    check_refused(stepconf("pairs", "r", "--tau", 1.5), "tau", "1.5")
    check_refused(
        stepconf("pairs", "r", "--set", "pairs.quantile=0.5"), "pairs.quantile", "pairs.tau_quantile"
    )


# Items among many: counted


def test_solutions_without_text_or_tokens_are_counted() -> None:
    rows = [
        {"problem": "1 + 1?", "solution": ""},
        {"problem": "1 + 1?", "solution": " \n "},
        {"problem": "1 + 1?", "solution": None},
        {"problem": "1 + 1?", "solution": "1 + 1 = 2"},
    ]
    for command, options in (("segment", []), ("verify", []), ("score", with_tiny())):
        made = stepconf(command, write_jsonl(Path("s.jsonl"), rows), "--out", command, *options)
        assert made.code == 0, made.err
        solutions, _ = check_invariants(Path(command))
        assert len(solutions) == 1 and sum(drops_of(Path(command)).values()) == 3
        assert "3 no solution text" in made.out


def test_blank_steps_are_counted() -> None:
    rows = [{**GIVEN[0], "steps": ["One.", "  "]}, {**GIVEN[0], "steps": []}, GIVEN[1]]
    made = stepconf("segment", write_jsonl(Path("s.jsonl"), rows), "--out", "r")
    assert made.code == 0, made.err
    assert drops_of(Path("r")) == {"blank step": 1, "no steps": 1}


@pytest.mark.parametrize("given_steps", [False, True])
def test_a_prompt_longer_than_the_context_is_counted(given_steps: bool) -> None:
    long = "word " * CONTEXT
    rows = [
        {"problem": long, "answer": "1", "solution": "1"},
        {"problem": "1 + 1?", "answer": "2", "solution": "2"},
        {"problem": "2 + 2?", "answer": "4", "solution": long},
    ]
    file = write_jsonl(Path("s.jsonl"), rows)
    if given_steps:
        made = stepconf("score", file, "--out", "r", *with_tiny(), "--verify", "")
        assert drops_of(Path("r")) == {"solution longer than the context": 2}
    else:
        options = ["--samples", 3, "--max-tokens", 1000, "--verify", "", "--set", "prompt.stop=[never]"]
        made = _generate("--problems", file, *options)
        assert drops_of(Path("r"))["prompt longer than the context"] == 3
    assert made.code == 0, made.err
    solutions, _ = check_invariants(Path("r"), VOCABULARY)
    for one in solutions:
        assert len(one["prompt_token_ids"]) + one["n_tokens"] <= CONTEXT


def test_empty_samples_are_counted(problems: Path) -> None:
    """The stop string is what the model says first."""
    made = _generate("--problems", problems, "--set", 'prompt.stop=[""]', "--verify", "")
    assert made.code == 0, made.err
    assert drops_of(Path("r")) == {"empty solution": len(PROBLEMS)}
    assert rows_of(Path("r"), "solutions") == []
    check_refused(stepconf("pairs", "r"), "no step", "--tau")
    made = stepconf("pairs", "r", "--tau", 0.5)
    assert made.code == 0 and "none" in made.out, made.err


@pytest.mark.parametrize(
    "command", ["segment", *(pytest.param(one, marks=pytest.mark.slow) for one in ("verify", "score"))]
)
def test_a_hundred_thousand_characters_in_one_line(command: str) -> None:
    texts = ["x" * 100_000, "1 + 1 = 2. " * 9_000, "((" * 50_000, "1 + " * 25_000 + "1 = 2", "=1" * 50_000]
    rows = [{"problem": "1 + 1?", "answer": "2", "solution": text} for text in [*texts, "1 + 1 = 2"]]
    options = {"score": with_tiny(), "verify": ["--set", "verify.deadline_s=1"]}.get(command, [])
    made = stepconf(command, write_jsonl(Path("s.jsonl"), rows), "--out", "r", *options)
    assert made.code == 0, made.err
    solutions, steps = check_invariants(Path("r"))
    if command == "score":
        assert drops_of(Path("r")) == {"solution longer than the context": 5} and len(solutions) == 1
        return
    assert [one["text"] for one in solutions] == [row["solution"] for row in rows]
    if command == "verify":
        assert steps[-1]["label"] == "correct"


def test_text_that_no_font_shows(problems: Path) -> None:
    """Control characters, lone surrogates, right-to-left marks, a null byte: kept, or counted."""
    texts = [
        "a\x00b = 1",
        "\u202e1 + 1 = 2\u202c",
        "\x1b[31m2\x1b[0m",
        "2\u2028= 2",
        "e\u0301 = \u00e9",
        "𝟙 + 𝟙",
    ]
    rows = [{"problem": f"p{i}", "answer": "2", "solution": text} for i, text in enumerate(texts)]
    raw = "".join(json.dumps(row) + "\n" for row in [*rows, {"problem": "p", "solution": "lone \ud800"}])
    Path("s.jsonl").write_text(raw)
    made = stepconf("score", "s.jsonl", "--out", "r", *with_tiny())
    assert made.code == 0, made.err
    solutions, _ = check_invariants(Path("r"), VOCABULARY)
    assert [one["text"] for one in solutions] == texts
    assert drops_of(Path("r")) == {"not valid Unicode": 1}


# A device without room, and a person who has had enough: in processes of their own


@pytest.mark.slow  # test_chaos.py has one such case
def test_no_space_left_keeps_what_was_written(problems: Path, tmp_path: Path) -> None:
    assert forked(_arguments(problems), tmp_path).code == 0
    Path("r").rename("whole")
    largest = max(file.stat().st_size for file in Path("whole/solutions").iterdir())
    ended = forked(_arguments(problems), tmp_path, file_bytes=largest - 1)
    check_refused(Ended(ended.code, ended.out, ended.err), "too large", "committed is kept", "again")
    assert not list(Path("r").rglob("*.tmp"))
    kept = rows_of(Path("r"), "solutions")
    made = stepconf(*_arguments(problems))
    assert made.code == 0, made.err
    whole = rows_of(Path("r"), "solutions")
    assert all(row in whole for row in kept) and whole == rows_of(Path("whole"), "solutions")


def _arguments(problems: Path) -> list[str]:
    fixed = ["--samples", "4", "--max-tokens", "40", "--verify", ""]
    return ["generate", "--problems", str(problems), "--out", "r", *with_tiny(), *fixed]


def test_a_full_device_is_said_in_one_message(problems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second chunk's sync fails, as on a full file system that allocates late."""
    calls = 0

    def full(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        check_refused(stepconf(*_arguments(problems)), "No space left on device", "committed is kept")
    assert len(read_manifests(Path("r"))) == 1 and not list(Path("r").rglob("*.tmp"))
    assert len(rows_of(Path("r"), "solutions")) in (4, 8), "the chunk that came first"


@pytest.mark.parametrize(
    ("point", "at_least"),
    [
        (("stepconf.engines.transformers._draw", 41, "before"), 4),
        pytest.param(("os.replace", 4, "after"), 1, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_keeps_what_was_made_and_exits_130(
    point: tuple[str, int, str], at_least: int, tmp_path: Path
) -> None:
    """While the model runs: chunks that are sampled are verified and written first. While one is written."""
    rows = [{"problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(40)]
    many = write_jsonl(Path("many.jsonl"), rows)
    options = ["--samples", 2, "--max-tokens", 5, "--verify", "symbolic", "--set", "verify.workers=1"]
    arguments = ["generate", "--problems", many, "--out", "r", *with_tiny(), *options]
    ended = forked(arguments, tmp_path, at=point, sent=signal.SIGINT)
    assert ended.code == 130 and ended.out == "", ended
    assert "Traceback" not in ended.err and ended.err.count("stepconf: ") == 1, ended.err
    assert "again to continue" in ended.err
    check_invariants(Path("r"), VOCABULARY)
    chunks, rest = divmod(len(samples_of(Path("r"), "solutions")), 4)
    assert at_least <= chunks < 20 and not rest
    again = stepconf(*arguments)
    assert again.code == 0, again.err
    check_invariants(Path("r"), VOCABULARY)
    assert len(samples_of(Path("r"), "solutions")) == 80
