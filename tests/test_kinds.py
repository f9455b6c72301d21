"""Verifiers, strategies and engines of one's own: those of EXTENDING.md, used as its reader would use them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from stepconf import pipeline
from stepconf.contracts import broken, kind_of
from stepconf.errors import StepconfError
from stepconf.kinds import ENGINES, KINDS, PAIR_STRATEGIES, STRATEGIES, VERIFIERS
from stepconf.recipe import Recipe, load_recipe, with_policy_of
from stepconf.serving.chat import Refused, read_request
from stepconf.verifiers.base import Verifier
from tests.scripted_engine import branched_run
from tests.tiny import tiny_model

PAGE = Path(__file__).parents[1] / "stepconf" / "EXTENDING.md"
EXAMPLES = {
    code.split("\n", 1)[0].removeprefix("# "): code
    for code in re.findall(r"```python\n(# \w+\.py\n.*?)```", PAGE.read_text(), re.S)
}
Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Types a command in a folder outside the checkout that holds the examples."""
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = [str(Path(sys.executable).parent / "stepconf")]
        if arguments[0] == "-m":
            program = [sys.executable]
        ended = subprocess.run(
            [*program, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended

    return run


def solutions(folder: Path) -> Path:
    file = folder / "solutions.jsonl"
    text = "First 3 kg + 4 m = 7.\n\nThen 2 + 2 = 4.\n\nSo it is \\boxed{4}."
    file.write_text(json.dumps({"problem": "What is 2 + 2?", "answer": "4", "solution": text}))
    return file


def test_examples_are_short() -> None:
    assert set(EXAMPLES) == {f"my_{what}.py" for what in ("checks", "pairs", "signals", "search", "engine")}
    for name, code in EXAMPLES.items():
        own = [line for line in code.splitlines()[1:] if line.strip()]
        assert len(own) <= 25, f"{name}: {len(own)} lines"


def test_a_verifier_out_of_a_function(typed: Typed, tmp_path: Path) -> None:
    typed("verify", solutions(tmp_path), "--verify", "symbolic,my_checks:units", "--out", "run")
    steps = pl.read_parquet(tmp_path / "run" / "steps" / "*.parquet").sort("step_index")
    first = [one for one in steps["verdicts"][0].to_list() if one["verifier"] == "my_checks:units"]
    assert [(one["label"], one["reason"]) for one in first] == [("incorrect", "adds a mass to a length")]
    assert first[0]["version"].startswith("source-")
    assert steps["label"].to_list()[:2] == ["incorrect", "correct"]
    assert "ok" in typed("-m", "stepconf.contracts", "my_checks:units").stdout


def test_a_pair_strategy(typed: Typed, tmp_path: Path) -> None:
    shutil.copytree(branched_run(), tmp_path / "run")
    typed("pairs", "run", "--strategy", "my_pairs:SUREST")
    pairs = pl.read_parquet(tmp_path / "run" / "pairs" / "*.parquet")
    assert pairs.height and set(pairs["kind"]) == {"incorrect"}
    assert "FAILS" not in typed("-m", "stepconf.contracts", "my_pairs:SUREST").stdout


def test_a_signal(typed: Typed, tmp_path: Path) -> None:
    shutil.copytree(branched_run(), tmp_path / "run")
    found = json.loads(
        typed("calibrate", "run", "--signal", "my_signals:TAIL", "--resamples", 20, "--json").stdout
    )
    assert 0 <= found["steps"]["signals"]["entropy_tail"]["auroc"]["estimate"] <= 1
    assert "FAILS" not in typed("-m", "stepconf.contracts", "my_signals:TAIL").stdout


def test_an_inference_strategy(typed: Typed, tmp_path: Path) -> None:
    model = ["--model", tiny_model(), "--engine", "transformers", "--set", "sampling.max_tokens=8"]
    typed("infer", "What is 3 + 4?", *model, "--strategy", "my_search:TWICE", "--out", "answers.jsonl")
    (answer,) = map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    assert answer["strategy"] == "my_search:TWICE" and answer["requests"] in (1, 2)
    assert "FAILS" not in typed("-m", "stepconf.contracts", "my_search:TWICE").stdout


def test_an_engine(typed: Typed, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"problem": "What is 2 + 2?", "answer": "4"}))
    usual = ["--model", tiny_model(), "--problems", problems, "--samples", 2, "--max-tokens", 12]
    typed("generate", *usual, "--engine", "my_engine:UNIFORM", "--branch", "none", "--out", "run")
    steps = pl.read_parquet(tmp_path / "run" / "steps" / "*.parquet")
    assert steps["entropy_mean"].to_list() == pytest.approx([pl.Series([300.0]).log()[0]] * steps.height)
    checked = typed("-m", "stepconf.contracts", "my_engine:UNIFORM", "--model", tiny_model()).stdout
    assert "FAILS" not in checked and "the same seeds" in checked


@pytest.mark.parametrize("name", ["final", "symbolic", *PAIR_STRATEGIES.built_in, *STRATEGIES.built_in])
def test_what_comes_with_stepconf_keeps_its_promises(name: str) -> None:
    assert broken(name) == []


