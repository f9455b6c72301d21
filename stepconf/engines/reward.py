"""The forward of process reward models, in transformers: probabilities at given places of a text.

No remote code runs. Qwen2.5-Math-PRM ships its head as code; here the head is read from the checkpoint's
`score.*` tensors (one linear layer, or two with a ReLU between) on top of the plain Qwen2 body.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError

from stepconf.core.documents import read_json
from stepconf.engines.reward_text import NO_CODE_HINT, RewardText
from stepconf.errors import StepconfError, first_line, model_not_found

BATCH_TOKENS = 16_384  # of one padded batch


class RewardModel(RewardText):
    """A loaded process reward model. Not safe to call from two threads at once.

    Args:
        model: local folder or Hub id.
        tokens: the good and the bad token of a language model's head; None for a classifier's `score` head.
        revision: Hub revision.
        dtype: `auto` (the checkpoint's own on a GPU, float32 elsewhere), `float32`, `bfloat16` or `float16`.
        max_model_len: context limit in tokens; None for the model's own.

    Raises:
        StepconfError: the model cannot be loaded, or lacks the head or the tokens.
    """

    def __init__(
        self,
        model: str,
        tokens: tuple[str, str] | None,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
    ) -> None:
        import transformers

        gpu = torch.cuda.is_available()
        self._device = "cuda" if gpu else "cpu"
        kind = ("auto" if gpu else torch.float32) if dtype == "auto" else getattr(torch, dtype)
        auto = transformers.AutoModel if tokens is None else transformers.AutoModelForCausalLM
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # it reports a head that it does not know, in a table
        try:
            super().__init__(model, revision)
            loaded: Any = auto.from_pretrained(
                model, revision=revision, dtype=kind, use_safetensors=True, trust_remote_code=False
            )
            loaded = loaded.to(self._device).eval()
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # no file, half of one, no room
            raise model_not_found(model, error, NO_CODE_HINT) from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        if tokens is None:
            self._body, self._head = loaded, _score_head(model, revision, loaded)
        else:
            self._body, self._head = loaded.base_model, _token_head(self.tokenizer, tokens, loaded)
        config = loaded.config.get_text_config()
        self.max_model_len = max_model_len or int(config.max_position_embeddings)

    def read(self, inputs: Sequence[tuple[str, list[int]]]) -> list[list[float] | None]:
        """Per text the probability of "good" at each mark; None where the text exceeds the context.

        A mark is a character offset: read is the last token that starts before it. Texts of like length share
        a batch, padded on the right, where a causal model does not look.
        """
        encoded = [self.encoded(text, marks) for text, marks in inputs]
        scores: list[list[float] | None] = [
            None if len(ids) > self.max_model_len else [] for ids, _ in encoded
        ]
        fitting = sorted(
            (i for i, found in enumerate(scores) if found is not None and encoded[i][1]),
            key=lambda i: len(encoded[i][0]),
        )
        for batch in _batches(fitting, [len(ids) for ids, _ in encoded]):
            width = len(encoded[batch[-1]][0])
            ids = torch.tensor([encoded[i][0] + [0] * (width - len(encoded[i][0])) for i in batch])
            with torch.inference_mode(), _failure_as_error():
                hidden = self._body(input_ids=ids.to(self._device), use_cache=False).last_hidden_state
                for row, i in enumerate(batch):
                    logits = self._head(hidden[row, encoded[i][1]]).float()  # [marks, 2]
                    scores[i] = logits.softmax(-1)[:, 1].tolist()
        return scores


@contextmanager
def _failure_as_error() -> Iterator[None]:
    """What torch raises over a batch, such as out of memory, or ids beyond a model's embeddings, as a StepconfError."""
    try:
        yield
    except (RuntimeError, IndexError, MemoryError) as error:
        raise StepconfError(
            f"the reward model failed: {first_line(error)}",
            "What was committed is kept. Out of memory: lower --set verify.prm.max_model_len, take "
            "--set verify.prm.dtype=bfloat16, or free memory; then type the same command again.",
        ) from error


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Runs of `order` (by length, ascending) whose padded size stays within `BATCH_TOKENS`."""
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[i] <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _token_head(tokenizer: Any, tokens: tuple[str, str], model: Any) -> torch.nn.Module:
    """The two rows of the language model's head, bad first, so that class 1 is the good token."""
    good, bad = (tokenizer.encode(token, add_special_tokens=False)[-1] for token in tokens)
    if good == bad:
        raise StepconfError(f"the reward model's tokenizer does not tell {tokens[0]!r} from {tokens[1]!r}.")
    whole = model.get_output_embeddings()
    head = torch.nn.Linear(whole.in_features, 2, bias=whole.bias is not None)
    head.weight.data = whole.weight.data[[bad, good]]
    if whole.bias is not None:
        head.bias.data = whole.bias.data[[bad, good]]
    return head


def _score_head(model: str, revision: str | None, body: Any) -> torch.nn.Module:
    """The classifier from the checkpoint's `score.*` tensors."""
    tensors = _tensors(model, revision, "score.")
    layers: list[torch.nn.Module] = []
    for name in sorted(name for name in tensors if name.endswith("weight")):
        weight, bias = tensors[name], tensors.get(name.removesuffix("weight") + "bias")
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear.weight.data = weight
        if bias is not None:
            linear.bias.data = bias
        layers += [torch.nn.ReLU(), linear] if layers else [linear]
    if not layers or tensors[sorted(n for n in tensors if n.endswith("weight"))[-1]].shape[0] != 2:
        raise StepconfError(
            f"{model} has no classifier with two classes: its score tensors: {sorted(tensors)}.",
            "A language model with a step tag is read with --set verify.prm.form=math-shepherd or rlhflow.",
        )
    return torch.nn.Sequential(*layers).to(device=body.device, dtype=body.dtype).eval()


def _tensors(model: str, revision: str | None, prefix: str) -> dict[str, torch.Tensor]:
    from safetensors import safe_open
    from transformers.utils import cached_file

    def found(name: str) -> str | None:
        path = cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        return cast(str | None, path)

    tensors: dict[str, torch.Tensor] = {}
    index = found("model.safetensors.index.json")
    names = {"model.safetensors"}
    if index is not None:
        try:
            weight_map = read_json(Path(index).read_text(encoding="utf-8"))["weight_map"]
            names = {file for name, file in weight_map.items() if name.startswith(prefix)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StepconfError(f"{index} is not an index of a model's tensors: {error!r}") from error
    for name in sorted(names):
        file = found(name)
        if file is not None:
            with safe_open(file, framework="pt") as opened:
                tensors |= {key: opened.get_tensor(key) for key in opened.keys() if key.startswith(prefix)}  # noqa: SIM118
    return tensors
