"""Attention of one token: against its reference in float64, which is held against PyTorch's own attention."""

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels import backend_of
from workbench_kernels.reference import token_attention_ref
from workbench_kernels.token_attention import AttentionWeights, TokenAttention

EPSILON = 1e-5
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 1.5e-3}
NEEDS = pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")


def layer(width, heads, groups, channels, *, norm="none", has_bias=False):
    """Weights, float64."""
    queries, keys = heads * channels, groups * channels

    def matrix(*shape):
        return torch.randn(*shape, dtype=torch.float64) * shape[-1] ** -0.5

    biases = (matrix(queries), matrix(keys), matrix(keys)) if has_bias else (None, None, None)
    sizes = {"none": (0, 0), "head": (channels, channels), "width": (queries, keys)}[norm]
    gains = tuple(torch.rand(size, dtype=torch.float64) + 0.5 if size else None for size in sizes)
    gain = torch.rand(width, dtype=torch.float64) + 0.5
    return AttentionWeights(
        gain, matrix(queries, width), matrix(keys, width), matrix(keys, width), matrix(width, queries), *biases, *gains
    )


def inputs(weights, groups, channels, *, batch=1, length=9, room=16):
    angle = torch.rand(batch, channels // 2, dtype=torch.float64).repeat(1, 2) * 6
    filled = torch.randn(2, batch, room, groups, channels, dtype=torch.float64)
    stream = torch.randn(batch, len(weights.gain), dtype=torch.float64)
    return stream, filled[0], filled[1], {"cosine": angle.cos(), "sine": angle.sin(), "length": length}


def rounded(value, dtype):
    """Tensors in a dtype, gains and rotations in float32 as models keep them."""
    if isinstance(value, AttentionWeights):
        return AttentionWeights(
            *(
                None if one is None else one.to(torch.float32 if name.endswith("gain") else dtype)
                for name, one in zip(value._fields, value, strict=True)
            )
        )
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype == torch.float64 else value


def exact(value):
    if isinstance(value, AttentionWeights):
        return AttentionWeights(*(None if one is None else one.double() for one in value))
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def distance(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


def check(weights, stream, keys, values, options, dtype, *, clip=None, mask=None):
    weights, stream, keys, values = (rounded(one, dtype) for one in (weights, stream, keys, values))
    options = {name: rounded(one, torch.float32) for name, one in options.items()}
    own_keys, own_values = keys.clone(), values.clone()
    ready = TokenAttention(weights, channels=keys.shape[-1], epsilon=EPSILON, clip=clip)
    with torch.no_grad():
        out, turned = ready(stream, own_keys, own_values, **options, mask=mask)
    sides = tuple(exact(one) for one in (stream, keys, values))
    exact_options = {name: exact(one) for name, one in options.items()}
    wanted, queries = token_attention_ref(
        *sides, exact(weights), **exact_options, epsilon=EPSILON, clip=clip, mask=mask
    )
    assert out.dtype == turned.dtype == dtype
    assert distance(turned, queries) <= LIMITS[dtype]
    assert distance(out - stream, wanted - sides[0]) <= 2 * LIMITS[dtype]
    newest = options["length"] - 1
    for own, side, before in ((own_keys, sides[1], keys), (own_values, sides[2], values)):
        assert distance(own[:, newest], side[:, newest]) <= LIMITS[dtype]
        others = [column for column in range(before.shape[1]) if column != newest]
        assert torch.equal(own[:, others], before[:, others])
    return out


@NEEDS
@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("norm", ["none", "head", "width"])
@pytest.mark.parametrize("shape", [(64, 4, 2, 16), (33, 3, 1, 10), (256, 8, 8, 32), (40, 1, 1, 70), (512, 16, 4, 128)])
def test_it_is_its_reference(shape, norm, dtype):
    weights = layer(*shape, norm=norm, has_bias=norm == "none")
    check(weights, *inputs(weights, *shape[2:]), dtype)


@NEEDS
@pytest.mark.parametrize(("length", "room"), [(1, 16), (2, 2), (31, 32), (32, 32), (33, 64), (300, 512)])
def test_it_looks_back_as_far_as_there_is_anything(length, room):
    weights = layer(64, 4, 2, 16)
    check(weights, *inputs(weights, 2, 16, length=length, room=room), torch.float32)


@NEEDS
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_padding_is_not_looked_at(batch):
    weights = layer(64, 4, 2, 16, norm="width")
    mask = torch.ones(batch, 9, dtype=torch.bool)
    for row in range(batch):
        mask[row, : 2 * row] = False
    stream, keys, values, options = inputs(weights, 2, 16, batch=batch)
    out = check(weights, stream, keys, values, options, torch.float32, mask=mask)
    keys[~torch.cat((mask, torch.ones(batch, 7, dtype=torch.bool)), dim=1)] = 1e3
    assert torch.equal(out, check(weights, stream, keys, values, options, torch.float32, mask=mask))


@NEEDS
@pytest.mark.parametrize("norm", ["none", "head", "width"])
def test_what_is_projected_is_clipped(norm):
    weights = layer(64, 4, 2, 16, norm=norm)
    check(weights, *inputs(weights, 2, 16), torch.float32, clip=0.3)


@NEEDS
def test_a_sequence_does_not_depend_on_its_neighbours():
    weights = rounded(layer(64, 4, 2, 16), torch.float32)
    stream, keys, values, options = inputs(weights, 2, 16, batch=4)
    together = check(weights, stream, keys, values, options, torch.float32)
    for row in range(4):
        own = {name: one[row : row + 1] if isinstance(one, torch.Tensor) else one for name, one in options.items()}
        part = slice(row, row + 1)
        alone = check(weights, stream[part], keys[part], values[part], own, torch.float32)
        assert torch.equal(alone, together[part])


def test_the_reference_is_pytorchs_attention():
    weights = layer(64, 4, 2, 16, has_bias=True)
    stream, keys, values, options = inputs(weights, 2, 16, batch=2)
    out, turned = token_attention_ref(stream, keys, values, weights, **options, epsilon=EPSILON)
    x = F.rms_norm(stream, (64,), weights.gain, EPSILON)
    assert torch.allclose(values[:, 8].flatten(1), F.linear(x, weights.value, weights.value_bias))
    mixed = F.scaled_dot_product_attention(
        turned.unsqueeze(2), keys[:, :9].transpose(1, 2), values[:, :9].transpose(1, 2), enable_gqa=True
    )
    assert torch.allclose(out, stream + F.linear(mixed.flatten(1), weights.output))
    query = F.linear(x, weights.query, weights.query_bias).view(2, 4, 2, 8)
    angle = torch.complex(options["cosine"], options["sine"])[:, None, :8]
    turned_as_complex = torch.complex(query[:, :, 0], query[:, :, 1]) * angle
    assert torch.allclose(torch.cat((turned_as_complex.real, turned_as_complex.imag), dim=-1), turned)


@NEEDS
def test_it_says_where_it_cannot_work():
    weights = rounded(layer(64, 4, 2, 16), torch.float32)
    stream, keys, values, options = (rounded(one, torch.float32) for one in inputs(weights, 2, 16))
    options = {name: rounded(one, torch.float32) for name, one in options.items()}
    ready = TokenAttention(weights, channels=16, epsilon=EPSILON)
    call = TokenAttention.__call__.__wrapped__
    with torch.no_grad():
        assert ready.can_run(stream)
        assert not ready.can_run(stream.repeat(5, 1))
        assert not ready.can_run(stream.bfloat16())
        with torch.autocast("cpu"):
            assert not ready.can_run(stream)
        with pytest.raises(ValueError, match="with room for 17 columns"):
            call(ready, stream, keys, values, **{**options, "length": 17})
        with pytest.raises(ValueError, match="must be contiguous"):
            call(ready, stream, keys.transpose(1, 2).contiguous().transpose(1, 2), values, **options)
    assert not ready.can_run(stream)
    with pytest.raises(ValueError, match="ask can_run first"):
        call(ready, stream, keys, values, **options)
    assert not TokenAttention(exact(weights), channels=16, epsilon=EPSILON).can_run(stream.double())
    with pytest.raises(ValueError, match="heads of 24 channels must share the keys evenly"):
        TokenAttention(weights, channels=24, epsilon=EPSILON)


@NEEDS
def test_weights_that_learn_in_place_are_seen_and_moved_ones_are_noticed():
    weights = rounded(layer(64, 4, 2, 16, norm="head"), torch.float32)
    stream, keys, values, options = (rounded(one, torch.float32) for one in inputs(weights, 2, 16))
    options = {name: rounded(one, torch.float32) for name, one in options.items()}
    ready = TokenAttention(weights, channels=16, epsilon=EPSILON)
    with torch.no_grad():
        before, _ = ready(stream, keys, values, **options)
        for one in weights:
            if one is not None:
                one.mul_(1.5)
        assert ready.place == weights.place
        after, _ = ready(stream, keys, values, **options)
    fresh = check(weights, stream, keys, values, options, torch.float32)
    assert torch.equal(after, fresh)
    assert not torch.equal(after, before)
    assert ready.place != weights._replace(key=weights.key.clone()).place
