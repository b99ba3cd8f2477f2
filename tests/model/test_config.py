import json

import pytest

from workbench.core import Spec
from workbench.model.config import PRESETS, ModelConfig, preset
from workbench.model.transformer import Transformer


def test_a_configuration_survives_json(make_config):
    router = Spec("top_k", {"top_k": 3, "renormalise": False})
    config = make_config(
        router=router, dense_layers=(1,), dense_width=40, clip_qkv=2.5, qk_norm="width", shared_width=8
    )
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_dense_blocks_are_left_out_of_the_moe_layers(make_config):
    config = make_config(num_layers=5, dense_layers=(0, 3), dense_width=8)
    assert config.moe_layers == (1, 2, 4)


def test_another_router_changes_nothing_else(make_config):
    config = make_config()
    changed = config.with_router(Spec("switch"))
    assert changed.router == Spec("switch")
    assert changed.with_router(config.router) == config


@pytest.mark.parametrize(("name", "millions"), [("tiny", 2.3), ("small", 27.0), ("base", 209.8)])
def test_presets_have_the_size_they_are_known_for(name, millions):
    total = Transformer(preset(name)).num_parameters() / 1e6
    assert abs(total - millions) / millions < 0.01, total


def test_the_reference_is_that_of_the_issue():
    small = preset("small")
    shape = (small.width, small.num_layers, small.num_experts, small.expert_width, small.router)
    assert shape == (256, 4, 16, 512, Spec("top_k"))


def test_an_unknown_preset_is_named_with_those_that_exist():
    with pytest.raises(
        LookupError, match=r"no model preset 'smal' \(did you mean 'small'\?\); presets: tiny, small, base"
    ):
        preset("smal")
    assert set(PRESETS) == {"tiny", "small", "base"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"num_kv_heads": 3}, "num_heads must be a multiple of num_kv_heads, got 4 and 3"),
        ({"head_dim": 7}, "head_dim must be even for rotary positions, got 7"),
        ({"dense_layers": (2,), "dense_width": 8}, r"dense_layers must lie in 0\.\.1, got \[2\]"),
        ({"dense_layers": (0,)}, "dense_width must be at least 1, got 0; dense_layers need an MLP width"),
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"expert_width": 0}, "expert_width must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make_config, changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_json(make_config().to_json() | changes)


def test_an_unknown_norm_is_refused(make_config):
    config = make_config()
    object.__setattr__(config, "qk_norm", "heads")  # past the shape checks, which only the tests have
    with pytest.raises(
        ValueError, match=r"qk_norm must be one of none, head, width; got 'heads' \(did you mean 'head'"
    ):
        config.__post_init__()


def test_a_saved_field_that_is_unknown_or_missing_is_named(make_config):
    data = make_config().to_json()
    with pytest.raises(ValueError, match=r"unknown model field 'num_expert' \(did you mean 'num_experts'\?\)"):
        ModelConfig.from_json(data | {"num_expert": 4})
    del data["head_dim"], data["router"]
    with pytest.raises(
        ValueError, match="the model configuration lacks head_dim, router; it was saved by another version"
    ):
        ModelConfig.from_json(data)


def test_html_shows_the_shape_and_the_router(make_config):
    html = make_config()._repr_html_()
    assert "num_experts" in html and "top_k:top_k=2" in html and "clip_qkv" not in html
