import math

import pytest
import torch

from stepconf.training.objectives.dpo import dpo_loss


def test_a_policy_at_its_reference_loses_log_2() -> None:
    logprobs = torch.tensor([[-3.0, -4.0], [-1.0, -9.0]])
    losses, rewards = dpo_loss(logprobs, logprobs, beta=0.1)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2) and not rewards.any()


def test_sigmoid_by_hand() -> None:
    policy, reference = torch.tensor([[-2.0, -6.0]]), torch.tensor([[-3.0, -5.0]])
    losses, rewards = dpo_loss(policy, reference, beta=0.5)
    assert rewards.tolist() == [[0.5, -0.5]]
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-1.0)))
    smoothed, _ = dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    assert smoothed.item() == pytest.approx(
        0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1))
    )


def test_ipo_is_least_at_its_target_margin() -> None:
    reference = torch.zeros(1, 2)
    at_target, _ = dpo_loss(torch.tensor([[5.0, 0.0]]), reference, beta=0.1, kind="ipo")
    beyond, _ = dpo_loss(torch.tensor([[9.0, 0.0]]), reference, beta=0.1, kind="ipo")
    assert at_target.item() == 0 and beyond.item() == pytest.approx(16)


def test_gradients_push_chosen_up_and_rejected_down() -> None:
    policy = torch.zeros(3, 2, requires_grad=True)
    dpo_loss(policy, torch.zeros(3, 2), beta=0.1)[0].sum().backward()
    assert policy.grad is not None and (policy.grad[:, 0] < 0).all()
    torch.testing.assert_close(policy.grad[:, 1], -policy.grad[:, 0])
