"""The fused layer under what surrounds a model: checkpoints, compilation, DDP, gradient buffers, modes, threads."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from workbench_kernels import moe_mlp, plan_from_mask, plan_routing, token_mlp
from workbench_kernels.reference import moe_mlp_ref

TOKENS, WIDTH, HIDDEN, EXPERTS = 11, 6, 5, 4


def normal(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


@pytest.fixture
def expert():
    return torch.randint(-1, EXPERTS, (TOKENS, 2), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def plan(engine, expert):
    return plan_routing(expert, EXPERTS)


@pytest.fixture
def leaves():
    matrices = normal(EXPERTS, 2 * HIDDEN, WIDTH), normal(EXPERTS, WIDTH, HIDDEN)
    return normal(TOKENS, WIDTH), normal(TOKENS, 2), *matrices


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_checkpoint_changes_nothing(plan, leaves):
    def layer(*inputs):
        return moe_mlp(*inputs, plan=plan).sin()

    plain = torch.autograd.grad(layer(*leaves).sum(), leaves)
    assert equal(torch.autograd.grad(checkpoint(layer, *leaves, use_reentrant=False).sum(), leaves), plain)


@pytest.mark.parametrize("save", ["hidden", "input"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_saved_are_the_inputs_and_the_pre_activations(engine, dtype, save):
    expert = torch.rand(64, EXPERTS).topk(2).indices
    leaves = [normal(*shape, dtype=dtype) for shape in ((64, 16), (EXPERTS, 24, 16), (EXPERTS, 16, 12))]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        moe_mlp(leaves[0], torch.rand(64, 2), *leaves[1:], plan=plan_routing(expert, EXPERTS), save=save)
    own = {leaf.data_ptr() for leaf in leaves}
    others = sum(tensor.nbytes for tensor in saved if tensor.is_floating_point() and tensor.data_ptr() not in own)
    assert others == 64 * 2 * 4 + (64 * 2 * 24 * dtype.itemsize if save == "hidden" else 0)


def test_gradients_are_added_to_buffers(plan, leaves, assert_close):
    expected = torch.autograd.grad(moe_mlp(*leaves, plan=plan).sin().sum(), leaves)
    buffers = tuple(torch.full_like(matrices, 2.0) for matrices in leaves[2:])
    for round_of in (1, 2):
        for leaf in leaves:
            leaf.grad = None
        moe_mlp(*leaves, plan=plan, into=buffers).sin().sum().backward()
        assert equal((leaves[0].grad, leaves[1].grad), expected[:2])
        assert leaves[2].grad is leaves[3].grad is None
        for buffer, one in zip(buffers, expected[2:], strict=True):
            assert_close(buffer, 2 + round_of * one)


def test_float32_buffers_take_the_gradients_of_half_precision(plan, leaves, assert_close):
    low = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    buffers = tuple(torch.zeros(matrices.shape) for matrices in leaves[2:])
    expected = torch.autograd.grad(moe_mlp(*low, plan=plan).float().sum(), low[2:])
    moe_mlp(*low, plan=plan, into=buffers).float().sum().backward()
    for buffer, one in zip(buffers, expected, strict=True):
        assert_close(buffer.bfloat16(), one)


def test_frozen_matrices_leave_their_buffers_alone(plan, leaves):
    x, weight, gate_up, down = leaves
    buffers = torch.zeros_like(gate_up), torch.zeros_like(down)
    out = moe_mlp(x, weight, gate_up.detach(), down, plan=plan, into=tuple(buffer.detach() for buffer in buffers))
    out.sum().backward()
    assert buffers[0].abs().max() == 0
    assert buffers[1].abs().max() > 0


def test_weights_may_be_in_half_precision(plan, leaves):
    x, _, gate_up, down = leaves
    weight = leaves[1].detach().bfloat16().requires_grad_()
    out = moe_mlp(x, weight, gate_up, down, plan=plan)
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert (out.dtype, grad.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(out, moe_mlp(x, weight.float(), gate_up, down, plan=plan))


def test_a_mask_of_any_width_is_a_plan(engine, leaves, assert_close):
    x, _, gate_up, down = leaves
    mask = torch.rand(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(5)) < 0.4
    weight = torch.rand(TOKENS, EXPERTS)
    spoilt = weight.masked_fill(~mask, torch.nan).requires_grad_()
    expert = torch.where(mask, torch.arange(EXPERTS), -1)
    out = moe_mlp(x, spoilt, gate_up, down, plan=plan_from_mask(mask))
    assert_close(out, moe_mlp_ref(x, expert, weight, gate_up, down))
    (grad,) = torch.autograd.grad(out.sum(), spoilt)
    assert grad[~mask].eq(0).all() and grad[mask].ne(0).all()


class Layer(nn.Module):
    """One layer of experts with a fixed plan."""

    def __init__(self, leaves, plan):
        super().__init__()
        self.gate_up, self.down = (nn.Parameter(matrices.detach().clone()) for matrices in leaves[2:])
        self.weight, self.plan = leaves[1].detach(), plan

    def forward(self, x):
        return moe_mlp(x, self.weight, self.gate_up, self.down, plan=self.plan)


@pytest.mark.distributed
def test_ddp_sees_every_gradient(plan, leaves, tmp_path):
    plain = Layer(leaves, plan)
    plain(leaves[0].detach()).sin().sum().backward()
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        inner = Layer(leaves, plan)
        wrapped = DistributedDataParallel(inner)
        wrapped(leaves[0].detach()).sin().sum().backward()
        # before its group: a reducer that outlives it ends the group's threads while it holds what they wait for.
        del wrapped
    finally:
        dist.destroy_process_group()
    expected = [parameter.grad for parameter in plain.parameters()]
    assert equal([parameter.grad for parameter in inner.parameters()], expected)


@pytest.mark.parametrize(
    "name",
    [
        "moe_mlp",
        "moe_mlp of other shapes",
        "moe_mlp saving its input",
        "moe_mlp under a checkpoint",
        "moe_mlp into buffers",
        "moe_mlp by Inductor",
    ],
)
def test_it_compiles_as_one_graph(fullgraph, name):
    # a sine follows the layer, and Inductor has its own.
    assert fullgraph[name] < 5e-5


def test_under_autocast_it_compiles_as_one_graph(fullgraph):
    assert fullgraph["moe_mlp under autocast"] < 1e-2


def test_the_operators_keep_their_promises(engine, leaves):
    # every slot has a row: what the pre-activations hold past the last row may differ.
    full = plan_routing(torch.arange(2 * TOKENS).view(TOKENS, 2) % EXPERTS, EXPERTS)
    operators, index = torch.ops.workbench_kernels, (full.rows, full.row_of, full.offsets)
    for keeps_hidden in (True, False):
        torch.library.opcheck(operators.moe_mlp.default, (*leaves, *index, "silu", keeps_hidden, None, None))
    plain = [leaf.detach() for leaf in leaves]
    hidden = operators.moe_mlp(*plain, *index, "silu", True, None, None)[1]
    for needs in ([True] * 4, [True, False, False, True]):
        arguments = (torch.ones(TOKENS, WIDTH), *plain, hidden, *index, "silu", needs)
        torch.library.opcheck(operators.moe_mlp_backward.default, arguments)
    buffers = [torch.zeros_like(matrices) for matrices in plain[2:]]
    torch.library.opcheck(operators.moe_mlp_backward_into.default, (*arguments[:-1], [True] * 4, *buffers))


def test_a_mode_that_watches_operators_sees_this_one_and_the_same_numbers(plan, leaves):
    plain = torch.autograd.grad(moe_mlp(*leaves, plan=plan).sin().sum(), leaves)
    with FlopCounterMode(display=False):
        watched = torch.autograd.grad(moe_mlp(*leaves, plan=plan).sin().sum(), leaves)
    assert equal(watched, plain)


def test_shapes_are_known_without_numbers(engine):
    with FakeTensorMode():
        x, gate_up, down = torch.empty(7, 6), torch.empty(3, 10, 6), torch.empty(3, 6, 5)
        plan = plan_routing(torch.empty(7, 2, dtype=torch.long), 3)
        out = moe_mlp(x.bfloat16(), torch.empty(7, 2), gate_up.bfloat16(), down.bfloat16(), plan=plan)
    assert (out.shape, out.dtype) == ((7, 6), torch.bfloat16)


def test_inference_mode_leaves_nothing_behind_that_training_stumbles_over(plan, leaves):
    with torch.inference_mode():
        before = moe_mlp(*leaves, plan=plan)
    after = moe_mlp(*leaves, plan=plan)
    assert torch.equal(before, after)
    torch.autograd.grad(after.sum(), leaves)


def test_threads_do_not_share_buffers(plan, leaves):
    plain = [leaf.detach() for leaf in leaves]

    def run(scale):
        return [moe_mlp(plain[0] * scale, *plain[1:], plan=plan) for _ in range(30)]

    with ThreadPoolExecutor(4) as pool:
        for scale, outputs in zip(range(4), pool.map(run, range(4)), strict=True):
            expected = moe_mlp(plain[0] * scale, *plain[1:], plan=plan)
            assert all(torch.equal(out, expected) for out in outputs)


def test_double_backward_is_refused(plan, leaves):
    (grad,) = torch.autograd.grad(moe_mlp(*leaves, plan=plan).sin().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_one_token_takes_the_short_way_of_the_engine(monkeypatch):
    class Engine:
        @staticmethod
        def experts(x, weight, gate_up, down, expert):
            return x + expert.sum()

    # the package exports a function of the module's name.
    monkeypatch.setattr(sys.modules["workbench_kernels.moe_mlp"], "tokens_of", lambda backend: Engine)
    x, matrices = torch.ones(1, 2), (torch.ones(3, 4, 2), torch.ones(3, 2, 2))
    assert token_mlp(x, torch.ones(1, 1), *matrices, expert=torch.tensor([[2]])).tolist() == [[3, 3]]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_wide_sum_is_the_sum_before_it_is_rounded(plan, leaves, dtype):
    low = [leaf.detach().to(dtype) for leaf in leaves]
    low[1] = leaves[1].detach()
    wide = moe_mlp(*low, plan=plan, is_wide=True)
    assert wide.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(wide.to(dtype), moe_mlp(*low, plan=plan))
    assert wide.dtype == dtype or not torch.equal(wide.to(dtype).to(wide.dtype), wide)


@torch.no_grad()
def test_a_wide_sum_of_doubles_is_double(monkeypatch, expert, leaves):
    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")
    doubles, plan = [leaf.detach().double() for leaf in leaves], plan_routing(expert, EXPERTS)
    wide = moe_mlp(*doubles, plan=plan, is_wide=True)
    assert wide.dtype == torch.float64
    assert torch.equal(wide, moe_mlp(*doubles, plan=plan))


@torch.no_grad()
def test_a_wide_sum_of_nothing_is_wide(engine, leaves):
    x, weight, gate_up, down = (leaf.detach().bfloat16() for leaf in leaves)
    nobody = plan_routing(torch.full((TOKENS, 2), -1), EXPERTS)
    out = moe_mlp(x, weight, gate_up, down, plan=nobody, is_wide=True)
    assert (out.dtype, out.count_nonzero().item()) == (torch.float32, 0)
    none = moe_mlp(x[:0], weight[:0], gate_up, down, plan=plan_routing(torch.zeros(0, 2).long(), EXPERTS), is_wide=True)
    assert (none.dtype, none.shape) == (torch.float32, (0, WIDTH))


def test_a_wide_sum_is_for_inference(plan, leaves):
    with pytest.raises(ValueError, match=r"is_wide serves inference: call it under torch.no_grad\(\) and outside of"):
        moe_mlp(*leaves, plan=plan, is_wide=True)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, torch.no_grad(), pytest.raises(ValueError, match="is_wide serves inference"):
        moe_mlp(*(fake.from_tensor(leaf.detach()) for leaf in leaves), plan=plan, is_wide=True)
