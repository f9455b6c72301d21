"""What the steps of a run say, counted with Polars: labels, verifiers, entropy, thinking, the critic."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stepconf.core.agreement import PairAgreement, VerifierSummary, tabulate
from stepconf.core.audit import outcome_check
from stepconf.core.bootstrap import cluster_bootstrap
from stepconf.core.calibration import auroc
from stepconf.core.calibration.large import clustered_auroc
from stepconf.core.documents import read_json
from stepconf.core.labels import TAKEN_BACK
from stepconf.core.reasoning import PARTS
from stepconf.core.records import CUT, Label
from stepconf.run.columns import step_columns
from stepconf.run.coverage import coverage, too_hard
from stepconf.run.scan import scan, scan_branches, scan_samples
from stepconf.run.tables import shard_files

if TYPE_CHECKING:
    import polars as pl

RESAMPLES = 1000
LARGE = 200_000  # steps from which a thousand resamples take seconds and a normal interval is as good


def figures_of_steps(path: Path, branches: dict[str, Any]) -> dict[str, Any]:
    """What the steps say, by the names of the summary; what those of branches do joins `branches`."""
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
