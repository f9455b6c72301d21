"""Each objective against a literal transcription: every side in a forward of its own, plain float32, loops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepconf.core.trees import Example, pack, plant
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe
from stepconf.training.batches import collate
from stepconf.training.objectives.base import Sample
from stepconf.training.objectives.grpo import credit as grpo_credit
from stepconf.training.objectives.pure import credit as pure_credit
from stepconf.training.objectives.pure import min_form
from stepconf.training.objectives.rloo import credit as rloo_credit
from stepconf.training.policy import Policy
from stepconf.training.reference import Known
from tests.training.test_policy import VOCABULARY, gradients, step_pairs, tiny

Said = list[
    list[tuple[torch.Tensor, torch.Tensor]]
]  # of each example, each side: log-probabilities and entropies
Literal = Callable[[Said, Sequence[Example], list[torch.Tensor], TrainRecipe], torch.Tensor]


def said_alone(model: Any, examples: Sequence[Example]) -> Said:
    """Log-probability and entropy at each token, a side at a time."""
    model.set_attn_implementation("eager")
    found: Said = []
    for one in examples:
        found.append([])
        for side in one.sides:
            ids = torch.tensor([one.prompt_ids + side])
            logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
            before = logprobs[len(one.prompt_ids) - 1 : -1]
            entropies = -(before.exp() * before).sum(-1)
            found[-1].append((before[torch.arange(len(side)), torch.tensor(side)], entropies))
    return found


def literal_dpo(
    said: Said, examples: Sequence[Example], reference: list[torch.Tensor], recipe: TrainRecipe
) -> torch.Tensor:
    total = torch.tensor(0.0)
    for (chosen, rejected), own in zip(said, reference, strict=True):
        r_chosen, r_rejected = own.split([len(chosen[0]), len(rejected[0])])
        margin = recipe.beta * ((chosen[0].sum() - r_chosen.sum()) - (rejected[0].sum() - r_rejected.sum()))
        right, flipped = torch.log(1 + torch.exp(-margin)), torch.log(1 + torch.exp(margin))
        total = total + (1 - recipe.label_smoothing) * right + recipe.label_smoothing * flipped
        total = total + recipe.nll_weight * (-chosen[0].sum() / len(chosen[0]))
        gap = rejected[1].mean() - chosen[1].mean()
        total = total + recipe.margin_weight * max(torch.tensor(0.0), recipe.entropy_margin - gap)
    return total / len(examples)


def literal_sft(
    said: Said, examples: Sequence[Example], reference: list[torch.Tensor], recipe: TrainRecipe
) -> torch.Tensor:
    logprobs = torch.cat([one for ((one, _),) in said])
    return -logprobs.mean()


def literal_kto(
    said: Said, examples: Sequence[Example], reference: list[torch.Tensor], recipe: TrainRecipe
) -> torch.Tensor:
    total = torch.tensor(0.0)
    for ((logprobs, _),), own, example in zip(said, reference, examples, strict=True):
        reward = recipe.beta * (logprobs.sum() - own.sum())
        sign = example.credits[0][0]
        total = total + 1 - 1 / (1 + torch.exp(-sign * reward))
    return total / len(examples)


def literal_kl(logprob: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return torch.exp(reference - logprob) - (reference - logprob) - 1


def surrogate(ratio: torch.Tensor, credit: float, clip: float) -> torch.Tensor:
    bounded = min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip))
    return -min(ratio * credit, bounded * credit)


def literal_rloo(
    said: Said, examples: Sequence[Example], reference: list[torch.Tensor], recipe: TrainRecipe
) -> torch.Tensor:
    total = torch.tensor(0.0)
    for ((logprobs, _),), own, example in zip(said, reference, examples, strict=True):
        ratio = torch.exp((logprobs - torch.tensor(example.logprobs[0])).sum())
        total = total + surrogate(ratio, example.credits[0][0], recipe.clip)
        for logprob, of_reference in zip(logprobs, own, strict=True):
            total = total + recipe.kl_weight * literal_kl(logprob, of_reference)
    return total / len(examples)


def literal_tokenwise(
    said: Said, examples: Sequence[Example], reference: list[torch.Tensor], recipe: TrainRecipe
) -> torch.Tensor:
    total = torch.tensor(0.0)
    for ((logprobs, _),), own, example in zip(said, reference, examples, strict=True):
        of_sample = torch.tensor(0.0)
        for i, logprob in enumerate(logprobs):
            ratio = torch.exp(logprob - example.logprobs[0][i])
            of_sample = of_sample + surrogate(ratio, example.credits[0][i], recipe.clip)
            of_sample = of_sample + recipe.kl_weight * literal_kl(logprob, own[i])
        total = total + of_sample / len(logprobs)
    return total / len(examples)


def shared() -> list[Example]:
    """Samples that share their prompt, and some their first tokens: branches of one prompt."""
    whole = [one for one in step_pairs(5, 1, 7, VOCABULARY) if one.key.endswith(("0", "1", "2", "3"))]
    prompt = whole[0].prompt_ids
    return [Example(one.key, "p", prompt, one.sides) for one in whole] + [
        Example("q", "q", (4, 5), ((6,), (7, 8)))
    ]


def nested() -> list[Example]:
    """Branches within branches."""
    return step_pairs(5, 3, 7, VOCABULARY)


def judged(examples: Sequence[Example], said: Said, per_token: bool) -> list[Example]:
    """Each side as an example of its own, with credits, and with log-probabilities near the model's."""
    draw = torch.Generator().manual_seed(3)
    found = []
    for one, sides in zip(examples, said, strict=True):
        for k, (side, (logprobs, _)) in enumerate(zip(one.sides, sides, strict=True)):
            sign = 1.0 if torch.rand(1, generator=draw) < 0.5 else -1.0
            credits = torch.randn(len(side), generator=draw).tolist() if per_token else [sign] * len(side)
            moved = logprobs.detach() + 0.2 * torch.randn(len(side), generator=draw)
            found.append(
                Example(
                    f"{one.key}/{k}",
                    one.group,
                    one.prompt_ids,
                    (side,),
                    (tuple(credits),),
                    (tuple(moved.tolist()),),
                )
            )
    return found


