"""Weights of chosen experts: a softmax over them alone."""

import torch

from workbench.routers._weights import softmax_over

LOGIT = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, 3.0, -2.0, 3.0]])


def test_the_weights_are_the_softmax_of_the_chosen_logits(assert_close):
    expert = torch.tensor([[0, 1], [3, 2]])
    expected = torch.stack((LOGIT[0, :2], LOGIT[1, [3, 2]])).softmax(-1)
    assert_close(softmax_over(LOGIT, expert, None), expected)
    assert_close(softmax_over(LOGIT, expert, None)[0], torch.tensor([0.7310586, 0.2689414]))


def test_what_is_not_kept_weighs_nothing_and_gives_its_share_to_the_rest():
    keep = torch.tensor([[True, False], [False, False]])
    assert softmax_over(LOGIT, torch.tensor([[0, 1], [3, 2]]), keep).tolist() == [[1, 0], [0, 0]]


def test_the_order_of_the_choice_moves_no_bit():
    logit, order = torch.randn(200, 16), torch.randperm(16)
    there = softmax_over(logit, order.expand(200, 16), None)
    back = softmax_over(logit, torch.arange(16).expand(200, 16), None)
    assert torch.equal(there, back[:, order])


def test_gradients_are_finite_when_a_token_keeps_nothing():
    logit = LOGIT.clone().requires_grad_()
    keep = torch.tensor([[False, False], [True, True]])
    (softmax_over(logit, torch.tensor([[0, 1], [0, 2]]), keep) * torch.tensor([1.0, 2.0])).sum().backward()
    assert logit.grad.isfinite().all()
    assert logit.grad[0].abs().max() == 0
    assert logit.grad[1].abs().max() > 0.01
