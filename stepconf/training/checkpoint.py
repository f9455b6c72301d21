"""Checkpoints: parameters and optimiser state as safetensors, whole or not at all.

FOLDER/checkpoint-000050/model.safetensors, optimizer.safetensors, state.json
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from stepconf.core.documents import differences, read_object
from stepconf.errors import StepconfError
from stepconf.training.ranks import Ranks

_PREFIX = "checkpoint-"


def whole_state(policy: torch.nn.Module, ranks: Ranks) -> dict[str, torch.Tensor]:
    """All parameters on the CPU, gathered on the first rank (empty on the others); a tied one is there once."""
    state = {}
    for name, parameter in policy.named_parameters():
        value = _gathered(parameter)
        if ranks.first:
            state[name] = value
    return state


def save_checkpoint(
    folder: Path,
    policy: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
    ranks: Ranks,
) -> None:
    """Write FOLDER/checkpoint-STEP for `state["step"]` steps done, then remove older ones."""
    parameters = whole_state(policy, ranks)
    moments = {}
    for name, parameter in policy.named_parameters():
        for key, value in optimiser.state[parameter].items():
            whole = _gathered(value)
            if ranks.first:
                moments[f"{name}/{key}"] = whole
    if ranks.first:
        final = folder / f"{_PREFIX}{state['step']:06d}"
        scratch = folder / f".{final.name}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with writing(scratch):
            save_file(parameters, scratch / "model.safetensors")
            save_file(moments, scratch / "optimizer.safetensors")
        (scratch / "state.json").write_text(json.dumps(state))
        sync_files(scratch.iterdir())
        shutil.rmtree(final, ignore_errors=True)
        scratch.rename(final)
        for older in checkpoints(folder)[:-1]:
            shutil.rmtree(older)
    ranks.wait()


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say what a failed write of tensors means; safetensors raises errors of its own, without a number."""
    try:
        yield
    except SafetensorError as error:
        raise StepconfError(
            f"cannot write {place}: {error}",
            "The last checkpoint is kept. Make room, then type the same command again.",
        ) from error


def sync_files(files: Iterable[Path]) -> None:
    """Bring files to the disk: else a crash of the machine may leave empty ones under the name they get next."""
    for file in files:
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())


@contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    """Say what a damaged file of a checkpoint means: it is of no use."""
    try:
        yield
    except (ValueError, KeyError, SafetensorError) as error:
        raise StepconfError(
            f"{checkpoint} is damaged: {type(error).__name__}: {error}",
            "Delete this checkpoint and type the same command again.",
        ) from error


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def check_same(folder: Path, identity: str, recipe: dict[str, Any]) -> None:
    """Raise StepconfError where the newest checkpoint is of other examples, another model or another recipe."""
    for checkpoint in checkpoints(folder)[-1:]:
        state = _state_of(checkpoint)
        if state.get("identity") == identity:
            continue
        differing = "; ".join(differences(state.get("recipe"), recipe, "train")) if "recipe" in state else ""
        raise StepconfError(
            f"{checkpoint} is a checkpoint of other examples, another model or another recipe"
            + (f"; it differs in: {differing}." if differing else "."),
            "Give another --out, or the options that it was made with.",
        )


def load_checkpoint(folder: Path, policy: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Go back to the newest checkpoint; the number of steps done, 0 without one.

    Raises:
        StepconfError: the checkpoint is damaged.
    """
    found = checkpoints(folder)
    if not found:
        return 0
    with _reading(found[-1]):
        done = int(_state_of(found[-1])["step"])
        parameters = load_file(found[-1] / "model.safetensors")
        moments: dict[str, dict[str, torch.Tensor]] = {}
        fused = bool(optimiser.defaults.get("fused"))
        for path, value in load_file(found[-1] / "optimizer.safetensors").items():
            name, _, key = path.rpartition("/")
            moments.setdefault(name, {})[key] = value
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                parameter.copy_(_placed(parameters[name], parameter))
                own = {key: _placed(value, parameter, fused) for key, value in moments.get(name, {}).items()}
                if own:
                    optimiser.state[parameter] = own
    return done


def _state_of(checkpoint: Path) -> dict[str, Any]:
    with _reading(checkpoint):
        return read_object((checkpoint / "state.json").read_text(encoding="utf-8"))


def _gathered(value: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded, on the CPU."""
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.detach().cpu().contiguous()


def _placed(value: torch.Tensor, like: torch.Tensor, fused: bool = False) -> torch.Tensor:
    """A whole tensor as this process holds its parameter; a count of steps only where a fused optimiser reads it."""
    if value.dim() == 0:
        return value.to(like.device) if fused else value
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)
