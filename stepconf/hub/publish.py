"""`stepconf push` and `stepconf pull`: a run becomes a data set on the Hub, and a run again."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from stepconf.checks.check import check
from stepconf.errors import StepconfError
from stepconf.hub.client import check_card, check_login, check_name, commit_of, download, upload
from stepconf.hub.folder import check_ready, write_folder
from stepconf.hub.restore import read_folder
from stepconf.run.events import Tick
from stepconf.run.tables import check_is_run


def prepare(
    run: Path, repo_id: str, folder: Path, licence: str | None, partial: bool, tick: Tick
) -> list[Path]:
    """Check the run and write what `push` sends into `folder`; its files.

    Raises:
        StepconfError: the name is wrong, the run is not finished (without `partial`), or `check` finds errors.
    """
    check_name(repo_id)
    check_ready(run, folder, partial)
    report = check(run, {}, True, tick)
    if not report.ok:
        errors = [one for one in report.findings if one.severity == "error"]
        said = "; ".join(f"{one.count:,} x {one.check} ({one.examples[0]})" for one in errors[:3])
        raise StepconfError(f"{run} has errors and is not published: {said}.", f"Type: stepconf check {run}")
    files = write_folder(run, folder, repo_id, licence, partial, tick)
    check_card((folder / "README.md").read_text(encoding="utf-8"))
    return files


def push(
    run: Path,
    repo_id: str,
    licence: str | None,
    partial: bool,
    private: bool,
    revision: str | None,
    tick: Tick,
) -> tuple[list[Path], str]:
    """Publish a run; the files that were sent (relative) and the address of the commit.

    Raises:
        StepconfError: as `prepare` and `hub.upload`.
    """
    check_is_run(run)
    check_name(repo_id)
    check_login(repo_id)
    # In the run, where there is room: it is about as large.
    with tempfile.TemporaryDirectory(prefix=".push-", dir=run) as scratch:
        folder = Path(scratch) / "set"
        files = prepare(run, repo_id, folder, licence, partial, tick)
        address = upload(folder, repo_id, private, revision, f"Publish {repo_id.partition('/')[2]}")
        return [file.relative_to(folder) for file in files], address


def pull(repo_id: str, out: Path, revision: str | None, tick: Tick) -> None:
    """Make the run `out` from a published one. A download that was cut off goes on where it was.

    Raises:
        StepconfError: as `hub.download`; or the set was not published by `push`; or `out` holds something else.
    """
    check_name(repo_id)
    if out.is_dir() and not (out / "recipe.yaml").exists() and any(p.name[0] != "." for p in out.iterdir()):
        raise StepconfError(f"{out} is not empty and not a run.", "Give a new folder with --out.")
    commit = commit_of(repo_id, revision)
    folder = out / ".pull" / repo_id / commit  # what a pull of anything else has left is not taken for it
    folder.mkdir(parents=True, exist_ok=True)
    download(repo_id, folder, commit)
    read_folder(folder, out, repo_id, tick)
    shutil.rmtree(out / ".pull")


def render(folder: Path, files: list[Path]) -> list[Any]:
    """What would be pushed, as a tree with sizes."""
    from rich.filesize import decimal
    from rich.tree import Tree

    tree = Tree(str(folder))
    branches: dict[Path, Tree] = {folder: tree}
    for file in files:
        for parent in reversed([p for p in file.parents if p.is_relative_to(folder)]):
            if parent not in branches:
                branches[parent] = branches[parent.parent].add(parent.name)
        branches[file.parent].add(f"{file.name}  {decimal(file.stat().st_size)}")
    total = sum(file.stat().st_size for file in files)
    return [tree, f"{len(files)} files, {decimal(total)}. Nothing was sent."]
