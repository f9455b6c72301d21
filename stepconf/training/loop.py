"""The optimisation: examples in, an optimised policy and a metrics file out."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from stepconf.core.documents import read_object
from stepconf.core.trees import Example
from stepconf.errors import StepconfError
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe
from stepconf.training.batches import collate, packed
from stepconf.training.checkpoint import check_same, checkpoints, load_checkpoint, save_checkpoint
from stepconf.training.objectives.base import Objective
from stepconf.training.policy import Policy
from stepconf.training.ranks import Ranks
from stepconf.training.reference import Known, reference_logprobs
from stepconf.training.schedule import learning_rate, steps_of
from stepconf.training.totals import Totals

Report = Callable[[dict[str, Any]], None]


def optimise(
    policy: Policy,
    examples: Sequence[Example],
    recipe: TrainRecipe,
    folder: Path,
    model_digest: str,
    ranks: Ranks,
    report: Report,
    saved: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train `policy` in place on `examples`, in one stage; returns the metrics of the last step.

    FOLDER/metrics.jsonl gets one line a step, FOLDER/checkpoint-N the state to continue from: the same call
    again does, to the same trajectory. So does one with other keys of speed, to the same but for rounding. The
    reference is the policy as it is given. `saved` is called by every process after each checkpoint.

    Raises:
        StepconfError: the loss or the gradient is not finite, or FOLDER holds a checkpoint of something else.
    """
    objective: Objective = OBJECTIVES.load(recipe.objective)
    steps = steps_of(examples, recipe.batch_size, recipe.epochs, recipe.seed, recipe.max_steps)
    identity = identity_of(examples, recipe, model_digest)
    check_same(folder, identity, recipe.deciding())
    temperature = _temperature(examples)
    reference = None
    if objective.reference or objective.data == "groups":
        reference = reference_logprobs(
            policy, examples, steps, recipe, folder, identity, ranks, report, temperature
        )
    known = Known(examples, reference)
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=ranks.size == 1
    )
    done = load_checkpoint(folder, policy, optimiser)
    metrics = _metrics_until(folder, done, ranks)
    policy.train()
    with _interrupts() as interrupted:
        for step in range(done, len(steps)):
            torch.manual_seed(recipe.seed + step)  # for dropout, if the model has any
            rate = learning_rate(step, len(steps), recipe.learning_rate, recipe.warmup_ratio, recipe.schedule)
            for group in optimiser.param_groups:
                group["lr"] = rate
            metrics = _step(
                policy, optimiser, examples, steps[step], objective, known, recipe, ranks, temperature
            )
            metrics = {"step": step + 1, "of": len(steps), **metrics, "learning_rate": rate}
            _note(folder, metrics, ranks)
            report(metrics)
            stop = _somewhere(interrupted, ranks)
            if stop or (step + 1) % recipe.checkpoint_every == 0 or step + 1 == len(steps):
                state = {"step": step + 1, "identity": identity, "recipe": recipe.deciding()}
                save_checkpoint(folder, policy, optimiser, state, ranks)
                saved()
            if stop:
                raise KeyboardInterrupt
        if _somewhere(interrupted, ranks):  # while the last checkpoint was written
            raise KeyboardInterrupt
    return metrics


