"""What the documents say can be typed: commands, options, keys, links, and Python that runs as it stands."""

import ast
import io
import re
import shlex
import shutil
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import stepconf as package
from stepconf.cli import app
from stepconf.core.signals import NOT_OF_TOKENS, SIGNALS
from stepconf.recipe import known_keys, load_recipe
from tests.edited_run import good_run
from tests.scripted_engine import PROBLEMS, ArithmeticEngine, branched_run
from tests.test_pipeline import write_jsonl
from tests.tiny import stepconf, tiny_model, with_tiny

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    *(ROOT / folder / "README.md" for folder in ("schemas", "stepconf", "recipes", "notebooks")),
    ROOT / "tests/benchmarks/README.md",
    ROOT / "stepconf/EXTENDING.md",
    ROOT / "stepconf/core/maths/README.md",
]
SCRIPTS = sorted((ROOT / "recipes").rglob("*.sbatch"))
GROUPS = sorted({key.partition(".")[0] for key in known_keys() if "." in key})
QUICK = "runs/demo"  # the run of the README's first commands
NAMED = ("runs/gsm8k", QUICK)  # runs that the documents read
MOST_LINES, MOST_BYTES = 150, 200_000


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def blocks(file: Path, language: str = "") -> list[str]:
    """The fenced blocks of a language; without one, those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", file.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [text for named, text in found if named == language]


def in_line(file: Path) -> list[str]:
    """What stands between back quotes in the prose."""
    prose = re.sub(r"^```.*?^```", "", file.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text.replace("\n", " ") for text in re.findall(r"`([^`]+)`", prose)]


def typed(file: Path) -> list[list[str]]:
    """The arguments of every stepconf command in a document's blocks, or in a script."""
    texts = [file.read_text("utf-8")] if file in SCRIPTS else blocks(file)
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("stepconf ")]


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters that the command would be called with; raises what a mistyped option raises."""
    command = get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    return dict(command.make_context(arguments[0], list(arguments[1:])).params)


COMMANDS = sorted({tuple(arguments) for file in [*DOCUMENTS, *SCRIPTS] for arguments in typed(file)})


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_have_these_options(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path))  # parsing a URL makes its copy's folder
    monkeypatch.chdir(ROOT)
    found = parsed(arguments)
    load_recipe(found.get("recipe"), None, found.get("sets"))


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_what_the_prose_names_exists(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEPCONF_CACHE", str(tmp_path))
    commands = get_command(app).commands  # type: ignore[attr-defined]
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    flags = {flag for command in commands.values() for param in command.params for flag in param.opts}
    for text in in_line(file):
        first, *rest = text.split()
        if first == "stepconf" and "..." not in rest and "COMMAND" not in rest:
            parsed(rest) if len(rest) > 1 else commands[rest[0]]
        if first == "make" and rest:
            assert rest[0] in targets, text
        if first.startswith("--"):
            assert first.partition("=")[0] in flags, text
        for key in re.findall(rf"^(?:--set )?'?((?:{'|'.join(GROUPS)})\.(?!json)[a-z_.]+)(?:=|$)", text):
            if not key.startswith("engine.options."):  # vLLM's own
                assert any(known == key or known.startswith(key + ".") for known in known_keys()), text


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_links_and_programs_lead_somewhere(file: Path) -> None:
    text = file.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, fragment = target.partition("#")
        if not path.startswith("https://"):
            linked = (file.parent / path).resolve() if path else file
            assert linked.exists(), target
            assert not fragment or fragment in anchors(linked), target
    for program in re.findall(r"python -m (tests\.[\w.]+|notebooks\.[\w.]+)", text):
        assert program.endswith(".NAME") or (ROOT / program.replace(".", "/")).with_suffix(".py").exists()


def anchors(file: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which the runs that the documents name are small ones."""
    for run in NAMED:
        shutil.copytree(good_run(), tmp_path / run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PYTHON = [(name(file), code) for file in DOCUMENTS for code in blocks(file, "python")]


@pytest.mark.parametrize(("file", "code"), PYTHON, ids=lambda value: value.splitlines()[0])
def test_python_runs_as_it_stands_and_gives_what_it_says(
    file: str, code: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "load_dataset" in code:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", runs / "cache")
    if "127.0.0.1" in code:
        compile(code, file, "exec")  # needs a server: tests/test_serve.py asks one the same
        return
    names: dict[str, Any] = {}
    comments = dict(comments_of(code))
    for node in ast.parse(code).body:
        said = comments.get(node.end_lineno or 0, "")
        if isinstance(node, ast.Expr):
            value = eval(compile(ast.Expression(node.value), file, "eval"), names)
            assert not said or repr(value) == said, ast.unparse(node)
        else:
            exec(compile(ast.Module([node], []), file, "exec"), names)


def comments_of(code: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("# ")


def small(arguments: Sequence[str], folder: Path) -> list[str]:
    """The command with options that make it small enough to run here; of an option, the last one counts."""
    problems = write_jsonl(folder / "problems.jsonl", PROBLEMS)
    sampled = ["--problems", problems, "--limit", 3, "--samples", 4, "--max-tokens", 96]
    plain = [
        "--set",
        "prompt.shots=[]",
        "--set",
        "prompt.instruction=Add.",
        "--set",
        "engine.max_model_len=null",
    ]
    options: dict[str, list[Any]] = {
        "generate": [*with_tiny(), *sampled, *plain],
        "calibrate": ["--resamples", 10],
        "train": ["--model", tiny_model(), "--set", "train.batch_size=4"],
        "infer": ["--engine", "transformers", "--model", tiny_model(), "--k", 2, "--max-tokens", 24],
    }
    return [*arguments, *map(str, options.get(arguments[0], []))]


RUNNABLE = [
    arguments
    for arguments in COMMANDS
    if arguments[0] in ("pairs", "calibrate", "infer", "train")
    and QUICK not in arguments  # below
    and not any("://" in word for word in arguments)
    and "--fit" not in arguments  # takes 30 problems: tests/test_fitted.py
    and arguments[:2] != ("train", "--recipe")  # whole rounds: tests/test_rounds.py
]


@pytest.mark.parametrize("arguments", RUNNABLE, ids=" ".join)
def test_commands_on_a_run_end_well(arguments: tuple[str, ...], runs: Path) -> None:
    ended = stepconf(*small(arguments, runs))
    assert ended.code == 0, ended.err


def test_the_first_commands_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stepconf").symlink_to(ROOT / "stepconf")  # where the recipe is
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine())
    commands = [arguments for arguments in typed(README) if QUICK in arguments]
    assert [arguments[0] for arguments in commands] == ["generate", "pairs", "calibrate"]
    for arguments, next_ in zip(
        commands, ["stepconf pairs runs/demo", "Run runs/demo", "runs/demo/"], strict=True
    ):
        ended = stepconf(*small(arguments, tmp_path))
        assert ended.code == 0 and next_ in ended.out, ended.err


def labels(table: str) -> set[str]:
    """What stands in the first column of tables, without lines that go on with the one before."""
    cells = (line.split("│")[1].rstrip() for line in table.splitlines() if line.startswith("│"))
    return {cell for cell in cells if cell.strip() not in ("", "...")}


def test_the_output_shown_has_the_rows_of_the_real_one(tmp_path: Path) -> None:
    run = shutil.copytree(branched_run(), tmp_path / "run")
    printed = stepconf("pairs", run).out + stepconf("calibrate", run, "--resamples", 10).out
    shown = labels("\n".join(blocks(README, "text")))
    assert len(shown) > 10 and shown <= labels(printed)


def test_the_readme_is_an_open_door() -> None:
    text = README.read_text("utf-8")
    assert text.count("\n") <= MOST_LINES
    (picture,) = re.findall(r'<img src="([^"]+)"', text)
    assert (ROOT / picture).stat().st_size <= MOST_BYTES


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (cited["cff-version"], cited["title"], cited["version"]) == (
        "1.2.0",
        "stepconf",
        package.__version__,
    )
    assert cited["authors"] and all(one["title"] and one["authors"] for one in cited["references"])
    assert f"version = {{{package.__version__}}}" in README.read_text("utf-8")


def test_the_table_of_signals_is_the_declared_one() -> None:
    ranking = [one for one in (*SIGNALS, *NOT_OF_TOKENS) if one.higher_is_better is not None]
    rows = [
        f"| `{one.name}` | {one.described} | {'high' if one.higher_is_better else 'low'} | {one.source} |"
        for one in ranking
    ]
    assert "\n".join(rows) in (ROOT / "notebooks/README.md").read_text("utf-8")
