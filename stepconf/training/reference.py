"""Log-probabilities under the policy that a training begins with, computed once and kept on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stepconf.core.trees import Example
from stepconf.errors import StepconfError
from stepconf.recipe import TrainRecipe
from stepconf.training.batches import Batch, collate, packed
from stepconf.training.checkpoint import checkpoints, sync_files, writing
from stepconf.training.objectives.base import Sides
from stepconf.training.policy import Policy
from stepconf.training.ranks import Ranks


class Known:
    """What is known of every token of every side before training: credits, and log-probabilities under other policies.

    Each is one tensor over all sides of all examples in order; nats.

    Args:
        examples: what is trained on.
        reference: under the policy to begin with, one value a token; None where the objective reads none.
    """

    def __init__(self, examples: Sequence[Example], reference: torch.Tensor | None) -> None:
        starts = [0]
        for example in examples:
            starts.append(starts[-1] + example.n_targets)
        self._starts = starts
        self._lengths = [[len(side) for side in example.sides] for example in examples]
        self._credits = _flat([example.credits for example in examples], examples, 0.0)
        sampled = _flat([example.logprobs for example in examples], examples, float("nan"))
        self._reference = torch.zeros(starts[-1]) if reference is None else reference
        # What was not recorded, such as the token that ends a solution, is taken from the policy to begin with.
        self._sampled = torch.where(sampled.isnan(), self._reference, sampled)

    def of(self, batch: Batch) -> Sides:
        """What is known of the sides of a batch, on its device."""
        device = batch.ends.device
        places = torch.cat([torch.arange(self._starts[i], self._starts[i + 1]) for i in batch.examples])
        lengths = torch.tensor([length for i in batch.examples for length in self._lengths[i]])
        return Sides(
            batch.use_sides,
            lengths.to(device),
            *(values[places].to(device) for values in (self._credits, self._sampled, self._reference)),
        )


def reference_logprobs(
    policy: Policy,
    examples: Sequence[Example],
    steps: Sequence[list[int]],
    recipe: TrainRecipe,
    folder: Path,
    identity: str,
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    temperature: float,
) -> torch.Tensor:
    """Log-probability of every token of every side, in order, under the policy as it is; nats, 0 where no step has it.

    Computed once, kept in FOLDER/reference.safetensors, read from there when training continues: by then the
    policy is no longer the reference.
    """
    file = folder / "reference.safetensors"
    kept = _kept(file, identity)
    if kept is not None:
        return kept
    if checkpoints(folder):
        raise StepconfError(
            f"{folder} has checkpoints, but no reference log-probabilities of these examples ({file.name}).",
            "Give another --out, or the options that it was made with.",
        )
    result = _computed(policy, examples, steps, recipe, ranks, report, temperature)
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"logprobs": result, "identity": torch.tensor(list(identity.encode()), dtype=torch.uint8)}
        scratch = file.with_name(f".{file.name}.tmp")
        with writing(file):
            save_file(stored, scratch)
        sync_files([scratch])
        scratch.replace(file)
    ranks.wait()
    return result


def _kept(file: Path, identity: str) -> torch.Tensor | None:
    """What the file has of this training; None where there is none, or a damaged one."""
    if not file.exists():
        return None
    try:
        stored = load_file(file)
    except SafetensorError:
        return None
    same = bytes(stored["identity"].tolist()).decode() == identity
    return stored["logprobs"] if same else None


def _computed(
    policy: Policy,
    examples: Sequence[Example],
    steps: Sequence[list[int]],
    recipe: TrainRecipe,
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    temperature: float,
) -> torch.Tensor:
    found: list[torch.Tensor] = [torch.zeros(example.n_targets) for example in examples]
    policy.eval()
    # In the order of training: the same trees, so that reference and policy agree to the bit before step 1.
    steps = steps[: -(-len(examples) // recipe.batch_size)]  # later epochs have the same examples
    with torch.no_grad():
        for number, indices in enumerate(steps):
            batches = packed(examples, indices, recipe, ranks)
            for turn, trees in enumerate(ranks.deal(batches)):
                batch = collate(trees).to(ranks.device)
                logprobs = policy(batch, temperature).logprobs.float().cpu()
                if ranks.owns(turn, len(batches)):
                    sizes = [examples[i].n_targets for i in batch.examples]
                    for index, own in zip(batch.examples, logprobs.split(sizes), strict=True):
                        found[index] = own
            report({"reference": number + 1, "of": len(steps)})
    if ranks.size > 1:
        # Without a backward FSDP keeps the root gathered, and an optimiser made now would hold the wrong tensors.
        policy.reshard()
    return ranks.sum(torch.cat(found).to(ranks.device)).cpu()


def _flat(
    values: Sequence[tuple[tuple[float, ...], ...]], examples: Sequence[Example], missing: float
) -> torch.Tensor:
    """One number a token of every side in order; `missing` for an example that has none."""
    if not any(values):
        return torch.full((sum(example.n_targets for example in examples),), missing)
    flat: list[float] = []
    for own, example in zip(values, examples, strict=True):
        flat += [value for side in own for value in side] if own else [missing] * example.n_targets
    return torch.tensor(flat)
