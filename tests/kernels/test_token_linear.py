"""A matrix times a few tokens against float64, and where PyTorch's own product does it."""

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels import backend_of, token_linear

LIMITS = {torch.float32: 1e-6, torch.bfloat16: 3.5e-3, torch.float16: 7.5e-4}
NEEDS = pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")


def drawn(tokens, inputs, outputs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tokens + inputs)
    return (torch.randn(*size, generator=generator).to(dtype) for size in ((tokens, inputs), (outputs, inputs)))


@NEEDS
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("size", [(1, 256, 4096), (2, 33, 7), (4, 300, 65), (1, 1, 1), (3, 1024, 40)])
def test_it_is_the_product(size, dtype, distance):
    x, weight = drawn(*size, dtype)
    with torch.no_grad():
        out = token_linear(x, weight)
    assert out.dtype == dtype
    assert distance(out, F.linear(x.double(), weight.double())) <= LIMITS[dtype]


@NEEDS
def test_a_token_does_not_depend_on_its_neighbours_or_the_threads():
    x, weight = drawn(4, 300, 500)
    before = torch.get_num_threads()
    with torch.no_grad():
        together = token_linear(x, weight)
        for row in range(4):
            assert torch.equal(token_linear(x[row : row + 1], weight), together[row : row + 1])
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                assert torch.equal(token_linear(x, weight), together)
        finally:
            torch.set_num_threads(before)


def test_elsewhere_it_is_pytorchs():
    x, weight = drawn(5, 16, 8)
    with torch.no_grad():
        assert torch.equal(token_linear(x, weight), F.linear(x, weight))
        exact = x[:2].double(), weight.double()
        assert torch.equal(token_linear(*exact), F.linear(*exact))
        with torch.autocast("cpu"):
            assert token_linear(x[:1], weight).dtype == torch.bfloat16
    learns = weight.requires_grad_()
    token_linear(x[:1], learns).sum().backward()
    assert torch.allclose(learns.grad, x[:1].expand_as(learns))


@NEEDS
def test_widths_that_differ_are_refused():
    x, weight = drawn(1, 16, 8)
    with torch.no_grad(), pytest.raises(ValueError, match=r"T x I and O x I, got \(1, 15\) and \(8, 16\)"):
        token_linear.__wrapped__(x[:, :15], weight)
