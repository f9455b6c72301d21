"""Token statistics against the definition, and by their laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepconf.engines.base import scores_of
from stepconf.engines.stats import COLUMNS, token_stats

INF = float("inf")


def literal(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Each column by its formula in float64, from the probabilities of all tokens."""
    rows = logits.double().log_softmax(-1)
    probs = rows.exp()
    there = probs > 0
    entropy = -torch.where(there, probs * rows, 0.0).sum(-1)
    varentropy = torch.where(there, probs * (rows + entropy[:, None]) ** 2, 0.0).sum(-1)
    mean = torch.where(rows > -INF, rows, 0.0).sum(-1) / (rows > -INF).sum(-1)
    largest = rows.sort(-1, descending=True).values
    drawn = rows.gather(-1, token_ids[:, None])[:, 0]
    return torch.stack([drawn, entropy, largest[:, 0], varentropy, mean, largest[:, 1]], -1).float()


@given(
    st.integers(1, 40),
    st.integers(2, 5000),
    st.floats(0.01, 60),
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.floats(0, 0.9),
)
def test_equals_the_definition(
    rows: int, vocabulary: int, scale: float, seed: int, dtype: torch.dtype, masked: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocabulary, generator=generator) * scale).to(dtype)
    if masked > 0.5:
        unlikely = torch.rand(rows, vocabulary, generator=generator) < masked
        logits = logits.masked_fill(unlikely & (logits < logits.amax(-1, keepdim=True)), -INF)
    tokens = torch.randint(vocabulary, (rows,), generator=generator)
    tokens = torch.where(logits.gather(-1, tokens[:, None])[:, 0] > -INF, tokens, logits.argmax(-1))
    before = logits.clone()
    found = token_stats(logits, tokens)
    torch.testing.assert_close(found, literal(logits, tokens), atol=2e-3, rtol=2e-5)
    torch.testing.assert_close(found[:, :3], literal(logits, tokens)[:, :3], atol=2e-4, rtol=2e-5)
    assert torch.equal(before, logits)
    assert (found[:, 1] >= 0).all()
    assert (found[:, 1] <= math.log(vocabulary) + 1e-4).all()
    assert (found[:, [0, 2, 4, 5]] <= 0).all() and (found[:, 3] >= 0).all()
    assert (found[:, 5] <= found[:, 2]).all() and (found[:, 5] <= -math.log(2) + 1e-5).all()


def test_uniform_and_certain_rows() -> None:
    logits = torch.zeros(2, 1000)
    logits[1, 7] = 1e4
    logprob, entropy, top, varentropy, mean, second = token_stats(logits, torch.tensor([3, 7])).T
    torch.testing.assert_close(entropy, torch.tensor([math.log(1000), 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(logprob, torch.tensor([-math.log(1000), 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(top, logprob)
    torch.testing.assert_close(varentropy, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, torch.tensor([-math.log(1000), -9990.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(second, torch.tensor([-math.log(1000), -1e4]), atol=1e-2, rtol=0)


def test_masked_tokens_add_nothing() -> None:
    logits = torch.full((1, 50), -INF)
    logits[0, :4] = 1.5
    found = token_stats(logits, torch.tensor([2]))
    quarter = math.log(4)
    expected = torch.tensor([[-quarter, quarter, -quarter, 0.0, -quarter, -quarter]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocabulary", [2, 511, 512, 513, 1024, 1536, 49152])
@pytest.mark.parametrize("tie", [True, False])
def test_the_second_largest_wherever_it_is(vocabulary: int, tie: bool) -> None:
    places = sorted({0, 1, 510, 511, 512, 513, vocabulary - 2, vocabulary - 1} & set(range(vocabulary)))
    pairs = [(a, b) for a in places for b in places if a != b]
    logits = torch.full((len(pairs), vocabulary), -3.0)
    for row, (first, second) in enumerate(pairs):
        logits[row, first], logits[row, second] = 2.0, 2.0 if tie else 1.0
    found = token_stats(logits, torch.zeros(len(pairs), dtype=torch.int64))
    torch.testing.assert_close(found[:, 2] - found[:, 5], torch.full((len(pairs),), 0.0 if tie else 1.0))


def test_one_token_that_is_not_masked_has_no_second() -> None:
    logits = torch.full((1, 600), -INF)
    logits[0, 599] = 0.0
    columns = token_stats(logits, torch.tensor([599])).T.tolist()
    scores = scores_of(columns)
    assert len(columns) == COLUMNS and scores.second_probs == [0.0]
    assert scores.columns()[:5] == ([0.0], [0.0], [1.0], [0.0], [0.0])
