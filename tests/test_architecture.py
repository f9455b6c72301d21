"""The import rules, checked by reading the source: nothing heavy is imported here."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "stepconf"

# Who may import whom, in the order of the pipeline: each folder builds on those before it. What is not listed
# (cli, commands, pipeline, rounds, ...) is the shell and may import all.
BASE = {"core", "errors", "kinds", "recipe", "stores", "ui"}
INWARD = {
    "errors": set(),
    "core": {"errors"},
    "kinds": {"errors"},
    "recipe": {"core", "errors", "kinds"},
    "stores": {"core", "errors", "ui"},
    "workers": {"core", "errors"},
    "problems": {"core", "errors", "recipe", "stores"},
    "engines": {"core", "errors", "recipe"},
    "verifiers": {"engines", "workers", "core", "errors", "kinds", "recipe", "demo_model"},
    "inference": {"engines", "core", "errors", "kinds", "recipe"},
    "training": {"core", "errors", "kinds", "recipe"},
    "run": {"stores", "workers", "core", "errors", "ui"},
    "stages": BASE | {"problems", "engines", "workers", "verifiers", "run", "demo_model"},
    "labels": BASE | {"problems", "workers", "verifiers", "run", "stages"},
    "pairs": BASE | {"engines", "workers", "verifiers", "run", "stages", "demo_model"},
    "calibration": BASE | {"engines", "run", "stages", "demo_model"},
    "evaluation": BASE
    | {"problems", "engines", "workers", "verifiers", "inference", "run", "stages", "calibration"},
    "serving": BASE | {"engines", "workers", "verifiers", "inference", "stages", "evaluation"},
    "checks": BASE | {"problems", "workers", "run"},
    "hub": BASE | {"problems", "run", "checks", "calibration"},
    "report": BASE | {"engines", "run", "calibration", "hub", "demo_model"},
}

# Each heavy package has a home; no other file names it, not even inside a function.
HOME = {
    "vllm": {"engines/vllm.py", "engines/vllm_start.py", "engines/vllm_tap.py"},
    "torch": {
        "engines/stats.py",
        "engines/fused_stats.py",
        "engines/transformers.py",
        "engines/reward.py",
        "engines/vllm_tap.py",
        "demo_model.py",
        "training/",
        "contracts/objectives.py",
    },
    "transformers": {
        "engines/transformers.py",
        "engines/tokenizer.py",
        "engines/reward.py",
        "engines/reward_text.py",
        "demo_model.py",
        "training/",
    },
    "triton": {"engines/fused_stats.py"},
    "sympy": {"core/maths/algebra.py"},
    "flint": {"core/maths/"},
    "math_verify": {"verifiers/final.py"},
    "datasets": {"problems/load.py", "training/measure.py"},
    "fastapi": {"serving/app.py"},
    "starlette": {"serving/app.py"},
    "uvicorn": {"serving/app.py", "serving/connection.py"},
    "reasoning_gym": {"problems/load.py"},
    "matplotlib": {"calibration/figures.py"},
    "sklearn": {"calibration/fit.py"},
    "pyarrow": {
        "core/schema.py",
        "core/checks/",
        "run/parquet.py",
        "run/shard.py",
        "run/shards.py",
        "labels/",
        "engines/tokenizer.py",
        "checks/",
        "hub/folder.py",
        "hub/restore.py",
        "report/tables.py",
        "report/index.py",
    },
    "polars": {
        "api/runs.py",
        "contracts/pairs.py",
        "core/pairs/",
        "pairs/",
        "run/parquet.py",
        "run/summary.py",
        "run/columns.py",
        "run/step_figures.py",
        "run/scan.py",
        "run/coverage.py",
        "calibration/signals.py",
        "checks/chunk.py",
    },
    "openai": {"engines/client.py"},
    "httpx2": {"engines/client.py"},
    "ray": {"stages/cluster.py", "stages/cluster_connection.py"},
    "fsspec": {"stores/remote.py"},
    "huggingface_hub": {"hub/client.py", "engines/tokenizer.py"},
}
# What prints or makes styled text is in stepconf/ui; these only hold strings, which its consoles make plain.
RICH_ELSEWHERE = {"rich.table.Table", "rich.tree.Tree", "rich.live.Live", "rich.filesize.decimal"}
# Who may parse JSON or YAML without the bounds of core/documents.py.
UNBOUNDED = {
    "core/documents.py",
    "problems/files.py",  # gives the place of what is wrong; `rows.jsonable` has the bound
    "verifiers/critic/json_form.py",  # refuses keys that come twice, and what is too deep
    "workers/sandbox_jail.py",  # reads what its parent says
    "engines/tokenizer.py",  # reads what the library of tokenizers writes
    "hub/client.py",  # reads a card that was just written
}
LIGHT_START = {
    "torch",
    "vllm",
    "transformers",
    "datasets",
    "polars",
    "sympy",
    "pyarrow",
    "numpy",
    "matplotlib",
    "sklearn",
    "fastapi",
    "fsspec",
    "ray",
}
IMPURE_IN_CORE = {"os", "pathlib", "time", "random", "socket", "subprocess", "datetime", "tempfile", "shutil"}

FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every dotted name imported anywhere in the file, e.g. {'torch.nn', 'stepconf.core'}."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write `from stepconf...`"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_inward_and_heavy_packages_stay_home(path: Path) -> None:
    here = path.relative_to(ROOT).as_posix()
    layer = here.split("/")[0].removesuffix(".py")
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "stepconf" and rest and layer in INWARD and rest[0] not in {"version", layer}:
            assert rest[0] in INWARD[layer], f"{here} may not import {name}: imports point inward"
        if top in HOME:
            assert any(
                here == home or (home.endswith("/") and here.startswith(home)) for home in HOME[top]
            ), f"{here} may not import {top}; its home is {sorted(HOME[top])}"
        if top == "rich" and layer != "ui":
            assert name in RICH_ELSEWHERE, f"{here} may not import {name}: print by stepconf.ui.console"
        if layer == "core":
            assert top not in IMPURE_IN_CORE, f"{here} may not import {name}: the core is pure"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_documents_are_read_within_bounds(path: Path) -> None:
    parse = re.search(r"\b(json\.loads?|yaml\.\w*load\w*)\(", path.read_text())
    here = path.relative_to(ROOT).as_posix()
    assert parse is None or here in UNBOUNDED, f"{here}: {parse[0]}: take read_json or read_yaml"


def dependencies() -> dict[str, set[str]]:
    """Which modules of stepconf each names in an import at any place, inside a function or for types alone too."""
    modules = {path: ".".join(("stepconf", *path.relative_to(ROOT).with_suffix("").parts)) for path in FILES}
    files = {name.removesuffix(".__init__"): path for path, name in modules.items()}

    def module_of(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    return {here: {module_of(name) for name in imports(path)} - {"", here} for here, path in files.items()}


def reached_from(start: str, graph: dict[str, set[str]]) -> set[str]:
    """All that can be reached from here in one step or more."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def test_no_module_imports_itself_by_others() -> None:
    graph = dependencies()
    assert "stepconf.errors" in graph["stepconf.cli"], "the graph is read"
    reached = {module: reached_from(module, graph) for module in graph}
    circles = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    assert not circles, [sorted(circle) for circle in circles]


# What opens files by a path in which it sees a pattern, a home folder or a URL.
BY_PATH = {
    *("scan_parquet", "read_parquet", "read_table", "read_schema", "read_metadata", "dataset", "ParquetFile"),
    *("ParquetDataset", "ParquetWriter"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_one_module_opens_parquet_by_its_path(path: Path) -> None:
    calls = [
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    used = BY_PATH & set(calls)
    assert path == ROOT / "run/parquet.py" or not used, f"{path}: {used}; use stepconf.run.parquet"


def test_help_starts_light() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from stepconf.cli import app;"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0, result.output;"
        f"print(sorted({LIGHT_START!r} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_functions_are_shorter_than_sixty_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length < 60, f"{node.name}: {length} lines"
