"""Attention against loops over sequences, heads and positions, in float64."""

import math

import pytest
import torch
from workbench_kernels import TokenAttention, backend_of

from workbench.model.attention import AttentionLayer
from workbench.model.kv_cache import KVCache
from workbench.model.packing import packing_of
from workbench.model.rope import rotate, rotation

SHAPES = [
    {},
    {"num_kv_heads": 4, "qk_norm": "none"},
    {"num_kv_heads": 1, "qk_norm": "width", "clip_qkv": 0.5},
    {"head_dim": 16, "attention_bias": True, "qk_norm": "none"},
]
LENGTHS = (5, 2, 1)


@pytest.fixture(params=SHAPES, ids=lambda changes: "-".join(changes) or "plain")
def config(request, make_config):
    return make_config(**request.param)


def layer_of(make_model, config) -> AttentionLayer:
    changes = {name: getattr(config, name) for name in ("num_kv_heads", "qk_norm", "clip_qkv", "head_dim")}
    model = make_model(dtype=torch.float64, attention_bias=config.attention_bias, **changes)
    return model.blocks[1].attention


def mask_of(side: str) -> torch.Tensor:
    columns, lengths = torch.arange(5), torch.tensor(LENGTHS)[:, None]
    return columns < lengths if side == "right" else columns >= 5 - lengths


