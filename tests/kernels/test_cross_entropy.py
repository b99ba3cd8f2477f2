"""Cross-entropy against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels.cross_entropy import cross_entropy

LIMITS = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-6, 2e-6), torch.bfloat16: (1e-6, 6e-3)}


def distance(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("shape", [(40, 4096), (5, 33), (9, 7)])
def test_values_and_gradients_are_those_of_float64(shape, dtype):
    logits = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    target = torch.randint(0, shape[1], shape[:1])
    target[1] = -100
    loss, grad = cross_entropy(logits, target), torch.randn(shape[0], dtype=torch.float64)
    loss.backward(grad.to(loss.dtype))
    exact_logits = logits.detach().double().requires_grad_()
    exact = F.cross_entropy(exact_logits, target, reduction="none")
    exact.backward(grad)
    scored = target >= 0
    assert loss[1].isnan()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert distance(loss.detach()[scored], exact.detach()[scored]) <= LIMITS[dtype][0]
    assert distance(logits.grad, exact_logits.grad) <= LIMITS[dtype][1]
    assert logits.grad[1].eq(0).all()


def test_a_nan_gradient_of_an_unscored_row_does_not_spread():
    logits = torch.randn(2, 9, requires_grad=True)
    cross_entropy(logits, torch.tensor([3, -100])).backward(torch.tensor([1.0, torch.nan]))
    assert logits.grad.isfinite().all()


def test_huge_logits_do_not_overflow():
    loss = cross_entropy(torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([1]))
    assert loss.tolist() == [1e4]


def test_a_nan_logit_is_not_hidden():
    logits = torch.zeros(2, 40)
    logits[0, 17] = torch.nan
    assert cross_entropy(logits, torch.tensor([0, 0])).isnan().tolist() == [True, False]


def test_no_rows_give_no_losses():
    assert cross_entropy(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="logits must be rows x classes with one target for each row"):
        cross_entropy.__wrapped__(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
