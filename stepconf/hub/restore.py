"""From the published form of a run (`folder.py`) back to a run, whose manifests say which rows are whose."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from stepconf.core.schema import TABLES, plain
from stepconf.errors import StepconfError
from stepconf.hub.folder import split_of
from stepconf.run.damage import file_digest
from stepconf.run.events import Tick
from stepconf.run.facts import each, from_json, is_text, manifest_flaw
from stepconf.run.parquet import opened
from stepconf.run.parts import PAIRS, chunks_of, stem_of
from stepconf.run.shards import Run
from stepconf.run.tables import read_manifests, read_recipe

_REVISION = "Give the --revision of a commit that stepconf push has made."
_CHUNK_NAME = re.compile(r"\d{5,9}(-\d{5,9})?")
_PART = re.compile(r"(solutions|steps)/part-([\d-]+)(\.\d{3})?\.parquet")
_DATA_FILE = re.compile(r"data/(solutions|steps|pairs)/[\w-]+\.parquet", re.ASCII)
_PAIRS_FILE = re.compile(r"pairs/(train|validation)-\d{5,9}(\.\d{3})?(-\d{5,9})?\.parquet")


def read_folder(folder: Path, out: Path, where: str, tick: Tick) -> None:
    """Make the run `out` from a published folder; what `out` already holds of it is kept.

    Raises:
        StepconfError: the folder was not written by `push`, or is not whole; `out` holds something else.
    """
    about = folder / "stepconf"
    if not (about / "recipe.yaml").exists() or not (about / "manifests.jsonl").exists():
        raise StepconfError(
            f"{where} holds no run (no stepconf/recipe.yaml in it).",
            "pull brings back what stepconf push has published; any other set is read with datasets.",
        )
    manifests, sums = _described(about, where)
    _check_sums(folder, sums, where)
    recipe = read_recipe(about)
    # Only what was published: another version of the set may have left files beside them.
    published = sorted(folder / name for name in sums)
    streams = {
        (table, split): _Rows([f for f in published if f.match(f"{table}/{split}-*.parquet")], where)
        for table in TABLES
        for split in ("train", "validation")
    }
    with Run(out, recipe) as run:
        run.metadata = _metadata(published, where)
        there = {manifest["chunk"]: _counts(manifest) for manifest in read_manifests(out)}
        held = {chunk for manifest in run.manifests() for chunk in chunks_of(manifest)}
        tick("unpack", -len(manifests))
        for manifest in manifests:
            with _of_a_run(where):
                files = manifest["files"].items()
                rows = {name: _rows_of(name, facts["rows"], streams, where) for name, facts in files}
            if there.get(manifest["chunk"], _counts(manifest)) != _counts(manifest):
                raise StepconfError(
                    f"chunk {manifest['chunk']} of {out} is not that of {where}.", "Give another --out."
                )
            if manifest["chunk"] not in there:
                if held & chunks_of(manifest).keys():
                    raise StepconfError(
                        f"{out} and {where} have not been compacted alike ({manifest['chunk']}).",
                        "Give another --out.",
                    )
                with _of_a_run(where):
                    _restore(run, manifest, rows, where)
            tick("unpack", 1)
        for file in ("source.json", "summary.json"):
            if (about / file).exists():
                run.write_bytes(file, (about / file).read_bytes())


@contextmanager
def _of_a_run(where: str) -> Iterator[None]:
    """Raise StepconfError where rows lack columns or have others, or other types."""
    import pyarrow as pa

    try:
        yield
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        said = f"{type(error).__name__}: {error}"
        raise StepconfError(f"{where}: its tables are not those of a run: {said}", _REVISION) from error


def _rows_of(name: str, n: int, streams: dict[tuple[str, str], "_Rows"], where: str) -> Any:
    """The next n rows of the table and split of the shard `name`; None for none of an absent table."""
    stream = streams.get((name.partition("/")[0], split_of(name)))
    if stream is None:
        raise StepconfError(f"{where} names a shard {name!r}, which no run has.")
    return stream.take(n)


def _counts(manifest: dict[str, Any]) -> tuple[Any, dict[str, int]]:
    """What distinguishes a chunk from another of the same name."""
    return manifest.get("input"), {name: facts["rows"] for name, facts in manifest["files"].items()}


def _restore(run: Run, manifest: dict[str, Any], rows: dict[str, Any], where: str) -> None:
    chunk = manifest["chunk"]
    facts = {key: value for key, value in manifest.items() if key not in ("chunk", "files")}
    if chunk == PAIRS and all(_PAIRS_FILE.fullmatch(name) for name in rows):
        for name, pairs in rows.items():
            run.stage_table(stem_of(name), pairs)
        run.commit_pairs(facts)
    elif _CHUNK_NAME.fullmatch(chunk) and all(
        (m := _PART.fullmatch(name)) and m[2] == chunk for name in rows
    ):
        run.commit_tables(chunk, rows, facts)
    else:
        raise StepconfError(f"{where} names a chunk {chunk!r}, which no run has.")


def _described(about: Path, where: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The manifests and the checksums; everyone who can write to the set may have changed them."""
    try:
        lines = (about / "manifests.jsonl").read_text(encoding="utf-8").splitlines()
        manifests = [from_json(line) for line in lines]
        sums = from_json((about / "checksums.json").read_text(encoding="utf-8"))
        if not each(is_text)(sums):
            raise ValueError("checksums.json does not name files")
        for line, manifest in enumerate(manifests, 1):
            if flaw := manifest_flaw(manifest):
                raise ValueError(f"line {line} {flaw}")
    except (OSError, ValueError, TypeError) as error:
        raise StepconfError(
            f"{where}: stepconf/manifests.jsonl or checksums.json is damaged: {error!r}",
            _REVISION,
        ) from error
    return manifests, sums


