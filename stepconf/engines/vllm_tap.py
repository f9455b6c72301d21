"""Exact entropies from inside vLLM: the functions that its model runner makes logprobs with, replaced.

What was removed from the ordinary logprob path: the [batch, vocabulary] log-softmax matrix, the top-k and the
ranks. In their place each sampled token's entry carries the numbers of `stats.token_stats`. They travel where
logprobs travel, so they are aligned with the tokens by construction, whatever the scheduler does (chunked prefill,
preemption, prefix caching). Prompt logprobs go through the same functions: generated and teacher-forced values are
computed alike.

vLLM has two model runners. V1 calls two methods of its sampler. V2 calls `compute_topk_scores`, which its modules
import by name, so it is rebound in each. Before that each worker compares, on its own device, vLLM's function with
the one that takes its place.
"""

import gc
import importlib
import inspect
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, ModuleType
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors

from stepconf.engines.stats import COLUMNS, token_stats
from stepconf.engines.vllm_start import CLIENT_VARIABLE
from stepconf.errors import StepconfError

_V1_HOME = "vllm.v1.worker.gpu_model_runner"
RUNNERS = {_V1_HOME: "v1", "vllm.v1.worker.gpu.model_runner": "v2"}
# Largest |difference| in nats, from vLLM's function or from float64: both round sums over a vocabulary in float32.
LIMIT = 1e-4
_ROWS = 8

_V2_FUNCTION = "compute_topk_scores"
_V2_HOME = "vllm.v1.worker.gpu.sample.logprob"
_V2_GRAMMAR = "vllm.v1.worker.gpu.structured_outputs"
_V2_CALLERS = (
    "vllm.v1.worker.gpu.sample.sampler",
    "vllm.v1.worker.gpu.sample.prompt_logprob",
    "vllm.v1.worker.gpu.spec_decode.rejection_sampler",
)

# Raw logits [rows, vocabulary], extra columns, token ids [rows] -> COLUMNS a row.
Gather = Callable[[torch.Tensor, int, torch.Tensor], LogprobsTensors]
# Of this worker: `token_stats`, or the kernel that takes its place on GPUs.
_stats: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = token_stats


# Logits that a grammar has changed in place, with a copy from before. Only the latest: a step has one batch.
_masked: list[tuple[torch.Tensor, torch.Tensor]] = []
_copy = torch.empty(0, 0)  # of the latest logits on a CPU
_MOST_KEPT = 1 << 26  # elements, 256 MB


def _keep_logits(logits: torch.Tensor) -> torch.Tensor:
    """Stands for `compute_logprobs`: hand the raw logits on to `_gather_stats`.

    The sampler scales float32 logits in place afterwards, so those are copied; it works on a float32 copy of
    half-precision ones, so those stay as they are.
    """
    raw = _before_mask(logits)
    return _copied(logits) if raw is logits and logits.dtype == torch.float32 else raw


def _before_mask(logits: torch.Tensor) -> torch.Tensor:
    """What these logits were before a grammar changed them; themselves where none did."""
    if _masked:
        masked, raw = _masked.pop()
        if masked is logits:
            return raw
    return logits


def _copied(logits: torch.Tensor) -> torch.Tensor:
    """A copy that lasts until the next one. On a CPU its memory is kept: new pages cost ten times the copying."""
    global _copy
    if logits.device.type != "cpu" or logits.numel() > _MOST_KEPT:
        return logits.clone()
    if len(_copy) < len(logits) or _copy.shape[1:] != logits.shape[1:]:
        _copy = torch.empty_like(logits)
    return _copy[: len(logits)].copy_(logits)


def _gather_stats(logits: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor) -> LogprobsTensors:
    """Stands for `gather_logprobs`: [rows, 6] token statistics instead of the top-k.

    The id columns repeat the token: any valid id does, since results are read by position.
    """
    if num_logprobs != COLUMNS - 1:
        raise ValueError(f"the entropy tap carries {COLUMNS - 1} extra columns, got logprobs={num_logprobs}")
    ids = token_ids.to(torch.int32).unsqueeze(-1).expand(-1, COLUMNS).contiguous()
    ranks = torch.ones(len(token_ids), dtype=torch.int64, device=logits.device)
    return LogprobsTensors(ids, _stats(logits, token_ids), ranks)


def _noting_raw(apply: Callable[..., None]) -> Callable[..., None]:
    """The function that masks the logits of texts held to a schema, which keeps a copy from before.

    It runs in every step of a batch with such a text, just before the sampler.
    """
    arguments = inspect.signature(apply)

    def noting(*given: Any, **named: Any) -> None:
        logits = arguments.bind(*given, **named).arguments["logits"]
        _masked[:] = [(logits, logits.clone())]
        apply(*given, **named)

    return noting


def _note_raw(home: Any) -> None:
    """Let the `apply_grammar_bitmask` of this module or class note the raw logits."""
    home.apply_grammar_bitmask = _noting_raw(home.apply_grammar_bitmask)


