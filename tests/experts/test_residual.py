"""Residual experts: the identity at first, then a stack of blocks as torch builds it."""

import pytest
import torch
from torch import nn

from workbench.core import RouteContext, SparseRouting
from workbench.experts.residual import ResidualExperts


def all_to(expert: int, tokens: int, num_experts: int) -> SparseRouting:
    chosen = torch.full((tokens, 1), expert)
    return SparseRouting.from_topk(chosen, torch.ones(tokens, 1), num_experts=num_experts)


def test_a_new_expert_adds_nothing():
    body = ResidualExperts(6, 3, hidden=24)
    assert body(torch.randn(5, 6), all_to(1, 5, 3), RouteContext()).abs().max() == 0


def test_one_block_by_hand():
    body = ResidualExperts(2, 1, hidden=1)
    body.up.data, body.up_bias.data = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[0.5]]])
    body.down.data, body.down_bias.data = torch.tensor([[[[2.0], [0.0]]]]), torch.tensor([[[0.0, 3.0]]])
    out = body(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), all_to(0, 2, 1), RouteContext())
    # the norm of (4, 0) is (1, -1): 2 * (1 + .5); that of (0, 4) is (-1, 1), and relu(-1 + .5) = 0.
    torch.testing.assert_close(out, torch.tensor([[3.0, 3.0], [0.0, 3.0]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3])
def test_it_is_the_stack_of_torch_layers_less_its_input(assert_close, blocks):
    body, x = ResidualExperts(6, 2, hidden=7, blocks=blocks), torch.randn(5, 6)
    for parameter in body.parameters():
        nn.init.normal_(parameter)
    expected = x
    for b in range(blocks):
        norm, first, second = nn.LayerNorm(6), nn.Linear(6, 7), nn.Linear(7, 6)
        norm.weight.data, norm.bias.data = body.gain.data[1, b], body.shift.data[1, b]
        first.weight.data, first.bias.data = body.up.data[1, b], body.up_bias.data[1, b]
        second.weight.data, second.bias.data = body.down.data[1, b], body.down_bias.data[1, b]
        expected = expected + second(first(norm(expected)).relu())
    assert_close(body(x, all_to(1, 5, 2), RouteContext()), expected - x)


def test_an_expert_without_blocks_is_refused():
    with pytest.raises(ValueError, match=r"^blocks must be at least 1, got 0$"):
        ResidualExperts(6, 2, hidden=7, blocks=0)
