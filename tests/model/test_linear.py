import torch

from workbench.model.linear import linear


def test_it_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    linear(64, 32, bias=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_a_linear_map_with_or_without_bias(assert_close):
    x = torch.randn(3, 4)
    for bias in (False, True):
        layer = linear(4, 5, bias=bias)
        torch.nn.init.normal_(layer.weight)
        expected = x @ layer.weight.T
        if bias:
            torch.nn.init.normal_(layer.bias)
            expected = expected + layer.bias
        assert (layer.bias is not None) == bias
        assert_close(layer(x), expected)
