"""Tiny checkpoints of many families, written by transformers, and experts that are read from them piece by piece."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    # more than ten: expert 10 sorts before expert 2 where names are compared as text.
    "num_experts": 12,
    "num_local_experts": 12,
    "n_routed_experts": 12,
    "moe_num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_k": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "olmoe": {"tie_word_embeddings": True, "norm_topk_prob": False},
    "flex_olmo": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 2},
    "qwen3_moe": {"head_dim": 8, "mlp_only_layers": [1]},
    "deepseek_v2": {**LATENT, "num_key_value_heads": 4, "topk_method": "group_limited_greedy"},
    "deepseek_v3": {**LATENT, "num_key_value_heads": 4},
    "gpt_oss": {
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "glm4_moe": {"head_dim": 8},
    "phimoe": {},
    "ernie4_5_moe": {},
    "dots1": {"head_dim": 8},
    "granitemoe": {},
    "minimax": {"layer_types": ["full_attention"] * 3, "head_dim": 8},
}
# one each of: experts stored one by one, stacked and interleaved with biases, dense layers and a sigmoid.
QUICK = ("olmoe", "gpt_oss", "deepseek_v3")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a `family` runs over all; beyond three it is slow."""
    if "family" in metafunc.fixturenames:
        marks = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
        metafunc.parametrize("family", marks)


@pytest.fixture(scope="session")
def plain() -> Callable[..., Any]:
    """transformers' own model of a family, with weights of the size of trained ones, computing eagerly."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(family: str, dtype: torch.dtype = torch.float32) -> Any:
        torch.manual_seed(0)
        known = AutoConfig.for_model(family)
        fields = {name: value for name, value in COMMON.items() if name in known.to_dict() or name in vars(known)}
        config = AutoConfig.for_model(family, **(fields | FAMILIES[family]))
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, experts_implementation="eager").eval()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() > 1:
                nn.init.normal_(tensor, std=1.5 * tensor.shape[-1] ** -0.5)
            elif name.endswith(("bias", "e_score_correction_bias")):
                nn.init.normal_(tensor, std=0.2)
        model.tie_weights()
        return model

    return build


@pytest.fixture(scope="session")
def folder(plain, tmp_path_factory) -> Callable[..., Path]:
    """The folder that transformers writes for a family; written once, not to be changed."""
    written: dict[tuple[str, torch.dtype], Path] = {}

    def write(family: str, dtype: torch.dtype = torch.float32) -> Path:
        if (family, dtype) not in written:
            written[family, dtype] = tmp_path_factory.mktemp(family)
            plain(family, dtype).save_pretrained(written[family, dtype])
        return written[family, dtype]

    return write


class Forward(nn.Module):
    """The experts class's own computation, under another set of tensors."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return inspect.unwrap(type(self.experts).forward)(self.experts, *args)


@pytest.fixture(scope="session")
def from_disk() -> Callable[..., Any]:
    """A plug that computes eagerly with experts read from the files, one by one, for each call."""
    from workbench.model.host import expert_pieces, read_expert
    from workbench.model.tensor_files import TensorFiles

    def build(path: Path, dtype: torch.dtype = torch.float32) -> Any:
        pieces = expert_pieces(path)

        def plug(layer, hidden, expert, weight, module):
            numbers = sorted(key.expert for key in pieces if key.layer == layer)
            with TensorFiles(path) as files:
                read = [read_expert(files, pieces[layer, number]) for number in numbers]
            stacked = {f"experts.{name}": torch.stack([one[name] for one in read]).to(dtype) for name in read[0]}
            return torch.func.functional_call(Forward(module), stacked, (hidden, expert, weight))

        return plug

    return build


@pytest.fixture(scope="session")
def token_ids() -> torch.Tensor:
    """Two texts of 13 tokens."""
    return torch.randint(3, 61, (2, 13), generator=torch.Generator().manual_seed(1))
