"""Problems and solutions to work on, from named sets, local files, the Hub or reasoning-gym.

A name is one of
    gsm8k, math500, ...                    a named set (the table is in sets.py), from the Hub
    math500@path/to/file.jsonl.gz          a named set's columns, read from a local copy
    path/to/file.jsonl(.gz)|.json|.parquet a local file, or a folder of Parquet files
    org/name or org/name:config            any set on the Hub
    reasoning-gym:task?key=value&key=value generated problems, the same for the same seed
Every row read becomes a problem or is counted in `dropped` under its reason.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from glob import escape, has_magic
from pathlib import Path
from typing import Any

from stepconf.core.answers import ANSWER_TYPES
from stepconf.core.ids import content_id, digest_of_ids
from stepconf.core.records import Problem
from stepconf.errors import StepconfError
from stepconf.problems.files import Row, file_kind, json_rows
from stepconf.problems.gym import gym_source
from stepconf.problems.rows import (
    Dropped,
    Need,
    Source,
    problem_of,
    settle_columns,
    solution_of,
)
from stepconf.problems.sets import NAMED_SETS
from stepconf.recipe import ProblemsRecipe
from stepconf.stores.opening import located

__all__ = [
    "ImportedSolution",
    "LoadedProblems",
    "LoadedSolutions",
    "load_problems",
    "load_solutions",
]

_HOP = "::"  # in a path to fsspec: what precedes it lies in what follows it
_PARQUET_ROWS = 1000  # decoded at a time; the default, a row group, may hold a million or none
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::(.+))?")
_OF_SPLIT = re.compile(r"[^-]+-\d{5}-of-\d{5}\.parquet")  # as `datasets` writes the files of a split
_DATA_SUFFIX = re.compile(r"\.(jsonl|ndjson|json|parquet|gz|csv|tsv|txt)$", re.IGNORECASE)


@dataclass(frozen=True)
class LoadedProblems:
    """Problems in the order of the source, each once. `n_rows == len(problems) + dropped.total()`."""

    problems: list[Problem]
    dropped: Counter[str]
    n_rows: int
    digest: str


@dataclass(frozen=True)
class ImportedSolution:
    """One solution from a file: either its whole text or its steps, as given; the other is None.

    `sample_index` counts the solutions of the same problem, in the order of the source.
    """

    problem: Problem
    text: str | None
    steps: list[str] | None
    sample_index: int = 0

    @property
    def external_id(self) -> str | None:
        """The value of the id column."""
        return self.problem.external_id

    @property
    def extra(self) -> dict[str, Any]:
        """Every column that was not used, as JSON holds it."""
        return self.problem.extra


@dataclass(frozen=True)
class LoadedSolutions:
    """Solutions in the order of the source. `n_rows == len(rows) + dropped.total()`."""

    rows: list[ImportedSolution]
    dropped: Counter[str]
    n_rows: int
    digest: str


def load_problems(
    name: str, options: ProblemsRecipe, seed: int = 0, require_gold: bool = True
) -> LoadedProblems:
    """The problems of a set, file or generator, duplicates left out.

    Args:
        name: as above; the options' own `source` is not read.
        options: columns, split and answer type, each that of the set or found by its name where None, and the limit.
        seed: of reasoning-gym's generator.
        require_gold: leave out problems that have no gold answer.

    Raises:
        StepconfError: there is no such source, it cannot be read, a column is missing, or no row is usable.
    """
    need: Need = "gold" if require_gold else "problem"
    source = _source(name, options, seed)
    rows, columns = settle_columns(source, options, need)
    found: dict[str, Problem] = {}
    dropped: Counter[str] = Counter()
    n_rows = 0
    for row in rows:
        n_rows += 1
        try:
            problem = problem_of(row, columns, source, options.answer_type, need)
            if problem.problem_id in found:
                raise Dropped("duplicate problem")
            found[problem.problem_id] = problem
        except Dropped as reason:
            dropped[str(reason)] += 1
        if len(found) == options.limit:
            break
    _check_some(len(found), dropped, source.where)
    return LoadedProblems(list(found.values()), dropped, n_rows, digest_of_ids(found))


def load_solutions(path: str, options: ProblemsRecipe, seed: int = 0) -> LoadedSolutions:
    """The solutions of a file or set, one a row; many rows may share a problem.

    A row's `steps` (a list of texts) come before its `solution` where it has both and neither is named.

    Raises:
        StepconfError: as `load_problems`.
    """
    source = _source(path, options, seed)
    rows, columns = settle_columns(source, options, "solution")
    found: list[ImportedSolution] = []
    seen: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    n_rows = 0
    for row in rows:
        n_rows += 1
        try:
            problem = problem_of(row, columns, source, options.answer_type, "solution")
            text, steps = solution_of(row, columns)
            found.append(ImportedSolution(problem, text, steps, seen[problem.problem_id]))
            seen[problem.problem_id] += 1
        except Dropped as reason:
            dropped[str(reason)] += 1
        if len(found) == options.limit:
            break
    _check_some(len(found), dropped, source.where)
    parts = ((row.problem.problem_id, row.external_id, row.text, *(row.steps or ())) for row in found)
    return LoadedSolutions(found, dropped, n_rows, digest_of_ids(content_id(*part) for part in parts))


def _check_some(n_found: int, dropped: Counter[str], where: str) -> None:
    if n_found == 0:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in dropped.most_common())
        raise StepconfError(
            f"{where}: none of its rows can be used: {reasons}.",
            "Name the right columns: --problem-column, --answer-column, --solution-column.",
        )


# Where the rows come from


def _source(name: str, options: ProblemsRecipe, seed: int) -> Source:
    if options.answer_type is not None and options.answer_type not in ANSWER_TYPES:
        raise StepconfError(
            f"Unknown answer type {options.answer_type!r}.", f"Choose one of {', '.join(ANSWER_TYPES)}."
        )
    name = located(name)
    if name in NAMED_SETS:
        return _named_source(name, options.split)
    set_name, at, path_name = name.partition("@")
    if at and set_name in NAMED_SETS:
        rows, split = _local_rows(_path(path_name), options.split)
        return Source(rows, set_name, path_name, split, NAMED_SETS[set_name])
    if name.startswith("reasoning-gym:"):
        return _gym_source(name, seed, options.limit)
    path = _path(name)
    if path.exists():
        rows, split = _local_rows(path, options.split)
        return Source(rows, path.name, name, split)
    hub_name = _HUB_NAME.fullmatch(name)
    if hub_name and not _DATA_SUFFIX.search(name) and not name.startswith("."):
        rows, split = _hub_rows(hub_name[1], hub_name[2], options.split)
        return Source(rows, name, name, split)
    raise _no_such_source(name)


def _gym_source(name: str, seed: int, limit: int | None) -> Source:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise StepconfError(
            f"{name} needs the package reasoning-gym, which cannot be imported: {error}",
            "Type: make environment in a checkout, or pip install reasoning-gym (needs a C compiler).",
        ) from error
    return gym_source(name, DATASETS, seed, limit)


def _named_source(name: str, split: str | None) -> Source:
    named = NAMED_SETS[name]
    split = split or named.split
    if split not in named.all_splits:
        raise StepconfError(
            f"{name} has no split {split!r}.", f"Choose with --split: {', '.join(named.all_splits)}."
        )
    if named.file:
        rows = _loaded(
            "json", f"{named.hub_id} on the Hub", data_files=f"hf://datasets/{named.hub_id}/{named.file}"
        )
    else:
        rows, _ = _hub_rows(named.hub_id, named.config, split)
    return Source(rows, name, name, split, named)


def _path(text: str) -> Path:
    """A leading ~ is the home folder; in `./~` it is a name, which a Path no longer shows."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


