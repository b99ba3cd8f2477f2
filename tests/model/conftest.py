"""Small models with weights large enough that a wrong one shows, and checkpoints that transformers writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from workbench.core import Spec
from workbench.model.config import ModelConfig
from workbench.model.transformer import Transformer

# transformers asks the hub for nothing here, and must not try.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SMALL = ModelConfig(
    vocab_size=97,
    width=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    num_experts=6,
    expert_width=24,
    router=Spec("top_k", {"top_k": 2}),
    max_positions=128,
)

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
QWEN = {"num_experts": 6, "moe_intermediate_size": 24}

# Between them: grouped and plain heads, tied and untied, a width of heads of its own, both values of every switch.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 6}),
    "mixtral-tied": (
        "Mixtral",
        {"num_local_experts": 4, "num_key_value_heads": 4, "head_dim": 16, "tie_word_embeddings": True}
        | {"num_experts_per_tok": 3, "rms_norm_eps": 1e-2, "router_aux_loss_coef": 0.02},
    ),
    "olmoe": ("Olmoe", {"num_experts": 6}),
    "olmoe-clipped": (
        "Olmoe",
        {"num_experts": 5, "norm_topk_prob": True, "clip_qkv": 0.75, "tie_word_embeddings": True}
        | {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}, "num_key_value_heads": None},
    ),
    "qwen2": ("Qwen2Moe", {**QWEN, "shared_expert_intermediate_size": 40}),
    "qwen2-dense": (
        "Qwen2Moe",
        {**QWEN, "shared_expert_intermediate_size": 16, "norm_topk_prob": True, "qkv_bias": False}
        | {"num_hidden_layers": 3, "decoder_sparse_step": 2, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3Moe", {**QWEN, "head_dim": 16, "norm_topk_prob": True}),
    "qwen3-dense": (
        "Qwen3Moe",
        {**QWEN, "mlp_only_layers": [0], "num_experts_per_tok": 4, "num_hidden_layers": 3, "tie_word_embeddings": True},
    ),
}


def enlarge(module: nn.Module, seed: int = 0) -> None:
    """Random weights of which none is small or special: norms differ from 1, biases from 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        inputs = parameter.shape[-1] if parameter.dim() > 1 else 1
        centre = 1.0 if parameter.dim() == 1 and not name.endswith("bias") else 0.0
        parameter.data.copy_(centre + noise * (1.5 / inputs**0.5 if inputs > 1 else 0.3))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors of this size a second thread costs more than it brings, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A block in which no file may grow beyond so many bytes: the kernel refuses, as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="limits on file sizes exist on Unix only")

    @contextmanager
    def limited(num_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def make_config() -> Callable[..., ModelConfig]:
    """A small configuration with some fields changed."""
    return lambda **changes: replace(SMALL, **changes)


@pytest.fixture(scope="session")
def make_model(make_config) -> Callable[..., Transformer]:
    """A small model with large weights; its fields may be changed, and its dtype."""

    def make(*, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Transformer:
        model = Transformer(make_config(**changes))
        enlarge(model, seed)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """The transformers model of a case, with large weights, computing in its plainest way."""
    # here, not above: the other tests of this folder do without it.
    import transformers

    def build(case: str) -> Any:
        family, options = CASES[case]
        config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
        config._attn_implementation = config._experts_implementation = "eager"
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        enlarge(model)
        model.tie_weights()
        return model

    return build


@pytest.fixture(scope="session")
def checkpoint(reference, tmp_path_factory) -> Callable[..., Path]:
    """The folder that transformers writes for a case; written once, not to be changed."""
    written: dict[str, Path] = {}

    def write(case: str) -> Path:
        if case not in written:
            written[case] = tmp_path_factory.mktemp(case)
            reference(case).save_pretrained(written[case])
        return written[case]

    return write
