"""Every contender computes the same layer, or says why it does not run."""

import pytest
import torch
from workbench_kernels.bench.cases import Case
from workbench_kernels.bench.peers import ORACLE, OURS, contenders

SMALL = Case("small", 12, 16, 8, 4, 2)


@pytest.fixture
def inputs():
    inputs = SMALL.inputs(torch.float32)
    for leaf in (inputs.x, inputs.weight, inputs.gate_up, inputs.down):
        leaf.requires_grad_()
    return inputs


def run(layer, inputs):
    leaves = (inputs.x, inputs.weight, inputs.gate_up, inputs.down)
    for leaf in leaves:
        leaf.grad = None
    out = layer(inputs.x, inputs.weight)
    out.backward(inputs.grad)
    return [out.detach(), *(leaf.grad.clone() for leaf in leaves)]


@pytest.mark.parametrize("name", ["workbench without a compiler", "transformers grouped_mm", "transformers eager"])
def test_it_gives_our_values_and_our_gradients(inputs, name, assert_close):
    layers = contenders(SMALL, inputs, learns=True)
    for ours, theirs in zip(run(layers[OURS], inputs), run(layers[name], inputs), strict=True):
        assert_close(ours, theirs)


def test_the_endless_backward_of_a_loop_is_not_run():
    case = Case("many", 2, 8, 8, 40000, 2)
    inputs = case.inputs(torch.float32)
    assert "quadratic in the experts" in contenders(case, inputs, learns=True)["transformers eager"]


def test_the_oracle_is_only_there_forward(inputs):
    assert ORACLE in contenders(SMALL, inputs, learns=False)
    assert ORACLE not in contenders(SMALL, inputs, learns=True)
