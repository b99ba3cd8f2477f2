"""Four Hugging Face families as data: what each calls our fields, and what it fixes."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family writes our models.

    A field here is a field of `ModelConfig` or an argument of the `top_k` router.

    Args:
        title: name for people.
        architecture: transformers' class.
        keys: our field to its key in `config.json`.
        fixed: our field to the only value that the family has.
        constants: further keys of `config.json`, with the value that means what our model does.
        rope_theta: base of the rotary frequencies where `config.json` gives none.
        has_whole_heads: whether the heads together must be as wide as the model.
        block: name of a layer's sparse part where experts are stored one by one.
        matrices: names of an expert's gate, up and down matrices there.
    """

    title: str
    architecture: str
    keys: Mapping[str, str]
    fixed: Mapping[str, object]
    constants: Mapping[str, object]
    rope_theta: float = 10_000.0
    has_whole_heads: bool = False
    block: str = "mlp"
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


_KEYS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "max_positions": "max_position_embeddings",
    "top_k": "num_experts_per_tok",
    "balance": "router_aux_loss_coef",
}

_FIXED = {"score": "softmax", "groups": 1, "selection_bias": False, "scale": 1.0, "iterations": 1, "wiring": "residual"}
_UNSHARED = {"shared_width": 0, "shared_gate": False}

FAMILIES: Mapping[str, Family] = {
    "mixtral": Family(
        title="Mixtral",
        architecture="MixtralForCausalLM",
        keys=_KEYS | {"num_experts": "num_local_experts", "expert_width": "intermediate_size"},
        fixed=_FIXED
        | _UNSHARED
        | {"renormalise": True, "qk_norm": "none", "attention_bias": False, "clip_qkv": None, "dense_layers": ()},
        constants={"sliding_window": None},
        rope_theta=1_000_000.0,
        block="block_sparse_moe",
        matrices=("w1", "w3", "w2"),
    ),
    "olmoe": Family(
        title="OLMoE",
        architecture="OlmoeForCausalLM",
        keys=_KEYS
        | {
            "num_experts": "num_experts",
            "expert_width": "intermediate_size",
            "renormalise": "norm_topk_prob",
            "clip_qkv": "clip_qkv",
        },
        fixed=_FIXED | _UNSHARED | {"qk_norm": "width", "attention_bias": False, "dense_layers": ()},
        constants={"attention_bias": False},
        has_whole_heads=True,
    ),
    "qwen2_moe": Family(
        title="Qwen2-MoE",
        architecture="Qwen2MoeForCausalLM",
        keys=_KEYS
        | {
            "num_experts": "num_experts",
            "expert_width": "moe_intermediate_size",
            "renormalise": "norm_topk_prob",
            "dense_layers": "mlp_only_layers",
            "dense_width": "intermediate_size",
            "shared_width": "shared_expert_intermediate_size",
            "attention_bias": "qkv_bias",
        },
        fixed=_FIXED | {"qk_norm": "none", "clip_qkv": None, "shared_gate": True},
        constants={"decoder_sparse_step": 1, "use_sliding_window": False},
    ),
    "qwen3_moe": Family(
        title="Qwen3-MoE",
        architecture="Qwen3MoeForCausalLM",
        keys=_KEYS
        | {
            "num_experts": "num_experts",
            "expert_width": "moe_intermediate_size",
            "renormalise": "norm_topk_prob",
            "dense_layers": "mlp_only_layers",
            "dense_width": "intermediate_size",
        },
        fixed=_FIXED | _UNSHARED | {"qk_norm": "head", "attention_bias": False, "clip_qkv": None},
        constants={"decoder_sparse_step": 1, "use_sliding_window": False, "attention_bias": False},
    ),
}
