"""The reference engine: plain transformers, float32 by default, slow and exact.

Each request is a batch of its own: no padding, so a result depends on its request alone and a run is
reproducible to the bit on the same machine. The language-model head runs over chunks of positions, so no
[positions x vocabulary] matrix beyond one chunk exists.
"""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError

from stepconf.core.records import TokenScores
from stepconf.engines.base import (
    Completion,
    EngineCrashed,
    EngineInfo,
    SampleRequest,
    Sampling,
    ScoreRequest,
    check_fits,
    cut_at_stop,
    finish,
    none_dropped,
    scores_of,
)
from stepconf.engines.stats import COLUMNS, token_stats, topk_entropy
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError, first_line, model_not_found

_HEAD_CHUNK = 256


class TransformersEngine:
    """See `engines.base.Engine`.

    Args:
        model: local folder or Hub id.
        revision: Hub revision.
        dtype: `auto` (float32 here, this being the reference), `float32`, `bfloat16` or `float16`.
        max_model_len: context limit in tokens; None for the model's own.
        device: torch device; None takes CUDA where it is.
        trust_remote_code: run Python code that the model brings.

    Raises:
        StepconfError: the model cannot be loaded, or its logits are not a plain head over its hidden states.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes a moment, and its bar would run into ours
        self.tokenizer = Tokenizer(model, revision, trust_remote_code=trust_remote_code)
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        try:
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                model,
                revision=revision,
                dtype=kind,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
            self._model = loaded.to(self._device).eval()
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # no file, half of one, no room
            raise model_not_found(model, error) from error
        self._body, self._head = loaded.base_model, loaded.get_output_embeddings()
        config = loaded.config.get_text_config()
        self.info = EngineInfo(
            engine="transformers",
            engine_version=transformers.__version__,
            model=model,
            model_revision=revision or "",
            dtype=str(kind).removeprefix("torch."),
            device=self._device,
            runner=type(loaded).__name__,
            vocabulary=config.vocab_size,
            max_model_len=max_model_len or config.max_position_embeddings,
        )
        self._check_head()

    def _check_head(self) -> None:
        ids = torch.tensor([[0, 1, 2, 3]], device=self._device)
        with torch.inference_mode():
            whole = self._model(input_ids=ids).logits
            ours = self._head(self._body(input_ids=ids).last_hidden_state)
        if not torch.allclose(whole, ours, atol=1e-4, rtol=1e-4):
            raise StepconfError(
                f"{self.info.runner} changes its logits after the head (soft-capping or scaling), "
                "which the transformers engine does not reproduce.",
                "Use --engine vllm for this model.",
            )

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """Completions of each request, all `n` in one batch over one prompt."""
        for request in requests:
            if request is not None:
                with torch.inference_mode(), _crash_as_error():
                    completions = self._sample_as_fits(request, dropped)
                if completions is not None:
                    yield request, completions

    def _sample_as_fits(
        self, request: SampleRequest, dropped: Callable[[], Collection[str]]
    ) -> list[Completion] | None:
        """All samples in one batch; out of memory once more, since others may have held it, then in halves."""
        sizes = [request.n, request.n]
        while sizes[-1] > 1:
            sizes.append((sizes[-1] + 1) // 2)
        for size in sizes[:-1]:
            try:
                return self._sample_by(request, size, dropped)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            gc.collect()
            torch.cuda.empty_cache()
        return self._sample_by(request, sizes[-1], dropped)

    def _sample_by(
        self, request: SampleRequest, size: int, dropped: Callable[[], Collection[str]]
    ) -> list[Completion] | None:
        starts = range(0, request.n, size)
        parts = (
            replace(request, n=min(size, request.n - start), seed=request.seed + start) for start in starts
        )
        completions: list[Completion] = []
        for part in parts:
            made = self._sample(part, dropped)
            if made is None:
                return None
            completions += made
        return completions

    def _sample(
        self, request: SampleRequest, dropped: Callable[[], Collection[str]]
    ) -> list[Completion] | None:
        """None where the request was given up."""
        check_fits(len(request.prompt_ids), 1, self.info.max_model_len)
        sampling, n = request.sampling, request.n
        if sampling.json_schema is not None:
            raise StepconfError(
                "the transformers engine cannot hold a text to a JSON Schema.",
                "Take --engine vllm, or --set verify.critic.structured=false",
            )
        limit = min(sampling.max_tokens, self.info.max_model_len - len(request.prompt_ids))
        noise = [torch.Generator().manual_seed((request.seed + i) % 2**63) for i in range(n)]
        ids = torch.tensor([request.prompt_ids] * n, device=self._device)
        rows: list[list[list[float]]] = [[] for _ in range(n)]
        tokens: list[list[int]] = [[] for _ in range(n)]
        ended = [False] * n
        cache = None
        for _ in range(limit):
            if request.key in dropped():
                return None
            out = self._body(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = self._head(out.last_hidden_state[:, -1]).float()
            chosen = _draw(logits, sampling, noise)
            stats = token_stats(logits, chosen).tolist()
            for i, token in enumerate(chosen.tolist()):
                if not ended[i]:
                    tokens[i].append(token)
                    rows[i].append(stats[i])
                    ended[i] = token in self.tokenizer.end_ids or self._stopped(tokens[i], sampling)
            if all(ended):
                break
            ids = chosen[:, None]
        return [
            finish(t, _scores(r), e, sampling, self.tokenizer)
            for t, r, e in zip(tokens, rows, ended, strict=True)
        ]

    def _stopped(self, token_ids: list[int], sampling: Sampling) -> bool:
        # A stop string ends within the newest tokens: a window over them suffices.
        ends = sampling.stop + sampling.until
        window = max((len(s) for s in ends), default=0) + 8
        return bool(ends) and cut_at_stop(self.tokenizer.pieces(token_ids[-window:]), ends) is not None

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        """Teacher-forced scores: one forward over prefix and tokens, the head in chunks."""
        for request in requests:
            if request is not None:
                with torch.inference_mode(), _crash_as_error():
                    scores = self._score(request)
                yield request, scores

    def _score(self, request: ScoreRequest) -> TokenScores:
        rows = [row for logits, ids in self._logits(request) for row in token_stats(logits, ids).tolist()]
        return _scores(rows)

    def _logits(self, request: ScoreRequest) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """[rows, vocabulary] and the ids [rows] that follow, a chunk of the request's tokens at a time."""
        length = len(request.prefix_ids) + len(request.token_ids)
        check_fits(length, 0, self.info.max_model_len)
        ids = torch.tensor([request.prefix_ids + request.token_ids], device=self._device)
        hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state[0]
        for start in range(len(request.prefix_ids) - 1, length - 1, _HEAD_CHUNK):
            end = min(start + _HEAD_CHUNK, length - 1)
            yield self._head(hidden[start:end]), ids[0, start + 1 : end + 1]

    def topk_entropies(self, request: ScoreRequest, k: int) -> list[float]:
        """Of each token, the entropy of the k likeliest alone (`stats.topk_entropy`), nats; one forward."""
        with torch.inference_mode():
            return [x for logits, _ in self._logits(request) for x in topk_entropy(logits, k).tolist()]

    def close(self) -> None:
        """Give the memory of the model back; the engine cannot be used any more."""
        self._model = self._body = self._head = None
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def _crash_as_error() -> Iterator[None]:
    """Turns what torch raises over one request into an EngineCrashed."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise StepconfError(
            f"the GPU has given up: {first_line(error)}",
            "No later request of this process can succeed. Type the same command again; if it ends here again, "
            "--engine vllm finds the problem that does it.",
        ) from error
    except (RuntimeError, IndexError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise EngineCrashed(f"the model failed: {first_line(error)}") from error
        raise EngineCrashed(
            f"out of memory for a single sample: {first_line(error)}",
            "What was committed is kept. Lower sampling.max_tokens or engine.max_model_len, take "
            "--set engine.dtype=bfloat16, or free memory; then type the same command again.",
            out_of_memory=True,
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _draw(logits: torch.Tensor, sampling: Sampling, noise: list[torch.Generator]) -> torch.Tensor:
    """One token per row [rows]: greedy at temperature 0, else by exponential races within the top-p set."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p
        probs = probs.masked_fill(outside.scatter(-1, order, outside), 0)
    race = torch.stack([torch.empty(probs.shape[-1]).exponential_(generator=g) for g in noise])
    return (probs / race.to(probs.device)).argmax(-1)


def _scores(rows: list[list[float]]) -> TokenScores:
    return scores_of(list(zip(*rows, strict=True)) if rows else [()] * COLUMNS)
