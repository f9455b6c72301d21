"""A model folder that brings Python code: nothing of it runs unless the recipe says so."""

import ast
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import stepconf as package
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe, identity, load_recipe, recipe_of, with_policy_of
from tests.tiny import stepconf, tiny_model, with_tiny

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

Path({canary!r}).touch()


class CanaryConfig(LlamaConfig):
    model_type = "homemade"


class CanaryModel(LlamaForCausalLM):
    config_class = CanaryConfig


class CanaryBody(LlamaModel):
    config_class = CanaryConfig


class CanaryTokenizer(PreTrainedTokenizerFast):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "canary.CanaryConfig",
    "AutoModel": "canary.CanaryBody",
    "AutoModelForCausalLM": "canary.CanaryModel",
}
PROBLEM = {"problem": "3 + 4?", "answer": "7", "solution": "3 + 4 = 7\n"}


class Folder:
    """A model that only its own code can load, and the file that this code writes."""

    def __init__(self, folder: Path) -> None:
        self.model, self.canary = folder / "model", folder / "canary"
        shutil.copytree(tiny_model(), self.model)
        self._change("config.json", {"model_type": "homemade", "auto_map": AUTO_MAP})
        own = {"tokenizer_class": "CanaryTokenizer"}
        own_map = {"auto_map": {"AutoTokenizer": [None, "canary.CanaryTokenizer"]}}
        self._change("tokenizer_config.json", own | own_map)
        (self.model / "canary.py").write_text(CODE.format(canary=str(self.canary)))
        self.file = folder / "problems.jsonl"
        self.file.write_text(json.dumps(PROBLEM) + "\n")

    def _change(self, name: str, values: dict[str, Any]) -> None:
        file = self.model / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """On a terminal where somebody answers yes to whatever is asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    problems = folder / "problems.jsonl"
    problems.write_text(json.dumps(PROBLEM) + "\n")
    out = folder / "run"
    how = ["--verify", "final", "--samples", 2, "--set", "sampling.max_tokens=24"]
    assert stepconf("generate", "--problems", problems, "--out", out, *with_tiny(), *how).code == 0
    return out


ENGINE = ["--engine", "transformers"]
PRM = "verify.prm.form"
COMMANDS = {
    "generate": ["generate", "--problems", "FILE", "--model", "MODEL", "--out", "OUT", *ENGINE],
    "score": ["score", "FILE", "--model", "MODEL", "--out", "OUT", *ENGINE],
    "infer": ["infer", "3 + 4?", "--model", "MODEL", *ENGINE],
    "serve": ["serve", "--model", "MODEL", "--port", "0", *ENGINE],
    "train": ["train", "RUN", "--model", "MODEL", "--out", "OUT", "--set", "train.objective=sft"],
    "doctor": ["doctor", "--model", "MODEL", *ENGINE],
    "critic": ["verify", "FILE", "--verify", "critic", "--set", "verify.critic.model=MODEL", "--out", "OUT",
               "--set", "engine.name=transformers", "--set", "engine.trust_remote_code=true"],
    **{form: ["verify", "FILE", "--verify", "prm", "--set", "verify.prm.model=MODEL", "--out", "OUT",
              "--set", f"{PRM}={form}", "--set", "engine.trust_remote_code=true"]
       for form in ("qwen", "math-shepherd")},
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_models_own_code_does_not_run_unasked(
    command: str, hostile: Folder, run: Path, tmp_path: Path
) -> None:
    """Whatever stands in its folder, and whatever is answered on the terminal."""
    places = {"FILE": hostile.file, "MODEL": hostile.model, "OUT": tmp_path / "out", "RUN": run}
    words = []
    for word in COMMANDS[command]:
        for name, place in places.items():
            word = word.replace(name, str(place))
        words.append(word)
    ended = stepconf(*words, columns=1000)
    assert not hostile.canary.exists()
    assert ended.code == 1 and ended.err.count("brings Python code of its own") == 1, ended.err
    assert str(hostile.model) in ended.err and "Traceback" not in ended.err
    hint = "own code never runs" if command in ("qwen", "math-shepherd") else "engine.trust_remote_code=true"
    assert hint in ended.err
    assert sys.stdin.readline() == "y\n" and "y/N" not in ended.out, "nothing was asked"


def test_code_of_the_model_alone_is_refused_where_its_tokenizer_needs_none(
    hostile: Folder, run: Path, tmp_path: Path
) -> None:
    """The trainer opens the model after the tokenizer: either refuses."""
    config = hostile.model / "tokenizer_config.json"
    config.write_text((tiny_model() / config.name).read_text())
    how = ["--set", "train.objective=sft"]
    ended = stepconf("train", run, "--model", hostile.model, "--out", tmp_path / "out", *how, columns=1000)
    assert not hostile.canary.exists() and ended.code == 1 and "brings Python code" in ended.err, ended.err


def test_the_key_switches_it_on(hostile: Folder, tmp_path: Path) -> None:
    words = COMMANDS["generate"] + ["--set", "engine.trust_remote_code=true", "--verify", "final"]
    places = {"FILE": hostile.file, "MODEL": hostile.model, "OUT": tmp_path / "out"}
    ended = stepconf(*(places.get(word, word) for word in words), "--set", "sampling.max_tokens=8")
    assert ended.code == 0 and hostile.canary.exists(), ended.err
    assert "trust_remote_code" not in (tmp_path / "out" / "recipe.yaml").read_text()


def test_another_runs_recipe_cannot_switch_it_on(hostile: Folder, run: Path, tmp_path: Path) -> None:
    """A run that was pulled names the model and how it is loaded, not what code may run here."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["model"] = str(hostile.model)
    recipe["engine"]["trust_remote_code"] = True
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert not recipe_of(recipe).engine.trust_remote_code
    assert not with_policy_of(Recipe(), recipe).engine.trust_remote_code
    trusting = load_recipe(None, {"engine.trust_remote_code": True})
    assert with_policy_of(trusting, recipe).engine.trust_remote_code
    for command in (
        ["pairs", copy],
        ["calibrate", copy, "--top-k", 3],
        ["report", copy, "--out", tmp_path / "report.html"],
    ):
        ended = stepconf(*command)
        assert not hostile.canary.exists(), (command, ended.err)


