"""What a person sees: progress while they wait, and the table at the end.

The one way to print. Strings are never markup: `output` and `console` show what is in them, from any source, and a
style is given beside its text (`styled`).
"""

from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from rich.console import Console, ConsoleDimensions
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from stepconf.core.pairs.reasons import LACKS
from stepconf.core.printable import printable
from stepconf.stores.places import with_urls

FEW_PAIRS = 50  # fewer are not worth a training
_REASONS = 3  # that are named where there are few
_LEAST_WIDTH = 60  # columns; in fewer, tables are columns of single letters, or Rich fails


class _Console(Console):
    """To which a string is data: no markup, no emoji codes, nothing that a terminal would obey.

    Rich measures and renders each string (a line, a title, a cell, a label) by `render_str`.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_plain(text), **options)

    @property
    def size(self) -> ConsoleDimensions:
        """As the terminal says, but never too narrow for a table.

        Only bars that are redrawn in place must have the true width, else each leaves lines where it was.
        """
        found = super().size
        if self.stderr and self.is_terminal:
            return found
        return ConsoleDimensions(max(found.width, _LEAST_WIDTH), found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self.width, self.height = new_size


console = _Console(stderr=True)
output = _Console()


def _plain(text: str) -> str:
    """What may be shown: nothing that a terminal would obey, and what a user named by a URL by that."""
    return printable(with_urls(text))


def styled(*parts: tuple[str, str]) -> Text:
    """Texts, each with its style: the only way to one, as `rich.text.Text` lets control characters through."""
    return Text.assemble(*((_plain(text), style) for text, style in parts))


def say(line: str, style: str = "") -> None:
    """Print one line, however long; a line feed, which only what was read can hold, is shown as `\\n`."""
    output.print(styled((line.replace("\n", r"\n"), style)), soft_wrap=True)


class _Name(ProgressColumn):
    """The name of a stage, at least `width` characters wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def render(self, task: Task) -> Text:
        return styled((f"{task.description:<{self._width}}", ""))


def _spinner() -> SpinnerColumn:
    return SpinnerColumn("line" if console.options.ascii_only else "dots")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


class StageProgress:
    """A bar per stage with rate and time to go. Call it as `tick(stage, n)`: see `run.events.Tick`."""

    def __init__(self, shown: bool = True) -> None:
        self._progress = Progress(
            _spinner(),
            _Name(8),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "StageProgress":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, stage: str, n: int) -> None:
        """`n` more done in `stage`; a negative n announces so many more to do."""
        if stage not in self._tasks:
            first = next(iter(self._tasks.values()), None)
            total = 0 if n < 0 else self._progress.tasks[first].total if first is not None else None
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        if n < 0:
            total = self._progress.tasks[self._tasks[stage]].total or 0
            self._progress.update(self._tasks[stage], total=total - n)
        if n > 0:
            self._progress.advance(self._tasks[stage], n)


class TrainProgress:
    """A bar over the optimiser steps with the newest metrics beside it. Call it as `report(metrics)`."""

    def __init__(self) -> None:
        self._progress = Progress(
            _spinner(),
            _Name(9),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "TrainProgress":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, metrics: dict[str, Any]) -> None:
        """`metrics` of one step, as `training.loop.optimise` reports them."""
        stage = "reference" if "reference" in metrics else "train"
        stage += f" {metrics['stage']}" if "stage" in metrics else ""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=metrics["of"], metrics="")
        shown = [
            f"{name} {metrics[key]:.{digits}f}"
            for name, key, digits in (
                ("loss", "loss", 4),
                ("accuracy", "accuracy", 2),
                ("margin", "margin", 3),
                ("examples/s", "examples_per_second", 2),
            )
            if key in metrics
        ]
        done = metrics.get("reference", metrics.get("step"))
        self._progress.update(self._tasks[stage], completed=done, metrics="  ".join(shown))


class LoopProgress:
    """Progress of whole rounds: a line for each stage, and below it the stage's own bars."""

    def __init__(self) -> None:
        self._shown: StageProgress | TrainProgress | None = None

    def __enter__(self) -> "LoopProgress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show(None)

    def announce(self, text: str) -> None:
        """A new stage begins."""
        self._show(None)
        console.print(text)

    def tick(self, stage: str, n: int) -> None:
        """As `StageProgress`."""
        if not isinstance(self._shown, StageProgress):
            self._show(StageProgress())
        cast(StageProgress, self._shown)(stage, n)

    def report(self, metrics: dict[str, Any]) -> None:
        """As `TrainProgress`."""
        if not isinstance(self._shown, TrainProgress):
            self._show(TrainProgress())
        cast(TrainProgress, self._shown)(metrics)

    def _show(self, progress: StageProgress | TrainProgress | None) -> None:
        if self._shown is not None:
            self._shown.__exit__(None, None, None)
        self._shown = progress
        if progress is not None:
            progress.__enter__()


