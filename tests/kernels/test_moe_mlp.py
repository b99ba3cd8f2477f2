"""Gated experts from tokens to tokens, against the reference: values and every gradient."""

import pytest
import torch
from workbench_kernels import moe_mlp, plan_routing, token_mlp
from workbench_kernels.reference import moe_mlp_ref

WIDTH, HIDDEN = 6, 5
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")


def fused(x, weight, gate_up, down, case, **options):
    return moe_mlp(x, weight, gate_up, down, plan=case.plan, **options)


@pytest.fixture
def leaves(case, draw):
    """Tokens, weights and both stacks of matrices, for the plan of the test."""
    return leaves_of(case, draw)


def leaves_of(case, draw, **options):
    return (
        draw(len(case.expert), WIDTH, **options),
        draw(*case.expert.shape, **options),
        draw(case.num_experts, 2 * HIDDEN, WIDTH, **options),
        draw(case.num_experts, WIDTH, HIDDEN, **options),
    )


@pytest.mark.parametrize("save", ["hidden", "input"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_agrees_with_its_reference(case, leaves, agree, activation, save):
    x, weight, gate_up, down = leaves
    reference = moe_mlp_ref(x, case.plan, weight, gate_up, down, activation=activation)
    agree(fused(*leaves, case, activation=activation, save=save), reference, leaves)


@pytest.mark.parametrize("shape", [(40, 64, 48, 8, 2), (300, 17, 33, 5, 3), (700, 32, 16, 4, 1), (64, 31, 7, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("save", ["hidden", "input"])
def test_it_is_as_accurate_as_its_dtype_allows(engine, dtype, shape, save, distance, accuracy):
    tokens, width, hidden, experts, top_k = shape
    generator = torch.Generator().manual_seed(tokens)

    def normal(*sizes, scale=1.0):
        return (torch.randn(sizes, generator=generator) * scale).to(dtype).requires_grad_()

    expert = torch.rand(tokens, experts, generator=generator).topk(top_k).indices
    weight = torch.rand(tokens, top_k, generator=generator).requires_grad_()
    matrices = normal(experts, 2 * hidden, width, scale=width**-0.5), normal(experts, width, hidden, scale=hidden**-0.5)
    leaves = normal(tokens, width), weight, *matrices
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    plan = plan_routing(expert, experts)
    ours, reference = moe_mlp(*leaves, plan=plan, save=save), moe_mlp_ref(exact[0], plan, *exact[1:])
    of_out, of_gradients = accuracy[dtype]
    assert distance(ours, reference) < of_out
    upstream = normal(tokens, width).detach()
    grads = torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(reference, exact, upstream.double())
    assert max(distance(a, b) for a, b in zip(*grads, strict=True)) < of_gradients


@pytest.mark.parametrize("name", ["an_expert_without_rows", "dropped", "the_same_expert_twice", "one_token"])
def test_gradients_are_those_of_finite_differences(case_named, name):
    case = case_named(name)
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    small = (numbers(len(case.expert), 2), numbers(*case.expert.shape), numbers(case.num_experts, 4, 2))
    assert torch.autograd.gradcheck(lambda *inputs: fused(*inputs, case), (*small, numbers(case.num_experts, 2, 2)))


def test_tokens_and_weights_need_not_be_contiguous(case_named, draw, agree):
    case = case_named("dropped")
    _, _, gate_up, down = leaves_of(case, draw)
    x, weight = draw(WIDTH, len(case.expert)), draw(*reversed(case.expert.shape))
    reference = moe_mlp_ref(x.t(), case.expert, weight.t(), gate_up, down)
    agree(fused(x.t(), weight.t(), gate_up, down, case), reference, (x, weight, gate_up, down))


def test_matrices_need_not_be_contiguous(case_named, draw, agree):
    case = case_named("ragged")
    x, weight, _, _ = leaves_of(case, draw)
    experts = case.num_experts
    gate_up, down = draw(experts, WIDTH, 2 * HIDDEN), draw(experts, HIDDEN, WIDTH)
    straight = gate_up.transpose(1, 2), down.transpose(1, 2)
    agree(fused(x, weight, *straight, case), moe_mlp_ref(x, case.expert, weight, *straight), (x, weight, gate_up, down))


def test_an_upstream_gradient_need_not_be_contiguous(case_named, draw):
    case = case_named("dropped")
    leaves = leaves_of(case, draw)
    expanded = torch.autograd.grad(fused(*leaves, case).sum(), leaves)
    out = fused(*leaves, case)
    for got, expected in zip(expanded, torch.autograd.grad(out, leaves, torch.ones_like(out)), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("frozen", [{"gate_up", "down"}, {"gate_up"}, {"down"}, {"x"}, {"weight"}, {"x", "weight"}])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(case_named, draw, frozen):
    case = case_named("dropped")
    leaves = dict(zip(("x", "weight", "gate_up", "down"), leaves_of(case, draw), strict=True))
    whole = dict(zip(leaves, torch.autograd.grad(fused(*leaves.values(), case).sum(), leaves.values()), strict=True))
    for name in frozen:
        leaves[name].requires_grad_(False)
    fused(*leaves.values(), case).sum().backward()
    for name, leaf in leaves.items():
        if name in frozen:
            assert leaf.grad is None
        else:
            assert torch.equal(leaf.grad, whole[name])


def test_an_expert_without_rows_gets_a_zero_gradient(case_named, draw):
    case = case_named("an_expert_without_rows")
    _, _, gate_up, down = leaves = leaves_of(case, draw)
    fused(*leaves, case).sum().backward()
    idle = case.plan.counts == 0
    assert idle.sum() == 2
    for stack in (gate_up, down):
        assert torch.equal(stack.grad[idle], torch.zeros_like(stack.grad[idle]))
        assert stack.grad[~idle].flatten(1).abs().sum(1).min() > 0


def test_autocast_agrees_with_its_reference_under_autocast(case_named, draw, assert_close):
    case = case_named("dropped")
    leaves = leaves_of(case, draw, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = fused(*leaves, case)
    assert ours.dtype == torch.bfloat16
    # exact products of the rounded inputs: what bfloat16 may differ from by its own rounding only.
    rounded = [leaf.detach().bfloat16().double().requires_grad_() for leaf in leaves]
    reference = moe_mlp_ref(rounded[0], case.expert, *rounded[1:])
    scale = float(reference.detach().abs().max())
    assert_close(ours.double() / scale, reference / scale, dtype=torch.bfloat16)
    upstream = torch.linspace(-1, 2, ours.numel()).view_as(ours)
    got = torch.autograd.grad(ours, leaves, upstream.bfloat16())
    expected = torch.autograd.grad(reference, rounded, upstream.bfloat16().double())
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        largest = float(theirs.abs().max())
        assert_close(mine.double() / largest, theirs / largest, dtype=torch.bfloat16)


def test_the_nan_of_one_token_stays_with_it(case_named, draw):
    case = case_named("a_token_without_rows")
    x, weight, gate_up, down = (leaf.detach() for leaf in leaves_of(case, draw))
    for token, spoilt in ((0, [0]), (1, []), (2, [2])):
        broken = x.clone()
        broken[token] = torch.nan
        out = fused(broken, weight, gate_up, down, case)
        assert out.isnan().any(-1).nonzero().flatten().tolist() == spoilt
        assert out[1].tolist() == [0] * WIDTH


def test_a_broken_expert_spoils_its_own_tokens_only(case_named, draw):
    case = case_named("a_token_without_rows")
    x, weight, gate_up, down = (leaf.detach() for leaf in leaves_of(case, draw))
    down[2] = torch.nan
    assert fused(x, weight, gate_up, down, case).isnan().any(-1).tolist() == [False, False, True]


def test_the_same_input_gives_the_same_bits(case_named, draw):
    case = case_named("dropped")
    leaves = leaves_of(case, draw)
    runs = []
    for _ in range(3):
        out = fused(*leaves, case)
        runs.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_the_inputs_are_left_as_they_were(case, leaves):
    before = [leaf.detach().clone() for leaf in leaves]
    out = fused(*leaves, case)
    upstream = torch.ones_like(out)
    torch.autograd.grad(out, leaves, upstream)
    assert all(torch.equal(a, b) for a, b in zip(before, leaves, strict=True))
    assert torch.equal(upstream, torch.ones_like(out))


def test_one_forward_serves_two_backwards(case_named, draw):
    case = case_named("dropped")
    leaves = leaves_of(case, draw)
    loss = fused(*leaves, case).sin().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, leaves), strict=True))


def test_the_short_path_of_one_token_is_the_same(draw, assert_close, case_named):
    case = case_named("one_token")
    leaves = [leaf.detach() for leaf in leaves_of(case, draw)]
    assert_close(token_mlp(*leaves, expert=case.expert), fused(*leaves, case))


def test_the_short_path_skips_an_empty_slot(draw, assert_close):
    x, gate_up, down = draw(1, WIDTH).detach(), draw(3, 2 * HIDDEN, WIDTH).detach(), draw(3, WIDTH, HIDDEN).detach()
    weight, expert = draw(1, 3).detach(), torch.tensor([[2, -1, 0]])
    short = token_mlp(x, weight, gate_up, down, expert=expert)
    assert_close(short, moe_mlp_ref(x, expert, weight, gate_up, down))
    none = token_mlp(x, weight[:, :0], gate_up, down, expert=expert[:, :0])
    assert none.tolist() == [[0] * WIDTH]


def test_the_short_path_under_autocast_is_the_same(case_named, draw, assert_close):
    case = case_named("one_token")
    leaves = [leaf.detach() for leaf in leaves_of(case, draw, dtype=torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short, long = token_mlp(*leaves, expert=case.expert), fused(*leaves, case)
    assert short.dtype == long.dtype == torch.bfloat16
    assert_close(short, long)
