"""The table at the end of a run."""

from glob import escape
from pathlib import Path
from typing import Any

from rich.table import Table

from stepconf.core.noise import Noise
from stepconf.core.pairs.reasons import LACKS
from stepconf.ui.console import output, say
from stepconf.ui.numbers import interval_over_problems, number, reasons

FEW_PAIRS = 50  # fewer are not worth a training
_REASONS = 3  # that are named where there are few
_CRITIC_WARNING = (
    "Warning: the critic's verdicts may be chance: it finds errors as often where the answer is right. Measure it "
    "(stepconf audit), or try another model or --set verify.critic.form=step."
)


def show_summary(summary: dict[str, Any], run: Path | str) -> None:
    """The table at the end of a run: what is in it, where it lies, and what to type next."""
    table = Table(title=f"Run {run}", show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(summary):
        table.add_row(name, value)
    output.print(table)
    if (summary.get("critic") or {}).get("tells_nothing"):
        say(_CRITIC_WARNING, style="yellow")
    say(f"Files: {run}/solutions/*.parquet, {run}/steps/*.parquet")
    if summary.get("pairs"):
        say(f"       {run}/pairs/*.parquet")
    if _has_few_pairs(summary):
        say(few_pairs(summary))
        return
    say(f"Next:  {_next(summary, run)}")


def show_export(
    out: Path | str, counts: dict[str, int], dropped: dict[str, int], warning: str, token_ids: str
) -> None:
    """What was exported, what was not, and what to beware of."""
    sizes = ", ".join(f"{n:,} {split}" for split, n in counts.items())
    say(f"Export: {sizes} rows in {out}; how to load them: {out}/README.md")
    if dropped:
        say(f"Left out: {reasons(dropped)}")
    if warning:
        say(f"Warning: {warning}", style="yellow")
    if token_ids:
        say(f"Token ids: {token_ids}")


def few_pairs(summary: dict[str, Any]) -> str:
    """Why a run has few pairs or none, and what it lacks: one paragraph."""
    n, drops = sum(summary["pairs"].values()), summary["pair_drops"]
    by_size = dict(sorted(drops.items(), key=lambda one: -one[1]))
    commonest = dict(list(by_size.items())[:_REASONS])
    said = f"{f'Only {n:,}' if n else 'No'} pairs by {summary['strategy']}: {reasons(commonest)}."
    lacking = next((LACKS[reason] for reason in by_size if reason in LACKS), None)
    return said if lacking is None else f"{said} The run lacks {lacking}."


def _critic(found: dict[str, Any]) -> str:
    """In how many solutions with a known answer a critic finds an error."""
    unread = f"; {found['unread']:,} not read" if found["unread"] else ""
    if "n_wrong" not in found:
        return unread.removeprefix("; ")
    wrong, right = found["n_wrong"], found["n_right"]
    return (
        f"an error in {wrong - found['wrong_passed']:,} of {wrong:,} with a wrong answer and in "
        f"{found['right_flagged']:,} of {right:,} with a right one; balanced accuracy "
        f"{interval_over_problems(found['balanced_accuracy'])}{unread}"
    )


def _thinking(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What the thinking of reasoning models holds, and the steps by part."""
    if not found:
        return []
    n = f"{found['solutions']:,} solutions, {found['turns_per_solution']:.1f} steps with a turn of thought each"
    rows = [("thinking", n + (f"; {found['cut']:,} cut off inside it" if found["cut"] else ""))]
    for name, one in found["parts"].items():
        share = "" if one["coverage"] is None else f", {one['coverage']:.1%} covered"
        entropy = "" if one["entropy_mean"] is None else f", mean entropy {one['entropy_mean']:.3f}"
        back = f", {one['taken_back']:,} taken back later" if one["taken_back"] else ""
        rows.append(
            (f"  steps of the {name}", f"{one['steps']:,} ({one['tokens']:,} tokens){share}{entropy}{back}")
        )
    return rows


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    branches = summary.get("branches") or {}
    of = " (samples)" if branches else ""
    solutions, steps = (summary[key] - branches.get(key, 0) for key in ("solutions", "steps"))
    rows = [("problems, solutions, steps", f"{summary['problems']:,}, {solutions:,}, {steps:,}")]
    if branches:
        ratio = branches["tokens_per_sample_token"]
        size = f"{branches['solutions']:,} with {branches['steps']:,} steps"
        rows.append(("branches", size + (f"; {ratio:.1f} times the samples' tokens" if ratio else "")))
        rows.append(("  their answers", _outcomes(branches["outcomes"])))
        rows.append(("  their step labels", _counts(branches["labels"])))
    rows += _thinking(summary.get("reasoning") or {})
    if summary["tokens"]:
        rate, idle = summary["tokens_per_second"], summary.get("engine_idle_share")
        speed = f" at {rate:,}/s" if rate else ""
        waited = f", engine idle {idle:.1%}" if idle is not None else ""
        rows.append(("tokens", f"{summary['tokens']:,}{speed}{waited}"))
    rows.append((f"answers{of}", _counts(summary["answers"])))
    for name, found in summary["verifiers"].items():
        rows.append((f"steps by {name}{of}", _counts(found)))
    if summary["other_verifiers"]:
        rows.append(("other verifiers", f"{summary['other_verifiers']:,}, not compared"))
    if critic := summary.get("critic"):
        rows.append(("critic, by the answers", _critic(critic)))
    rows += [(f"{pair['first']} and {pair['second']}", _agreement(pair)) for pair in summary["agreement"]]
    if summary["labels"]:
        rows.append((f"step labels{of}", _counts(summary["labels"])))
        rows += _coverage(summary)
    if noise := Noise(**summary.get("noise", {})).said:
        rows.append(("label noise", noise))
    if entropy := summary["entropy"]:
        correct, incorrect = (number(entropy[k], " nats") for k in ("mean_correct", "mean_incorrect"))
        rows.append((f"mean entropy{of}", f"correct {correct}, incorrect {incorrect}"))
        rows.append((f"AUROC of entropy{of}", interval_over_problems(entropy["auroc"])))
    if "pairs" in summary:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in summary["pairs"].items()) or "none"
        how = summary["strategy"] + (f", tau {summary['tau']:.3f}" if summary["tau"] is not None else "")
        rows.append(("pairs", f"{kinds} ({how})"))
        rows.append(
            ("  by split", ", ".join(f"{n:,} {split}" for split, n in summary["pair_splits"].items()))
        )
        rows.append(("  yield", _yield(summary)))
        rows.append(("without a pair", reasons(summary["pair_drops"])))
    if summary["drops"]:
        rows.append(("left out", reasons(summary["drops"])))
    rows.append(("seconds", ", ".join(f"{stage} {s:,.1f}" for stage, s in summary["seconds"].items())))
    return rows


def _yield(summary: dict[str, Any]) -> str:
    """How many pairs the sampled tokens gave, and over how many problems they are."""
    n, problems = sum(summary["pairs"].values()), summary["pair_problems"]
    per_thousand = f"{1000 * n / summary['tokens']:.2f} per 1,000 sampled tokens" if summary["tokens"] else ""
    over = "" if problems is None else f"of {problems:,} of {summary['problems']:,} problems"
    return ", ".join(filter(None, (per_thousand, over)))


def _has_few_pairs(summary: dict[str, Any]) -> bool:
    return "pairs" in summary and sum(summary["pairs"].values()) < FEW_PAIRS


def _counts(found: dict[str, Any]) -> str:
    right, wrong, unknown = (found.get(k, 0) for k in ("correct", "incorrect", "unknown"))
    share = (
        f"{right / (right + wrong):.1%} correct of {right + wrong:,} decided"
        if right + wrong
        else "none decided"
    )
    return f"{share}; {unknown:,} unknown"


def _outcomes(found: dict[str, int]) -> str:
    graded = found["right"] + found["wrong"]
    share = f"{found['right'] / graded:.1%} correct of {graded:,} decided" if graded else "none decided"
    return f"{share}; {found['cut']:,} cut off, {found['ungraded']:,} unknown"


def _coverage(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Why steps have no label, and the share of those that have one or need none."""
    rows = []
    if summary.get("unlabelled"):
        rows.append(("  without one", reasons(summary["unlabelled"])))
    if summary.get("coverage") is not None:
        what = "of the steps that state something, in problems that are not too hard"
        price = summary.get("tokens_per_label")
        cost = f"; {price:,.1f} tokens a label" if price else ""
        rows.append(("coverage", f"{summary['coverage']:.1%} {what}{cost}"))
    return rows


def _agreement(pair: dict[str, Any]) -> str:
    if not pair["steps"]:
        return "decide no step in common"
    return f"agree on {pair['agreement']:.1%} of {pair['steps']:,} steps, kappa {number(pair['kappa'])}"


def _next(summary: dict[str, Any], run: Path | str) -> str:
    if not summary["tokens"]:
        return f"polars.scan_parquet({escape(str(run)) + '/steps/*.parquet'!r})"
    if summary.get("pairs"):
        return f"stepconf train {run} --model {summary['model'] or 'MODEL'} --out {run}-dpo"
    return f"stepconf pairs {run}"
