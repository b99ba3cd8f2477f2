"""SwiGLU experts from tokens to tokens, against the reference: values and every gradient."""

import pytest
import torch
from workbench_kernels import moe_mlp, token_mlp
from workbench_kernels.reference import moe_mlp_ref

WIDTH, HIDDEN = 6, 5


def fused(x, weight, gate_up, down, plan):
    return moe_mlp(x, weight, gate_up, down, rows=plan.rows, row_of=plan.row_of, counts=plan.counts)


@pytest.fixture
def leaves(plan, draw):
    """Tokens, weights and both stacks of matrices, for the plan of the test."""
    return leaves_of(plan, draw)


def leaves_of(plan, draw, **options):
    experts = len(plan.counts)
    return (
        draw(len(plan.expert), WIDTH, **options),
        draw(*plan.expert.shape, **options),
        draw(experts, 2 * HIDDEN, WIDTH, **options),
        draw(experts, WIDTH, HIDDEN, **options),
    )


def test_it_agrees_with_its_reference(plan, leaves, agree):
    x, weight, gate_up, down = leaves
    agree(fused(*leaves, plan), moe_mlp_ref(x, plan.expert, weight, gate_up, down), leaves)


@pytest.mark.parametrize("name", ["an_expert_without_rows", "dropped", "the_same_expert_twice", "one_token"])
def test_gradients_are_those_of_finite_differences(plan_named, name):
    plan = plan_named(name)
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    small = (numbers(len(plan.expert), 2), numbers(*plan.expert.shape), numbers(len(plan.counts), 4, 2))
    assert torch.autograd.gradcheck(lambda *inputs: fused(*inputs, plan), (*small, numbers(len(plan.counts), 2, 2)))


def test_tokens_and_weights_need_not_be_contiguous(plan_named, draw, agree):
    plan = plan_named("dropped")
    _, _, gate_up, down = leaves_of(plan, draw)
    x, weight = draw(WIDTH, len(plan.expert)), draw(*reversed(plan.expert.shape))
    reference = moe_mlp_ref(x.t(), plan.expert, weight.t(), gate_up, down)
    agree(fused(x.t(), weight.t(), gate_up, down, plan), reference, (x, weight, gate_up, down))


def test_matrices_need_not_be_contiguous(plan_named, draw, agree):
    plan = plan_named("ragged")
    x, weight, _, _ = leaves_of(plan, draw)
    experts = len(plan.counts)
    gate_up, down = draw(experts, WIDTH, 2 * HIDDEN), draw(experts, HIDDEN, WIDTH)
    straight = gate_up.transpose(1, 2), down.transpose(1, 2)
    agree(fused(x, weight, *straight, plan), moe_mlp_ref(x, plan.expert, weight, *straight), (x, weight, gate_up, down))


