"""Which modules of a transformers model are MoE layers."""

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from workbench.model.host.layers import find_layers


def test_layers_say_how_many_experts_they_have_and_how_large_one_is(plain):
    layers = find_layers(plain("gpt_oss"))
    assert [layer.name for layer in layers] == [f"model.layers.{n}.mlp.experts" for n in range(3)]
    assert layers[0].num_experts == 12
    shapes = {name: tuple(shape) for name, shape in layers[0].shapes.items()}
    assert shapes == {
        "gate_up_proj": (32, 48),
        "gate_up_proj_bias": (48,),
        "down_proj": (24, 32),
        "down_proj_bias": (32,),
    }


def test_a_family_with_experts_of_its_own_names_them():
    import pytest
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "llama", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=11
    )
    model = AutoModelForCausalLM.from_config(config)
    model.experts = LlamaForCausalLM(LlamaConfig(**config.to_diff_dict())).model.layers[0].mlp
    with pytest.raises(ValueError, match="has experts of another form: LlamaMLP"):
        find_layers(model)
