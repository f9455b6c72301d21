"""The notebooks run from a clean kernel over a small real run; what is kept of their outputs is small."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.edited_run import edit, good_run

SLOW = ("03_from_pairs_to_a_trained_model", "04_cat_against_self_consistency")
FILES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny model, with some of its answers right."""
    folder = Path(shutil.copytree(good_run(), tmp_path_factory.mktemp("notebooks") / "run"))
    edit(
        folder,
        "solutions",
        lambda rows: [row.update(answer_correct=i % 2 == 0) for i, row in enumerate(rows)],
    )
    return folder


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=pytest.mark.slow) if file.stem in SLOW else file for file in FILES],
    ids=lambda file: file.stem,
)
def test_it_runs_from_a_clean_kernel(file: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCONF_RUN", str(run))
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": file.parent}}
    )
    client.execute()  # an error in a cell is raised here
    assert any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_kept_is_small_and_of_no_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert file.stat().st_size < 200_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    assert counts in ([None] * len(code), list(range(1, len(code) + 1))), (
        "run from top to bottom, or not at all"
    )
    kept = json.dumps([cell.outputs for cell in code])
    assert not re.search(r"/(tmp|home|root|work|Users)/|Traceback|Warning", kept)


def test_there_are_five() -> None:
    assert [file.stem[:2] for file in FILES] == ["01", "02", "03", "04", "05"]
