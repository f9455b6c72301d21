"""The published form of a run: the folder that `push` uploads (`restore.py` makes a run of it again).

README.md                                  the card
figures/reliability-steps.png, ...         what the card shows, where steps are scored and labelled
data/steps/train-00000-of-00002.parquet    each table's shards, joined into few files, rows in the same order
data/pairs/validation-00000-of-00001...    beside train, where pairs are split
stepconf/recipe.yaml, summary.json, source.json
stepconf/manifests.jsonl                   the run's manifests, a line each: they say which rows were whose
stepconf/checksums.json                    BLAKE2b of each file of data/
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from stepconf.calibration import figures
from stepconf.calibration.calibrate import Bootstrap, reliability
from stepconf.calibration.signals import Units
from stepconf.core.card import CONFIGS, Published, Source, card
from stepconf.core.documents import read_json
from stepconf.errors import StepconfError
from stepconf.problems.sets import NAMED_SETS
from stepconf.recipe import recipe_of
from stepconf.run.damage import file_digest
from stepconf.run.events import Tick
from stepconf.run.files import missing_parts, stale_summary
from stepconf.run.new_folder import check_new, new_folder, visible
from stepconf.run.parquet import opened, parquet_writer
from stepconf.run.tables import (
    check_is_run,
    read_manifests,
    read_metadata,
    read_recipe,
    read_tables,
    shard_files,
)
from stepconf.version import __version__

GROUP_ROWS = 10_000  # the viewer reads a row group at a time, and gives up above some 100 MB
GROUP_BYTES = 64 << 20  # uncompressed
FILE_BYTES = 1 << 30  # uncompressed; well below half of it on disk
_OURS = ("README.md", "data", "figures", "stepconf")
_GENERATORS = {"reasoning-gym": "Apache-2.0"}


def write_folder(
    run: Path, folder: Path, repo_id: str, licence: str | None, partial: bool, tick: Tick
) -> list[Path]:
    """Write the published form of `run` into the empty or absent `folder`; its files, in order.

    Raises:
        StepconfError: not a run, an unfinished one without `partial`, an empty one, or the folder is not empty.
    """
    missing = check_ready(run, folder, partial)
    rows = {table: by_split for table in CONFIGS if (by_split := _rows(run, table))}
    if "solutions" not in rows:
        raise StepconfError(f"{run} holds no solutions, so there is nothing to publish.")
    tick("write", -sum(len(shard_files(run, table)) for table in rows))
    with new_folder(folder, _OURS):
        _fill(run, folder, repo_id, rows, licence, missing, tick)
    return [file for path in visible(folder) for file in sorted([path, *path.rglob("*")]) if file.is_file()]


def _fill(
    run: Path,
    folder: Path,
    repo_id: str,
    rows: dict[str, dict[str, int]],
    licence: str | None,
    missing: list[str],
    tick: Tick,
) -> None:
    for table, by_split in rows.items():
        for split in by_split:
            _write_table(_shards(run, table, split), folder / "data" / table, split, tick)
    about = folder / "stepconf"
    about.mkdir()
    for file in ("recipe.yaml", "source.json", "summary.json"):
        if (run / file).exists():
            (about / file).write_bytes((run / file).read_bytes())
    manifests = "".join(json.dumps(manifest) + "\n" for manifest in read_manifests(run))
    (about / "manifests.jsonl").write_text(manifests, encoding="utf-8")
    data = sorted((folder / "data").rglob("*.parquet"))
    sums = {file.relative_to(folder).as_posix(): file_digest(file) for file in data}
    (about / "checksums.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    drawn = _draw(run, folder / "figures")
    text = card(_published(run, repo_id, rows, licence, missing, drawn))
    (folder / "README.md").write_text(text, encoding="utf-8")


def check_ready(run: Path, folder: Path, partial: bool) -> list[str]:
    """What an unfinished run lacks; raises what `write_folder` raises, before anything is read or written."""
    check_is_run(run)
    check_new(folder, _OURS)
    missing = missing_parts(run)
    if missing and not partial:
        raise StepconfError(
            f"{run} is not finished: {'; '.join(missing)}.",
            "Type the command that made it again, or add --partial to go on without the rest.",
        )
    return missing


def _published(
    run: Path,
    repo_id: str,
    rows: dict[str, dict[str, int]],
    licence: str | None,
    missing: list[str],
    drawn: list[tuple[str, str]],
) -> Published:
    from stepconf.run.summary import read_summary

    file = run / "summary.json"
    current = file.exists() and not missing and not stale_summary(run, read_manifests(run))
    recipe = read_recipe(run)
    return Published(
        repo_id=repo_id,
        recipe={"command": recipe["command"], **recipe_of(recipe).model_dump(mode="json")},
        summary=read_json(file.read_text(encoding="utf-8")) if current else read_summary(run),
        metadata=read_metadata(run),
        rows=rows,
        sources=_sources(run),
        version=__version__,
        licence=licence,
        missing=missing,
        figures=drawn,
    )


def _draw(run: Path, folder: Path) -> list[tuple[str, str]]:
    """PNG figures of the labelled steps, each with what it shows; none where a label is missing."""
    from stepconf.run.columns import step_columns

    problems, entropy, confidence, correct = step_columns(run)
    if not 0 < correct.sum() < correct.size:
        return []
    bins = reliability(Units("steps", problems, correct, confidence), Bootstrap())
    folder.mkdir()
    figures.save(figures.reliability({"": bins}, "steps"), folder, "reliability-steps", ["png"])
    histograms = figures.entropy_histograms({"": (entropy, correct)}, "steps")
    figures.save(histograms, folder, "entropy-steps", ["png"])
    return [
        (
            "figures/reliability-steps.png",
            "Share of steps labelled correct against their confidence, in ten bins with 95 % intervals over problems; "
            "below, the share of the steps in each bin",
        ),
        (
            "figures/entropy-steps.png",
            "Distribution of the mean entropy of steps labelled correct and of steps labelled incorrect",
        ),
    ]


def _sources(run: Path) -> list[Source]:
    splits: dict[str, set[str]] = {}
    for solutions in read_tables(run, "solutions", ["source", "split"]):
        table = solutions.group_by(["source", "split"]).aggregate([])
        for row in table.to_pylist():
            splits.setdefault(row["source"], set()).add(row["split"])
    return [Source(name, tuple(sorted(of)), _licence_of(name)) for name, of in sorted(splits.items())]


def _licence_of(source: str) -> str | None:
    named = NAMED_SETS.get(source)
    return named.licence if named else _GENERATORS.get(source.partition(":")[0])


def _rows(run: Path, table: str) -> dict[str, int]:
    """Rows of a table by split; only splits that have some."""
    counts: dict[str, int] = {}
    for manifest in read_manifests(run):
        for name, facts in manifest["files"].items():
            if name.startswith(table + "/") and facts["rows"]:
                counts[split_of(name)] = counts.get(split_of(name), 0) + facts["rows"]
    return dict(sorted(counts.items()))


def split_of(shard: str) -> str:
    """The split of `pairs/validation-00003.parquet`; chunks of solutions and steps are `train`."""
    stem = shard.rpartition("/")[2].partition("-")[0]
    return "train" if stem == "part" else stem


def _shards(run: Path, table: str, split: str) -> list[Path]:
    return shard_files(run, table, split if table == "pairs" else "part")


def _write_table(shards: list[Path], folder: Path, split: str, tick: Tick) -> None:
    """The shards of a table as few files: without their number while it is not known."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    writer, size = None, 0
    for group in _groups(shards, tick):
        # Another engine version or model goes on in a file of its own: metadata belong to a file.
        if (
            writer is None
            or size >= FILE_BYTES
            or not group.schema.equals(writer.schema, check_metadata=True)
        ):
            if writer is not None:
                writer.close()
            files.append(folder / f"{split}.{len(files):05d}")
            writer, size = _writer(files[-1], group.schema), 0
        writer.write_table(group, row_group_size=len(group))
        size += group.nbytes
    if writer is not None:
        writer.close()
    for index, file in enumerate(files):
        file.rename(folder / f"{split}-{index:05d}-of-{len(files):05d}.parquet")