def _topk_stats(
    logits: torch.Tensor,
    num_logprobs: int,
    sampled_token_ids: torch.Tensor,
    cu_num_logits: list[int] | torch.Tensor | None = None,
    logprob_token_ids_state: object = None,
    expanded_idx_mapping: torch.Tensor | None = None,
    max_per_req_token_ids: int = 0,
    logits_mode: bool = False,
) -> LogprobsTensors:
    """Stands for V2's `compute_topk_scores`, whose logits only a grammar changes in place."""
    if max_per_req_token_ids or logits_mode:
        raise ValueError("the entropy tap gives neither chosen tokens nor logits")
    found = _gather_stats(_before_mask(logits), num_logprobs, sampled_token_ids.to(torch.int64))
    if cu_num_logits is None:
        return found
    place = "cu_num_generated_tokens" + ("_tensor" if isinstance(cu_num_logits, torch.Tensor) else "")
    return found._replace(**{place: cu_num_logits})


def check(theirs: Gather, ours: Gather, vocabulary: int, dtype: torch.dtype, device: torch.device) -> float:
    """Compare the two on random rows of logits, in `dtype` and in float32.

    Returns:
        The largest |difference| in nats: of log-probabilities and largest log-probabilities from `theirs`, of
        entropies from float64.

    Raises:
        StepconfError: it is above LIMIT.
    """
    worst = 0.0
    for kind in {dtype, torch.float32}:
        for name, gap in _gaps(theirs, ours, _rows(vocabulary).to(kind), device).items():
            if not gap <= LIMIT:  # NaN too
                raise StepconfError(f"{name} of {kind} logits are off by {gap:.2g} nats on {device}")
            worst = max(worst, gap)
    return worst


def _rows(vocabulary: int) -> torch.Tensor:
    """[_ROWS, vocabulary] logits, from a uniform row to one with a likely token; in one, half is masked."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(_ROWS, vocabulary, generator=draw) * torch.linspace(0, 8, _ROWS)[:, None]
    logits[1, : vocabulary // 2] = -torch.inf
    return logits


def _gaps(theirs: Gather, ours: Gather, logits: torch.Tensor, device: torch.device) -> dict[str, float]:
    token_ids = torch.arange(_ROWS) * 7 % (logits.shape[1] // 2) + logits.shape[1] // 2  # none that is masked
    entropies = torch.special.entr(logits.double().softmax(-1)).sum(-1)
    there = logits.to(device), COLUMNS - 1, token_ids.to(device)
    a, b = (gather(*there).logprobs.double().cpu() for gather in (theirs, ours))
    return {
        "log-probabilities": (a[:, 0] - b[:, 0]).abs().max().item(),
        "entropies": (b[:, 1] - entropies).abs().max().item(),
        "largest log-probabilities": (a[:, 1] - b[:, 2]).abs().max().item(),
        "second log-probabilities": (a[:, 2] - b[:, 5]).abs().max().item(),
    }


def choose_stats(vocabulary: int, dtype: torch.dtype, device: torch.device) -> str:
    """Take the kernel that reads the logits once, where there is a GPU and it gives what `token_stats` gives.

    Returns:
        `triton`, or `torch` and, on a GPU, why the kernel is not taken.
    """
    global _stats
    _stats = token_stats
    if device.type == "cpu":
        return "torch"
    try:
        from stepconf.engines.fused_stats import fused_token_stats

        for kind in {dtype, torch.float32}:
            logits = _rows(vocabulary).to(device, kind)
            token_ids = torch.arange(_ROWS, device=device) + vocabulary // 2
            found, expected = (of(logits, token_ids) for of in (fused_token_stats, token_stats))
            torch.testing.assert_close(found, expected, rtol=LIMIT, atol=LIMIT)
    except Exception as error:  # noqa: BLE001  Triton's compiler raises what it likes; without it all goes on
        return f"torch ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    _stats = fused_token_stats
    return "triton"


def tap_v1(sampler: Any, vocabulary: int, dtype: torch.dtype, device: torch.device) -> float:
    """Replace the two methods of this sampler, once `check` agrees; see there for what it returns and raises."""

    def theirs(logits: torch.Tensor, columns: int, token_ids: torch.Tensor) -> LogprobsTensors:
        # vLLM compiles the ranks, which nobody reads here.
        with torch.compiler.set_stance("force_eager"):
            found: LogprobsTensors = sampler.gather_logprobs(
                sampler.compute_logprobs(logits), columns, token_ids
            )
        return found

    def ours(logits: torch.Tensor, columns: int, token_ids: torch.Tensor) -> LogprobsTensors:
        return _gather_stats(_keep_logits(logits), columns, token_ids)

    gap = check(theirs, ours, vocabulary, dtype, device)
    sampler.compute_logprobs = _keep_logits
    sampler.gather_logprobs = _gather_stats
    return gap


def tap_v2(vocabulary: int, dtype: torch.dtype, device: torch.device) -> float:
    """Rebind `compute_topk_scores` in every module that has it, once `check` agrees; see there.

    Raises:
        StepconfError: as `check`, or this vLLM holds the function elsewhere than in modules, or calls it otherwise.
    """
    home = importlib.import_module(_V2_HOME)
    found = getattr(home, _V2_FUNCTION)
    theirs = getattr(found, "replaces", found)  # an engine that ran in this process before has tapped it
    unknown = inspect.signature(theirs).parameters.keys() - inspect.signature(_topk_stats).parameters.keys()
    if unknown:
        raise StepconfError(f"{_V2_FUNCTION} takes {', '.join(sorted(unknown))}, which the tap does not know")
    gap = check(theirs, _topk_stats, vocabulary, dtype, device)
    setattr(_topk_stats, "replaces", theirs)  # noqa: B010  a function's attribute, which mypy does not know
    for caller in _V2_CALLERS:
        importlib.import_module(caller)
    _rebind(theirs, _topk_stats)
    if missed := _missed(theirs):
        raise StepconfError(f"{_V2_FUNCTION} could not be replaced in {', '.join(missed)}")
    return gap


def _rebind(old: object, new: object) -> None:
    """Put `new` where a module's name holds `old`."""
    for module in list(sys.modules.values()):
        for name, value in list(_globals(module).items()):
            if value is old:
                setattr(module, name, new)