def _local_rows(path: Path, split: str | None) -> tuple[Iterable[Row], str]:
    """The rows of a file or folder, and the split they are stored under."""
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        splits = sorted({_split_of(file) for file in files if _OF_SPLIT.fullmatch(file.name)})
        if split:
            files = [file for file in files if _split_of(file) == split]
        elif len(splits) > 1:
            raise _several(str(path), splits)
        if not files:
            if has_magic(folder := str(path.resolve())) or _HOP in folder:
                raise _odd_name(path)
            return _hub_rows(folder, None, split)
        for file in files:
            file_kind(file)
        return _parquet_rows(files, path), split or ""
    if not path.exists():
        raise StepconfError(f"{path}: no such file.", "Check the path.")
    kind = file_kind(path)
    return (_parquet_rows([path], path) if kind == "parquet" else json_rows(path, kind)), split or ""


def _split_of(file: Path) -> str:
    return file.stem.partition("-")[0]


def _several(where: str, splits: Iterable[str]) -> StepconfError:
    return StepconfError(f"{where}: there are several splits.", f"Choose with --split: {', '.join(splits)}.")


def _parquet_rows(files: list[Path], where: Path) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="stepconf-") as cache:  # datasets leaves lock files
        names = [_as_pattern(file) for file in files]
        yield from _loaded(
            "parquet", str(where), data_files=names, streaming=True, cache_dir=cache, batch_size=_PARQUET_ROWS
        )


