"""The reference of attention against loops by hand, its gradients against finite differences."""

import math

import torch
from workbench_kernels.attention_reference import attention_backward_ref, attention_ref


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def turn_of(tokens: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    # channels of a pair need not share their angle for gradients to be right.
    angle = drawn(tokens, channels)
    return angle.cos(), angle.sin()


def test_two_tokens_worked_by_hand():
    query, key, value = torch.tensor([[3.0], [2.0]]), torch.tensor([[1.0], [1.5]]), torch.tensor([[10.0], [20.0]])
    out = attention_ref(*(part.double().view(1, 2, 1, 1) for part in (query, key, value)))
    second = (10 * math.exp(2) + 20 * math.exp(3)) / (math.exp(2) + math.exp(3))
    torch.testing.assert_close(out.flatten().tolist(), [10.0, second])


def test_heads_of_a_group_share_their_key_and_no_other():
    query, key, value = drawn(2, 5, 4, 3), drawn(2, 5, 2, 3), drawn(2, 5, 2, 3)
    whole = attention_ref(query, key, value)
    for head in range(4):
        group = slice(head // 2, head // 2 + 1)
        alone = attention_ref(query[:, :, head : head + 1], key[:, :, group], value[:, :, group])
        torch.testing.assert_close(whole[:, :, head : head + 1], alone)


def test_a_rotation_turns_pairs_by_their_angle():
    query, key = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    angle = torch.tensor([[0.0, 0.0], [math.pi / 2, math.pi / 2]]).double()
    both = [torch.stack([one, one]).double().view(1, 2, 1, 2) for one in (query, key)]
    value = torch.tensor([0.0, 0.0, 1.0, 1.0]).double().view(1, 2, 1, 2)
    out = attention_ref(*both, value, (angle.cos(), angle.sin()))
    # the second query lies where the first key does, at right angles to its own.
    share = 1 / (1 + math.exp(1 / math.sqrt(2)))
    torch.testing.assert_close(out.flatten().tolist(), [0.0, 0.0, share, share])


def test_gradients_by_hand_are_those_of_autograd_and_of_finite_differences():
    for turn in (None, turn_of(3, 2)):
        leaves = tuple(part.requires_grad_() for part in (drawn(1, 3, 2, 2), drawn(1, 3, 1, 2), drawn(1, 3, 1, 2)))
        out, grad = attention_ref(*leaves, turn), drawn(1, 3, 2, 2).cos()
        by_autograd = torch.autograd.grad(out, leaves, grad)
        by_hand = attention_backward_ref(grad, *(leaf.detach() for leaf in leaves), turn)
        for got, expected in zip(by_hand, by_autograd, strict=True):
            torch.testing.assert_close(got, expected)
        assert torch.autograd.gradcheck(lambda q, k, v, turn=turn: attention_ref(q, k, v, turn), leaves)
