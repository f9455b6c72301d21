"""Checkpoints of transformers: load one as a policy, save a policy as one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from stepconf.core.trees import Example, plant
from stepconf.errors import StepconfError, model_not_found
from stepconf.recipe import LoraRecipe, TrainRecipe
from stepconf.training.batches import collate
from stepconf.training.checkpoint import sync_files, whole_state, writing
from stepconf.training.policy import Policy
from stepconf.training.ranks import Ranks, shard

# Two trees of two sides each; token ids that every vocabulary has.
_TREES = [
    Example("a", "a", (0, 1, 2, 3), ((4, 5, 6, 7, 8), (9, 8, 7, 6, 5))),
    Example("b", "b", (9, 3, 1), ((2, 2, 4), (7, 0, 6, 1))),
]
_PARTS, _PART_BYTES = 16, 1 << 18
_LARGEST_GAP = 5e-4  # nats; rounding in float32 makes 1e-5


def open_policy(
    model: str, revision: str | None, recipe: TrainRecipe, ranks: Ranks, trust_remote_code: bool = False
) -> Policy:
    """Load a checkpoint (safetensors only) with float32 parameters, ready to train, sharded over the processes.

    Raises:
        StepconfError: it cannot be loaded, its logits are not a plain head over its hidden states, or it does not
            compute packed trees as sequences alone.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    compute = getattr(torch, recipe.dtype)
    flex = recipe.attention == "flex" or (recipe.attention == "auto" and ranks.device.startswith("cuda"))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        ).to(ranks.device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # no file, half of one, no room
        raise model_not_found(model, error) from error
    _make_savable(loaded)
    check_head(loaded)
    check_trees(loaded)
    if recipe.lora:
        loaded = _with_adapters(loaded, recipe.lora, recipe.seed)
    if recipe.gradient_checkpointing:
        loaded.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(loaded, compute, flex)
    shard(policy, ranks, compute)
    return policy


def _make_savable(model: Any) -> None:
    """Settings of generation that contradict each other load with a warning, and are refused when they are saved.

    Raises:
        StepconfError: they do so, too, when they are taken for those of sampling.
    """
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        model.generation_config.do_sample = True
        try:
            model.generation_config.validate(strict=True)
        except ValueError as error:
            raise StepconfError(
                f"the model's generation_config.json cannot be saved again: {error}",
                "Mend it in a local copy of the model, and give that as --model.",
            ) from error


def check_head(model: Any) -> None:
    """Raise StepconfError where the logits are not those of the head over the hidden states, which the trainer takes.

    Families cap, scale or divide them under a dozen names of settings, so that the model is asked instead.
    """
    ids = torch.tensor([[0, 1, 2, 3]], device=model.device)
    with _evaluated(model):
        whole = model(input_ids=ids).logits
        ours = model.get_output_embeddings()(model.base_model(input_ids=ids).last_hidden_state)
    if not torch.allclose(whole, ours, atol=1e-4, rtol=1e-4):
        raise StepconfError(
            f"{type(model).__name__} caps or scales its logits after the head, which the trainer does not.",
            "Choose a model of another architecture.",
        )


def check_trees(model: Any) -> None:
    """Raise StepconfError where packed sides do not have the log-probabilities that each has alone.

    Recurrent and convolutional layers carry a branch into the next one. Some attention cannot be replaced, or has
    terms of its own. No setting tells, so that two small trees are computed in both ways.
    """
    batch = collate(plant(_TREES, range(len(_TREES)), 64)).to(model.device)
    in_order = [_TREES[i] for i in batch.examples]
    with _evaluated(model):
        alone = [_logprobs_alone(model, one.prompt_ids, side) for one in in_order for side in one.sides]
        try:
            packed = Policy(model)(batch).logprobs
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # its code is not ours
            raise _no_trees(model, f"{type(error).__name__}: {error}") from error
    gap = float((packed - torch.cat(alone)).abs().max())
    if not gap < _LARGEST_GAP:  # NaN is none
        raise _no_trees(model, f"log-probabilities differ by {gap:.2g} nats")


def _logprobs_alone(model: Any, prompt: tuple[int, ...], side: tuple[int, ...]) -> torch.Tensor:
    """Of each token of a side, in a forward of its own."""
    ids = torch.tensor([prompt + side], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)[torch.arange(len(side)), list(side)]


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    """Without dropout and gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _no_trees(model: Any, why: str) -> StepconfError:
    return StepconfError(
        f"{type(model).__name__} does not compute packed sides as each side alone ({why}).",
        "Choose a model of plain attention, such as Llama, Mistral, Qwen2 or Qwen3.",
    )


def context_of(policy: Policy) -> int:
    """The longest sequence, in tokens, that the model reads whole: within its positions and sliding window."""
    config = policy.model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)  # without them, all layers slide where there is a window
    slides = kinds is None or "sliding_attention" in kinds
    window = getattr(config, "sliding_window", None) if slides else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def identity_of_model(name: str, folder: Path) -> str:
    """A digest of a model's name, and of parts of its weights where they are in a local folder."""
    digest = blake2b(name.encode(), digest_size=12)
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"\n{file.name} {size} ".encode())
        # Training moves all weights; to read whole files would take as long as to load them.
        with file.open("rb") as weights:
            for part in range(_PARTS):
                weights.seek(size * part // _PARTS)
                digest.update(weights.read(_PART_BYTES))
    return digest.hexdigest()


def save_policy(
    policy: Policy,
    tokenizer: str,
    revision: str | None,
    folder: Path,
    dtype: str,
    ranks: Ranks,
    trust_remote_code: bool = False,
) -> None:
    """Write an ordinary checkpoint with its tokenizer to `folder`, whole or not at all; adapters are merged."""
    from transformers import AutoTokenizer

    if hasattr(policy.model, "merge_and_unload"):
        policy.model = policy.model.merge_and_unload()
    kind = getattr(torch, dtype)
    state = {
        name.removeprefix(
            "model.",
        ): value.to(kind)
        for name, value in whole_state(policy, ranks).items()
    }
    if ranks.first:
        scratch = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        model = policy.model
        model.config.dtype = kind
        with writing(folder):
            model.save_pretrained(scratch, state_dict=state)
        opened = AutoTokenizer.from_pretrained(
            tokenizer, revision=revision, trust_remote_code=trust_remote_code
        )
        opened.save_pretrained(scratch)
        sync_files(scratch.rglob("*"))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    ranks.wait()


def _with_adapters(model: Any, lora: LoraRecipe, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise StepconfError(f"train.lora needs peft: {error}", "Type: pip install peft") from error
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise StepconfError(
            f"train.lora.targets includes the head of {type(model).__name__}, whose weight the loss reads without "
            "adapters.",
            "Leave it out, e.g. --set 'train.lora={targets: all-linear}'",
        )
    return adapted
