"""Bars for who waits."""

from types import TracebackType
from typing import Any, cast

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
from rich.text import Text

from stepconf.ui.console import console, styled


class _Name(ProgressColumn):
    """The name of a stage, at least `width` characters wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def render(self, task: Task) -> Text:
        return styled((f"{task.description:<{self._width}}", ""))


def _spinner() -> SpinnerColumn:
    return SpinnerColumn("line" if console.options.ascii_only else "dots")


def _times() -> tuple[ProgressColumn, ...]:
    """`0:00:10 elapsed, 0:00:20 left`."""
    return TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left")


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
            *_times(),
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
            *_times(),
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
