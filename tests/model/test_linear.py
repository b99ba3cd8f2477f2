import subprocess
import sys

import torch

from workbench.model.linear import Linear


def test_it_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    Linear(64, 32, bias=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_a_linear_map_with_or_without_bias(assert_close):
    x = torch.randn(3, 4)
    for bias in (False, True):
        layer = Linear(4, 5, bias=bias)
        torch.nn.init.normal_(layer.weight)
        expected = x @ layer.weight.T
        if bias:
            torch.nn.init.normal_(layer.bias)
            expected = expected + layer.bias
        assert (layer.bias is not None) == bias
        assert_close(layer(x), expected)


def test_building_a_model_does_not_load_the_compiler():
    code = """
import sys
from workbench.model.config import preset
from workbench.model.transformer import Transformer
before = set(sys.modules)
Transformer(preset("tiny"))
print(len([name for name in set(sys.modules) - before if name.startswith(("torch._dynamo", "sympy"))]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert run.stdout.strip() == "0"


def test_it_prints_its_sizes():
    assert repr(Linear(3, 4)) == "Linear(in_features=3, out_features=4, bias=False)"
