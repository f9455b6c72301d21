"""What a run holds, in figures: from its manifests and, with Polars, from its tables."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from stepconf.core.agreement import PairAgreement, VerifierSummary, tabulate
from stepconf.core.audit import outcome_check
from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import auroc
from stepconf.core.calibration.large import clustered_auroc
from stepconf.core.documents import read_json
from stepconf.core.ids import digest_of_ids
from stepconf.core.labels import TAKEN_BACK
from stepconf.core.reasoning import PARTS
from stepconf.core.records import CUT, Label
from stepconf.errors import StepconfError
from stepconf.run.coverage import coverage, too_hard
from stepconf.run.damage import damage_told
from stepconf.run.facts import each, from_json, is_count
from stepconf.run.meter import idle_share
from stepconf.run.scan import scan, scan_branches, scan_samples
from stepconf.run.shards import Run
from stepconf.run.tables import pairs_manifest, read_manifests, read_recipe, shard_files

if TYPE_CHECKING:
    import polars as pl

RESAMPLES = 1000
_OF_TABLES = (
    "shards", "problems", "answers", "branches", "verifiers", "other_verifiers", "agreement", "labels", "unlabelled",
    "coverage", "tokens_per_label", "entropy", "critic", "reasoning",
)  # fmt: skip
LARGE = 200_000  # steps from which a thousand resamples take seconds and a normal interval is as good
Column = npt.NDArray[Any]


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
    `other_verifiers` are how many there are beyond those that are compared. `critic`: see `_of_critic`. `reasoning`:
    see `_reasoning`.
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
    with polars_reads(path):
        tables = _of_tables(path, chunks, _known(path) if same_steps else {})
    return {
        "model": read_recipe(path).get("model", ""),
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


@contextmanager
def polars_reads(path: Path) -> Iterator[None]:
    """A shard of the run that Polars cannot read is told as damage: StepconfError."""
    import polars as pl

    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise damage_told(path, f"a shard of {path} cannot be read: {error}") from error


def confidence_quantile(path: Path, quantile: float) -> float:
    """The quantile of the confidences of correct steps in the run, the fitted ones if it has them: the default tau.

    Raises:
        StepconfError: no step is labelled correct, or a shard cannot be read.
    """
    import polars as pl

    correct = scan(path, "steps").filter(pl.col("label") == "correct")
    asked = correct.select(pl.coalesce("fitted_confidence", "confidence").quantile(quantile, "linear"))
    with polars_reads(path):
        value = asked.collect(engine="streaming").item()
    if value is None:
        raise StepconfError(
            f"no step in {path} is labelled correct, so there is no quantile to take tau from.",
            "Give a value: --tau 0.8",
        )
    return float(value)


def step_columns(path: Path) -> tuple[Column, Column, Column, Column]:
    """Of the samples' steps that are labelled correct or incorrect: problem, mean entropy, confidence, correct.

    Problems are numbered in the order of their ids: a million strings would be objects. Raises as `polars_reads`.
    """
    import polars as pl

    if not shard_files(path, "steps"):
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    steps = scan_samples(path, "steps").filter(
        pl.col("label").is_in(["correct", "incorrect"]) & pl.col("entropy_mean").is_not_null()
    )
    with polars_reads(path):
        ids = steps.select(pl.col("problem_id").unique()).collect(engine="streaming").to_series().sort()
        numbers = pl.LazyFrame(
            {"problem_id": ids, "problem": pl.arange(len(ids), eager=True, dtype=pl.UInt32)}
        )
        frame = (
            steps.join(numbers, "problem_id", maintain_order="left")
            .select("problem", "entropy_mean", "confidence", (pl.col("label") == "correct").alias("correct"))
            .collect(engine="streaming")
        )
    problems, entropy, confidence, correct = (column.to_numpy() for column in frame.get_columns())
    return problems, entropy, confidence, correct


def answer_columns(path: Path) -> tuple[Column, Column]:
    """Of the samples whose answer was decided: problem id, whether it is right. Raises as `polars_reads`."""
    import polars as pl

    if not shard_files(path, "solutions"):
        return np.empty(0), np.empty(0)
    decided = pl.col("answer_correct").is_not_null()
    with polars_reads(path):
        frame = (
            scan_samples(path, "solutions").filter(decided).select("problem_id", "answer_correct").collect()
        )
    return frame["problem_id"].to_numpy(), frame["answer_correct"].to_numpy()


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
        raise damage_told(path, f"{file} is not JSON: {error}.") from error
    if not each(is_count)(found):
        raise damage_told(path, f"{file} holds {found!r:.200}, not numbers by reason.")
    return dict(found)


def _of_tables(path: Path, chunks: list[dict[str, Any]], known: dict[str, Any]) -> dict[str, Any]:
    """What the solutions and steps say; taken from a summary that is known to be of the same shards."""
    shards = digest_of_ids(facts["blake2b"] for chunk in chunks for facts in chunk["files"].values())
    if known.get("shards") == shards:
        return {key: known[key] for key in _OF_TABLES}
    found = _of_solutions(path)
    return {"shards": shards} | found | _of_steps(path, found["branches"])


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


def _of_steps(path: Path, branches: dict[str, Any]) -> dict[str, Any]:
    """What the steps say; what those of branches do joins `branches`."""
    import polars as pl

    if not shard_files(path, "steps"):
        empty: dict[str, Any] = {"verifiers": {}, "other_verifiers": 0, "agreement": [], "labels": {}}
        empty |= {"unlabelled": {}, "coverage": None, "tokens_per_label": None, "entropy": {}}
        return empty | {"critic": {}, "reasoning": {}}
    steps = scan_samples(path, "steps")
    hard = too_hard(steps)
    found = coverage(_with_after_error(steps), hard)
    labelled = found.labelled
    if branches:
        of_branches = scan_branches(path, "steps")
        theirs = coverage(of_branches, hard)
        labelled += theirs.labelled
        branches |= {
            "labels": _labels(of_branches),
            "unlabelled": theirs.unlabelled,
            "coverage": theirs.share,
        }
    tokens = int(scan(path, "solutions").select(pl.col("n_tokens").sum()).collect().item())
    return {
        **_of_verifiers(steps, scan(path, "steps")),
        "labels": _labels(steps),
        "unlabelled": found.unlabelled,
        "coverage": found.share,
        "tokens_per_label": tokens / labelled if tokens and labelled else None,
        "entropy": _entropy(path),
        "critic": _of_critic(path, steps),
        "reasoning": _reasoning(path, steps, hard),
    }


def _reasoning(path: Path, steps: "pl.LazyFrame", hard: "pl.Series") -> dict[str, Any]:
    """Of the samples that think: how many, those cut inside it, turns of thought, and the steps by part; {} of none.

    turns_per_solution: steps of the thinking that hold a turn of thought (figure 3 of arXiv 2605.07353 counts words).
    """
    import polars as pl

    thinks = scan_samples(path, "solutions").filter(pl.col("reasoning_end").is_not_null())
    n, cut = thinks.select(pl.len(), (pl.col("finish_reason") == CUT[1]).sum()).collect().row(0)
    if not n:
        return {}
    part = pl.col("part").fill_null("answer")
    counted = steps.group_by(part).agg(
        steps=pl.len(),
        tokens=(pl.col("token_end") - pl.col("token_start")).sum(),
        labelled=(pl.col("label") != "unknown").sum(),
        taken_back=(pl.col("label_source") == TAKEN_BACK).sum(),
        turns=pl.col("is_reconsidering").sum(),
        entropy_mean=pl.col("entropy_mean").mean(),
    )
    parts = {one["part"]: one for one in counted.collect(engine="streaming").iter_rows(named=True)}
    for one in parts.values():
        one["coverage"] = coverage(_with_after_error(steps).filter(part == one.pop("part")), hard).share
    turns = parts.get("reasoning", {}).get("turns", 0)
    return {
        "solutions": n,
        "cut": cut,
        "turns_per_solution": turns / n,
        "parts": {name: parts[name] for name in PARTS if name in parts},
    }


def _of_critic(path: Path, steps: "pl.LazyFrame") -> dict[str, Any]:
    """How the critic did on samples whose answer was decided; {} where it judged none of them.

    It finds an error in a solution, or none, or (`unread`) it leaves a step unknown and finds none. The others are
    counted as `core.audit.OutcomeCheck` does; `tells_nothing` where that may be chance.
    """
    import polars as pl

    verdict = pl.col("verdicts").struct
    answers = scan_samples(path, "solutions").filter(pl.col("answer_correct").is_not_null())
    judged = (
        steps.select("solution_id", pl.col("verdicts"))
        .explode("verdicts")
        .filter(verdict.field("verifier") == "critic")
        .group_by("solution_id")
        .agg(
            flagged=(verdict.field("label") == "incorrect").any(),
            open=(verdict.field("label") == "unknown").any(),
        )
        .join(answers.select("solution_id", "problem_id", "answer_correct"), "solution_id")
        .sort("solution_id")
        .collect(engine="streaming")
    )
    read = judged.filter(pl.col("flagged") | ~pl.col("open"))
    found = outcome_check(
        read["problem_id"].to_list(), (~read["answer_correct"]).to_list(), read["flagged"].to_list()
    )
    if found is None:
        return {"unread": len(judged)} if len(judged) else {}
    return {**asdict(found), "tells_nothing": found.tells_nothing, "unread": len(judged) - len(read)}


def _labels(steps: "pl.LazyFrame") -> dict[str, int]:
    import polars as pl

    return dict(sorted(steps.group_by("label").agg(pl.len()).collect(engine="streaming").iter_rows()))


def _with_after_error(steps: "pl.LazyFrame") -> "pl.LazyFrame":
    """The steps with `after_error`, which follows from the first errors where the schema did not have it yet."""
    import polars as pl

    unknown = pl.col("after_error").is_null()
    if not steps.select(unknown.any()).collect(engine="streaming").item():
        return steps
    errors = steps.filter("is_first_error").select("solution_id", first="step_index")
    after = pl.col("after_error").fill_null(pl.col("step_index") > pl.col("first"))
    return steps.join(errors, "solution_id", "left").with_columns(after_error=after)


def _of_verifiers(steps: "pl.LazyFrame", all_steps: "pl.LazyFrame") -> dict[str, Any]:
    """Each verifier's labels and coverage, its seconds on all steps, and how far two of them agree.

    The steps are counted by what was said of them before Python sees them: that leaves a handful of rows.
    """
    import polars as pl

    verdict = pl.element().struct
    said = pl.struct(verdict.field("verifier"), verdict.field("label")).struct.json_encode()
    counts = (
        steps.select(pl.col("verdicts").list.eval(said).list.join("\n").alias("said"))
        .group_by("said")
        .agg(pl.len())
        .collect(engine="streaming")
    )
    seconds = (
        all_steps.select(pl.col("verdicts").explode())
        .unnest("verdicts")
        .drop_nulls("verifier")
        .group_by("verifier")
        .agg(pl.col("seconds").sum())
        .collect(engine="streaming")
    )
    found = tabulate(
        {tuple(map(_verdict, filter(None, text.split("\n")))): n for text, n in counts.iter_rows()},
        dict(seconds.iter_rows()),
    )
    return {
        "verifiers": {one.verifier: _verifier(one) for one in found.verifiers},
        "other_verifiers": found.n_others,
        "agreement": [_agreement(pair) for pair in found.pairs],
    }


def _verdict(line: str) -> tuple[str, Label]:
    said = read_json(line)
    return said["verifier"], cast(Label, said["label"])


def _verifier(one: VerifierSummary) -> dict[str, Any]:
    return {
        "correct": one.n_correct,
        "incorrect": one.n_incorrect,
        "unknown": one.n_unknown,
        "coverage": one.coverage,
        "incorrect_rate": one.incorrect_rate,
        "seconds": round(one.seconds, 3),
    }


def _agreement(pair: PairAgreement) -> dict[str, Any]:
    return asdict(pair) | {"steps": pair.n_both, "agreement": pair.agreement, "kappa": pair.kappa}


def _entropy(path: Path) -> dict[str, Any]:
    problems, entropy, _, correct = step_columns(path)
    if not correct.size:
        return {}
    means = [
        float(entropy[correct == kind].mean()) if (correct == kind).any() else None for kind in (True, False)
    ]
    if correct.size > LARGE:
        interval = clustered_auroc(problems, -entropy, correct)
    else:
        interval = cluster_bootstrap(auroc, problems, -entropy, correct, n_resamples=RESAMPLES)
    return {"mean_correct": means[0], "mean_incorrect": means[1], "auroc": asdict(interval)}


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
