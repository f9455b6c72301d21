"""Where metrics go besides the terminal and metrics.jsonl."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from stepconf.errors import StepconfError
from stepconf.recipe.use import TrackerName

# The metrics of one step, by name, and the number of the step.
Log = Callable[[dict[str, Any], int], None]
PROJECT = "stepconf"


@contextmanager
def tracker(name: TrackerName, folder: Path, run: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes the metrics of one step, which it logs where they have a `step`.

    Steps count on over the stages. The tracker's run ends with the context: the next round begins one of its own.

    Args:
        name: of the tracker.
        folder: for what it keeps in files.
        run: what it calls the run.

    Raises:
        StepconfError: the tracker's package is not installed.
    """
    with ExitStack() as stack:
        try:
            log = stack.enter_context(_OPENERS[name](folder, run))
        except ImportError as error:
            raise StepconfError(
                f"train.log_to={name} needs a package that is missing: {error}.", f"Type: pip install {name}"
            ) from error

        def report(metrics: dict[str, Any]) -> None:
            if "step" in metrics:
                group = f"stage-{metrics['stage']}/" if "stage" in metrics else ""
                values = {group + key: metrics[key] for key in metrics if key not in ("step", "steps_before")}
                # wandb drops a step that is less than the one before.
                log(values, metrics.get("steps_before", 0) + metrics["step"])

        yield report


@contextmanager
def _none(folder: Path, run: str) -> Iterator[Log]:
    yield lambda metrics, step: None


@contextmanager
def _tensorboard(folder: Path, run: str) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with closing(SummaryWriter(str(folder / "tensorboard"))) as writer:

        def log(metrics: dict[str, Any], step: int) -> None:
            for key, value in metrics.items():
                writer.add_scalar(key if "/" in key else f"train/{key}", value, step)
            writer.flush()

        yield log


@contextmanager
def _trackio(folder: Path, run: str) -> Iterator[Log]:
    import trackio

    trackio.init(project=PROJECT, name=run, resume="allow")
    try:
        yield lambda metrics, step: trackio.log(metrics, step=step)
    finally:
        trackio.finish()


@contextmanager
def _wandb(folder: Path, run: str) -> Iterator[Log]:
    import wandb

    opened = wandb.init(project=PROJECT, name=run, dir=folder)
    try:
        yield lambda metrics, step: opened.log(metrics, step=step)
    except BaseException:
        opened.finish(exit_code=1)
        raise
    opened.finish()


@contextmanager
def _mlflow(folder: Path, run: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run):
        yield lambda metrics, step: mlflow.log_metrics(metrics, step=step)


_OPENERS: dict[TrackerName, Callable[[Path, str], AbstractContextManager[Log]]] = {
    "none": _none,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