def _missed(theirs: object) -> list[str]:
    """What still calls vLLM's function: a caller without the tap, or whatever else refers to the function."""
    missed = [
        name
        for name in _V2_CALLERS
        if not any(value is _topk_stats for value in _globals(sys.modules[name]).values())
    ]
    holders = [one for one in gc.get_referrers(theirs) if one is not vars(_topk_stats)]
    # The frame is that of a call under way.
    return missed + [_described(one) for one in holders if not isinstance(one, FrameType)]


def _globals(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = getattr(module, "__dict__", {})  # what is in sys.modules need not be a module
    return found


def _described(holder: object) -> str:
    name = holder.get("__name__", "") if isinstance(holder, dict) else ""
    return f"{name or 'an object'} ({type(holder).__name__})"


class EntropyTap:
    """A vLLM worker extension; called over `collective_rpc`."""

    model_config: Any
    model_runner: Any

    def install_entropy_tap(self) -> dict[str, Any]:
        """Check and tap the runner in use. An exception would leave a worker as text without a type: none does.

        Returns:
            runner ("v1", "v2", or "" for another), device, kernel (see `choose_stats`), gap (nats) and seconds of
            the check, and problem: why it is not tapped, "" where it is.
        """
        runner, config = self.model_runner, self.model_config
        modules = [kind.__module__ for kind in type(runner).__mro__]
        name = next((RUNNERS[module] for module in modules if module in RUNNERS), "")
        found: dict[str, Any] = {"runner": name, "device": str(runner.device), "gap": 0.0, "problem": ""}
        sizes = config.get_vocab_size(), config.dtype, runner.device
        started = time.perf_counter()
        found["kernel"] = choose_stats(*sizes)
        try:
            if name == "v1":
                found["gap"] = tap_v1(runner.sampler, *sizes)
                _note_raw(importlib.import_module(_V1_HOME))
            elif name == "v2":
                found["gap"] = tap_v2(*sizes)
                _note_raw(importlib.import_module(_V2_GRAMMAR).StructuredOutputsWorker)
            else:
                found["problem"] = (
                    f"it runs {modules[0]}.{type(runner).__name__}, which the tap does not know"
                )
        except StepconfError as error:
            found["problem"] = str(error)
        except Exception as error:  # noqa: BLE001  what vLLM's functions raise, and Triton's compiler
            found["problem"] = f"{type(error).__name__}: {error}"
        return found | {"seconds": time.perf_counter() - started}

    def end_with(self, client_pid: int) -> None:
        """See `_end_with`; for workers that were forked, in which this module was imported before."""
        _end_with(client_pid)


def _end_with(client_pid: int) -> None:
    """End this worker, and the engine process above it, as soon as the process that uses them is gone.

    vLLM's processes outlive a client that was killed; idle, they would hold the device for ever.
    """
    above = multiprocessing.parent_process()

    def wait() -> None:
        with suppress(ProcessLookupError):  # gone already
            select.select([os.pidfd_open(client_pid)], [], [])
        # The one above is the client itself, or has ended, or is an engine process between them.
        if above and above.pid and above.pid == os.getppid() != client_pid:
            os.kill(above.pid, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end-with-client").start()


# From the import on: a client may be killed while its engine still starts.
if int(os.environ.get(CLIENT_VARIABLE, os.getpid())) != os.getpid():
    _end_with(int(os.environ[CLIENT_VARIABLE]))
