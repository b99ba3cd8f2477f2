"""The rule, worked by hand; the rows; and what a machine measures."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from workbench.core.context import RouteContext
from workbench.core.sparse import SparseRouting
from workbench.experts.mlp import MLPExperts
from workbench.offload.compute.host_compute import ComputeCost, HostRule, measure_host, rows_on_host
from workbench.offload.tiers.cost import LinkCost

ALWAYS_QUICK = ComputeCost(bytes_per_second=math.inf, flops_per_second=math.inf)
CONTEXT = RouteContext(layer=0, num_layers=1, phase="decode")

# Its code has 7 for each row in the host and 70 for a move.
FIDDLER = HostRule(
    expert_bytes=70,
    row_flops=7,
    link=LinkCost(bytes_per_second=1),
    host=ComputeCost(bytes_per_second=math.inf, flops_per_second=1),
    device=ALWAYS_QUICK,
)


@pytest.mark.parametrize(("rows", "in_host"), [(1, True), (3, True), (9, True), (10, False), (12, False), (30, False)])
def test_nine_rows_compute_in_the_host_and_at_a_tie_the_expert_moves(rows, in_host):
    assert FIDDLER.is_cheaper(rows) == in_host
    assert FIDDLER.host_seconds(rows) == 7 * rows and FIDDLER.move_seconds(rows) == 70
    assert FIDDLER.most_rows == 9


def test_every_part_of_the_cost_by_hand():
    rule = HostRule(
        expert_bytes=1000,
        row_flops=500,
        row_bytes=40,
        link=LinkCost(start_seconds=0.5, bytes_per_second=100),
        rows=LinkCost(start_seconds=0.25, bytes_per_second=10),
        host=ComputeCost(bytes_per_second=400, flops_per_second=1000),
        device=ComputeCost(bytes_per_second=2000, flops_per_second=10000),
    )
    # there 0.25 + 20/10, back the same; the weights are read in 2.5 s, and one row is multiplied in 0.5 s.
    assert rule.host_seconds(1) == 4.5 + 2.5
    assert rule.host_seconds(10) == 2 * (0.25 + 20) + 5
    # 0.5 + 1000/100; the device reads the weights in 0.5 s, and multiplies 100 rows in 5 s.
    assert rule.move_seconds(1) == 10.5 + 0.5
    assert rule.move_seconds(100) == 10.5 + 5
    assert [rows for rows in range(1, 9) if rule.is_cheaper(rows)] == [1]
    # who sends another expert back moves twice as much.
    assert replace(rule, copies=2).move_seconds(1) == 21.5
    assert replace(rule, copies=2).most_rows == 4


def test_the_most_rows_are_those_of_the_rule():
    slow_host = replace(FIDDLER, host=ComputeCost(bytes_per_second=1, flops_per_second=1))
    assert slow_host.most_rows == 0
    always = replace(FIDDLER, host=ALWAYS_QUICK)
    assert always.most_rows == math.inf
    for copies in range(1, 40):
        rule = replace(FIDDLER, copies=copies)
        assert rule.most_rows == max(rows for rows in range(1, 2000) if rule.is_cheaper(rows)) == 10 * copies - 1


def test_a_rule_is_frozen_and_says_what_it_does():
    with pytest.raises(AttributeError):
        FIDDLER.copies = 3
    assert str(FIDDLER).startswith("the host computes up to 9 rows of an expert of 70 B: link 1 B/s in blocks of 0 B; ")
    assert "up to 9" in FIDDLER._repr_html_()
    assert json.loads(json.dumps(asdict(FIDDLER)))["copies"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_computed_in_the_host_are_those_of_the_device_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    body = MLPExperts(8, 5, hidden=6)
    tensors = tuple(torch.randn(one.shape, generator=generator).to(dtype) for one in body.tensors())
    x = torch.randn(11, 8, generator=generator).to(dtype)
    expert = torch.stack([torch.randperm(5, generator=generator)[:2] for _ in range(11)])
    plan = SparseRouting.from_topk(expert, torch.rand(11, 2, generator=generator), num_experts=5)
    with torch.no_grad():
        for chosen, slots in (([1, 3], [0, 4]), ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])):
            mine = plan.renumber(torch.tensor(chosen), torch.tensor(slots), num_experts=5)
            lying = [torch.zeros_like(tensor) for tensor in tensors]
            for one, tensor in zip(lying, tensors, strict=True):
                one[slots] = tensor[chosen]
            expected = body.unweighted(tuple(lying), x, mine, CONTEXT)
            assert len(expected) == int(plan.counts[chosen].sum()) > 0
            assert torch.equal(rows_on_host(body, tuple(lying), x, mine, CONTEXT), expected)


def test_a_machine_measures_itself(checkpoint, opened):
    engine = opened(checkpoint(), budget="50%", host_budget="50%").engine
    body, link = MLPExperts(32, 8, hidden=64), engine.loop.link
    rule = measure_host(body, link, width=32, dtype=torch.float32, rounds=3)
    assert rule.expert_bytes == 24 * 1024 and rule.row_flops == 2 * 3 * 32 * 64
    assert rule.copies == 2 and rule.row_bytes == 0 and rule.rows.seconds(1e9) == 0
    for speed in (rule.link.bytes_per_second, rule.host.bytes_per_second, rule.device.flops_per_second):
        assert 1e4 < speed < 1e15
    # the same memory and the same processor: to move first can only cost more, however noisy the machine.
    alike = replace(rule, device=rule.host)
    assert alike.most_rows == math.inf


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_rows_of_a_gpu_go_to_the_host_and_come_back():
    body = MLPExperts(8, 3, hidden=6)
    tensors = tuple(torch.randn(one.shape) for one in body.tensors())
    x, expert = torch.randn(4, 8), torch.tensor([[0], [2], [1], [2]])
    plans = [
        SparseRouting.from_topk(expert.to(device), torch.ones(4, 1, device=device), num_experts=3)
        for device in ("cpu", "cuda")
    ]
    with torch.no_grad():
        here = rows_on_host(body, tensors, x, plans[0], CONTEXT)
        there = rows_on_host(body, tensors, x.cuda(), plans[1], CONTEXT)
    assert there.device.type == "cuda" and torch.equal(there.cpu(), here)
