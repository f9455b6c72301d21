"""The reference engine against a plain forward, and its own promises: determinism, stops, lazy requests."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepconf.engines.base import SampleRequest, Sampling, ScoreRequest, cut_at_stop
from stepconf.engines.transformers import TransformersEngine
from stepconf.errors import StepconfError, model_not_found
from tests.engines.reference import token_scores
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(str(tiny_model()))


def half_copied(model: Path, folder: Path) -> Path:
    """The model with its weights cut off."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


def request(engine: TransformersEngine, text: str, n: int = 3, seed: int = 0, **how: object) -> SampleRequest:
    sampling = Sampling(**({"temperature": 0.9, "max_tokens": 30} | how))  # type: ignore[arg-type]
    return SampleRequest(text, engine.tokenizer.encode(text), n, seed, sampling)


def test_sampled_and_scored_numbers_equal_a_plain_forward(engine: TransformersEngine) -> None:
    asked = [request(engine, text) for text in ("1 + 1 =", "the sum of two numbers is")]
    for r, completions in engine.sample(asked):
        for c in completions:
            expected = token_scores(engine.info.model, r.prompt_ids, c.token_ids)
            for ours, reference in zip(c.scores.columns(), expected.columns(), strict=True):
                assert ours == pytest.approx(reference, abs=2e-4)
            [(_, scored)] = engine.score([ScoreRequest("s", r.prompt_ids, c.token_ids)])
            assert scored.entropies == pytest.approx(c.scores.entropies, abs=1e-4)
            assert scored.logprobs == pytest.approx(c.scores.logprobs, abs=1e-4)


def test_a_result_depends_on_its_request_alone(engine: TransformersEngine) -> None:
    one, two = request(engine, "1 + 1 =", seed=5), request(engine, "2 + 2 =", seed=9)
    alone = {r.key: c for r, c in engine.sample([one])}
    among = {r.key: c for r, c in engine.sample([two, None, one])}
    assert alone[one.key] == among[one.key]


def test_other_seeds_give_other_samples(engine: TransformersEngine) -> None:
    [(_, completions)] = engine.sample([request(engine, "1 + 1 =", n=12)])
    assert len({tuple(c.token_ids) for c in completions}) > 6


def test_greedy_and_narrow_nucleus_take_the_likeliest(engine: TransformersEngine) -> None:
    [(_, greedy)] = engine.sample([request(engine, "1 + 1 =", n=1, temperature=0.0)])
    [(_, narrow)] = engine.sample([request(engine, "1 + 1 =", n=1, top_p=1e-9)])
    assert greedy[0].token_ids == narrow[0].token_ids
    for logprob, top in zip(greedy[0].scores.logprobs, greedy[0].scores.max_probs, strict=True):
        assert logprob == pytest.approx(math.log(top), abs=1e-5)


def test_results_feed_requests(engine: TransformersEngine) -> None:
    first, second = request(engine, "a"), request(engine, "b")
    got: list[str] = []

    def requests() -> Iterator[SampleRequest | None]:
        yield first
        while not got:
            yield None
        yield second

    for r, _ in engine.sample(requests()):
        got.append(r.key)
    assert got == ["a", "b"]


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepconfError, match=f"cannot load the model '{tiny_model()}': PyTorch"):
        TransformersEngine(str(tiny_model()), device="opencl")
    cut = half_copied(tiny_model(), tmp_path)
    with pytest.raises(StepconfError, match=f"cannot load the model '{cut}': .*incomplete"):
        TransformersEngine(str(cut))


def test_a_model_that_the_device_has_no_room_for_is_no_wrong_name() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    assert "smaller model" in model_not_found("large", error).hint


@pytest.mark.parametrize(
    ("pieces", "stop", "keep"),
    [
        (["a", "b"], ("c",), None),
        (["a", "\n\n", "b"], ("\n\n",), 1),
        (["a", ".\n", "\nb", "c"], ("\n\n",), 2),
        (["a", "\n", "\n", "b"], ("\n\n",), 1),
        (["stop"], ("stop",), 0),
        (["x", "", "END"], ("END", "x"), 0),
    ],
)
def test_cut_at_stop(pieces: list[str], stop: tuple[str, ...], keep: int | None) -> None:
    assert cut_at_stop(pieces, stop) == keep


def test_what_is_dropped_is_given_up(engine: TransformersEngine) -> None:
    requests = [request(engine, text, max_tokens=20) for text in ("Step 1:", "Step 2:", "Step 3:")]
    requests = [replace(one, key=str(i)) for i, one in enumerate(requests)]
    asked: list[int] = []

    def dropped() -> list[str]:
        asked.append(1)
        return ["0"] if len(asked) == 5 else []

    assert [one.key for one, _ in engine.sample(requests, dropped)] == ["1", "2"]
