"""The optimisation: examples in, an optimised policy and a metrics file out."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from stepconf.core.documents import read_object
from stepconf.core.trees import Example, Tree, pack, plant
from stepconf.errors import StepconfError
from stepconf.recipe import TrainRecipe
from stepconf.training.batches import Batch, collate
from stepconf.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, writing
from stepconf.training.losses import dpo_loss
from stepconf.training.policy import Policy
from stepconf.training.ranks import Ranks
from stepconf.training.schedule import learning_rate, steps_of

Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Totals:
    """Sums over one optimiser step: loss, then pair metrics, then what was computed for it."""

    loss: float = 0.0
    chosen: float = 0.0
    rejected: float = 0.0
    wins: float = 0.0
    tokens: float = 0.0


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
    """Train `policy` in place on `examples`; returns the metrics of the last step.

    FOLDER/metrics.jsonl gets one line a step, FOLDER/checkpoint-N the state to continue from: the same call
    again does, to the same trajectory. The reference is the policy as it is given. `saved` is called by every process
    after each checkpoint.

    Raises:
        StepconfError: the loss or the gradient is not finite, or FOLDER holds a checkpoint of something else.
    """
    steps = steps_of(examples, recipe.batch_size, recipe.epochs, recipe.seed)
    identity = _identity(examples, recipe, model_digest)
    reference = None
    if recipe.objective == "dpo":
        reference = reference_logprobs(policy, examples, recipe, folder, identity, ranks, report)
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=ranks.size == 1
    )
    done = load_checkpoint(folder, policy, optimiser, identity)
    metrics = _metrics_until(folder, done, ranks)
    policy.train()
    with _interrupts() as interrupted:
        for step in range(done, len(steps)):
            torch.manual_seed(recipe.seed + step)  # for dropout, if the model has any
            rate = learning_rate(step, len(steps), recipe.learning_rate, recipe.warmup_ratio, recipe.schedule)
            metrics = _step(policy, optimiser, examples, steps[step], reference, recipe, rate, ranks)
            metrics = {"step": step + 1, "of": len(steps), **metrics}
            _note(folder, metrics, ranks)
            report(metrics)
            stop = ranks.sum(torch.tensor(float(interrupted.is_set()), device=ranks.device)).item() > 0
            if stop or (step + 1) % recipe.checkpoint_every == 0 or step + 1 == len(steps):
                state = {"step": step + 1, "identity": identity}
                save_checkpoint(folder, policy, optimiser, state, ranks)
                saved()
            if stop:
                raise KeyboardInterrupt
    return metrics


def _step(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    examples: Sequence[Example],
    indices: list[int],
    reference: torch.Tensor | None,
    recipe: TrainRecipe,
    rate: float,
    ranks: Ranks,
) -> dict[str, float]:
    """One optimiser step over `indices`, in as many micro-batches as the token budget makes of them."""
    started = time.perf_counter()
    packed = _packed(examples, indices, recipe, ranks)
    share = ranks.deal(packed)
    n_units = len(indices) if reference is not None else sum(examples[i].n_targets for i in indices)
    totals = Totals()
    optimiser.zero_grad(set_to_none=True)
    for turn, trees in enumerate(share):
        batch = collate(trees).to(ranks.device)
        owned = ranks.owns(turn, len(packed))
        loss = objective(policy(batch), batch, reference, recipe, totals if owned else Totals())
        # FSDP averages gradients over the processes; the loss is a sum over all of them.
        (loss * (ranks.size / n_units if owned else 0.0)).backward()
        if owned:
            totals.loss += float(loss.detach()) / n_units
            totals.tokens += len(batch.token_ids)
    own = [getattr(totals, name) for name in Totals.__slots__]
    sums = ranks.sum(torch.tensor(own, dtype=torch.float64, device=ranks.device))
    totals = Totals(*sums.tolist())
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    norm_value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    _check_finite(totals.loss, norm_value, [examples[i].key for i in indices])
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    seconds = time.perf_counter() - started
    pairs = len(indices)
    result = {"loss": totals.loss, "grad_norm": norm_value, "learning_rate": rate}
    if reference is not None:
        result |= {
            "margin": (totals.chosen - totals.rejected) / pairs,
            "accuracy": totals.wins / pairs,
            "reward_chosen": totals.chosen / pairs,
            "reward_rejected": totals.rejected / pairs,
        }
    alone = sum(len(examples[i].prompt_ids) + len(side) for i in indices for side in examples[i].sides)
    return result | {
        "examples": pairs,
        "examples_per_second": round(pairs / seconds, 3),
        "tokens": int(totals.tokens),
        "tokens_per_second": round(totals.tokens / seconds, 1),
        "tokens_unpacked": alone,
    }


def _packed(
    examples: Sequence[Example], indices: list[int], recipe: TrainRecipe, ranks: Ranks
) -> list[list[Tree]]:
    """The micro-batches of one optimiser step."""
    if recipe.tokens_per_batch is not None:
        budget = largest = recipe.tokens_per_batch
    else:
        # Small batches stay in a CPU's cache; but the halves of a tree would both have its trunk.
        budget, largest = (8192, 16384) if ranks.device.startswith("cuda") else (512, 2048)
    return pack(plant(examples, indices, largest), budget)


def objective(
    logprobs: torch.Tensor,
    batch: Batch,
    reference: torch.Tensor | None,
    recipe: TrainRecipe,
    totals: Totals,
) -> torch.Tensor:
    """The loss of a batch, summed over its pairs (DPO) or target tokens (SFT); adds to `totals`.

    `logprobs`: [S]. `reference`: [examples, 2], or None for SFT: then -sum of the log-probabilities.
    """
    if reference is None:
        return -logprobs.sum()
    of_reference = reference[torch.tensor(batch.examples)].to(logprobs.device)
    losses, rewards = dpo_loss(
        logprobs.view(-1, 2), of_reference, recipe.beta, recipe.loss, recipe.label_smoothing
    )
    chosen, rejected = rewards.double().sum(0).tolist()
    totals.chosen += chosen
    totals.rejected += rejected
    totals.wins += float((rewards[:, 0] > rewards[:, 1]).sum())
    return losses.sum()


def reference_logprobs(
    policy: Policy,
    examples: Sequence[Example],
    recipe: TrainRecipe,
    folder: Path,
    identity: str,
    ranks: Ranks,
    report: Report,
) -> torch.Tensor:
    """Log-probability of every side under the policy as it is, [examples, 2], nats.

    Computed once, kept in FOLDER/reference.safetensors, read from there when training continues: by then the
    policy is no longer the reference.
    """
    file = folder / "reference.safetensors"
    if file.exists():
        stored = load_file(file)
        if bytes(stored["identity"].tolist()).decode() == identity:
            return stored["logprobs"]
    if checkpoints(folder):
        raise StepconfError(
            f"{folder} has checkpoints, but no reference log-probabilities of these pairs ({file.name}).",
            "Give another --out, or the options that it was made with.",
        )
    result = torch.zeros(len(examples), 2, dtype=torch.float64)
    policy.eval()
    # In the order of training: the same trees, so that reference and policy agree to the bit before step 1.
    steps = steps_of(examples, recipe.batch_size, 1, recipe.seed)
    with torch.no_grad():
        for number, indices in enumerate(steps):
            packed = _packed(examples, indices, recipe, ranks)
            for turn, trees in enumerate(ranks.deal(packed)):
                batch = collate(trees).to(ranks.device)
                logprobs = policy(batch).view(-1, 2).double().cpu()
                if ranks.owns(turn, len(packed)):
                    result[batch.examples] = logprobs
            report({"reference": number + 1, "of": len(steps)})
    if ranks.size > 1:
        # Without a backward FSDP keeps the root gathered, and an optimiser made now would hold the wrong tensors.
        policy.reshard()
    result = ranks.sum(result.to(ranks.device)).cpu().float()
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"logprobs": result, "identity": torch.tensor(list(identity.encode()), dtype=torch.uint8)}
        scratch = file.with_name(f".{file.name}.tmp")
        with writing(file):
            save_file(stored, scratch)
        scratch.replace(file)
    ranks.wait()
    return result


def _identity(examples: Sequence[Example], recipe: TrainRecipe, model_digest: str) -> str:
    """A digest of all that decides the trajectory."""
    digest = blake2b(digest_size=12)
    digest.update(
        f"{model_digest}\n{recipe.model_dump_json(exclude={'checkpoint_every', 'log_to'})}".encode()
    )
    for example in examples:
        digest.update(f"\n{example.key} {example.prompt_ids} {example.sides}".encode())
    return digest.hexdigest()


def _check_finite(loss: float, norm: float, keys: list[str]) -> None:
    if torch.isfinite(torch.tensor([loss, norm])).all():
        return
    raise StepconfError(
        f"the loss is {loss} and the gradient norm {norm} on the pairs {', '.join(keys[:5])}"
        f"{' and others' if len(keys) > 5 else ''}; the step was not taken.",
        "The last checkpoint is kept. Lower --set train.learning_rate, or use --set train.dtype=float32.",
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
    try:
        return read_object(lines[-1]) if lines else {}
    except ValueError as error:
        raise StepconfError(
            f"{file}, line {len(lines)} is not JSON of stepconf train: {error}", "Give another --out."
        ) from error


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