def test_the_reference_engine_keeps_its_promises() -> None:
    assert broken("transformers", str(tiny_model())) == []


BROKEN = {
    "in its range": (
        "MINE",
        """\
        from stepconf.core.signals import Signal
        MINE = Signal("worst", "nats", "negative entropy", True, lambda p, h, q: -max(h), low=0)
        """,
    ),
    "one thing of each step": ("units", "def units(problem, steps):\n    return [True]\n"),
    "the same when asked again": (
        "units",
        "n = []\ndef units(problem, steps):\n    n.append(1)\n    return [len(n) % 2 == 0] * len(steps)\n",
    ),
    "whatever the text": (
        "units",
        "def units(problem, steps):\n    return [problem[0] == 'W' or None for step in steps]\n",
    ),
    "after one prefix": (
        "MINE",
        """\
        import polars as pl
        from stepconf.core.pairs.frames import Choice, PairStrategy, chosen_pairs
        def choose(frames, rules):
            rows = frames.steps.with_columns(
                origin="row", chosen=pl.col("row").shift(-1), rejected="row", kind=pl.lit("incorrect"))
            return Choice(chosen_pairs(rows.filter(pl.col("chosen").is_not_null())), {})
        MINE = PairStrategy(choose)
        """,
    ),
    "counts all tokens": (
        "MINE",
        """\
        from dataclasses import replace
        from stepconf.inference.base import Spent, Strategy
        from stepconf.inference.whole import one
        def search(question, setting):
            return replace((yield from one(question, setting)), spent=Spent())
        MINE = Strategy(search, draws=1)
        """,
    ),
    "draws what it says": (
        "MINE",
        """\
        from stepconf.inference.base import Strategy
        from stepconf.inference.whole import Draws
        def search(question, setting):
            drawn = Draws(question, setting)
            yield from drawn.draw([(question.prompts[0], setting.infer.k + 1)])
            return drawn.result((0,))
        MINE = Strategy(search, draws="at most k")
        """,
    ),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_found(promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, code = BROKEN[promise]
    module = f"broken_{len(promise)}_{attribute.lower()}"
    (tmp_path / f"{module}.py").write_text(dedent(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = broken(f"{module}:{attribute}")
    assert any(promise in one for one in found), found


def test_names_are_refused_with_what_to_type() -> None:
    for kind in KINDS:
        with pytest.raises(StepconfError, match=f"unknown {kind.what} 'nosuch'") as refused:
            kind.check("nosuch")
        assert all(name in refused.value.hint for name in kind.built_in)
        with pytest.raises(StepconfError, match="cannot be imported: ModuleNotFoundError"):
            kind.load("no_such_module:thing")
        with pytest.raises(StepconfError, match=r"no 'nosuch' in stepconf\.kinds"):
            kind.load("stepconf.kinds:nosuch")
        with pytest.raises(StepconfError, match="is of type Kind, and no"):
            kind.load("stepconf.kinds:ENGINES")
    with pytest.raises(StepconfError, match="nothing is called 'nosuch'"):
        kind_of("nosuch")
    assert all(kind_of(name) is kind for kind in KINDS for name in kind.built_in)


def test_every_name_in_the_tables_is_there() -> None:
    for kind in KINDS:
        for name in kind.built_in:
            kind.load(name)


def test_a_file_of_the_folder_does_not_shadow_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polars.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "mine_beside.py").write_text(
        "import polars\ndef f(problem, steps):\n    return [None] * len(steps)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(VERIFIERS.load("mine_beside:f"), Verifier) and sys.path[-1] == str(tmp_path)


def test_code_of_a_run_or_a_client_is_not_run() -> None:
    theirs = {"model": "demo", "engine": {"name": "their_lab:ENGINE"}}
    with pytest.raises(StepconfError, match="their_lab:ENGINE") as refused:
        with_policy_of(Recipe(), theirs)
    assert "--engine their_lab:ENGINE" in refused.value.hint
    mine = load_recipe(None, {"engine.name": "their_lab:ENGINE"})
    assert with_policy_of(mine, theirs).engine.name == "their_lab:ENGINE"
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "strategy": "their_lab:SEARCH",
    }
    with pytest.raises(Refused, match="not served"):
        read_request(json.dumps(asked).encode(), Recipe(), "m")


def test_a_verifier_that_is_not_there_costs_no_sampling(tmp_path: Path) -> None:
    recipe = load_recipe(None, {"problems.source": "nothing.jsonl", "verify.verifiers": ["no_lab:checks"]})
    for command in (pipeline.generate, pipeline.score, pipeline.segment, pipeline.verify):
        with pytest.raises(StepconfError, match="no_lab:checks cannot be imported"):
            command(recipe, tmp_path / "run", lambda stage, n: None)
    assert not (tmp_path / "run").exists()


def test_an_engine_is_named_before_anything_is_loaded() -> None:
    with pytest.raises(StepconfError, match="unknown engine 'sglang'"):
        load_recipe(None, {"engine.name": "sglang"})
    assert ENGINES.built_in
