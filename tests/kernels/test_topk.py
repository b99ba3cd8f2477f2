"""The top-k gate against the reference: weights, choice and the gradient of the logits."""

import pytest
import torch
from workbench_kernels.reference import topk_gate_backward_ref, topk_gate_ref
from workbench_kernels.topk import topk_gate

OPTIONS = [
    {},
    {"normalize": True},
    {"score": "sigmoid", "normalize": True, "scale": 2.5},
    {"score": "sigmoid"},
    {"normalize": True, "scale": 0.5},
]


def logits_of(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [None, torch.linspace(0, 1, 6)])
@pytest.mark.parametrize("options", OPTIONS)
def test_it_agrees_with_its_reference(dtype, bias, options, assert_close):
    logits = logits_of(dtype, 9, 6)
    weight, expert = topk_gate(logits, 3, bias=bias, **options)
    reference, chosen = topk_gate_ref(logits, 3, bias=bias, **options)
    assert torch.equal(expert, chosen)
    assert weight.dtype == reference.dtype
    assert_close(weight, reference)
    upstream = torch.linspace(-1, 2, weight.numel(), dtype=weight.dtype).view_as(weight)
    (got,) = torch.autograd.grad(weight, logits, upstream)
    assert got.dtype == dtype
    assert_close(got, *torch.autograd.grad(reference, logits, upstream))
    assert_close(got, topk_gate_backward_ref(upstream, logits.detach(), chosen, **options))


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_those_of_finite_differences(options):
    assert torch.autograd.gradcheck(lambda x: topk_gate(x, 2, **options)[0], (logits_of(torch.float64, 4, 5),))


@pytest.mark.parametrize(("tokens", "top_k"), [(0, 2), (3, 1), (3, 4)])
def test_no_tokens_one_choice_and_every_expert(tokens, top_k):
    weight, expert = topk_gate(logits_of(torch.float32, tokens, 4), top_k)
    assert weight.shape == expert.shape == (tokens, top_k)
    assert top_k < 4 or torch.allclose(weight.sum(-1), torch.ones(tokens))


def test_the_choice_has_no_gradient():
    assert not topk_gate(logits_of(torch.float32, 2, 3), 1)[1].requires_grad


def test_it_compiles_as_one_graph(fullgraph):
    assert fullgraph["topk_gate"] < 1e-6


@pytest.mark.parametrize("top_k", [0, 5])
def test_there_must_be_that_many_experts(top_k):
    with pytest.raises(ValueError, match=rf"^top_k must be between 1 and the number of experts, got {top_k} "):
        topk_gate(torch.zeros(2, 4), top_k)


def test_another_score_is_refused():
    with pytest.raises(ValueError, match=r"^score must be softmax or sigmoid, got 'relu'$"):
        topk_gate(torch.zeros(2, 4), 1, score="relu")


def test_a_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"^bias must have one number per expert, got \(3,\) for \(2, 4\)$"):
        topk_gate.__wrapped__(torch.zeros(2, 4), 1, bias=torch.zeros(3))
