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


def sorted_gate(logits, top_k, bias, *, score="softmax", normalize=False, scale=1.0):
    """By a stable sort, with autograd's gradient: equal ones keep their order."""
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    ranking = logits if bias is None else scores + bias
    expert = ranking.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    weight = scores.gather(1, expert)
    return (weight / weight.sum(-1, keepdim=True) if normalize else weight) * scale, expert


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(70, 64, 8), (33, 100, 20), (4, 5, 5), (32, 3, 1), (1, 17, 2)], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_instruction_set_gives_what_a_sort_in_float64_gives(tier, size, dtype, options, distance, accuracy):
    tokens, experts, top_k = size
    logits = (2 * logits_of(torch.float64, tokens, experts).detach()).to(dtype).requires_grad_()
    for bias in (None, torch.linspace(0, 3, experts)):
        exact = logits.detach().double().requires_grad_()
        weight, expert = topk_gate(logits, top_k, bias=bias, **options)
        wanted, chosen = sorted_gate(exact, top_k, bias, **options)
        assert torch.equal(expert, chosen)
        assert weight.dtype == torch.float32
        assert distance(weight, wanted) <= accuracy[torch.float32][0]
        upstream = torch.randn(weight.shape)
        (got,) = torch.autograd.grad(weight, logits, upstream)
        (slope,) = torch.autograd.grad(wanted, exact, upstream.double())
        assert got.dtype == dtype
        # a share of the whole has no gradient where one expert is the whole.
        assert float((got.double() - slope).norm()) <= accuracy[dtype][1] * max(float(slope.norm()), 1.0)
        with torch.no_grad():
            again = topk_gate(logits, top_k, bias=bias, **options)
        assert torch.equal(again[0], weight)
        assert torch.equal(again[1], expert)


def test_equal_ones_keep_their_order_and_odd_numbers_have_a_place(tier):
    nan, much = torch.nan, torch.inf
    logits = torch.tensor([[1.0, 2, 2, 1], [0.0, -0.0, 0, -0.0], [-much, 3, -much, -much], [1, nan, 5, -nan]])
    weight, expert = topk_gate(logits, 3)
    assert expert.tolist() == [[1, 2, 0], [0, 1, 2], [1, 0, 2], [1, 3, 2]]
    assert weight[2].tolist() == [1, 0, 0]
    assert weight[3].isnan().all()
    assert topk_gate(torch.zeros(1, 4), 2, bias=torch.tensor([0.0, 1, 1, 0]))[1].tolist() == [[1, 2]]
    far = torch.tensor([[0.0, -200.0, -60.0]])
    torch.testing.assert_close(topk_gate(far, 3)[0], far.softmax(-1).sort(descending=True).values, rtol=2e-6, atol=0)


def test_threads_change_no_bit(tier):
    logits, before, found = logits_of(torch.float32, 300, 40), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            weight, _ = topk_gate(logits, 5, normalize=True)
            found.append((weight, *torch.autograd.grad(weight, logits, weight.detach())))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_what_was_given_away_may_be_changed_and_a_changed_choice_is_an_error():
    logits = logits_of(torch.float32, 6, 5)
    weight, expert = topk_gate(logits, 2, normalize=True)
    (wanted,) = torch.autograd.grad(weight[:, 0].sum(), logits, retain_graph=True)
    out = weight[:, 0].sum()
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(torch.autograd.grad(out, logits, retain_graph=True)[0], wanted)
    expert.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(out, logits)


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
