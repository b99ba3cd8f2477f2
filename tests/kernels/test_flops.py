"""The counter of torch sees the custom operators."""

import torch
from torch.utils.flop_counter import FlopCounterMode
from workbench_kernels import grouped_mm, moe_mlp, offsets_of, plan_routing
from workbench_kernels.flops import register_flop_formulas

register_flop_formulas()


def test_a_layer_counts_its_rows_forward_and_twice_that_backward():
    x, weight = torch.randn(5, 8, requires_grad=True), torch.rand(5, 2)
    gate_up, down = torch.randn(3, 12, 8, requires_grad=True), torch.randn(3, 8, 6, requires_grad=True)
    plan = plan_routing(torch.randint(0, 3, (5, 2)), 3)
    with FlopCounterMode(display=False) as counter:
        moe_mlp(x, weight, gate_up, down, plan=plan).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 10 * 3 * 8 * 6


def test_a_grouped_product_counts_its_rows():
    rows, weight = torch.randn(7, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        grouped_mm(rows, weight, offsets_of(torch.tensor([3, 4]))).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 7 * 5 * 4
