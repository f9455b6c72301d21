"""Checkpoints of transformers: load one as a policy, save a policy as one."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from stepconf.errors import StepconfError, model_not_found
from stepconf.recipe import LoraRecipe, TrainRecipe
from stepconf.training.checkpoint import sync_files, whole_state, writing
from stepconf.training.policy import Policy
from stepconf.training.ranks import Ranks, shard


def open_policy(
    model: str, revision: str | None, recipe: TrainRecipe, ranks: Ranks, trust_remote_code: bool = False
) -> Policy:
    """Load a checkpoint (safetensors only) with float32 parameters, ready to train, sharded over the processes.

    Raises:
        StepconfError: it cannot be loaded, or its logits are not a plain head over its hidden states.
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
    check_head(loaded)
    if recipe.lora:
        loaded = _with_adapters(loaded, recipe.lora, recipe.seed)
    if recipe.gradient_checkpointing:
        loaded.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(loaded, compute, flex)
    shard(policy, ranks, compute)
    return policy


def check_head(model: Any) -> None:
    """Raise StepconfError where the logits are not those of the head over the hidden states, which the trainer takes.

    Families cap, scale or divide them under a dozen names of settings, so that the model is asked instead.
    """
    ids = torch.tensor([[0, 1, 2, 3]], device=model.device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        whole = model(input_ids=ids).logits
        ours = model.get_output_embeddings()(model.base_model(input_ids=ids).last_hidden_state)
    model.train(was_training)
    if not torch.allclose(whole, ours, atol=1e-4, rtol=1e-4):
        raise StepconfError(
            f"{type(model).__name__} caps or scales its logits after the head, which the trainer does not.",
            "Choose a model of another architecture.",
        )


def context_of(policy: Policy) -> int:
    """The longest sequence, in tokens, that the model reads whole: within its positions and sliding window."""
    config = policy.model.config.get_text_config()
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    window = config.sliding_window if slides and config.sliding_window else config.max_position_embeddings
    return int(min(config.max_position_embeddings, window))


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
