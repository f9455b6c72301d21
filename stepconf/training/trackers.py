"""Where metrics go besides the terminal and metrics.jsonl."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from stepconf.errors import StepconfError

Report = Callable[[dict[str, Any]], None]


def tracker(kind: Literal["none", "tensorboard", "trackio"], folder: Path) -> Report:
    """A function that takes the metrics of one step.

    Raises:
        StepconfError: the tracker's package is not installed.
    """
    try:
        if kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))
            return lambda metrics: _write(writer, metrics)
        if kind == "trackio":
            import trackio

            trackio.init(project="stepconf", name=folder.name, resume="allow")
            return lambda metrics: _log(trackio.log, metrics)
    except ImportError as error:
        raise StepconfError(
            f"train.log_to={kind} needs a package that is missing: {error}.", f"Type: pip install {kind}"
        ) from error
    return lambda metrics: None


def _log(log: Callable[..., None], metrics: dict[str, Any]) -> None:
    if "step" in metrics:
        group = f"{_group(metrics)}/" if "stage" in metrics else ""
        log({group + name: value for name, value in metrics.items() if name != "step"}, step=metrics["step"])


def _group(metrics: dict[str, Any]) -> str:
    """Every stage counts its own steps."""
    return f"stage-{metrics['stage']}" if "stage" in metrics else "train"


def _write(writer: Any, metrics: dict[str, Any]) -> None:
    if "step" in metrics:
        for name, value in metrics.items():
            writer.add_scalar(f"{_group(metrics)}/{name}", value, metrics["step"])
        writer.flush()
