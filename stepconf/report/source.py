"""Where the tables lie: a run, its published form in a folder, or that on the Hub. Nothing is read yet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_yaml
from stepconf.core.schema import TABLES
from stepconf.errors import StepconfError
from stepconf.run.facts import Kinds, each, from_json, is_count, is_number, is_text
from stepconf.run.files import missing_parts, stale_summary
from stepconf.run.tables import read_manifests, read_recipe

HUB = "hf://"


def _is_figure(value: Any) -> bool:
    return value is None or is_number(value)


def _is_of_branches(value: Any) -> bool:
    """Figures, and figures by name; where there are branches, their outcomes too."""
    return (
        each(lambda one: _is_figure(one) or each(_is_figure)(one))(value)
        and is_count(value.get("tokens", 0))
        and (not value.get("solutions") or isinstance(value.get("outcomes"), dict))
    )


# What the page shows of a summary, which others may have written. The rest of it is not read.
_OF_SUMMARY: Kinds = {
    "tokens": is_count,
    "branches": _is_of_branches,
    "unlabelled": each(is_count),
    "coverage": _is_figure,
    "tokens_per_label": _is_figure,
    "verifiers": each(each(_is_figure)),
    "agreement": lambda value: (
        isinstance(value, list) and all(map(each(lambda one: _is_figure(one) or is_text(one)), value))
    ),
    "drops": each(is_count),
    "pairs": each(is_count),
    "pair_splits": each(is_count),
    "pair_drops": each(is_count),
    "strategy": is_text,
    "tau": _is_figure,
}


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
    summary = _summary((run / "summary.json").read_bytes()) if fits else None
    return Source(run.resolve().name, files, Path, read_recipe(run), summary, missing, run)


def _of_published(folder: Path) -> Source:
    files = {table: [str(f) for f in sorted((folder / "data" / table).glob("*.parquet"))] for table in TABLES}
    about = {name: folder / "stepconf" / name for name in ("recipe.yaml", "summary.json")}
    recipe, summary = (file.read_bytes() if file.exists() else None for file in about.values())
    return _published(folder.resolve().name, files, Path, recipe, summary)


def _of_hub(address: str) -> Source:
    from stepconf.hub.client import open_files

    name, _, revision = address.removeprefix(HUB).removeprefix("datasets/").partition("@")
    names, opener = open_files(name, revision or None)
    files = {
        table: [n for n in names if n.startswith(f"data/{table}/") and n.endswith(".parquet")]
        for table in TABLES
    }

    def held(wanted: str) -> bytes | None:
        if wanted not in names:
            return None
        with opener(wanted) as stream:
            return bytes(stream.read())

    return _published(name, files, opener, held("stepconf/recipe.yaml"), held("stepconf/summary.json"))


def _published(
    name: str,
    files: dict[str, list[str]],
    opener: Callable[[str], Any],
    recipe: bytes | None,
    summary: bytes | None,
) -> Source:
    if not files["solutions"] or not files["steps"]:
        raise StepconfError(
            f"{name} has no tables of solutions and steps (data/solutions, data/steps).",
            "Give a run, or what stepconf push has published.",
        )
    try:
        known = read_yaml(recipe.decode()) if recipe is not None else {}
    except ValueError as error:
        raise StepconfError(f"{name}: stepconf/recipe.yaml is not YAML as a run has it: {error}") from error
    return Source(
        name, files, opener, known if isinstance(known, dict) else {}, _summary(summary) if summary else None
    )


def _summary(data: bytes) -> dict[str, Any] | None:
    """A summary that the page can show; None of anything else, as where there is none."""
    try:
        found = from_json(data)
    except ValueError:
        return None
    if not isinstance(found, dict) or "tokens" not in found:
        return None
    return found if all(fits(found[name]) for name, fits in _OF_SUMMARY.items() if name in found) else None
