"""Where metrics go besides the terminal and metrics.jsonl."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepconf.errors import StepconfError
from stepconf.recipe.use import TrackerName

# The metrics of one step, by name, and the number of the step.
Log = Callable[[dict[str, Any], int], None]
PROJECT = "stepconf"


def tracker(name: TrackerName, folder: Path) -> Callable[[dict[str, Any]], None]:
    """A function that takes the metrics of one step, which it logs where they have a `step`.

    Raises:
        StepconfError: the tracker's package is not installed.
    """
    try:
        log = _OPENERS[name](folder)
    except ImportError as error:
        raise StepconfError(
            f"train.log_to={name} needs a package that is missing: {error}.", f"Type: pip install {name}"
        ) from error

    def report(metrics: dict[str, Any]) -> None:
        if "step" in metrics:
            # Every stage counts its own steps.
            group = f"stage-{metrics['stage']}/" if "stage" in metrics else ""
            log({group + key: value for key, value in metrics.items() if key != "step"}, metrics["step"])

    return report


def _none(folder: Path) -> Log:
    return lambda metrics, step: None


def _tensorboard(folder: Path) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(metrics: dict[str, Any], step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key if "/" in key else f"train/{key}", value, step)
        writer.flush()

    return log


def _trackio(folder: Path) -> Log:
    import trackio

    trackio.init(project=PROJECT, name=folder.name, resume="allow")
    return lambda metrics, step: trackio.log(metrics, step=step)


def _wandb(folder: Path) -> Log:
    import wandb

    run = wandb.init(project=PROJECT, name=folder.name, dir=folder)
    return lambda metrics, step: run.log(metrics, step=step)


def _mlflow(folder: Path) -> Log:
    import mlflow

    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=folder.name)
    return lambda metrics, step: mlflow.log_metrics(metrics, step=step)


_OPENERS: dict[TrackerName, Callable[[Path], Log]] = {
    "none": _none,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
