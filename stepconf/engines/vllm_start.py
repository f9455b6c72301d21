"""How vLLM is started: its import, what it needs on a CPU, and what to say when it fails."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic
from pathlib import Path
from typing import Any

from stepconf.engines.base import EngineCrashed
from stepconf.errors import StepconfError, model_not_found

RUNNER_VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"
CLIENT_VARIABLE = "STEPCONF_VLLM_CLIENT"  # for vLLM's processes: the id of the one that uses them
# The releases whose two model runners are known; in another, the tap's check decides (engines/vllm_tap.py).
KNOWN_VERSIONS = ((0, 31), (0, 34))
_CPU_KV_BYTES = 1 << 30
_FEW_CPUS = 4
# vLLM's processes inherit these: what they print would run through the progress bars.
_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-torch._library.triton",  # that Triton is not there, which a CPU does not need
    "PYTHONWARNINGS": "ignore",
}


def import_vllm(model: str) -> Any:
    """The package that runs `model`, with its logging off.

    Raises:
        StepconfError: it is not installed, could not read $VLLM_USE_V2_MODEL_RUNNER, or would look for the weights
            elsewhere.
    """
    if Path(model).is_dir() and has_magic(model):
        raise StepconfError(
            f"{model}: vLLM reads a folder's name as a pattern, and would take the weights from another.",
            "Give the folder a name without *, ? and [, or add --engine transformers",
        )
    _check_runner_variable()
    os.environ[CLIENT_VARIABLE] = str(os.getpid())
    for variable, quiet in _QUIET.items():
        os.environ.setdefault(variable, quiet)
    if (os.cpu_count() or 1) <= _FEW_CPUS:
        # On a CPU vLLM keeps one core for its scheduler, which hardly works: of two cores, half of its speed.
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    try:
        import vllm
    except ImportError as error:
        raise StepconfError(
            f"vLLM cannot be imported: {error}",
            "Type: make environment in a checkout, or pip install vllm; or add --engine transformers",
        ) from error
    _warn_of_unknown(vllm.__version__)
    return vllm


def _check_runner_variable() -> None:
    """Raise StepconfError where vLLM, which takes it for a whole number, would end with a traceback."""
    value = os.environ.get(RUNNER_VARIABLE)
    try:
        int(value or "0")
    except ValueError as error:
        raise StepconfError(
            f"{RUNNER_VARIABLE}={value}: vLLM reads a number there, 1 for its second model runner and 0 for its first.",
            f"Type: unset {RUNNER_VARIABLE}",
        ) from error


def _warn_of_unknown(version: str) -> None:
    first, end = KNOWN_VERSIONS
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not first <= found < end:
        wanted = f">={'.'.join(map(str, first))},<{'.'.join(map(str, end))}"
        warnings.warn(f"vLLM {version} was not tried with stepconf, which knows vllm{wanted}", stacklevel=3)


def refuse_processed(logprobs_mode: str) -> None:
    """Raise StepconfError where logprobs are of another distribution than the model's own."""
    if logprobs_mode != "raw_logprobs":
        raise StepconfError(
            f"logprobs_mode={logprobs_mode}: entropies are of the raw distribution, before temperature and top-p.",
            "Take logprobs_mode out of engine.options.",
        )


def seeds_requests(runner: str, device: str) -> bool:
    """Whether each request has a seed of its own, rather than all the engine's.

    V2 draws from (seed, position) in one kernel. V1 on a GPU samples every request that has a seed in launches of its
    own, for little: what a seed draws there changes with the batch, unless $VLLM_BATCH_INVARIANT=1 asks for
    reproducibility.
    """
    from vllm import envs

    return runner != "v1" or device.startswith("cpu") or bool(envs.VLLM_BATCH_INVARIANT)


@contextmanager
def dead_engine_as_error() -> Iterator[None]:
    """Turns the end of vLLM's process into an EngineCrashed."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise EngineCrashed(
            "vLLM's engine process died; what was committed is kept.",
            "If memory ran out, lower --set engine.options.max_num_seqs=16 or engine.max_model_len; "
            "VLLM_LOGGING_LEVEL=INFO shows its log. Then type the same command again.",
            dead=True,
        ) from error


def cpu_defaults(
    model: str, revision: str | None, max_model_len: int | None, trust_remote_code: bool
) -> dict[str, Any]:
    """What vLLM needs on CPU.

    Chunked prefill is off because a discarded partial step would rewind the request's random generator,
    which CPU generators cannot do; a step must then hold a whole prompt. Eager mode needs no C++ compiler.
    Small cache blocks let short shared prefixes be shared.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    limit = max_model_len or _context_of(model, revision, trust_remote_code)
    return {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(limit, 4096),
        "kv_cache_memory_bytes": _CPU_KV_BYTES,
        "block_size": 32,
        "enforce_eager": True,
        "max_num_seqs": 64,
    }


def _context_of(model: str, revision: str | None, trust_remote_code: bool) -> int:
    from vllm.transformers_utils.config import get_config

    try:
        config = get_config(model, trust_remote_code=trust_remote_code, revision=revision)
    except (OSError, ValueError) as error:
        raise model_not_found(model, error) from error
    return int(getattr(config, "max_position_embeddings", 4096))


def start_failed(model: str, error: Exception) -> StepconfError:
    """What to say where vLLM did not start."""
    text = str(error).strip() or type(error).__name__
    return StepconfError(
        f"vLLM did not start with {model!r}: {text.splitlines()[0]}",
        "Its own log says more with VLLM_LOGGING_LEVEL=INFO; options of the engine go under engine.options.",
    )
