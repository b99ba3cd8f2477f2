"""config.json of transformers 4 and 5 to our configuration and back, and what is refused."""

from typing import Any

import pytest

from workbench.core import Spec
from workbench.model.families import FAMILIES
from workbench.model.hugging_face import family_of, read_config, write_config

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "num_experts_per_tok": 2,
    "rope_theta": 5000.0,
}
SOURCES: dict[str, dict[str, Any]] = {
    "mixtral": {**SHAPE, "num_local_experts": 8, "intermediate_size": 48},
    "olmoe": {**SHAPE, "num_experts": 8, "intermediate_size": 48},
    "qwen2_moe": {**SHAPE, "num_experts": 8, "moe_intermediate_size": 24, "intermediate_size": 48}
    | {"shared_expert_intermediate_size": 40},
    "qwen3_moe": {**SHAPE, "num_experts": 8, "moe_intermediate_size": 24, "intermediate_size": 48, "head_dim": 16},
}


def source_of(name: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": name, **SOURCES[name], **changes}


def test_the_families_differ_in_what_they_are_known_for():
    read = {name: read_config(source_of(name)) for name in FAMILIES}
    assert {n: c.qk_norm for n, c in read.items()} == {
        "mixtral": "none",
        "olmoe": "width",
        "qwen2_moe": "none",
        "qwen3_moe": "head",
    }
    assert [n for n, c in read.items() if c.attention_bias] == ["qwen2_moe"]
    assert [n for n, c in read.items() if c.shared_width and c.shared_gate] == ["qwen2_moe"]
    assert [n for n, c in read.items() if c.router.args["renormalise"]] == ["mixtral"]
    assert {n: c.head_dim for n, c in read.items()} == {"mixtral": 8, "olmoe": 8, "qwen2_moe": 8, "qwen3_moe": 16}
    assert {n: c.expert_width for n, c in read.items()} == {
        "mixtral": 48,
        "olmoe": 48,
        "qwen2_moe": 24,
        "qwen3_moe": 24,
    }


def test_the_router_is_top_k_with_the_familys_arguments():
    source = source_of("qwen3_moe", num_experts_per_tok=4, norm_topk_prob=True, router_aux_loss_coef=0.02)
    assert read_config(source).router == Spec("top_k", {"top_k": 4, "renormalise": True, "balance": 0.02})


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({}, 5000.0),
        ({"rope_theta": 20_000}, 20_000.0),
        ({"rope_scaling": None}, 5000.0),
        ({"rope_parameters": {"rope_theta": 77.0, "rope_type": "default"}}, 77.0),
        ({"rope_scaling": {"type": "default"}}, 5000.0),
    ],
)
def test_both_spellings_of_the_rotary_base_are_read(changes, theta):
    assert read_config(source_of("qwen3_moe", **changes)).rope_theta == theta


def test_a_missing_rotary_base_is_that_of_the_family():
    bare = {name: {k: v for k, v in source_of(name).items() if k != "rope_theta"} for name in FAMILIES}
    assert {name: read_config(source).rope_theta for name, source in bare.items()} == {
        "mixtral": 1e6,
        "olmoe": 1e4,
        "qwen2_moe": 1e4,
        "qwen3_moe": 1e4,
    }


def test_both_spellings_of_the_number_of_experts_are_read():
    source = source_of("qwen3_moe")
    source["num_local_experts"] = source.pop("num_experts")
    assert read_config(source) == read_config(source_of("qwen3_moe"))


@pytest.mark.parametrize(
    ("changes", "dense"),
    [
        ({"mlp_only_layers": [0, 3]}, (0, 3)),
        ({"decoder_sparse_step": 2}, (0, 2)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, (0, 1, 2)),
        ({"mlp_only_layers": None}, ()),
    ],
)
@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe"])
def test_dense_layers_are_listed_or_come_in_steps(name, changes, dense):
    assert read_config(source_of(name, **changes)).dense_layers == dense


def test_key_heads_left_open_are_as_many_as_query_heads():
    assert read_config(source_of("olmoe", num_key_value_heads=None)).num_kv_heads == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_reads_back_the_same(name):
    for changes in ({}, {"tie_word_embeddings": True, "num_experts_per_tok": 3, "router_aux_loss_coef": 0.5}):
        config = read_config(source_of(name, **changes))
        family, written = write_config(config)
        assert family is FAMILIES[name] and written["model_type"] == name
        assert read_config(written) == config


def test_an_option_of_ours_that_amounts_to_the_same_is_written(make_config):
    args = {"top_k": 3, "score": "softmax_chosen", "renormalise": False, "z": 0.1}
    _, written = write_config(make_config(router=Spec("top_k", args)))
    assert (written["num_experts_per_tok"], written["norm_topk_prob"]) == (3, True)
    _, written = write_config(make_config(shared_gate=True))
    assert written["model_type"] == "qwen3_moe"