CASES: dict[str, tuple[str, Literal, dict[str, Any]]] = {
    "dpo": ("dpo", literal_dpo, {}),
    "dpo, smoothed": ("dpo", literal_dpo, {"label_smoothing": 0.2}),
    "dpo as printed": ("dpo", literal_dpo, {"nll_weight": 0.0}),
    "dpo + nll": ("dpo", literal_dpo, {"nll_weight": 0.7}),
    "dpo + margin": ("dpo", literal_dpo, {"margin_weight": 2.0, "entropy_margin": 0.4}),
    "dpo + both": ("dpo", literal_dpo, {"nll_weight": 0.7, "margin_weight": 2.0, "entropy_margin": 3.0}),
    "sft": ("sft", literal_sft, {}),
    "rloo": ("rloo", literal_rloo, {"clip": 0.3}),
    "rloo + kl": ("rloo", literal_rloo, {"kl_weight": 0.1}),
    "grpo": ("grpo", literal_tokenwise, {"clip": 0.15}),
    "grpo + kl": ("grpo", literal_tokenwise, {"kl_weight": 0.1}),
    "pure": ("pure", literal_tokenwise, {"kl_weight": 0.05}),
    "step-kto": ("step-kto", literal_kto, {"beta": 0.5}),
}


@pytest.mark.parametrize("budget", [60, 100_000])
@pytest.mark.parametrize("make", [shared, nested])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_a_literal_transcription(
    case: str, make: Callable[[], list[Example]], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepconf.training.head._CHUNK_ELEMENTS", 40 * VOCABULARY)  # several chunks of logits
    name, literal, options = CASES[case]
    recipe = TrainRecipe(objective=name, **options)
    model = tiny("qwen2")
    examples = make()
    if name == "sft":
        examples = [replace(one, sides=one.sides[:1]) for one in examples]
    elif name != "dpo":
        with torch.no_grad():
            examples = judged(examples, said_alone(model, examples), per_token=name == "pure")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a reference near the model, so that nothing is saturated
        said = said_alone(model, examples)
        reference = [
            torch.cat([logprobs + 0.1 * torch.randn(len(logprobs), generator=draw) for logprobs, _ in sides])
            for sides in said
        ]
    expected = literal(said_alone(model, examples), examples, reference, recipe)
    expected.backward()
    of_literal = gradients(model)
    policy, objective = Policy(model), OBJECTIVES.load(name)
    known = Known(examples, torch.cat(reference))
    n = sum(one.n_targets for one in examples) if objective.per_token else len(examples)
    total = 0.0
    for trees in pack(plant(examples, range(len(examples)), budget), budget):
        batch = collate(trees)
        loss = objective.loss(policy(batch), known.of(batch), recipe).values.sum() / n
        loss.backward()
        total += loss.item()
    ours = gradients(model)
    assert total == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert of_literal.norm() > 0 and (ours - of_literal).norm() <= 1e-3 * of_literal.norm()


def test_the_margin_has_no_gradient_beyond_it() -> None:
    examples, recipe = nested(), TrainRecipe(margin_weight=3.0, entropy_margin=0.0)
    for one in (examples, [replace(e, sides=e.sides[::-1]) for e in examples]):
        model = tiny("llama")
        with torch.no_grad():
            gaps = [sides[1][1].mean() - sides[0][1].mean() for sides in said_alone(model, one)]
            batch = collate(plant(one, range(len(one)), 100_000))
            scores = Policy(model)(batch)
            sides = Known(one, torch.zeros(sum(e.n_targets for e in one))).of(batch)
            objective = OBJECTIVES.load("dpo")
            plain = objective.loss(scores, sides, TrainRecipe()).values
            added = objective.loss(scores, sides, recipe).values - plain
        expected = [max(0.0, -3.0 * float(gaps[i])) for i in batch.examples]
        torch.testing.assert_close(added, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def samples(*rewards: float, steps: Sequence[float | None] = (1.0, 1.0)) -> list[Sample]:
    return [Sample(reward, steps) for reward in rewards]


def test_credits_of_groups_by_hand() -> None:
    recipe = TrainRecipe()
    found = rloo_credit([*samples(1, 0, 0), Sample(None, (1.0,))], recipe)
    assert found == [[1.0, 1.0], [-0.5, -0.5], [-0.5, -0.5], "of unknown answer"]
    found = grpo_credit(samples(1, 0, 0), recipe)
    deviation = math.sqrt(1 / 3) + 1e-4
    assert found[0] == pytest.approx([2 / 3 / deviation] * 2)
    plain = grpo_credit(samples(1, 0, 0), recipe.model_copy(update={"divide_by_std": False}))
    assert plain[0] == pytest.approx([2 / 3] * 2)
    for credit in (rloo_credit, grpo_credit):
        for alike in (samples(1, 1, 1), samples(0, 0), samples(1)):
            assert all("one outcome" in str(reason) for reason in credit(alike, recipe))


def test_min_form_credit_ends_at_the_worst_step() -> None:
    assert min_form([1.0, -1.0, 1.0]) == pytest.approx([-1, -1, 0], abs=1e-6)
    assert min_form([None, 0.2, None]) == pytest.approx([0.2, 0.2, 0])
    assert min_form([1.0, 1.0]) == pytest.approx([1.0, 0.5]), "equal steps share it"


def test_min_form_credit_against_the_others() -> None:
    wrong, right = Sample(0, (1.0, -1.0, 1.0)), Sample(1, (1.0, 1.0))
    silent = Sample(0, (None, None))
    found = pure_credit([wrong, right, silent], TrainRecipe())
    assert found[0] == pytest.approx([-2.0, -1 - 2 / 3, -1 / 3], abs=1e-4)
    assert found[1] == pytest.approx([2.0, 1.0], abs=1e-4)
    assert found[2] == "without a labelled step"
    assert "no other sample" in str(pure_credit([wrong, silent], TrainRecipe())[0])