def _check_sums(folder: Path, sums: dict[str, str], where: str) -> None:
    for name, digest in sums.items():
        file = folder / name
        if not _DATA_FILE.fullmatch(name) or file.resolve() != folder.resolve() / name:
            raise StepconfError(
                f"{where}: stepconf/checksums.json names {name!r}, which is no file of the set's own.",
                _REVISION,
            )
        if not file.is_file() or file_digest(file) != digest:
            raise StepconfError(
                f"{where}: {name} is missing or not what was published.", "Type the same command again."
            )


def _metadata(published: list[Path], where: str) -> dict[str, str]:
    """The schema metadata of the steps (engine, model, ...), for shards without rows."""
    for file in published:
        if file.parent.name == "steps":
            with _opened(file, where) as steps:
                return plain(steps.schema_arrow.metadata)
    return {}


def _opened(file: Path, where: str) -> AbstractContextManager[Any]:
    return opened(
        file,
        lambda why: StepconfError(
            f"{where}: {file.parent.name}/{file.name} cannot be read: {why}", _REVISION
        ),
    )


class _Rows:
    """The rows of some Parquet files in order, taken n at a time; holds one row group."""

    def __init__(self, files: list[Path], where: str) -> None:
        self._where, self._groups = where, self._read(files)
        self._held: Any = None

    def _read(self, files: list[Path]) -> Iterator[Any]:
        for path in files:
            with _opened(path, self._where) as file:
                for index in range(file.num_row_groups):
                    yield file.read_row_group(index)

    def take(self, n: int) -> Any:
        """The next n rows."""
        import pyarrow as pa

        parts: list[Any] = []
        while n > 0 or self._held is None:
            if self._held is None or len(self._held) == 0:
                self._held = next(self._groups, None)
                if self._held is None:
                    if n == 0:
                        return None
                    raise StepconfError(f"{self._where}: there are fewer rows than its manifests say.")
                continue
            parts.append(self._held.slice(0, n))
            n -= len(parts[-1])
            self._held = self._held.slice(len(parts[-1]))
        return pa.concat_tables(parts) if parts else self._held.slice(0, 0)
