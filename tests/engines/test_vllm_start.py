"""What vLLM is refused for before it starts, and what the tap's own check finds."""

from typing import Any

import pytest

from stepconf.errors import StepconfError
from tests.tiny import tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed")

import torch
import vllm
from vllm.v1.sample.sampler import Sampler

from stepconf.engines import vllm_tap
from stepconf.engines.vllm import VllmEngine, _scores
from stepconf.engines.vllm_start import import_vllm, seeds_requests

CPU = torch.device("cpu")


@pytest.mark.parametrize("value", ["false", "V1", "1.0"])
def test_a_runner_variable_that_vllm_cannot_read_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", value)
    with pytest.raises(StepconfError, match=f"VLLM_USE_V2_MODEL_RUNNER={value}.*\n.*unset"):
        import_vllm("a-model")


@pytest.mark.parametrize("version", ["0.30.2", "0.34.0", "1.0"])
def test_a_vllm_outside_the_known_range_is_warned_of(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.warns(UserWarning, match=f"vLLM {version}.*>=0.31,<0.34"):
        import_vllm("a-model")


@pytest.mark.parametrize("version", ["0.31.0", "0.33.1rc2", vllm.__version__])
def test_a_vllm_of_the_known_range_is_not(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    import_vllm("a-model")


def test_logprobs_of_the_sampled_distribution_are_refused() -> None:
    with pytest.raises(StepconfError, match=r"logprobs_mode=processed_logprobs.*\n.*engine.options"):
        VllmEngine(str(tiny_model()), dtype="float32", options={"logprobs_mode": "processed_logprobs"})


def test_first_runner_on_a_gpu_seeds_requests_only_for_reproducibility(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    found = {(r, d): seeds_requests(r, d) for r in ("v1", "v2") for d in ("cpu", "cuda:0")}
    assert [key for key, seeded in found.items() if not seeded] == [("v1", "cuda:0")]
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert seeds_requests("v1", "cuda:0")


def test_vllms_own_logprobs_are_never_taken_for_entropies() -> None:
    with pytest.raises(StepconfError, match="way around the tap"):
        _scores([-1.5, 0.7, -0.3, 0.4, -9.0, -2.0, -1.5, -0.3, -2.0, -2.5, -3.0, -4.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [384, 50_001])
def test_the_tap_gives_what_vllm_gives(dtype: torch.dtype, vocabulary: int) -> None:
    sampler = Sampler()
    assert 0 <= vllm_tap.tap_v1(sampler, vocabulary, dtype, CPU) <= 1e-5
    logits, ids = torch.randn(5, vocabulary), torch.arange(5)
    found = sampler.gather_logprobs(sampler.compute_logprobs(logits), vllm_tap.COLUMNS - 1, ids).logprobs
    exact = logits.double().log_softmax(-1)
    entropies = -(exact.exp() * exact).sum(-1)
    wanted = torch.stack([exact[ids, ids], entropies, exact.amax(-1)], 1)
    torch.testing.assert_close(found[:, :3].double(), wanted, atol=1e-5, rtol=0)


def wrong(change: Any) -> Any:
    exact = vllm_tap.token_stats
    return lambda logits, ids: change(exact(logits, ids), logits)


MUTANTS = {
    "columns change places": (wrong(lambda found, _: found[:, [0, 2, 1, 3, 4, 5]]), "entropies"),
    "bits for nats": (wrong(lambda found, _: found * torch.tensor([1, 1 / 0.6931, 1, 1, 1, 1])), "entropies"),
    "a little off": (wrong(lambda found, _: found + torch.tensor([0, 2e-4, 0, 0, 0, 0])), "entropies"),
    "another token": (wrong(lambda found, _: found.roll(1, 0)), "log-probabilities"),
    "the smallest for the largest": (
        wrong(
            lambda found, x: torch.cat(
                [found[:, :2], x.float().log_softmax(-1).amin(-1, keepdim=True), found[:, 3:]], 1
            )
        ),
        "largest log-probabilities",
    ),
    "not a number": (wrong(lambda found, _: found * float("nan")), "log-probabilities"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_tap_is_not_put_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant, what = MUTANTS[name]
    monkeypatch.setattr(vllm_tap, "_stats", mutant)
    sampler = Sampler()
    before = sampler.compute_logprobs, sampler.gather_logprobs
    with pytest.raises(StepconfError, match=f"^{what} of .* off by"):
        vllm_tap.tap_v1(sampler, 384, torch.float32, CPU)
    assert (sampler.compute_logprobs, sampler.gather_logprobs) == before


def test_a_vllm_whose_function_fails_leaves_its_reason() -> None:
    class Broken(vllm_tap.EntropyTap):
        class model_config:
            dtype = torch.float32

            @staticmethod
            def get_vocab_size() -> int:
                return 384

        class model_runner:
            device = CPU

    assert "does not know" in Broken().install_entropy_tap()["problem"]
    Broken.model_runner = type(
        "GPUModelRunner", (), {"__module__": next(iter(vllm_tap.RUNNERS)), "device": CPU}
    )()
    found = Broken().install_entropy_tap()
    assert found["runner"] == "v1" and "AttributeError" in found["problem"]
