import torch

from workbench.core import RouteContext
from workbench.model.layer import DenseLayer, MoELayer
from workbench.model.packing import packing_of
from workbench.model.rope import rotation


def whole(tokens: int):
    packing = packing_of(torch.Size((1, tokens)), None, None, torch.device("cpu"))
    return packing, rotation(packing.position, 8, 10_000.0)


@torch.no_grad()
def test_attention_comes_first_and_feeds_the_experts(make_model):
    block, stream = make_model().blocks[0], torch.randn(6, 32)
    packing, turn = whole(6)
    out, sites = block(stream, RouteContext(), packing, turn, None)
    middle, _ = block.attention(stream, packing, turn, None)
    expected, _ = block.feed_forward(middle, RouteContext())
    assert torch.equal(out, expected)
    assert [site.layer for site in sites] == [0]


@torch.no_grad()
def test_the_router_gets_the_attention_of_its_own_block(make_model, monkeypatch):
    block, stream, seen = make_model().blocks[1], torch.randn(6, 32), []
    router = block.feed_forward.router
    inner = type(router).forward
    monkeypatch.setattr(type(router), "forward", lambda self, x, c: seen.append(c.attend(x)) or inner(self, x, c))
    packing, turn = whole(6)
    block(stream, RouteContext(), packing, turn, None)
    middle, attend = block.attention(stream, packing, turn, None)
    expected, memory = attend(block.feed_forward.norm(middle))
    assert torch.equal(seen[0][0], expected) and torch.equal(seen[0][1], memory)


def test_dense_blocks_do_not_count_as_moe_layers(make_model):
    blocks = make_model(num_layers=4, dense_layers=(0, 2), dense_width=8).blocks
    kinds = [type(block.feed_forward) for block in blocks]
    assert kinds == [DenseLayer, MoELayer, DenseLayer, MoELayer]
    assert [blocks[i].feed_forward.layer for i in (1, 3)] == [0, 1]
    assert blocks[3].feed_forward.name == "blocks.3.feed_forward"
