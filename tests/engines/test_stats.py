"""Token statistics against the definition, and by their laws."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from stepconf.engines.stats import token_stats


def literal(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    rows = logits.double().log_softmax(-1)
    probs = rows.exp()
    entropy = -torch.where(probs > 0, probs * rows, 0.0).sum(-1)
    return torch.stack([rows.gather(-1, token_ids[:, None])[:, 0], entropy, rows.amax(-1)], -1).float()


@given(
    st.integers(1, 40),
    st.integers(2, 5000),
    st.floats(0.01, 60),
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_definition(
    rows: int, vocabulary: int, scale: float, seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocabulary, generator=generator) * scale).to(dtype)
    tokens = torch.randint(vocabulary, (rows,), generator=generator)
    before = logits.clone()
    found = token_stats(logits, tokens)
    torch.testing.assert_close(found, literal(logits, tokens), atol=2e-4, rtol=2e-5)
    assert torch.equal(before, logits)
    assert (found[:, 1] >= 0).all()
    assert (found[:, 1] <= math.log(vocabulary) + 1e-4).all()
    assert (found[:, [0, 2]] <= 0).all()


def test_uniform_and_certain_rows() -> None:
    logits = torch.zeros(2, 1000)
    logits[1, 7] = 1e4
    logprob, entropy, top = token_stats(logits, torch.tensor([3, 7])).T
    torch.testing.assert_close(entropy, torch.tensor([math.log(1000), 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(logprob, torch.tensor([-math.log(1000), 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(top, logprob)


def test_masked_tokens_add_nothing() -> None:
    logits = torch.full((1, 50), float("-inf"))
    logits[0, :4] = 1.5
    found = token_stats(logits, torch.tensor([2]))
    torch.testing.assert_close(
        found, torch.tensor([[-math.log(4), math.log(4), -math.log(4)]]), atol=1e-5, rtol=0
    )