def optimise_stages(
    policy: Policy,
    examples: Sequence[Sequence[Example]],
    recipe: TrainRecipe,
    folder: Path,
    model_digest: str,
    ranks: Ranks,
    report: Report,
    saved: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """`optimise` in each stage of the recipe, on `examples[i]`; returns the metrics of the last step of each.

    Where there are several, stage i has FOLDER/stage-i. The reference of a stage is the policy that the one before it
    has made. A stage that another went on from is not done again, and its checkpoint is removed. `report` is told the
    `stage` then, and `steps_before`, the steps of the stages before it.

    Raises:
        StepconfError: as `optimise`, or FOLDER holds a checkpoint of a training with other stages.
    """
    stages = recipe.in_order()

    def reporter(number: int) -> Report:
        told = {"stage": number + 1, "steps_before": sum(one.get("step", 0) for one in found)}
        return report if len(stages) == 1 else lambda metrics: report(metrics | told)

    folders = [folder] if len(stages) == 1 else [folder / f"stage-{i + 1}" for i in range(len(stages))]
    _check_stages(folder, folders)
    found: list[dict[str, Any]] = []
    for i, stage in enumerate(stages):
        if any(checkpoints(later) for later in folders[i + 1 :]):
            found.append(_last_metrics(folders[i]))
        else:
            found.append(
                optimise(policy, examples[i], stage, folders[i], model_digest, ranks, reporter(i), saved)
            )
            for done in checkpoints(folders[i - 1]) if i and ranks.first else []:
                shutil.rmtree(done)
            ranks.wait()
        model_digest = identity_of(examples[i], stage, model_digest)
    return found


def _check_stages(folder: Path, folders: Sequence[Path]) -> None:
    """Raise StepconfError where a checkpoint lies in `folder` that is of none of the stages: it would be lost."""
    for other in (folder, *sorted(folder.glob("stage-*"))):
        if other not in folders and checkpoints(other):
            raise StepconfError(
                f"{other} holds a checkpoint of a training with other stages; there are {len(folders)} now.",
                "Give another --out, or the stages that it was made with.",
            )


def _step(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    examples: Sequence[Example],
    indices: list[int],
    objective: Objective,
    known: Known,
    recipe: TrainRecipe,
    ranks: Ranks,
    temperature: float,
) -> dict[str, float]:
    """One optimiser step over `indices`, in as many micro-batches as the token budget makes of them."""
    started = time.perf_counter()
    batches = packed(examples, indices, recipe, ranks)
    n_targets = sum(examples[i].n_targets for i in indices)
    n_units = n_targets if objective.per_token else len(indices)
    totals = Totals()
    optimiser.zero_grad(set_to_none=True)
    for turn, trees in enumerate(ranks.deal(batches)):
        batch = collate(trees).to(ranks.device)
        owned = ranks.owns(turn, len(batches))
        scores, sides = policy(batch, temperature), known.of(batch)
        loss = objective.loss(scores, sides, recipe)
        # FSDP averages gradients over the processes; the loss is a sum over all of them.
        (loss.values.sum() * (ranks.size / n_units if owned else 0.0)).backward()
        if owned:
            totals.add(loss, sides, scores, len(batch.token_ids))
    totals.share(ranks)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    norm_value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    _check_finite(totals.loss / n_units, norm_value, [examples[i].key for i in indices])
    optimiser.step()
    seconds = time.perf_counter() - started
    return {
        "loss": totals.loss / n_units,
        "grad_norm": norm_value,
        **totals.of_sides(),
        **({} if temperature == 1 else {"temperature": temperature}),  # that of the entropies
        "examples": len(indices),
        "examples_per_second": round(len(indices) / seconds, 3),
        "tokens": int(totals.tokens),
        "tokens_per_second": round(totals.tokens / seconds, 1),
        "tokens_unpacked": sum(
            len(examples[i].prompt_ids) * len(examples[i].sides) + examples[i].n_targets for i in indices
        ),
    }


def identity_of(examples: Sequence[Example], recipe: TrainRecipe, model_digest: str) -> str:
    """A digest of all that decides the trajectory beyond rounding."""
    digest = blake2b(digest_size=12)
    digest.update(f"{model_digest}\n{json.dumps(recipe.deciding())}".encode())
    for example in examples:
        data = (
            f"{example.prompt_ids} {example.sides} {example.credits} {example.logprobs} {example.temperature}"
        )
        digest.update(f"\n{example.key} {data}".encode())
    return digest.hexdigest()


def _temperature(examples: Sequence[Example]) -> float:
    """That of all examples."""
    found = sorted({example.temperature for example in examples})
    if len(found) > 1:
        raise StepconfError(
            f"the samples were drawn at several temperatures: {', '.join(f'{one:g}' for one in found)}.",
            "Train on a run of one sampling.temperature.",
        )
    return found[0]


def _check_finite(loss: float, norm: float, keys: list[str]) -> None:
    if torch.isfinite(torch.tensor([loss, norm])).all():
        return
    raise StepconfError(
        f"the loss is {loss} and the gradient norm {norm} on the examples {', '.join(keys[:5])}"
        f"{' and others' if len(keys) > 5 else ''}; the step was not taken.",
        "The last checkpoint is kept. Lower --set train.learning_rate, or use --set train.dtype=float32, "
        "with another --out.",
    )


def _note(folder: Path, metrics: dict[str, Any], ranks: Ranks) -> None:
    if ranks.first:
        with (folder / "metrics.jsonl").open("a") as out:
            out.write(json.dumps(metrics) + "\n")


def _metrics_until(folder: Path, done: int, ranks: Ranks) -> dict[str, Any]:
    """Cut the metrics file to its first `done` lines; returns the last of them."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines()[:done] if file.exists() else []
    ranks.wait()
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
    ranks.wait()  # another process would read half a file
    return _last_metrics(folder)


def _last_metrics(folder: Path) -> dict[str, Any]:
    """The last line of the metrics file; {} without one."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    try:
        return read_object(lines[-1]) if lines else {}
    except ValueError as error:
        raise StepconfError(
            f"{file}, line {len(lines)} is not JSON of stepconf train: {error}", "Give another --out."
        ) from error


def _somewhere(event: threading.Event, ranks: Ranks) -> bool:
    """Whether it is set in any process."""
    return bool(ranks.sum(torch.tensor(float(event.is_set()), device=ranks.device)).item() > 0)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event: the step is finished and saved; a second one interrupts at once."""
    event = threading.Event()

    def note(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