@pytest.mark.parametrize("value", ["true", "false"])
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("engine.options", "--set engine.trust_remote_code=true"),
        ("verify.prm.options", "own code never runs"),
    ],
)
def test_options_are_no_second_way(key: str, hint: str, value: str) -> None:
    with pytest.raises(StepconfError) as caught:
        load_recipe(None, None, [f"{key}.trust_remote_code={value}"])
    assert f"{key}.trust_remote_code={value.capitalize()}" in caught.value.problem
    assert hint in caught.value.hint


def test_it_is_off_and_no_part_of_a_runs_identity() -> None:
    assert not Recipe().engine.trust_remote_code
    assert identity(load_recipe(None, {"engine.trust_remote_code": True})) == identity(Recipe())


LOADERS = {"from_pretrained", "from_config", "get_config", "EngineArgs", "LLM"}


def test_every_loader_says_whether_code_may_run() -> None:
    """Where nothing is said, transformers asks on the terminal."""
    silent, seen = [], 0
    root = Path(package.__file__).parent
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in LOADERS:
                seen += 1
                if not _says(node, file):
                    silent.append(f"{file.relative_to(root)}:{node.lineno}")
    assert seen >= 9 and not silent


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _says(call: ast.Call, file: Path) -> bool:
    """By name in the call, or in the mapping of arguments that it takes."""
    if any(keyword.arg == "trust_remote_code" for keyword in call.keywords):
        return True
    mappings = {_name(keyword.value) for keyword in call.keywords if keyword.arg is None}
    return any(f'{mapping}["trust_remote_code"] = ' in file.read_text() for mapping in mappings)
