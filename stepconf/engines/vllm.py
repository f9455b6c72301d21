"""vLLM's offline engine: the default. Entropies come through `vllm_tap.py`."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepconf.core.records import TokenScores
from stepconf.engines.base import (
    Completion,
    EngineInfo,
    SampleRequest,
    Sampling,
    ScoreRequest,
    check_fits,
    finish,
    none_dropped,
    scores_of,
)
from stepconf.engines.tokenizer import Tokenizer
from stepconf.engines.vllm_start import (
    RUNNER_VARIABLE,
    cpu_defaults,
    dead_engine_as_error,
    import_vllm,
    refuse_processed,
    seeds_requests,
    start_failed,
)
from stepconf.errors import StepconfError

_TAP = "stepconf.engines.vllm_tap.EntropyTap"
_EXTRA_COLUMNS = 5

R = TypeVar("R", SampleRequest, ScoreRequest)


class VllmEngine:
    """See `engines.base.Engine`.

    Args:
        model: local folder or Hub id.
        revision: Hub revision.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        seed: engine seed.
        max_model_len: context limit in tokens; None for the model's own.
        tensor_parallel: GPUs that share the model.
        trust_remote_code: run Python code that the model brings.
        options: any further argument of vLLM's `EngineArgs`, passed through.

    Raises:
        StepconfError: vLLM is not installed, the model cannot be loaded, or a worker finds that its entropies
            would not be exact.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
        tensor_parallel: int = 1,
        trust_remote_code: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        vllm = import_vllm(model)
        self.tokenizer = Tokenizer(model, revision, trust_remote_code=trust_remote_code)
        arguments: dict[str, Any] = {
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "seed": seed,
            "max_model_len": max_model_len,
            "tensor_parallel_size": tensor_parallel,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "worker_extension_cls": _TAP,
        }
        arguments |= cpu_defaults(model, revision, max_model_len, trust_remote_code) | (options or {})
        arguments["trust_remote_code"] = trust_remote_code
        arguments = {name: value for name, value in arguments.items() if value is not None}
        self._params = vllm.SamplingParams
        try:
            asked = vllm.EngineArgs(**arguments)
            refuse_processed(asked.logprobs_mode)
            # As vllm.LLM: of an engine without a context vLLM expects little, and gives it small batches.
            self._engine = vllm.LLMEngine.from_engine_args(asked, usage_context=_context())
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise start_failed(model, error) from error
        self.config = self._engine.vllm_config
        try:
            refuse_processed(self.config.model_config.logprobs_mode)
            self.check = self._install_tap(vllm.__version__)
        except StepconfError:
            self.close()
            raise
        self.info = self._describe(vllm.__version__, model, revision)
        self._seeded = seeds_requests(self.info.runner, self.info.device)
        self._limit = self.config.scheduler_config.max_num_seqs
        self._next_id = 0

    def _install_tap(self, version: str) -> "TapCheck":
        found = self._engine.collective_rpc("install_entropy_tap")
        self._engine.collective_rpc("end_with", args=(os.getpid(),))
        for one in found:
            if one["problem"]:
                other = "0" if one["runner"] == "v2" else "1"
                raise StepconfError(
                    f"with vLLM {version} entropies would not be exact: {one['problem']}.",
                    f"Type: export {RUNNER_VARIABLE}={other}, which takes its other model runner; "
                    "or add --engine transformers",
                )
        gap, seconds = (max(one[name] for one in found) for name in ("gap", "seconds"))
        return TapCheck(found[0]["runner"], found[0]["device"], found[0]["kernel"], gap, seconds)

    def _describe(self, version: str, model: str, revision: str | None) -> EngineInfo:
        config = self.config.model_config
        return EngineInfo(
            engine="vllm",
            engine_version=version,
            model=model,
            model_revision=revision or "",
            dtype=str(config.dtype).removeprefix("torch."),
            device=self.check.device,
            runner=self.check.runner,
            vocabulary=config.get_vocab_size(),
            max_model_len=config.max_model_len,
        )

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """Completions of each request; each completion is a vLLM request of its own, with its own seed."""

        def add(request: SampleRequest) -> int:
            check_fits(len(request.prompt_ids), 1, self.info.max_model_len)
            for i in range(request.n):
                self._add(request.prompt_ids, self._sampling_params(request.sampling, request.seed + i))
            return request.n

        for request, outputs in self._run(requests, add, dropped):
            yield request, [self._completion(output, request.sampling) for output in outputs]

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        """Teacher-forced scores, read off vLLM's prompt logprobs."""
        params = self._params(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=_EXTRA_COLUMNS,
            flat_logprobs=True,
            detokenize=False,
        )

        def add(request: ScoreRequest) -> int:
            check_fits(len(request.prefix_ids) + len(request.token_ids), 1, self.info.max_model_len)
            self._add(request.prefix_ids + request.token_ids, params)
            return 1

        for request, outputs in self._run(requests, add):
            # Position 0 of a prompt has no distribution: vLLM keeps an empty entry for it.
            skip = (len(request.prefix_ids) - 1) * (_EXTRA_COLUMNS + 1)
            yield request, _scores(outputs[0].prompt_logprobs.logprobs[skip:])

    def throughput(self, prompts: list[list[int]], max_tokens: int, entropies: bool) -> float:
        """Generated tokens a second over one batch, with or without (plain vLLM) the entropies."""
        params = self._sampling_params(Sampling(0.7, max_tokens), 0)
        params.seed, params.ignore_eos, params.stop_token_ids = None, True, []
        params.logprobs = _EXTRA_COLUMNS if entropies else None
        started = time.perf_counter()
        for prompt in prompts:
            self._add(prompt, params.clone())
        tokens = 0
        while self._engine.has_unfinished_requests():
            tokens += sum(len(o.outputs[0].token_ids) for o in self._engine.step() if o.finished)
        return tokens / (time.perf_counter() - started)

    def close(self) -> None:
        """End the engine's processes."""
        self._engine.engine_core.shutdown()

    def _run(
        self,
        requests: Iterable[R | None],
        add: Callable[[R], int],
        dropped: Callable[[], Collection[str]] = none_dropped,
    ) -> Iterator[tuple[R, list[Any]]]:
        """Keep the batch full: pull requests while there is room, step, yield each request that is whole."""
        source, exhausted = iter(requests), False
        owner: dict[str, tuple[_Open[R], int]] = {}
        while True:
            while not exhausted and len(owner) < self._limit:
                request = next(source, _END)
                if request is _END:
                    exhausted = True
                elif request is None:
                    break
                else:
                    first = self._next_id
                    count = add(request)
                    whole = _Open(request, [None] * count, count)
                    owner |= {str(first + part): (whole, part) for part in range(count)}
            if not owner and exhausted:
                return
            self._give_up(dropped(), owner)
            for output in self._step() if owner else ():
                # vLLM may still report a request that was given up.
                if output.finished and output.request_id in owner:
                    whole, part = owner.pop(output.request_id)
                    whole.outputs[part] = output
                    whole.missing -= 1
                    if not whole.missing:
                        yield whole.request, whole.outputs

    def _give_up(self, keys: Collection[str], owner: dict[str, tuple["_Open[R]", int]]) -> None:
        """End the requests with these keys."""
        if keys:
            unwanted = [part for part, (whole, _) in owner.items() if whole.request.key in keys]
            self._engine.abort_request(unwanted)
            for part in unwanted:
                del owner[part]

    def _step(self) -> list[Any]:
        with dead_engine_as_error():
            return list(self._engine.step())

    def _add(self, prompt_ids: list[int], params: Any) -> None:
        prompt = {"type": "token", "prompt_token_ids": prompt_ids}
        self._engine.add_request(str(self._next_id), prompt, params)
        self._next_id += 1

    def _sampling_params(self, sampling: Sampling, seed: int) -> Any:
        return self._params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=seed if self._seeded and sampling.temperature > 0 else None,
            stop=list(sampling.stop + sampling.until) or None,
            include_stop_str_in_output=bool(sampling.stop + sampling.until),
            stop_token_ids=sorted(self.tokenizer.end_ids),
            detokenize=bool(sampling.stop + sampling.until),
            logprobs=_EXTRA_COLUMNS,
            flat_logprobs=True,
            output_kind=_final_only(),
            structured_outputs=sampling.json_schema and _held_to(sampling.json_schema),
        )

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        done = output.outputs[0]
        ids = list(done.token_ids)
        ended = done.finish_reason == "stop"
        # The second runner judges drafts on parts of the masked logits: the tap cannot tell what those were before.
        is_masked = (
            sampling.json_schema is not None
            and self.config.speculative_config is not None
            and self.info.runner == "v2"
        )
        scores = TokenScores([], [], []) if is_masked else _scores(done.logprobs.logprobs)
        return finish(ids, scores, ended, sampling, self.tokenizer)


