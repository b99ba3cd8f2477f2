"""The norm against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels.rms_norm import rms_norm

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 3.5e-3, torch.float16: 7.5e-4}


def distance(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("shape", [(70, 256), (5, 7, 33), (1, 20), (3, 1)])
def test_values_and_gradients_are_those_of_float64(shape, dtype):
    x = torch.randn(shape).to(dtype).requires_grad_()
    gain = torch.rand(shape[-1], dtype=torch.float64).to(x.dtype if dtype == torch.float64 else torch.float32)
    gain.requires_grad_()
    grad = torch.randn(shape).to(dtype)
    rms_norm(x, gain, 1e-6).backward(grad)
    exact_x, exact_gain = (t.detach().double().requires_grad_() for t in (x, gain))
    exact = F.rms_norm(exact_x, gain.shape, exact_gain, 1e-6)
    exact.backward(grad.double())
    with torch.no_grad():
        out = rms_norm(x, gain, 1e-6)
    assert out.dtype == dtype
    assert distance(out, exact.detach()) <= LIMITS[dtype]
    assert distance(gain.grad, exact_gain.grad) <= max(LIMITS[dtype], 1e-6)
    if shape[-1] > 1:
        assert distance(x.grad, exact_x.grad) <= 2 * LIMITS[dtype]


def test_no_rows_give_no_rows():
    assert rms_norm(torch.zeros(0, 4), torch.ones(4), 1e-6).shape == (0, 4)


def test_strided_rows_are_accepted():
    wide = torch.randn(6, 8)
    assert torch.equal(rms_norm(wide[:, ::2], torch.ones(4), 1e-6), rms_norm(wide[:, ::2].clone(), torch.ones(4), 1e-6))


def test_a_gain_of_another_width_is_refused():
    with pytest.raises(ValueError, match="gain must have the width of the rows, 4, got shape"):
        rms_norm.__wrapped__(torch.zeros(2, 4), torch.ones(5), 1e-6)