def show_rounds(measured: list[dict[str, Any]], out: Path | str) -> None:
    """The figures of every round on the held-out problems, with intervals."""
    table = Table(
        title=f"Rounds {out}: held-out problems, 95 % intervals over problems", title_justify="left"
    )
    table.add_column("", style="bold")
    for one in measured:
        table.add_column(f"round {one['round']}", justify="right")
    for name in [key for key in measured[0] if key not in ("round", "policy")]:
        cells = [
            "-" if one[name] is None or one[name]["estimate"] is None
            else f"{one[name]['estimate']:.3f}\n[{_number(one[name]['low'])}, {_number(one[name]['high'])}]"
            for one in measured
        ]  # fmt: skip
        table.add_row(name.replace("_", " "), *cells)
    output.print(table)
    say(f"Files: {out}/rounds.json, {measured[-1]['policy']}")
    last = f"{out}/round-{measured[-1]['round']}/eval"
    say(f"Next:  stepconf calibrate {last} --before {out}/round-0/eval")


def show_training(summary: dict[str, Any], out: Path | str) -> None:
    """The table at the end of a training: on what, how it ended, and what to type next."""
    table = Table(title=f"Training {out}", show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    last = summary["last_step"]
    for stage in summary["stages"]:
        table.add_row(stage["objective"], f"{stage['examples']:,} examples")
        if stage["dropped"]:
            table.add_row("  left out", _reasons(stage["dropped"]))
        _add_last_step(table, stage["last_step"])
    table.add_row(
        "speed", f"{last['examples_per_second']:,} examples/s, {last['tokens_per_second']:,} tokens/s"
    )
    output.print(table)
    say(f"Files: {summary['model']}, {out}/summary.json")
    say(f"Next:  stepconf report {out}, stepconf generate --model {summary['model']} ...")


def _add_last_step(table: Table, last: dict[str, Any]) -> None:
    table.add_row("  last step", f"{last['step']:,} of {last['of']:,}: loss {last['loss']:.4f}")
    if "margin" in last:
        rewards = f"chosen {last['reward_chosen']:.3f}, rejected {last['reward_rejected']:.3f}"
        accuracy = f"; accuracy {last['accuracy']:.2f}" if "accuracy" in last else ""
        table.add_row("  rewards", rewards + accuracy)
    sides = [side for side in ("chosen", "rejected") if f"entropy_{side}" in last]
    entropies = ", ".join(f"{side} {last[f'entropy_{side}']:.3f}" for side in sides)
    table.add_row("  mean entropy, nats", entropies)


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
        say(f"Left out: {_reasons(dropped)}")
    if warning:
        say(f"Warning: {warning}", style="yellow")
    if token_ids:
        say(f"Token ids: {token_ids}")


def few_pairs(summary: dict[str, Any]) -> str:
    """Why a run has few pairs or none, and what it lacks: one paragraph."""
    n, drops = sum(summary["pairs"].values()), summary["pair_drops"]
    by_size = dict(sorted(drops.items(), key=lambda one: -one[1]))
    commonest = dict(list(by_size.items())[:_REASONS])
    said = f"{f'Only {n:,}' if n else 'No'} pairs by {summary['strategy']}: {_reasons(commonest)}."
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
        f"{_interval(found['balanced_accuracy'])}{unread}"
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
    if entropy := summary["entropy"]:
        correct, incorrect = (_number(entropy[k], " nats") for k in ("mean_correct", "mean_incorrect"))
        rows.append((f"mean entropy{of}", f"correct {correct}, incorrect {incorrect}"))
        rows.append((f"AUROC of entropy{of}", _interval(entropy["auroc"])))
    if "pairs" in summary:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in summary["pairs"].items()) or "none"
        how = summary["strategy"] + (f", tau {summary['tau']:.3f}" if summary["tau"] is not None else "")
        rows.append(("pairs", f"{kinds} ({how})"))
        rows.append(
            ("  by split", ", ".join(f"{n:,} {split}" for split, n in summary["pair_splits"].items()))
        )
        rows.append(("  yield", _yield(summary)))
        rows.append(("without a pair", _reasons(summary["pair_drops"])))
    if summary["drops"]:
        rows.append(("left out", _reasons(summary["drops"])))
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
        rows.append(("  without one", _reasons(summary["unlabelled"])))
    if summary.get("coverage") is not None:
        what = "of the steps that state something, in problems that are not too hard"
        price = summary.get("tokens_per_label")
        cost = f"; {price:,.1f} tokens a label" if price else ""
        rows.append(("coverage", f"{summary['coverage']:.1%} {what}{cost}"))
    return rows


def _agreement(pair: dict[str, Any]) -> str:
    if not pair["steps"]:
        return "decide no step in common"
    return f"agree on {pair['agreement']:.1%} of {pair['steps']:,} steps, kappa {_number(pair['kappa'])}"


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.3f}{unit}"


def interval(value: dict[str, Any], digits: int = 3) -> str:
    """An estimate with its 95 % bounds, where they are known."""
    if value["estimate"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['estimate']:.{digits}f}"
    return f"{value['estimate']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _interval(interval: dict[str, Any]) -> str:
    if interval["estimate"] is None:
        return "undefined (one class only)"
    bounds = f"[{_number(interval['low'])}, {_number(interval['high'])}]"
    return f"{interval['estimate']:.3f}  95 % {bounds} over {interval['n_clusters']:,} problems"


def _reasons(drops: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in drops.items()) or "none"


def _next(summary: dict[str, Any], run: Path | str) -> str:
    if not summary["tokens"]:
        return f"polars.scan_parquet({escape(str(run)) + '/steps/*.parquet'!r})"
    if summary.get("pairs"):
        return f"stepconf train {run} --model {summary['model'] or 'MODEL'} --out {run}-dpo"
    return f"stepconf pairs {run}"
