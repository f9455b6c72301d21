"""The figures at the top of the page and the data of its plots, over all samples of the source. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stepconf.calibration.measures import measure_columns
from stepconf.core.calibration import reliability_bins, risk_coverage
from stepconf.core.noise import noise_of
from stepconf.report.index import LABELS, Bools, Floats, Index, Ints, counted

BINS = 10  # of the reliability diagram, equal width
BARS = 24  # of the histogram
POINTS = 200  # of a curve
_TOP = 0.995  # quantile of entropies above which the histogram's last bar takes all
_MANY = 100_000  # steps beyond which a thousand resamples would take minutes
_HEADLINE = (
    # measure, name, form, what it says
    ("step_accuracy", "step accuracy", "percent", "correct among the steps that are decided"),
    ("final_accuracy", "right answers", "percent", "among the solutions whose answer is decided"),
    (
        "auroc",
        "AUROC of entropy",
        "number",
        "chance that a correct step has less entropy than an incorrect one",
    ),
    ("ece", "ECE", "number", "expected calibration error of the step confidence, 10 bins of equal width"),
    ("brier", "Brier score", "number", "mean squared error of the step confidence"),
    ("entropy_correct", "entropy, correct", "nats", "mean over the correct steps"),
    ("entropy_incorrect", "entropy, incorrect", "nats", "mean over the incorrect steps"),
)


def overview(
    index: Index, recipe: Mapping[str, Any], summary: Mapping[str, Any] | None, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """What the page's first part shows.

    Args:
        index: of all steps.
        recipe: how the run was made; may be empty.
        summary: the run's own, with drops, verifiers and pairs; None where there is none.
        metadata: the schema metadata of its steps.
    """
    steps = _decided(index)
    _, entropy, confidence, correct = steps
    n_resamples = 1000 if len(correct) <= _MANY else 100
    answered = (index.right >= 0) & ~index.is_branch
    labels = np.bincount(index.label[index.of_sample], minlength=len(LABELS))
    known = summary or {}
    answers = _by_id(index)[index.owner[answered]], index.right[answered] == 1
    found = measure_columns(steps, answers, n_resamples)
    return {
        "counts": _counts(index, summary),
        "labels": counted(labels),
        "unlabelled": dict(known.get("unlabelled") or {}),
        "coverage": known.get("coverage"),
        "tokens_per_label": known.get("tokens_per_label"),
        "branches": dict(known.get("branches") or {}),
        "conflicts": int((index.conflict & index.of_sample).sum()),
        "n_resamples": n_resamples,
        "headline": [
            {"name": name, "form": form, "help": help_, **_bounds(found[key])}
            for key, name, form, help_ in _HEADLINE
            if found[key] is not None
        ],
        "reliability": _reliability(confidence, correct),
        "histogram": _histogram(entropy, correct),
        "risk": _risk(entropy, correct),
        "made": _made(recipe, metadata),
        "verifiers": dict(known.get("verifiers", {})),
        "agreement": list(known.get("agreement", [])),
        "drops": dict(known.get("drops", {})),
        "pairs": _pairs(known),
    }


def _decided(index: Index) -> tuple[Ints, Floats, Floats, Bools]:
    """Of the samples' steps that are labelled correct or incorrect: problem, mean entropy, confidence, correct."""
    here = (index.label != LABELS.index("unknown")) & ~np.isnan(index.entropy) & index.of_sample
    entropy = index.entropy[here]
    problems = _by_id(index)[index.problem[here]]
    return problems, entropy, np.exp(-entropy), index.label[here] == LABELS.index("correct")


def _by_id(index: Index) -> Ints:
    """Each problem's place in the order of ids: resamples are drawn in it, and then are those of the summary."""
    return np.argsort(np.argsort(np.asarray(index.problem_ids.to_pylist(), dtype=str), kind="stable"))


def _counts(index: Index, summary: Mapping[str, Any] | None) -> dict[str, int]:
    of_branches = ~index.of_sample & (index.solution >= 0)
    counts = {
        "problems": len(index.problem_ids),
        "solutions": int((~index.is_branch).sum()),
        "steps": int((~of_branches).sum()),
        "pairs": len(index.pair_step),
    }
    if index.is_branch.any():
        counts["branches"] = int(index.is_branch.sum())
    if summary:
        counts["tokens"] = int(summary["tokens"]) - int((summary.get("branches") or {}).get("tokens", 0))
    return counts


def _bounds(interval: Mapping[str, Any]) -> dict[str, Any]:
    return {key: interval[key] for key in ("estimate", "low", "high", "n_clusters")}


def _reliability(confidence: Floats, correct: Bools) -> dict[str, Any] | None:
    if not correct.size:
        return None
    bins = reliability_bins(confidence, correct, BINS)
    return {
        "bins": [
            {
                "low": b.low,
                "high": b.high,
                "count": b.count,
                "confidence": b.confidence,
                "accuracy": b.accuracy,
            }
            for b in bins
        ]
    }


def _histogram(entropy: Floats, correct: Bools) -> dict[str, Any] | None:
    """Steps by mean entropy; what lies beyond the last edge is counted in the last bar."""
    if not correct.size:
        return None
    top = float(np.quantile(entropy, _TOP)) or float(entropy.max()) or 1.0
    edges = np.linspace(0, top, BARS + 1)
    inside = np.minimum(entropy, top)
    counts = {
        name: np.histogram(inside[correct == kind], edges)[0].tolist()
        for name, kind in (("correct", True), ("incorrect", False))
    }
    return {"edges": edges.tolist(), "max": float(entropy.max()), **counts}


def _risk(entropy: Floats, correct: Bools) -> dict[str, Any] | None:
    """The curve of answering only the surest steps, thinned to some points; the area is that of all."""
    if not correct.size:
        return None
    curve = risk_coverage(-entropy, correct)
    n = len(curve.coverage)
    at = np.unique(np.linspace(0, n - 1, min(POINTS, n)).round().astype(int))
    points = np.stack([curve.coverage[at], curve.risk[at]], axis=1)
    return {"points": points.tolist(), "area": curve.area, "base": float(1 - correct.mean())}


def _pairs(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    if "pairs" not in summary:
        return None
    names = ("pairs", "pair_splits", "pair_drops", "strategy", "tau")
    return {name.removeprefix("pair_"): summary.get(name) for name in names}


def _made(recipe: Mapping[str, Any], metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """How the run was made, as lines of name and value; of a recipe that others may have written."""
    problems, sampling, verify = (_group(recipe, name) for name in ("problems", "sampling", "verify"))
    lines = [
        ("command", recipe.get("command")),
        ("problems", problems.get("source")),
        ("model", recipe.get("model") or metadata.get("model")),
        ("engine", " ".join(filter(None, (metadata.get("engine"), metadata.get("engine_version"))))),
        ("dtype", metadata.get("dtype")),
        ("vocabulary", metadata.get("vocabulary")),
        ("entropy", metadata.get("entropy_estimator")),
    ]
    if recipe.get("command") == "generate":
        said = ("samples", "temperature", "top_p", "max_tokens", "seed")
        lines.append(
            ("sampling", ", ".join(f"{n.replace('_', ' ')} {sampling[n]}" for n in said if n in sampling))
        )
    if verify:
        names = verify.get("verifiers")
        said_by = ", ".join(map(str, names)) if isinstance(names, list) else ""
        lines.append(("verifiers", f"{said_by} (labels: {verify.get('policy')})"))
    lines.append(("label noise", noise_of({"verify": verify}).said))
    return [(name, str(value)) for name, value in lines if value]


def _group(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = recipe.get(name)
    return group if isinstance(group, dict) else {}