def _as_pattern(file: Path) -> str:
    """The pattern that this file alone meets."""
    if _HOP in str(file.absolute()):
        raise _odd_name(file)
    return escape(str(file.absolute()))


def _odd_name(path: Path) -> StepconfError:
    return StepconfError(
        f"{path}: `datasets` reads its name as a pattern of names (for *, ?, [) or as a file in another (for ::).",
        "Give it, or the folder that it is in, another name.",
    )


def _hub_rows(name: str, config: str | None, split: str | None) -> tuple[Iterable[Row], str]:
    """The rows of a set on the Hub, or of a local folder in a Hub set's form, and their split."""
    local = Path(name).is_dir()
    where = name if local else f"{name} on the Hub"
    loaded = _load_dataset(where, name, config, split=split, streaming=local)
    if split is None:
        splits = list(loaded)
        if len(splits) > 1:
            raise _several(where, splits)
        split = splits[0]
        loaded = loaded[split]
    return _guarded(loaded, where), split


def _loaded(builder: str, where: str, **arguments: Any) -> Iterable[Row]:
    return _guarded(_load_dataset(where, builder, split="train", **arguments), where)


def _load_dataset(where: str, *names: str | None, **arguments: Any) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(*names, **arguments)
    except Exception as error:  # its builders, Arrow and its HTTP client share no class of errors
        raise _unreadable(where, error) from error


def _guarded(rows: Iterable[Row], where: Any) -> Iterator[Row]:
    try:
        yield from rows
    except Exception as error:  # as above: a streamed set is read while it is iterated
        raise _unreadable(str(where), error) from error


def _unreadable(where: str, error: Exception) -> StepconfError:
    seen = " ".join(str(error).split())
    seen = seen if len(seen) <= 300 else seen[:300] + "…"
    if "Config name is missing" in seen or "BuilderConfig" in seen:
        hint = "Give the config after a colon: org/name:config"
    elif "split" in seen.lower():
        hint = "Choose one of its splits with --split."
    elif "on the Hub" in where:
        hint = (
            "Check the name (it is no file here either), your connection and, for a gated set, `hf auth "
            "login`; or give a local copy of its file (for a named set: gsm8k@path/to/file.jsonl)."
        )
    else:
        hint = "Check that the file is whole and in the form its name says."
    return StepconfError(f"{where}: cannot be loaded ({type(error).__name__}: {seen}).", hint)


def _no_such_source(name: str) -> StepconfError:
    if "/" in name or _DATA_SUFFIX.search(name):
        return StepconfError(f"{name}: no such file or folder.", "Check the path.")
    close = get_close_matches(name.lower(), NAMED_SETS, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return StepconfError(
        f"Unknown problem set {name!r}.",
        f"{hint}Named sets: {', '.join(sorted(NAMED_SETS))}; "
        "or a file, org/name on the Hub, reasoning-gym:task.",
    )
