"""What a run holds, in figures: from its manifests and, with Polars, from its tables."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepconf.core.ids import digest_of_ids
from stepconf.core.noise import noise_of
from stepconf.core.records import CUT
from stepconf.run.columns import polars_reads
from stepconf.run.damage import damage_error
from stepconf.run.facts import each, from_json, is_count
from stepconf.run.meter import idle_share
from stepconf.run.scan import scan
from stepconf.run.shards import Run
from stepconf.run.step_figures import figures_of_steps
from stepconf.run.tables import pairs_manifest, read_manifests, read_recipe, shard_files

if TYPE_CHECKING:
    import polars as pl

_OF_TABLES = (
    "shards", "problems", "answers", "branches", "verifiers", "other_verifiers", "agreement", "labels", "unlabelled",
    "coverage", "tokens_per_label", "entropy", "critic", "reasoning",
)  # fmt: skip


def summarise(run: Run, source_drops: Counter[str]) -> dict[str, Any]:
    """Compute and write the summary of a finished run; `source_drops` are rows that gave no item."""
    run.write_json("source.json", dict(source_drops))
    return write_summary(run)


def write_summary(run: Run, same_steps: bool = False) -> dict[str, Any]:
    """Compute the summary from what the run holds and write RUN/summary.json.

    `same_steps`: only pairs were made, so what the last summary says of the same shards holds.
    """
    summary = read_summary(run.path, same_steps)
    run.write_json("summary.json", summary)
    return summary


def read_summary(path: Path, same_steps: bool = False) -> dict[str, Any]:
    """Counts, drops by reason, seconds and rates by stage, verdicts, entropies and AUROC, pairs by kind.

    `solutions`, `steps` and `tokens` count all rows. Answers, labels, entropies and verdicts are those of samples;
    `branches` says how many of the rows are of branches, and what came out of them. `coverage`: see `run.coverage`.
    By verifier: coverage (share of the steps that it decides), incorrect_rate (of those) and seconds (on branches
    too); by two verifiers agreement and Cohen's kappa on the steps that both decide (see `core.agreement`).
    `noise`: rate and seed of the labels that were flipped. `other_verifiers` are how many there are beyond those
    that are compared. `critic` and `reasoning`: see `run.step_figures`.
    """
    manifests = read_manifests(path)
    chunks = [m for m in manifests if "tokens" in m]
    drops = Counter(_source_drops(path))
    seconds: Counter[str] = Counter()
    for manifest in chunks:
        drops.update(manifest["drops"])
        seconds.update(manifest["seconds"])
    engine_seconds = sum(seconds.get(stage, 0.0) for stage in ("sample", "score", "branch"))
    tokens = sum(m["tokens"] for m in chunks)
    recipe = read_recipe(path)
    with polars_reads(path):
        tables = _of_tables(path, chunks, _known(path) if same_steps else {})
    return {
        "model": recipe.get("model", ""),
        "noise": noise_of(recipe)._asdict(),
        "solutions": sum(m["solutions"] for m in chunks),
        "steps": sum(m["steps"] for m in chunks),
        "tokens": tokens,
        "tokens_per_second": round(tokens / engine_seconds, 1) if engine_seconds else None,
        "engine_idle_share": idle_share(seconds),
        "seconds": {stage: round(value, 2) for stage, value in sorted(seconds.items())},
        "drops": dict(drops.most_common()),
        **tables,
        **_of_pairs(path),
    }


def _known(path: Path) -> dict[str, Any]:
    """The last summary; empty where there is none that is whole."""
    try:
        found = from_json((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= set(_OF_TABLES) else {}


def _source_drops(path: Path) -> dict[str, int]:
    """What was left out when the run's source was read, by reason."""
    file = path / "source.json"
    try:
        found = from_json(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise damage_error(path, f"{file} is not JSON: {error}.") from error
    if not each(is_count)(found):
        raise damage_error(path, f"{file} holds {found!r:.200}, not numbers by reason.")
    return dict(found)


def _of_tables(path: Path, chunks: list[dict[str, Any]], known: dict[str, Any]) -> dict[str, Any]:
    """What the solutions and steps say; taken from a summary that is known to be of the same shards."""
    shards = digest_of_ids(facts["blake2b"] for chunk in chunks for facts in chunk["files"].values())
    if known.get("shards") == shards:
        return {key: known[key] for key in _OF_TABLES}
    found = _of_solutions(path)
    return {"shards": shards} | found | figures_of_steps(path, found["branches"])


def _of_solutions(path: Path) -> dict[str, Any]:
    import polars as pl

    if not shard_files(path, "solutions"):
        return {"problems": 0, "answers": _answers([]), "branches": {}}
    columns = "problem_id", "parent_solution_id", "answer_correct", "finish_reason", "n_steps", "n_tokens"
    frame = scan(path, "solutions").select(columns).collect(engine="streaming")
    is_branch = pl.col("parent_solution_id").is_not_null()
    samples, branches = frame.filter(~is_branch), frame.filter(is_branch)
    return {
        "problems": frame["problem_id"].n_unique(),
        "answers": _answers(samples["answer_correct"]),
        "branches": _of_branches(branches, int(samples["n_tokens"].sum())) if len(branches) else {},
    }


def _answers(right: Iterable[bool | None]) -> dict[str, int]:
    counted = Counter(right)
    return {"correct": counted[True], "incorrect": counted[False], "unknown": counted[None]}


def _of_branches(branches: "pl.DataFrame", sample_tokens: int) -> dict[str, Any]:
    """How many there are, their tokens as a multiple of the samples', and how they came out."""
    tokens = int(branches["n_tokens"].sum())
    cut = branches.filter(branches["answer_correct"].is_null() & branches["finish_reason"].is_in(CUT))
    counted = _answers(branches["answer_correct"])
    return {
        "solutions": len(branches),
        "steps": int(branches["n_steps"].sum()),
        "tokens": tokens,
        "tokens_per_sample_token": tokens / sample_tokens if sample_tokens else None,
        "outcomes": {
            "right": counted["correct"],
            "wrong": counted["incorrect"],
            "cut": len(cut),
            "ungraded": counted["unknown"] - len(cut),
        },
    }


def _of_pairs(path: Path) -> dict[str, Any]:
    found = pairs_manifest(path)
    if found is None:
        return {}
    return {
        "pairs": found["kinds"],
        "pair_splits": found["splits"],
        "pair_drops": found["drops"],
        "pair_problems": found.get("problems"),
        "strategy": found["options"]["strategy"],
        "tau": found["tau"],
    }