@dataclass(frozen=True, slots=True)
class TapCheck:
    """What the workers found as they compared the tap with vLLM's own functions.

    Args:
        runner: vLLM's model runner, `v1` or `v2`; the same seed draws other tokens on the other.
        device: of the first worker.
        kernel: what computes a token's statistics there, `triton` or `torch`.
        gap: the largest |difference| in nats, of all workers.
        seconds: what the check took the slowest worker.
    """

    runner: str
    device: str
    kernel: str
    gap: float
    seconds: float


@dataclass(slots=True)
class _Open(Generic[R]):
    """A request on its way, with what has come back of its parts."""

    request: R
    outputs: list[Any]
    missing: int


_END: Any = object()


def _context() -> Any:
    from vllm.usage.usage_lib import UsageContext

    return UsageContext.LLM_CLASS


def _final_only() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY


def _held_to(json_schema: str) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(json=json_schema)


def _scores(flat: list[float]) -> TokenScores:
    """Columns of the tap (see `stats.token_stats`), token by token.

    Raises:
        StepconfError: they are vLLM's own log-probabilities, which are negative where entropies are not.
    """
    n = _EXTRA_COLUMNS + 1
    entropies = flat[1::n]
    if any(value < 0 for value in entropies):
        raise StepconfError(
            f"vLLM gave a log-probability, {min(entropies):.4f}, in place of an entropy: it has a way around the tap.",
            "Add --engine transformers, and report the vLLM version and engine.options.",
        )
    return scores_of([flat[column::n] for column in range(n)])