def _writer(file: Path, schema: Any) -> Any:
    return parquet_writer(
        file, schema, compression="zstd", write_page_index=True, use_content_defined_chunking=True
    )


def _opened(file: Path) -> AbstractContextManager[Any]:
    return opened(
        file,
        lambda why: StepconfError(
            f"the shard {file} cannot be read: {why}", f"Type: stepconf check {file.parents[1]}"
        ),
    )


def _groups(files: list[Path], tick: Tick) -> Iterator[Any]:
    """The rows of all shards in order, in tables fit for one row group; empty shards give none."""
    import pyarrow as pa

    held: list[Any] = []
    for file in files:
        with _opened(file) as shard:
            rows = shard.read()
        tick("write", 1)
        if held and not rows.schema.equals(held[0].schema, check_metadata=True):
            yield pa.concat_tables(held).combine_chunks()
            held = []
        most = max(1, min(GROUP_ROWS, GROUP_BYTES * len(rows) // max(rows.nbytes, 1)))
        for start in range(0, len(rows), most):
            part = rows.slice(start, most)
            if held and (
                sum(map(len, held)) + len(part) > GROUP_ROWS
                or sum(one.nbytes for one in held) + part.nbytes > GROUP_BYTES
            ):
                yield pa.concat_tables(held).combine_chunks()
                held = []
            held.append(part)
    if held:
        yield pa.concat_tables(held).combine_chunks()
