"""Exact entropies from inside vLLM: two methods of the worker's sampler, replaced.

What was removed from the ordinary logprob path: the [batch, vocabulary] log-softmax matrix, the top-k and the
ranks. In their place each sampled token's entry carries the six numbers of `stats.token_stats`. They travel
where logprobs travel, so they are aligned with the tokens by construction, whatever the scheduler does (chunked
prefill, preemption, prefix caching).
Prompt logprobs go through the same two methods: generated and teacher-forced values are the same function.
"""

import importlib
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors

from stepconf.engines.stats import token_stats
from stepconf.engines.vllm_start import CLIENT_VARIABLE

COLUMNS = 6
RUNNER_MODULE = "vllm.v1.worker.gpu_model_runner"


# Logits that a grammar has changed in place, with a copy from before. Only the latest: a step has one batch.
_masked: list[tuple[torch.Tensor, torch.Tensor]] = []


def _keep_logits(logits: torch.Tensor) -> torch.Tensor:
    """Stands for `compute_logprobs`: hand the raw logits on to `_gather_stats`.

    The sampler scales float32 logits in place afterwards, so those are copied; it works on a float32 copy of
    half-precision ones, so those stay as they are.
    """
    if _masked:
        masked, raw = _masked.pop()
        if masked is logits:
            return raw
    return logits.clone() if logits.dtype == torch.float32 else logits


def _gather_stats(logits: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor) -> LogprobsTensors:
    """Stands for `gather_logprobs`: [rows, 6] token statistics instead of the top-k.

    The id columns repeat the token: any valid id does, since results are read by position.
    """
    if num_logprobs != COLUMNS - 1:
        raise ValueError(f"the entropy tap carries {COLUMNS - 1} extra columns, got logprobs={num_logprobs}")
    ids = token_ids.to(torch.int32).unsqueeze(-1).expand(-1, COLUMNS).contiguous()
    ranks = torch.ones(len(token_ids), dtype=torch.int64, device=logits.device)
    return LogprobsTensors(ids, token_stats(logits, token_ids), ranks)


def _noting_raw(apply: Callable[..., None]) -> Callable[..., None]:
    """The function that masks the logits of texts held to a schema, which keeps a copy from before.

    It runs in every step of a batch with such a text, just before the sampler.
    """

    def noting(scheduler_output: Any, grammar_output: Any, input_batch: Any, logits: torch.Tensor) -> None:
        _masked[:] = [(logits, logits.clone())]
        apply(scheduler_output, grammar_output, input_batch, logits)

    return noting


class EntropyTap:
    """A vLLM worker extension; called over `collective_rpc`."""

    model_runner: Any

    def describe_runner(self) -> dict[str, str]:
        """Class and module of the model runner in use, and its device."""
        runner = type(self.model_runner)
        home = next(
            (c.__module__ for c in runner.__mro__ if c.__module__ == RUNNER_MODULE), runner.__module__
        )
        return {"runner": runner.__name__, "module": home, "device": str(self.model_runner.device)}

    def end_with(self, client_pid: int) -> None:
        """See `_end_with`; for workers that were forked, in which this module was imported before."""
        _end_with(client_pid)

    def install_entropy_tap(self) -> None:
        """Replace the two methods on this worker's sampler."""
        sampler = self.model_runner.sampler
        sampler.compute_logprobs = _keep_logits
        sampler.gather_logprobs = _gather_stats
        runner: Any = importlib.import_module(RUNNER_MODULE)
        runner.apply_grammar_bitmask = _noting_raw(runner.apply_grammar_bitmask)


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
