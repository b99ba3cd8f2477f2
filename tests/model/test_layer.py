import pytest
import torch
from workbench_kernels.reference import moe_mlp_ref

from workbench.core import RouteContext, Spec
from workbench.model.layer import DenseLayer, MoELayer


def swiglu(mlp, x: torch.Tensor) -> torch.Tensor:
    gate, up = (x @ mlp.gate_up.weight.T).chunk(2, dim=-1)
    return (gate * gate.sigmoid() * up) @ mlp.down.weight.T


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("shared", [{}, {"shared_width": 20}, {"shared_width": 20, "shared_gate": True}])
def test_a_sparse_layer_is_its_formula(make_model, renormalise, shared, assert_close):
    router = Spec("top_k", {"top_k": 3, "renormalise": renormalise})
    layer = make_model(dtype=torch.float64, router=router, **shared).blocks[0].feed_forward
    stream = torch.randn(11, 32, dtype=torch.float64)
    out, (site,) = layer(stream, RouteContext())
    x = layer.norm(stream)
    logit = x.float() @ layer.router.gate.weight.float().T
    weight, expert = logit.softmax(-1).topk(3)
    weight = weight / weight.sum(-1, keepdim=True) if renormalise else weight
    expected = stream + moe_mlp_ref(x, expert, weight.double(), layer.experts.gate_up, layer.experts.down)
    if shared:
        scale = (x @ layer.shared_gate.weight.T).sigmoid() if "shared_gate" in shared else 1.0
        expected = expected + scale * swiglu(layer.shared, x)
    # the gate computes in float32, so its weights carry that error into a float64 layer.
    assert_close(out, expected, dtype=torch.float32)
    assert torch.equal(site.routing.expert, expert)


def test_its_site_says_where_and_who(make_model):
    model = make_model(num_layers=3, dense_layers=(0,), dense_width=8, router=Spec("switch"))
    _, (site,) = model.blocks[2].feed_forward(torch.randn(4, 32), RouteContext(iteration=2))
    assert (site.layer, site.iteration, site.router, site.is_shadow) == (1, 2, "switch", False)
    assert model.get_submodule(site.module) is model.blocks[2].feed_forward


def test_a_router_may_read_the_stream_before_the_norm(make_model, monkeypatch):
    layer, stream, seen = make_model().blocks[0].feed_forward, torch.randn(4, 32), []
    inner = type(layer.router).forward
    monkeypatch.setattr(
        type(layer.router), "forward", lambda self, x, context: seen.append(x) or inner(self, x, context)
    )
    layer(stream, RouteContext())
    monkeypatch.setattr(layer.router, "reads_stream", True)
    layer(stream, RouteContext())
    assert torch.equal(seen[0], layer.norm(stream)) and seen[1] is stream


def test_a_dense_layer_is_its_formula(make_model, assert_close):
    layer = make_model(dtype=torch.float64, dense_layers=(0,), dense_width=24).blocks[0].feed_forward
    assert isinstance(layer, DenseLayer)
    stream = torch.randn(7, 32, dtype=torch.float64)
    out, sites = layer(stream, RouteContext())
    assert_close(out, stream + swiglu(layer.mlp, layer.norm(stream)))
    assert sites == ()


def test_no_token_is_no_error(make_model):
    layer = make_model(shared_width=8).blocks[0].feed_forward
    assert isinstance(layer, MoELayer)
    out, (site,) = layer(torch.zeros(0, 32), RouteContext())
    assert out.shape == (0, 32) and site.routing.num_tokens == 0
