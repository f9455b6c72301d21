"""Packed against unpacked: the same log-probabilities, loss and gradients, on real architectures."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from stepconf.core.trees import Example, pack, plant
from stepconf.demo_model import demo_model_path
from stepconf.errors import StepconfError
from stepconf.training.attention import attend, blocks, sees, visible
from stepconf.training.batches import collate
from stepconf.training.layers import is_written_out
from stepconf.training.models import check_head, check_trees, context_of
from stepconf.training.objectives.dpo import dpo_loss
from stepconf.training.policy import Policy
from tests.tiny import needs_demo_model

VOCABULARY = 600
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
    "llama-biased": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
}


def tiny(name: str) -> Any:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name]))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # all ones, or all zeros
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    return model


def step_pairs(seed: int, n_solutions: int, step: int, vocabulary: int) -> list[Example]:
    """Pairs on the steps of solutions: a trunk of chosen steps, a rejected branch at each.

    The second solution leaves the first in the middle of its second step, and a rejected branch is the trunk of
    a pair of its own: branches within branches. Some pairs share the first tokens of their sides.
    """
    draw = torch.Generator().manual_seed(seed)

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, vocabulary, (n,), generator=draw).tolist())

    prompt, found = some(9), []
    trunk: tuple[int, ...] = ()
    for s in range(n_solutions):
        trunk = trunk[: step + step // 2]
        for k in range(4):
            chosen, rejected = some(step), some(step - 2)
            if k == 1:
                rejected = chosen[:2] + rejected
            found.append(Example(f"{s}/{k}", "p", prompt + trunk, (chosen, rejected)))
            if k == 2:
                inner = prompt + trunk + rejected
                found.append(Example(f"{s}/{k}i", "p", inner, (some(3), some(5))))
            trunk += chosen
    return [*found, Example("other", "q", some(5), (some(1), some(2)))]


def unpacked(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """[P, 2]: each side in a forward of its own, float32, plain log-softmax."""
    model.set_attn_implementation("eager")  # a model that a policy held attends over trees
    rows = []
    for one in examples:
        for side in one.sides:
            ids = torch.tensor([one.prompt_ids + side])
            logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(one.prompt_ids)
            rows.append(sum(logprobs[start - 1 + k, token] for k, token in enumerate(side)))
    return torch.stack(rows).view(-1, 2)


def packed(policy: Policy, examples: Sequence[Example], budget: int) -> torch.Tensor:
    """[P, 2] in the order of `examples`."""
    result = [torch.empty(0)] * len(examples)
    for trees in pack(plant(examples, range(len(examples)), budget), budget):
        batch = collate(trees)
        logprobs = policy(batch).logprobs
        sums = torch.zeros(batch.n_sides).index_add(0, batch.use_sides, logprobs)
        for index, sides in zip(batch.examples, sums.view(-1, 2), strict=True):
            result[index] = sides
    return torch.stack(result)


@pytest.mark.parametrize("biased", [False, True])
def test_a_temperature_divides_the_logits(biased: bool) -> None:
    model, examples = tiny("llama"), step_pairs(4, 2, 6, VOCABULARY)
    if biased:
        model.lm_head.bias = torch.nn.Parameter(torch.randn(VOCABULARY))
    batch = collate(plant(examples, range(len(examples)), 10_000))
    policy = Policy(model)
    scores = policy(batch, 0.6)
    (scores.logprobs.sum() + scores.entropies.sum()).backward()
    ours = gradients(model)
    with torch.no_grad():
        model.lm_head.weight /= 0.6
        if biased:
            model.lm_head.bias /= 0.6
    expected = policy(batch)
    (expected.logprobs.sum() + expected.entropies.sum()).backward()
    for of_head in [model.lm_head.weight, model.lm_head.bias][: 1 + biased]:
        of_head.grad /= 0.6  # of the parameter that was divided
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, gradients(model), rtol=1e-3, atol=1e-3)


def gradients(model: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return found


def compare(model: Any, examples: Sequence[Example], budget: int) -> None:
    torch.manual_seed(1)
    reference = torch.randn(len(examples), 2)
    results = []
    for logprobs in (lambda: unpacked(model, examples), lambda: packed(Policy(model), examples, budget)):
        values = logprobs()
        # The reference near the policy, so that no pair's sigmoid is saturated.
        loss = dpo_loss(values, values.detach() + reference, beta=0.1)[0].mean()
        loss.backward()
        results.append((values.detach(), loss.item(), gradients(model)))
    (lp, loss, grad), (lp_packed, loss_packed, grad_packed) = results
    torch.testing.assert_close(lp_packed, lp, rtol=1e-4, atol=1e-3)
    assert abs(loss_packed - loss) <= 1e-4 * abs(loss)
    assert grad.norm() > 0 and (grad_packed - grad).norm() <= 1e-3 * grad.norm()


@pytest.mark.parametrize("heads_a_chunk", [50, 100_000])
@pytest.mark.parametrize("budget", [60, 100_000])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("written_out", [True, False])
def test_loss_and_gradients_equal_unpacked_ones(
    written_out: bool, name: str, budget: int, heads_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepconf.training.head._CHUNK_ELEMENTS", heads_a_chunk * VOCABULARY)
    assert is_written_out(tiny(name).base_model)
    if not written_out:
        monkeypatch.setattr("stepconf.training.policy.is_written_out", lambda body: False)
    compare(tiny(name), step_pairs(seed=5, n_solutions=9, step=10, vocabulary=VOCABULARY), budget)


@needs_demo_model
def test_loss_and_gradients_equal_unpacked_ones_on_the_demo_model() -> None:
    model = AutoModelForCausalLM.from_pretrained(demo_model_path(), dtype=torch.float32)
    compare(model, step_pairs(seed=6, n_solutions=1, step=6, vocabulary=49_000), budget=256)


def test_a_forward_between_forward_and_backward_changes_no_gradient() -> None:
    """Both use the same room for logits."""
    first, second = (step_pairs(seed, n_solutions=2, step=10, vocabulary=VOCABULARY) for seed in (5, 6))
    model = tiny("qwen2")
    policy = Policy(model)
    for examples in (first, second):
        packed(policy, examples, 100_000).sum().backward()
    apart = gradients(model)
    (packed(policy, first, 100_000).sum() + packed(policy, second, 100_000).sum()).backward()
    torch.testing.assert_close(gradients(model), apart, rtol=1e-4, atol=1e-4)


def test_what_the_written_out_layers_would_leave_out_goes_through_the_models_own() -> None:
    model = tiny("llama")
    body = model.base_model
    assert is_written_out(body)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert not is_written_out(body)
    model.gradient_checkpointing_disable()
    body.config.attention_dropout = 0.1
    assert not is_written_out(body.train()) and is_written_out(body.eval())
    body.layers[1].mlp.up_proj.weight.requires_grad_(False)
    assert not is_written_out(body)
    assert not is_written_out(tiny("llama").to(torch.bfloat16).base_model)
    assert not is_written_out(AutoModelForCausalLM.from_config(MistralConfig(**SMALL)).base_model)


def test_sharing_saves_tokens() -> None:
    examples = step_pairs(seed=5, n_solutions=9, step=10, vocabulary=VOCABULARY)
    trees = plant(examples, range(len(examples)), 100_000)
    alone = sum(len(one.prompt_ids) + len(side) for one in examples for side in one.sides)
    assert sum(map(len, trees)) * 3 < alone


def test_what_a_tree_hides_changes_nothing() -> None:
    examples = step_pairs(seed=5, n_solutions=2, step=10, vocabulary=VOCABULARY)
    with torch.no_grad():
        policy = Policy(tiny("llama"))
        whole = packed(policy, examples, 100_000)
        alone = torch.cat([packed(policy, [one], 100_000) for one in examples])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-3)


def test_bfloat16_computes_near_float32_and_keeps_float32_gradients() -> None:
    examples = step_pairs(seed=5, n_solutions=2, step=10, vocabulary=VOCABULARY)
    model = tiny("qwen2")
    exact = packed(Policy(model), examples, 100_000).detach()
    rounded = packed(Policy(model, torch.bfloat16), examples, 100_000)
    rounded.sum().backward()
    assert rounded.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert ((rounded - exact).abs() / exact.abs()).median() < 0.03


def test_a_model_that_caps_or_scales_its_logits_is_refused() -> None:
    from transformers import Gemma2Config, GraniteConfig

    capped = Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.1)
    for config in (capped, GraniteConfig(**SMALL, logits_scaling=8.0)):
        with pytest.raises(StepconfError, match="caps or scales"):
            check_head(AutoModelForCausalLM.from_config(config))
    for kind in CONFIGS:
        check_head(tiny(kind))


OTHERS: dict[str, dict[str, Any]] = {
    "BloomConfig": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # attends by code of its own
    "GptOssConfig": SMALL | {"num_local_experts": 4, "head_dim": 8},  # attention with sinks
    "Lfm2Config": SMALL | {"layer_types": ["conv", "full_attention"]},
    "MambaConfig": {"hidden_size": 32, "num_hidden_layers": 2},  # recurrent
    "Qwen3NextConfig": SMALL
    | {"layer_types": ["linear_attention", "full_attention"], "num_experts": 4, "num_experts_per_tok": 2},
    "StableLmConfig": SMALL,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_that_mixes_packed_sides_is_refused(kind: str) -> None:
    torch.manual_seed(3)
    config = getattr(transformers, kind)(
        **{"vocab_size": VOCABULARY, "initializer_range": 0.3} | OTHERS[kind]
    )
    with pytest.raises(StepconfError, match="does not compute packed sides as each side alone"):
        check_trees(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_that_computes_trees_is_taken(kind: str) -> None:
    model = tiny(kind).train()
    check_trees(model)
    assert model.training


def test_the_context_ends_where_a_window_does() -> None:
    plain = MistralConfig(**SMALL, sliding_window=None)
    for config, expected in (
        (MistralConfig(**SMALL, sliding_window=7), 7),
        (plain, 512),
        (CONFIGS["llama"], 512),
    ):
        assert context_of(Policy(AutoModelForCausalLM.from_config(deepcopy(config)))) == expected


def test_flex_attention_sees_what_the_dense_mask_shows() -> None:
    from torch.nn.attention.flex_attention import create_mask

    examples = step_pairs(seed=5, n_solutions=3, step=6, vocabulary=VOCABULARY)
    batch = collate(pack(plant(examples, range(len(examples)), 90), 200)[0])
    length = len(batch.ends)
    each_alone = torch.block_diag(*(visible(batch.ends[a:b] - a) for a, b in batch.bounds)).bool()
    flex = create_mask(sees(batch.ends), 1, 1, length, length, device="cpu")
    assert len(batch.bounds) > 1 and torch.equal(flex[0, 0], each_alone)


@pytest.mark.parametrize(
    "dropout", [0.0, pytest.param(1e-12, marks=pytest.mark.slow)]
)  # with one, autograd's way
def test_trees_of_many_blocks_attend_as_under_a_dense_mask(dropout: float) -> None:
    examples = step_pairs(seed=8, n_solutions=9, step=45, vocabulary=VOCABULARY)
    examples += [Example(e.key + "'", "q", e.prompt_ids[:5], e.sides) for e in examples[:3]]
    batch = collate(pack(plant(examples, range(len(examples)), 10_000), 10_000)[0])
    n, (short, long) = len(batch.ends), sorted(batch.bounds, key=lambda bound: bound[1] - bound[0])
    found = blocks(batch.ends, batch.bounds, torch.float64)
    assert long[1] - long[0] > 1024 and short[1] - short[0] < 512
    assert sum(block.bias.numel() for block in found) < 0.7 * ((long[1] - long[0]) ** 2)
    shapes = [(1, n, heads, 8) for heads in (6, 2, 2)]  # two groups of three query heads
    states = [torch.randn(shape, dtype=torch.float64).transpose(1, 2).requires_grad_() for shape in shapes]
    gradient = torch.randn(1, n, 6, 8, dtype=torch.float64)

    out, _ = attend(None, *states, None, trees=found, scaling=0.3, dropout=dropout)
    own = torch.autograd.grad(out, states, gradient)
    query, key, value = states
    key, value = key.repeat_interleave(3, 1), value.repeat_interleave(3, 1)
    scores = (query @ key.transpose(2, 3) * 0.3).masked_fill(~visible(batch.ends), -torch.inf)
    dense = (scores.softmax(-1) @ value).transpose(1, 2)
    torch.testing.assert_close(out, dense)
    for ours, theirs in zip(own, torch.autograd.grad(dense, states, gradient), strict=True):
        torch.testing.assert_close(ours, theirs)
