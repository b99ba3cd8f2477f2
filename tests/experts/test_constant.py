"""Constant experts: a mix of the token and a learned vector."""

import torch

from workbench.core import RouteContext, SparseRouting
from workbench.experts.constant import ConstantExperts


def run(body: ConstantExperts, x: torch.Tensor, expert: list[int]) -> torch.Tensor:
    plan = SparseRouting.from_topk(torch.tensor(expert).unsqueeze(-1), torch.ones(len(x), 1), num_experts=2)
    return body(x, plan, RouteContext()).detach()


def test_a_mix_of_zero_takes_half_of_the_token_and_half_of_the_vector(assert_close):
    body, x = ConstantExperts(3, 2), torch.randn(4, 3)
    body.mix.data.zero_()
    expert = [0, 1, 1, 0]
    assert_close(run(body, x, expert), 0.5 * x + 0.5 * body.vector.data[expert])


def test_the_two_shares_sum_to_one(assert_close):
    body, x = ConstantExperts(3, 2), torch.randn(4, 3)
    torch.nn.init.normal_(body.mix, std=3)
    # with the token itself as the vector nothing changes, whatever the shares are.
    body.vector.data[:] = x[0]
    assert_close(run(body, x[:1], [1]), x[:1])


def test_a_large_score_takes_the_token_alone_or_the_vector_alone(assert_close):
    body, x = ConstantExperts(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    body.mix.data = torch.tensor([[[99.0, 0.0], [-99.0, 0.0]], [[-99.0, 0.0], [99.0, 0.0]]])
    assert_close(run(body, x, [0, 1]), torch.stack((x[0], body.vector.data[1])))


def test_the_vector_starts_standard_normal():
    vector = ConstantExperts(512, 8).vector.detach()
    assert abs(float(vector.mean())) < 0.05
    assert abs(float(vector.std()) - 1) < 0.05
