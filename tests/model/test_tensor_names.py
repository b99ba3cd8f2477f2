import pytest
import torch

from workbench.core import Spec
from workbench.model.families import FAMILIES
from workbench.model.pieces import state_of, view_of
from workbench.model.tensor_names import fused_marker, pieces_of
from workbench.model.transformer import Transformer

MODELS = {
    "mixtral": {"qk_norm": "none", "tie_embeddings": False},
    "olmoe": {"qk_norm": "width", "router": Spec("top_k", {"renormalise": False})},
    "qwen2_moe": {"qk_norm": "none", "attention_bias": True, "shared_width": 16, "shared_gate": True}
    | {"dense_layers": (0,), "dense_width": 20},
    "qwen3_moe": {"dense_layers": (1,), "dense_width": 20, "tie_embeddings": False},
}


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_element_of_the_model_has_exactly_one_place(make_config, name, is_fused):
    model = Transformer(make_config(**MODELS[name]))
    state = state_of(model)
    for tensor in state.values():
        tensor.data.zero_()
    pieces = list(pieces_of(model.config, FAMILIES[name], is_fused=is_fused))
    assert len({piece.name for piece in pieces}) == len(pieces)
    for piece in pieces:
        view_of(state, piece).add_(1)
    assert all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in state.values())


def test_published_mixtral_names(make_config):
    config = make_config(**MODELS["mixtral"])
    pieces = {piece.name: piece for piece in pieces_of(config, FAMILIES["mixtral"], is_fused=False)}
    block = "model.layers.1.block_sparse_moe"
    gate, up = (pieces[f"{block}.experts.5.{matrix}.weight"] for matrix in ("w1", "w3"))
    assert gate.target == up.target == "blocks.1.feed_forward.experts.gate_up"
    assert (gate.part, up.part) == ((5, slice(None, 24)), (5, slice(24, None)))
    assert pieces[f"{block}.experts.5.w2.weight"].part == (5,)
    assert pieces[f"{block}.gate.weight"].target == "blocks.1.feed_forward.router.gate.weight"


def test_the_marker_of_stacked_experts_is_in_the_first_sparse_layer(make_config):
    config = make_config(**MODELS["qwen2_moe"])
    assert fused_marker(config) == "model.layers.1.mlp.experts.gate_up_proj"
    for is_fused in (False, True):
        names = {piece.name for piece in pieces_of(config, FAMILIES["qwen2_moe"], is_fused=is_fused)}
        assert (fused_marker(config) in names) == is_fused
    assert fused_marker(make_config(dense_layers=(0, 1), dense_width=8)) is None
