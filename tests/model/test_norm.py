import pytest
import torch

from workbench.model.norm import RMSNorm


def test_it_divides_by_the_root_mean_square():
    norm = RMSNorm(4, eps=0.0)
    norm.weight.data.copy_(torch.tensor([1.0, 1.0, 2.0, -1.0]))
    out = norm(torch.tensor([[1.0, -1.0, 7.0, 7.0]]))  # mean square 25
    assert torch.allclose(out, torch.tensor([[0.2, -0.2, 2.8, -1.4]]))


@pytest.mark.parametrize(
    ("dtype", "weight_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_values_and_gradients_are_those_of_the_formula(dtype, weight_dtype, assert_close):
    norm = RMSNorm(16, eps=0.1).to(weight_dtype)
    norm.weight.data.uniform_(-2, 2)
    x = (3 * torch.randn(4, 16)).to(dtype).requires_grad_()
    pull = torch.randn(4, 16).to(dtype)
    out = norm(x)
    out.backward(pull)
    exact, weight = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = weight * exact / (exact.square().mean(-1, keepdim=True) + 0.1).sqrt()
    expected.backward(pull.double())
    assert out.dtype == dtype
    assert_close(out.double(), expected, dtype=dtype)
    assert_close(x.grad.double(), exact.grad, dtype=dtype)
    assert_close(norm.weight.grad.double(), weight.grad, dtype=dtype)


def test_float64_is_not_rounded_to_float32(assert_close):
    norm = RMSNorm(16, eps=1e-6).double()
    x = torch.randn(4, 16, dtype=torch.float64)
    assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def test_bfloat16_squares_are_summed_in_float32():
    # 4096 times 1: in bfloat16 the sum of squares would stop growing at 256.
    x = torch.full((1, 4096), 3.0, dtype=torch.bfloat16)
    assert torch.equal(RMSNorm(4096, eps=0.0).bfloat16()(x), torch.ones(1, 4096, dtype=torch.bfloat16))