def by_hand(layer: AttentionLayer, config, stream: torch.Tensor) -> torch.Tensor:
    """One sequence, one head and one position at a time."""
    x = layer.norm(stream)
    parts = {name: getattr(layer, name)(x) for name in ("query", "key", "value")}
    if config.qk_norm == "width":
        parts |= {"query": layer.query_norm(parts["query"]), "key": layer.key_norm(parts["key"])}
    if config.clip_qkv is not None:
        parts = {name: part.clamp(-config.clip_qkv, config.clip_qkv) for name, part in parts.items()}
    heads = {name: part.reshape(len(x), -1, config.head_dim) for name, part in parts.items()}
    if config.qk_norm == "head":
        heads |= {"query": layer.query_norm(heads["query"]), "key": layer.key_norm(heads["key"])}
    turn = rotation(torch.arange(len(x)), config.head_dim, config.rope_theta)
    query, key, value = rotate(heads["query"], turn), rotate(heads["key"], turn), heads["value"]
    shared_by = config.num_heads // config.num_kv_heads
    out = torch.zeros(len(x), config.num_heads, config.head_dim, dtype=x.dtype)
    for head in range(config.num_heads):
        group = head // shared_by
        for at in range(len(x)):
            scores = [float(query[at, head] @ key[j, group]) / math.sqrt(config.head_dim) for j in range(at + 1)]
            weights = torch.tensor(scores, dtype=x.dtype).softmax(0)
            out[at, head] = sum(weights[j] * value[j, group] for j in range(at + 1))
    return stream + out.flatten(1) @ layer.output.weight.T


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_sequences_are_each_attended_to_alone(config, make_model, side, assert_close):
    layer = layer_of(make_model, config)
    sequences = [torch.randn(n, 32, dtype=torch.float64) for n in LENGTHS]
    packing = packing_of(torch.Size((3, 5)), mask_of(side), None, torch.device("cpu"))
    turn = rotation(packing.position, config.head_dim, config.rope_theta)
    out, _ = layer(torch.cat(sequences), packing, turn, None)
    assert_close(out, torch.cat([by_hand(layer, config, s) for s in sequences]), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["loops", "kernel"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_a_cache_filled_in_pieces_changes_nothing(config, make_model, side, dtype, assert_close):
    layer = layer_of(make_model, config).to(dtype)
    mask = torch.ones(3, 5, dtype=torch.bool) if side == "none" else mask_of(side)
    stream, whole = torch.randn(3, 9, 32, dtype=dtype), torch.ones(3, 9, dtype=torch.bool)
    whole[:, :5] = mask
    cache, got = KVCache(3), []
    for low, high in ((0, 5), (5, 8), (8, 9)):
        packing = packing_of(torch.Size((3, high - low)), whole[:, low:high], cache.past, torch.device("cpu"))
        cache.advance(whole[:, low:high])
        turn = rotation(packing.position, config.head_dim, config.rope_theta)
        out, _ = layer(packing.pack(stream[:, low:high]), packing, turn, cache)
        got.append(packing.pad(out))
    for row in range(3):
        expected = by_hand(layer, config, stream[row][whole[row]])
        assert_close(torch.cat(got, dim=1)[row][whole[row]], expected, dtype=dtype)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_leaves_every_gradient_finite_and_unchanged(make_model, make_config, side, assert_close):
    config = make_config()
    layer = layer_of(make_model, config)
    sequences = [torch.randn(n, 32, dtype=torch.float64) for n in LENGTHS]

    def gradients(rows: list[torch.Tensor], mask: torch.Tensor | None, shape: torch.Size) -> list[torch.Tensor]:
        layer.zero_grad()
        packing = packing_of(shape, mask, None, torch.device("cpu"))
        out, _ = layer(torch.cat(rows), packing, rotation(packing.position, config.head_dim, 1e4), None)
        out.square().sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    together = gradients(sequences, mask_of(side), torch.Size((3, 5)))
    alone = [gradients([s], None, torch.Size((1, len(s)))) for s in sequences]
    for index, gradient in enumerate(together):
        assert_close(gradient, sum(one[index] for one in alone))


@torch.no_grad()
@pytest.mark.parametrize("has_own", [False, True])
def test_a_router_may_mix_its_values_over_the_past(make_model, make_config, has_own, assert_close):
    layer = layer_of(make_model, make_config())
    stream, values = torch.randn(5, 32, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    own = (torch.randn(5, 2, 6, dtype=torch.float64), torch.randn(5, 1, 6, dtype=torch.float64)) if has_own else ()
    packing = packing_of(torch.Size((1, 5)), None, None, torch.device("cpu"))
    _, attend = layer(stream, packing, rotation(packing.position, 8, 1e4), None)
    mixed, _ = attend(values, *own)
    x = layer.norm(stream)
    turn = rotation(torch.arange(5), 8, 1e4)
    layer_query = rotate(layer.query_norm(layer.query(x).view(5, 4, 8)), turn)
    layer_key = rotate(layer.key_norm(layer.key(x).view(5, 2, 8)), turn)
    query, key = own or (layer_query, layer_key)
    for head in range(query.shape[1]):
        k = key[:, head * key.shape[1] // query.shape[1]]
        for at in range(5):
            weight = (k[: at + 1] @ query[at, head] / math.sqrt(k.shape[-1])).softmax(0)
            assert_close(mixed[at, head], weight @ values[: at + 1])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["loops", "kernel"])
def test_what_a_router_reads_is_the_same_from_a_cache(make_model, make_config, dtype, assert_close):
    layer = layer_of(make_model, make_config()).to(dtype)
    stream, values = torch.randn(6, 32, dtype=dtype), torch.randn(6, 3, dtype=dtype)
    whole = packing_of(torch.Size((1, 6)), None, None, torch.device("cpu"))
    _, attend = layer(stream, whole, rotation(whole.position, 8, 1e4), None)
    expected, _ = attend(values)
    cache, got = KVCache(1), []
    for low, high in ((0, 4), (4, 5), (5, 6)):
        packing = packing_of(torch.Size((1, high - low)), None, cache.past, torch.device("cpu"))
        cache.advance(torch.ones(1, high - low, dtype=torch.bool))
        _, attend = layer(stream[low:high], packing, rotation(packing.position, 8, 1e4), cache)
        got.append(attend(values[low:high])[0])
    assert_close(torch.cat(got), expected)


@torch.no_grad()
@pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")
def test_a_matrix_that_was_replaced_or_hooked_is_honoured(make_model, make_config, monkeypatch):
    layer, calls, attend = layer_of(make_model, make_config()).float(), [], TokenAttention.__call__
    counted = lambda self, *args, **named: calls.append(self) or attend(self, *args, **named)  # noqa: E731
    monkeypatch.setattr(TokenAttention, "__call__", counted)
    packing = packing_of(torch.Size((1, 1)), None, None, torch.device("cpu"))
    turn = rotation(packing.position, 8, 1e4)

    def step():
        cache = KVCache(1)
        cache.advance(torch.ones(1, 1, dtype=torch.bool))
        return layer(torch.ones(1, 32), packing, turn, cache)[0]

    plain = step()
    assert len(calls) == 1
    hook = layer.value.register_forward_hook(lambda module, inputs, out: out * 0)
    assert torch.equal(step(), torch.ones(1, 32))
    hook.remove()
    assert torch.equal(step(), plain)
    layer.value = torch.nn.Sequential(layer.value, torch.nn.Identity())
    torch.testing.assert_close(step(), plain)
    assert len(calls) == 2
