"""Where the tables lie: a run, its published form in a folder, or that on the Hub. Nothing is read yet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_json, read_yaml
from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.run.files import missing_parts, stale_summary
from stepconf.run.tables import read_manifests, read_recipe

HUB = "hf://"


@dataclass(frozen=True)
class Source:
    """The shards of each table in order, how to open one, and what is known beside them.

    `open` turns a name in `files` into what `run.parquet.parquet_file` takes. `summary` is None where there is
    none that fits the rows. `missing` says what an unfinished run lacks.
    """

    name: str
    files: dict[str, list[str]]
    open: Callable[[str], Any]
    recipe: dict[str, Any]
    summary: dict[str, Any] | None
    missing: list[str] = field(default_factory=list)
    run: Path | None = None


def open_source(where: str, partial: bool) -> Source:
    """Find the tables of a run folder, of a published folder, or of `hf://OWNER/NAME[@REVISION]`.

    Raises:
        StepconfError: there are none; or the run is not finished, without `partial`.
    """
    if where.startswith(HUB):
        return _of_hub(where)
    folder = Path(where)
    if (folder / "recipe.yaml").exists():
        return _of_run(folder, partial)
    if (folder / "stepconf" / "recipe.yaml").exists() or (folder / "data" / "steps").is_dir():
        return _of_published(folder)
    raise StepconfError(
        f"{where} is neither a run folder (no recipe.yaml in it) nor a published one (no data/steps).",
        "Make a run: stepconf generate --out RUN ..., or give hf://OWNER/NAME.",
    )


def missing_notes(source: Source) -> list[str]:
    """That the run is not finished, where it is not."""
    return [f"This run is not finished: {'; '.join(source.missing)}."] if source.missing else []


def _of_run(run: Path, partial: bool) -> Source:
    missing = missing_parts(run)
    if missing and not partial:
        raise StepconfError(
            f"{run} is not finished: {'; '.join(missing)}.",
            "Type the command that made it again, or add --partial to go on without the rest.",
        )
    manifests = read_manifests(run)
    names = sorted(name for manifest in manifests for name in manifest["files"])
    files = {table: [str(run / name) for name in names if name.startswith(f"{table}/")] for table in TABLES}
    fits = not missing and not stale_summary(run, manifests)
    summary = _json((run / "summary.json").read_text(encoding="utf-8")) if fits else None
    return Source(run.resolve().name, files, Path, read_recipe(run), summary, missing, run)


def _of_published(folder: Path) -> Source:
    files = {table: [str(f) for f in sorted((folder / "data" / table).glob("*.parquet"))] for table in TABLES}
    about = {name: folder / "stepconf" / name for name in ("recipe.yaml", "summary.json")}
    recipe, summary = (file.read_text(encoding="utf-8") if file.exists() else None for file in about.values())
    return _published(folder.resolve().name, files, Path, recipe, summary)


def _of_hub(address: str) -> Source:
    from stepconf.hub.client import open_files

    name, _, revision = address.removeprefix(HUB).removeprefix("datasets/").partition("@")
    names, opener = open_files(name, revision or None)
    files = {
        table: [n for n in names if n.startswith(f"data/{table}/") and n.endswith(".parquet")]
        for table in TABLES
    }

    def text(wanted: str) -> str | None:
        if wanted not in names:
            return None
        with opener(wanted) as stream:
            return str(stream.read().decode("utf-8"))

    return _published(name, files, opener, text("stepconf/recipe.yaml"), text("stepconf/summary.json"))


def _published(
    name: str,
    files: dict[str, list[str]],
    opener: Callable[[str], Any],
    recipe: str | None,
    summary: str | None,
) -> Source:
    if not files["solutions"] or not files["steps"]:
        raise StepconfError(
            f"{name} has no tables of solutions and steps (data/solutions, data/steps).",
            "Give a run, or what stepconf push has published.",
        )
    try:
        known = read_yaml(recipe) if recipe is not None else {}
    except ValueError as error:
        raise StepconfError(f"{name}: stepconf/recipe.yaml is not YAML as a run has it: {error}") from error
    return Source(
        name, files, opener, known if isinstance(known, dict) else {}, _json(summary) if summary else None
    )


def _json(text: str) -> dict[str, Any] | None:
    try:
        value = read_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
