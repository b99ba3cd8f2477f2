"""Causal attention against its reference in float64: values and every gradient."""

import math

import pytest
import torch
from workbench_kernels import attention
from workbench_kernels.attention_reference import attention_backward_ref, attention_ref

# sequences, positions, heads, groups, channels: panels of 32 with and without a rest, groups, odd widths.
SHAPES = {
    "two_positions": (3, 2, 4, 2, 16),
    "a_panel_less_one": (3, 31, 2, 2, 32),
    "one_panel": (2, 32, 4, 1, 64),
    "a_panel_and_one": (2, 33, 3, 3, 33),
    "small_heads": (2, 70, 6, 2, 4),
    "groups": (2, 100, 8, 4, 48),
    "several_chunks_of_keys": (1, 257, 4, 2, 65),
    "several_parts_of_a_group": (1, 600, 2, 1, 40),
}
NARROW = (torch.float32, torch.bfloat16, torch.float16)
# in narrow numbers the gradients of PyTorch's own attention miss what is asked of ours.
COMPUTED = [("torch", torch.float32), *(("cpp", dtype) for dtype in NARROW)]


def drawn(shape, dtype, *, turns=True, size=1.0):
    """Query, key, value, the turn and an upstream gradient."""
    sequences, positions, heads, groups, channels = shape
    generator = torch.Generator().manual_seed(positions)

    def normal(many):
        return torch.randn(sequences, positions, many, channels, generator=generator)

    leaves = [(normal(many) * size).to(dtype).requires_grad_() for many in (heads, groups, groups)]
    turn = None
    if turns and channels % 2 == 0:
        position = torch.arange(positions).repeat(sequences).unsqueeze(1)
        angle = (position * torch.rand(channels // 2, generator=generator)).repeat(1, 2)
        turn = (angle.cos(), angle.sin())
    return leaves, turn, normal(heads).to(dtype)


def computed(leaves, turn, grad):
    out = attention(*leaves, turn=turn)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def exact(leaves, turn, grad):
    leaves = [leaf.detach().double() for leaf in leaves]
    return attention_ref(*leaves, turn), *attention_backward_ref(grad.double(), *leaves, turn)


def panels(x):
    """Each head of each 32 positions."""
    return [part for block in x.split(32, dim=1) for part in block.unbind(2)]


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize(("engine", "dtype"), COMPUTED, ids=str, indirect=["engine"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_as_accurate_as_its_dtype_allows(engine, shape, dtype, turns, distance, accuracy):
    leaves, turn, grad = drawn(SHAPES[shape], dtype, turns=turns)
    of_out, of_gradients = accuracy[dtype]
    found, truth = computed(leaves, turn, grad), exact(leaves, turn, grad)
    for name, got, expected in zip(("out", "query", "key", "value"), found, truth, strict=True):
        limit = of_out if name == "out" else of_gradients
        assert got.dtype == dtype
        assert distance(got, expected) < limit, name
        if name in ("out", "value"):
            assert max(distance(a, b) for a, b in zip(panels(got), panels(expected), strict=True)) < 2 * limit, name


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_it_is_within_a_millionth_of_the_truth(shape, distance):
    arguments = drawn(SHAPES[shape], torch.float32)
    for got, expected in zip(computed(*arguments), exact(*arguments), strict=True):
        assert distance(got, expected) < 1e-6


def test_float64_is_computed_in_float64(distance):
    arguments = drawn(SHAPES["groups"], torch.float64)
    assert max(distance(a, b) for a, b in zip(computed(*arguments), exact(*arguments), strict=True)) < 1e-14


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_sequence_of_one_token_gets_its_value(dtype):
    (query, key, value), turn, grad = drawn((3, 1, 4, 2, 24), dtype)
    out, of_query, of_key, of_value = computed((query, key, value), turn, grad)
    assert torch.equal(out, value.repeat_interleave(2, dim=2))
    assert of_query.abs().max() < 1e-6
    assert of_key.abs().max() < 1e-6
    torch.testing.assert_close(of_value, grad.float().unflatten(2, (2, 2)).sum(3).to(dtype))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_future_changes_no_bit_of_the_past(dtype):
    (query, key, value), turn, grad = drawn((1, 300, 2, 1, 32), dtype)
    grad[:, 77:] = 0
    before = computed((query, key, value), turn, grad)
    with torch.no_grad():
        for one in (query, key, value):
            one[:, 77:] = one[:, 77:].flip(1) * 5
    after = computed((query, key, value), turn, grad)
    assert torch.equal(before[0][:, :77], after[0][:, :77])
    assert not torch.equal(before[0][:, 77:], after[0][:, 77:])
    for old, new in zip(before[1:], after[1:], strict=True):
        assert torch.equal(old[:, :77], new[:, :77])
        assert new[:, 77:].eq(0).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_scores_of_ten_thousand_stay_finite_and_choose_the_nearest_key(dtype, distance):
    (query, _, value), _, grad = drawn((2, 300, 2, 2, 16), dtype, turns=False, size=100)
    # a key is its query, whose own score is the highest of all.
    key = query.detach().clone().requires_grad_()
    assert float((query.detach().float() @ key.detach().float().mT).abs().max()) / math.sqrt(16) > 1e4
    found, truth = computed((query, key, value), None, grad), exact((query, key, value), None, grad)
    assert all(part.isfinite().all() for part in found)
    assert distance(found[0], truth[0]) < 1e-2
    assert distance(found[3], truth[3]) < 1e-2


def test_a_long_sum_of_equal_weights_is_exact():
    value = torch.arange(1.0, 1001.0).view(1, 1000, 1, 1)
    out = attention(torch.ones_like(value), torch.zeros_like(value), value).flatten()
    torch.testing.assert_close(out, torch.arange(2.0, 1002.0) / 2, rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("shape", ["groups", "several_parts_of_a_group"])
def test_the_number_of_threads_changes_no_bit(shape, dtype, monkeypatch):
    arguments, results = drawn(SHAPES[shape], dtype), []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(computed(*arguments))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


def test_a_nan_reaches_its_own_head_only():
    (query, key, value), turn, _ = drawn((1, 70, 4, 2, 8), torch.float32)
    clean = attention(query, key, value, turn=turn)
    with torch.no_grad():
        key[0, 40, 1] = torch.nan
    out = attention(query, key, value, turn=turn)
    assert torch.equal(out[:, :, :2], clean[:, :, :2])
    assert torch.equal(out[:, :32], clean[:, :32])
    assert out[:, 40:, 2:].isnan().all()


@pytest.mark.parametrize("needed", ["query", "key", "value"])
def test_each_gradient_alone_has_the_bits_of_all_together(needed):
    leaves, turn, grad = drawn(SHAPES["groups"], torch.float32)
    at = ("query", "key", "value").index(needed)
    wanted = computed(leaves, turn, grad)[1 + at]
    alone = [leaf.detach().requires_grad_(i == at) for i, leaf in enumerate(leaves)]
    attention(*alone, turn=turn).backward(grad)
    assert [leaf.grad is not None for leaf in alone] == [i == at for i in range(3)]
    assert torch.equal(alone[at].grad, wanted)


def test_without_gradients_it_gives_the_same_bits():
    leaves, turn, _ = drawn(SHAPES["groups"], torch.float32)
    with torch.no_grad():
        out = attention(*leaves, turn=turn)
    assert not out.requires_grad
    assert torch.equal(out, attention(*leaves, turn=turn))


def test_strides_are_accepted():
    leaves, turn, grad = drawn(SHAPES["groups"], torch.float32)
    apart = [leaf.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for leaf in leaves]
    scattered = grad.transpose(1, 3).contiguous().transpose(1, 3)
    assert not apart[0].is_contiguous()
    for got, expected in zip(computed(apart, turn, scattered), computed(leaves, turn, grad), strict=True):
        assert torch.equal(got, expected)


def test_autocast_computes_in_its_dtype():
    leaves, turn, grad = drawn(SHAPES["groups"], torch.float32)
    narrow = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*leaves, turn=turn)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out, leaves, grad.bfloat16())
    for got, expected in zip(found, computed(narrow, turn, grad.bfloat16())[1:], strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, expected.float())


@pytest.mark.parametrize("shape", [(0, 4, 2, 2, 8), (2, 0, 2, 2, 8)])
def test_nothing_gives_nothing(shape):
    leaves, turn, grad = drawn(shape, torch.float32)
    assert [part.shape for part in computed(leaves, turn, grad)] == [leaf.shape for leaf in (leaves[0], *leaves)]


def test_it_compiles_as_one_graph(fullgraph):
    assert fullgraph["attention"] < 1e-6


def refused(message, query, key, value, turn=None):
    with pytest.raises(ValueError, match=message):
        attention.__wrapped__(query, key, value, turn=turn)


def test_what_does_not_fit_is_refused():
    x, angle = torch.ones(2, 3, 4, 6), torch.ones(6, 6)
    refused("G a divisor of H, got", x, x[:, :, :3], x[:, :, :3])
    refused(r"G a divisor of H, got .*\(2, 3, 2, 6\) and \(2, 3, 4, 6\)", x, x[:, :, :2], x)
    refused("tokens come before heads", x, x[:, :2], x[:, :2])
    refused("must have one floating-point dtype, got torch.float32, torch.float64", x, x.double(), x)
    refused("must be on one device, got query on cpu, key on meta", x, x.to("meta"), x)
    refused(r"cosine and sine of 6 tokens and 6 channels, got \(3, 6\) and \(6, 6\)", x, x, x, (angle[:3], angle))
    refused("heads of 5; use an even head width", *(x[..., :5],) * 3, (angle[:, :5], angle[:, :5]))