def test_arguments_left_out_have_the_routers_defaults(make_config):
    _, written = write_config(make_config(router=Spec("top_k")))
    keys = ("num_experts_per_tok", "norm_topk_prob", "router_aux_loss_coef")
    assert [written[key] for key in keys] == [2, True, 0.01]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"router": Spec("expert_choice")}, ["router 'expert_choice' has no Hugging Face form", "swap to top_k"]),
        ({"router": Spec("top_k", {"score": "sigmoid"})}, ["Qwen3-MoE: score must be 'softmax', got 'sigmoid'"]),
        ({"router": Spec("top_k", {"scale": 2.5})}, ["Mixtral: scale must be 1.0, got 2.5"]),
        (
            {"router": Spec("top_k", {"selection_bias": True, "groups": 2})},
            ["OLMoE: groups must be 1, got 2, selection_bias must be False, got True"],
        ),
        ({"shared_width": 8}, ["Qwen2-MoE: qk_norm must be 'none', got 'head', shared_gate must be True, got False"]),
        ({"qk_norm": "width", "head_dim": 16}, ["OLMoE: num_heads * head_dim must be width=32, got 64"]),
        ({"qk_norm": "width", "dense_layers": (0,), "dense_width": 8}, ["OLMoE: dense_layers must be (), got (0,)"]),
        (
            {"qk_norm": "none", "router": Spec("top_k", {"renormalise": False})},
            ["Mixtral: renormalise must be True, got False", "Qwen2-MoE: shared_gate must be True", "got 0"],
        ),
    ],
)
def test_a_model_no_family_can_express_is_refused_with_the_reasons(make_config, changes, reasons):
    with pytest.raises(ValueError) as caught:
        write_config(make_config(**changes))
    message = str(caught.value)
    assert [reason for reason in reasons if reason not in message] == []
    assert "save_model" in message


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mixtral", {"sliding_window": 128}, "uses a sliding window of 128 tokens, which is not supported"),
        ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 128}, "a sliding window of 128 tokens"),
        ("olmoe", {"hidden_act": "gelu"}, "uses hidden_act='gelu', which is not supported; only 'silu' is"),
        ("olmoe", {"attention_bias": True}, "uses attention_bias=True"),
        ("qwen3_moe", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "uses rope_type 'yarn'"),
        ("qwen3_moe", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "uses rope_type 'linear'"),
        ("qwen3_moe", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one base for all layers"),
        ("qwen3_moe", {"partial_rotary_factor": 0.5}, "uses partial_rotary_factor=0.5"),
        ("mixtral", {"quantization_config": {"quant_method": "gptq"}}, "uses quantization_config="),
    ],
)
def test_an_option_we_cannot_honour_is_refused_with_the_families(name, changes, message):
    with pytest.raises(ValueError) as caught:
        read_config(source_of(name, **changes))
    assert message in str(caught.value)
    assert "Supported are Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixtral", {"sliding_window": 512}),
        ("qwen3_moe", {"use_sliding_window": False, "sliding_window": 128}),
        ("qwen3_moe", {"sliding_window": 128}),
        ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 128, "layer_types": ["full_attention"] * 4}),
    ],
)
def test_a_window_that_is_off_or_as_long_as_any_sequence_is_no_obstacle(name, changes):
    assert read_config(source_of(name, **changes)) == read_config(source_of(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "32"}, "hidden_size must be int, got '32'"),
        ({"num_experts": True}, "num_experts must be int, got True"),
        ({"norm_topk_prob": 1}, "norm_topk_prob must be bool, got 1"),
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"rope_scaling": "yarn"}, "rope_parameters must be an object, got 'yarn'"),
        ({"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_config(source_of("qwen2_moe", **changes))


def test_a_missing_size_is_named():
    source = source_of("qwen2_moe")
    del source["moe_intermediate_size"]
    with pytest.raises(ValueError, match=r"config.json lacks 'moe_intermediate_size'; copy it again from its source"):
        read_config(source)


@pytest.mark.parametrize(
    ("kind", "hint"), [("qwen2_mo", r" \(did you mean 'qwen2_moe'\?\)"), ("llama", ""), (None, "")]
)
def test_another_architecture_is_refused_with_the_families(kind, hint):
    message = (
        rf"model_type {kind!r} is not supported{hint}; the families are Mixtral \(mixtral\), OLMoE \(olmoe\), "
        r"Qwen2-MoE \(qwen2_moe\), Qwen3-MoE \(qwen3_moe\)"
    )
    with pytest.raises(ValueError, match=message):
        family_of({"model_type": kind})
