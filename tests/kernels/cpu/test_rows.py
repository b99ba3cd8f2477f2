"""Norm and cross-entropy with every instruction set, against PyTorch in float64; `test_topk.py` has the choice."""

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels.cpu import rows
from workbench_kernels.cpu.calls import DTYPES

# rows, width: whole vectors, a rest, less than one vector, one row of many, more rows than a thread takes at once.
SIZES = [(70, 256), (35, 33), (3, 5), (1, 4099), (300, 16)]

pytestmark = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
of_every_size = pytest.mark.parametrize("size", SIZES, ids=str)


@pytest.fixture
def same_for_every_thread(monkeypatch):
    """The result of `work`, which must not change a bit with the number of threads."""

    def check(work):
        found = []
        for threads in (1, 2, 5):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            found.append(work())
        for other in found[1:]:
            assert all(a is b or torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
        return found[0]

    return check


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@of_every_size
def test_norm(tier, size, dtype, same_for_every_thread, distance, accuracy):
    x, grad, gain = normal(*size, dtype=dtype), normal(*size, dtype=dtype).flip(0), torch.rand(size[1]) + 0.5

    def work():
        out, scale = rows.rms_norm(x, gain, 1e-5, keeps_scale=True)
        return out, scale, *rows.rms_norm_backward(grad, x, gain, scale, (True, True))

    out, scale, dx, dgain = same_for_every_thread(work)
    exact_x, exact_gain = x.double().requires_grad_(), gain.double().requires_grad_()
    exact = F.rms_norm(exact_x, size[1:], exact_gain, 1e-5)
    exact.backward(grad.double())
    assert (out.dtype, dx.dtype, dgain.dtype) == (dtype, dtype, torch.float32)
    assert distance(scale, (exact_x.detach().square().mean(-1) + 1e-5).rsqrt()) <= accuracy[torch.float32][0]
    assert distance(out, exact.detach()) <= accuracy[dtype][0]
    assert distance(dx, exact_x.grad) <= accuracy[dtype][1]
    assert distance(dgain, exact_gain.grad) <= accuracy[torch.float32][1]
    assert torch.equal(rows.rms_norm(x, gain, 1e-5, keeps_scale=False)[0], out)
    assert rows.rms_norm_backward(grad, x, gain, scale, (False, True))[0] is None
    assert rows.rms_norm_backward(grad, x, gain, scale, (True, False))[1] is None


@of_every_size
def test_cross_entropy(tier, size, dtype, same_for_every_thread, distance, accuracy):
    logits = (3 * normal(*size)).to(dtype)
    target = torch.arange(size[0]) * 7 % size[1]
    if size[0] > 1:
        target[1], target[-1] = -100, size[1]
    grad = torch.linspace(0.5, 2, size[0])

    def work():
        loss, log_sum = rows.cross_entropy(logits, target)
        return loss.nan_to_num(-1.0), log_sum, rows.cross_entropy_backward(grad, logits, target, log_sum)

    loss, log_sum, dlogits = same_for_every_thread(work)
    is_scored = (target >= 0) & (target < size[1])
    exact = logits.double().requires_grad_()
    exact_loss = F.cross_entropy(exact, target.where(is_scored, -100), reduction="none")
    exact_loss.backward(grad.double())
    assert torch.equal(rows.cross_entropy(logits, target)[0].isnan(), ~is_scored)
    assert distance(loss[is_scored], exact_loss.detach()[is_scored]) <= accuracy[torch.float32][0]
    assert distance(log_sum, exact.detach().logsumexp(-1)) <= accuracy[torch.float32][0]
    assert distance(dlogits, exact.grad) <= accuracy[dtype][1]
    assert dlogits[~is_scored].eq(0).all()
