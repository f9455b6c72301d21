"""vLLM's second model runner, in Triton's interpreter: exact numbers whatever the scheduler does. `make test-v2`.

The model is small, so that the interpreter keeps up; its cache holds few of the sequences below.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepconf.engines.base import Completion, SampleRequest, Sampling, ScoreRequest
from stepconf.errors import StepconfError
from tests.engines.reference import token_numbers
from tests.tiny import vllm_model

if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "1" or os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("`make test-v2` runs it, in an environment with Triton", allow_module_level=True)

import torch

from stepconf.engines import vllm_tap
from stepconf.engines.vllm import VllmEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LIMIT = 2e-5  # nats, from a forward in float32 whose softmax is in float64
CPU = torch.device("cpu")
TEXTS = [f"Step {a}: there are {a} + {b} = {a + b} apples, so" for a, b in ((3, 4), (5, 6), (3, 4), (8, 1))]
TIGHT = {
    "enable_chunked_prefill": True,
    "max_num_batched_tokens": 16,
    "max_num_seqs": 8,
    "num_gpu_blocks_override": 10,
}
WAYS: dict[str, dict[str, Any]] = {
    "chunks, few blocks, shared prefixes": TIGHT,
    "tensor parallel": TIGHT | {"tensor_parallel_size": 2},
    "pipeline parallel": TIGHT | {"pipeline_parallel_size": 2},
    "speculation": {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }
    },
}


@pytest.fixture(scope="module", params=WAYS)
def engine(request: pytest.FixtureRequest) -> Iterator[VllmEngine]:
    with pytest.MonkeyPatch.context() as patch:
        # Two workers want a NUMA node each, which a small machine has not.
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        how = {"dtype": "float32", "max_model_len": 256, "options": WAYS[request.param]}
        with closing(VllmEngine(str(vllm_model()), **how)) as started:
            yield started


def asked(engine: VllmEngine, temperature: float) -> list[SampleRequest]:
    how = Sampling(temperature, 40)
    prompts = [engine.tokenizer.encode_prompt(text) for text in TEXTS]
    return [SampleRequest(str(i), ids, 3, 1000 * i, how) for i, ids in enumerate(prompts)]


def sampled(engine: VllmEngine, requests: list[SampleRequest]) -> dict[str, list[Completion]]:
    return {request.key: completions for request, completions in engine.sample(requests)}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_samples_and_scores_are_exact_and_seeds_hold(engine: VllmEngine, temperature: float) -> None:
    assert engine.info.runner == "v2" and engine.check.gap <= 1e-5
    requests = asked(engine, temperature)
    found = sampled(engine, requests)
    drawn = {f"{r.key}.{i}": (r.prompt_ids, one) for r in requests for i, one in enumerate(found[r.key])}
    again = [ScoreRequest(key, prompt, one.token_ids) for key, (prompt, one) in drawn.items()]
    gaps: list[float] = []
    for request, forced in engine.score(again):
        exact = token_numbers(engine.info.model, request.prefix_ids, request.token_ids)
        for mine in (drawn[request.key][1].scores, forced):
            numbers = mine.logprobs, mine.entropies, mine.max_probs
            for ours, wanted in zip(numbers, exact, strict=True):
                gaps += [abs(a - b) for a, b in zip(ours, wanted, strict=True)]
    print(f"{len(gaps)} numbers, largest gap {max(gaps):.2g}")
    assert len(gaps) > 500 and max(gaps) <= LIMIT
    if temperature:
        assert len({tuple(one.token_ids) for some in found.values() for one in some}) > 6, "seeds differ"
        alone = sampled(engine, requests[1:2])
        assert [c.token_ids for c in alone["1"]] == [c.token_ids for c in found["1"]], "in any batch"


def v2_function() -> Any:
    from vllm.v1.worker.gpu.sample import logprob

    return getattr(logprob.compute_topk_scores, "replaces", logprob.compute_topk_scores)


def test_a_wrong_column_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = vllm_tap.token_stats
    monkeypatch.setattr(vllm_tap, "_stats", lambda logits, ids: exact(logits, ids)[:, [0, 2, 1, 3, 4, 5]])
    with pytest.raises(StepconfError, match=r"entropies of .* off by"):
        vllm_tap.tap_v2(384, torch.float32, CPU)


def test_a_new_argument_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.worker.gpu.sample import logprob

    monkeypatch.setattr(logprob, "compute_topk_scores", lambda logits, num_logprobs, of_what: None)
    with pytest.raises(StepconfError, match="of_what"):
        vllm_tap.tap_v2(384, torch.float32, CPU)


class Elsewhere:
    """Keeps a function where no module's name leads to it."""

    def __init__(self, function: Any) -> None:
        self.kept = [function]


def test_a_place_that_keeps_vllms_function_is_found() -> None:
    elsewhere = Elsewhere(v2_function())
    with pytest.raises(StepconfError, match=r"could not be replaced in an object \(list\)"):
        vllm_tap.tap_v2(384, torch.float32, CPU)
    elsewhere.kept.clear()
    assert vllm_tap.tap_v2(384, torch.float32, CPU) <= 1e-5


def test_a_caller_without_the_function_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.worker.gpu.sample import sampler

    monkeypatch.setattr(sampler, "compute_topk_scores", len)
    with pytest.raises(
        StepconfError, match=r"could not be replaced in vllm\.v1\.worker\.gpu\.sample\.sampler"
    ):
        vllm_tap.tap_v2(384, torch.float32, CPU)


def test_every_module_that_imported_it_calls_the_tap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "importer_of_v2.py").write_text(
        "from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores as under_another_name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # As in a process in which no tap is yet.
    tap = vllm_tap._topk_stats
    vllm_tap._rebind(tap, v2_function())
    vllm_tap._topk_stats = tap  # its own name, too, was rebound
    import importer_of_v2  # type: ignore[import-not-found]

    assert importer_of_v2.under_another_name is v2_function()
    vllm_tap.tap_v2(384, torch.float32, CPU)
    assert importer_of_v2.under_another_name is vllm_tap._topk_stats
