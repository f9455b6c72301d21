"""The one-pass kernel: exact in Triton's interpreter, and compiled for GPUs that are not here. `make test-v2`."""

import os
import subprocess
import sys

import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("`make test-v2` runs it, in an environment with Triton", allow_module_level=True)

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.engines import vllm_tap
from stepconf.engines.fused_stats import fused_token_stats
from stepconf.engines.stats import token_stats
from tests.engines.test_stats import literal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
INF = float("inf")
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stepconf.engines.fused_stats import stats_of_row

for logits in ("fp32", "bf16", "fp16"):
    types = ("*fp32", f"*{logits}", "i64", "*i64", "i32", "constexpr", "constexpr", "constexpr")
    source = ASTSource(
        fn=stats_of_row,
        signature=dict(zip(stats_of_row.arg_names, types, strict=True)),
        constexprs={"block": 4096, "columns": 6, "floor": -1e4},
    )
    made = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options={"num_warps": 8})
    print(logits, len(made.asm["cubin"]))
"""


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.one_of(st.integers(2, 300), st.sampled_from([4095, 4096, 4097, 9000])),
    st.floats(0.01, 60),
    st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.floats(0, 0.9),
)
def test_equals_the_definition(
    rows: int, vocabulary: int, scale: float, seed: int, dtype: torch.dtype, masked: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocabulary, generator=draw) * scale).to(dtype)
    unlikely = torch.rand(rows, vocabulary, generator=draw) < masked
    logits = logits.masked_fill(unlikely & (logits < logits.amax(-1, keepdim=True)), -INF)
    tokens = torch.randint(vocabulary, (rows,), generator=draw)
    tokens = torch.where(logits.gather(-1, tokens[:, None])[:, 0] > -INF, tokens, logits.argmax(-1))
    found = fused_token_stats(logits, tokens)
    torch.testing.assert_close(found, literal(logits, tokens), atol=2e-3, rtol=2e-5)
    torch.testing.assert_close(found[:, :3], literal(logits, tokens)[:, :3], atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("vocabulary", [2, 4096, 4097, 49152, 151936])
def test_equals_token_stats_where_it_is_hard(vocabulary: int) -> None:
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[1] = 0  # all tie
    logits[2, 1:] = -INF  # one token is left
    logits[3] = torch.linspace(-30, 30, vocabulary)  # the largest comes last
    logits[4] = torch.linspace(30, -30, vocabulary)
    logits[5, -2:] = 1e4  # two that tie, far above the others
    tokens = torch.tensor([1, 1, 0, 1, 1, vocabulary - 1])
    wide = torch.full((6, vocabulary + 7), 1e5)  # rows do not lie end to end
    wide[:, :vocabulary] = logits
    found = fused_token_stats(wide[:, :vocabulary], tokens)
    torch.testing.assert_close(found, token_stats(logits, tokens), atol=2e-3, rtol=2e-5)


def test_no_rows() -> None:
    assert fused_token_stats(torch.empty(0, 50), torch.empty(0, dtype=torch.int64)).shape == (0, 6)


@pytest.mark.parametrize("capability", [75, 80, 90, 100])
def test_compiles_for(capability: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = COMPILE.replace("CAPABILITY", str(capability))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [int(line.split()[1]) > 1000 for line in done.stdout.splitlines()] == [True] * 3


@pytest.fixture
def device() -> torch.device:
    """A device that calls itself no CPU, on which tensors are made as on one."""
    return torch.device("meta")


def test_a_kernel_that_fails_is_not_taken(device: torch.device) -> None:
    try:
        assert vllm_tap.choose_stats(1000, torch.float32, device).startswith("torch (")
        assert vllm_tap._stats is token_stats
    finally:
        vllm_tap._stats = token_stats