def test_an_upstream_gradient_need_not_be_contiguous(plan_named, draw):
    plan = plan_named("dropped")
    leaves = leaves_of(plan, draw)
    expanded = torch.autograd.grad(fused(*leaves, plan).sum(), leaves)
    out = fused(*leaves, plan)
    for got, expected in zip(expanded, torch.autograd.grad(out, leaves, torch.ones_like(out)), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("frozen", [{"gate_up", "down"}, {"gate_up"}, {"down"}, {"x"}, {"weight"}, {"x", "weight"}])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(plan_named, draw, frozen):
    plan = plan_named("dropped")
    leaves = dict(zip(("x", "weight", "gate_up", "down"), leaves_of(plan, draw), strict=True))
    whole = dict(zip(leaves, torch.autograd.grad(fused(*leaves.values(), plan).sum(), leaves.values()), strict=True))
    for name in frozen:
        leaves[name].requires_grad_(False)
    fused(*leaves.values(), plan).sum().backward()
    for name, leaf in leaves.items():
        if name in frozen:
            assert leaf.grad is None
        else:
            assert torch.equal(leaf.grad, whole[name])


def test_an_expert_without_rows_gets_a_zero_gradient(plan_named, draw):
    plan = plan_named("an_expert_without_rows")
    _, _, gate_up, down = leaves = leaves_of(plan, draw)
    fused(*leaves, plan).sum().backward()
    idle = plan.counts == 0
    assert idle.sum() == 2
    for stack in (gate_up, down):
        assert torch.equal(stack.grad[idle], torch.zeros_like(stack.grad[idle]))
        assert stack.grad[~idle].flatten(1).abs().sum(1).min() > 0


def test_autocast_agrees_with_its_reference_under_autocast(plan_named, draw, assert_close):
    plan = plan_named("dropped")
    leaves = leaves_of(plan, draw, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = fused(*leaves, plan)
    assert ours.dtype == torch.bfloat16
    # exact products of the rounded inputs: what bfloat16 may differ from by its own rounding only.
    rounded = [leaf.detach().bfloat16().double().requires_grad_() for leaf in leaves]
    reference = moe_mlp_ref(rounded[0], plan.expert, *rounded[1:])
    scale = float(reference.detach().abs().max())
    assert_close(ours.double() / scale, reference / scale, dtype=torch.bfloat16)
    upstream = torch.linspace(-1, 2, ours.numel()).view_as(ours)
    got = torch.autograd.grad(ours, leaves, upstream.bfloat16())
    expected = torch.autograd.grad(reference, rounded, upstream.bfloat16().double())
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        largest = float(theirs.abs().max())
        assert_close(mine.double() / largest, theirs / largest, dtype=torch.bfloat16)


def test_the_nan_of_one_token_stays_with_it(plan_named, draw):
    plan = plan_named("a_token_without_rows")
    x, weight, gate_up, down = (leaf.detach() for leaf in leaves_of(plan, draw))
    for token, spoilt in ((0, [0]), (1, []), (2, [2])):
        broken = x.clone()
        broken[token] = torch.nan
        out = fused(broken, weight, gate_up, down, plan)
        assert out.isnan().any(-1).nonzero().flatten().tolist() == spoilt
        assert out[1].tolist() == [0] * WIDTH


def test_a_broken_expert_spoils_its_own_tokens_only(plan_named, draw):
    plan = plan_named("a_token_without_rows")
    x, weight, gate_up, down = (leaf.detach() for leaf in leaves_of(plan, draw))
    down[2] = torch.nan
    assert fused(x, weight, gate_up, down, plan).isnan().any(-1).tolist() == [False, False, True]


def test_the_same_input_gives_the_same_bits(plan_named, draw):
    plan = plan_named("dropped")
    leaves = leaves_of(plan, draw)
    runs = []
    for _ in range(3):
        out = fused(*leaves, plan)
        runs.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_the_inputs_are_left_as_they_were(plan, leaves):
    before = [leaf.detach().clone() for leaf in leaves]
    out = fused(*leaves, plan)
    upstream = torch.ones_like(out)
    torch.autograd.grad(out, leaves, upstream)
    assert all(torch.equal(a, b) for a, b in zip(before, leaves, strict=True))
    assert torch.equal(upstream, torch.ones_like(out))


def test_one_forward_serves_two_backwards(plan_named, draw):
    plan = plan_named("dropped")
    leaves = leaves_of(plan, draw)
    loss = fused(*leaves, plan).sin().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, leaves), strict=True))


def test_the_short_path_of_one_token_is_the_same(draw, assert_close, plan_named):
    plan = plan_named("one_token")
    leaves = [leaf.detach() for leaf in leaves_of(plan, draw)]
    assert_close(token_mlp(*leaves, expert=plan.expert), fused(*leaves, plan))


def test_the_short_path_skips_an_empty_slot(draw, assert_close):
    x, gate_up, down = draw(1, WIDTH).detach(), draw(3, 2 * HIDDEN, WIDTH).detach(), draw(3, WIDTH, HIDDEN).detach()
    weight, expert = draw(1, 3).detach(), torch.tensor([[2, -1, 0]])
    short = token_mlp(x, weight, gate_up, down, expert=expert)
    assert_close(short, moe_mlp_ref(x, expert, weight, gate_up, down))
    none = token_mlp(x, weight[:, :0], gate_up, down, expert=expert[:, :0])
    assert none.tolist() == [[0] * WIDTH]


def test_the_short_path_under_autocast_is_the_same(plan_named, draw, assert_close):
    plan = plan_named("one_token")
    leaves = [leaf.detach() for leaf in leaves_of(plan, draw, dtype=torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short, long = token_mlp(*leaves, expert=plan.expert), fused(*leaves, plan)
    assert short.dtype == long.dtype == torch.bfloat16
    assert_close(short, long)
