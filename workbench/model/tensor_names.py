"""Names of the families' tensors, each with the part of our state that it is."""

from collections.abc import Iterator

from workbench.model.config import ModelConfig
from workbench.model.families import Family
from workbench.model.pieces import Piece

__all__ = ["fused_marker", "pieces_of"]

_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


def fused_marker(config: ModelConfig) -> str | None:
    """A tensor that is there if and only if the experts of a layer are stored as one stacked tensor."""
    return f"model.layers.{config.moe_layers[0]}.mlp.experts.gate_up_proj" if config.moe_layers else None


def pieces_of(config: ModelConfig, family: Family, *, is_fused: bool) -> Iterator[Piece]:
    """Every tensor of a checkpoint.

    Args:
        is_fused: experts stacked, as transformers 5 holds them, instead of one by one, as published.
    """
    yield Piece("model.embed_tokens.weight", "embedding.weight")
    for index in range(config.num_layers):
        layer, block = f"model.layers.{index}", f"blocks.{index}"
        yield from _attention(config, layer, f"{block}.attention")
        yield Piece(f"{layer}.post_attention_layernorm.weight", f"{block}.feed_forward.norm.weight")
        if index in config.dense_layers:
            yield from _mlp(f"{layer}.mlp", f"{block}.feed_forward.mlp", config.dense_width)
        else:
            name = f"{layer}.{'mlp' if is_fused else family.block}"
            yield from _sparse(config, family, name, f"{block}.feed_forward", is_fused)
    yield Piece("model.norm.weight", "norm.weight")
    if not config.tie_embeddings:
        yield Piece("lm_head.weight", "head.weight")


def _attention(config: ModelConfig, layer: str, ours: str) -> Iterator[Piece]:
    yield Piece(f"{layer}.input_layernorm.weight", f"{ours}.norm.weight")
    for part, theirs in _PROJECTIONS.items():
        yield Piece(f"{layer}.self_attn.{theirs}.weight", f"{ours}.{part}.weight")
        if config.attention_bias and part != "output":
            yield Piece(f"{layer}.self_attn.{theirs}.bias", f"{ours}.{part}.bias")
    if config.qk_norm != "none":
        yield Piece(f"{layer}.self_attn.q_norm.weight", f"{ours}.query_norm.weight")
        yield Piece(f"{layer}.self_attn.k_norm.weight", f"{ours}.key_norm.weight")


def _sparse(config: ModelConfig, family: Family, name: str, ours: str, is_fused: bool) -> Iterator[Piece]:
    yield Piece(f"{name}.gate.weight", f"{ours}.router.gate.weight")
    if is_fused:
        yield Piece(f"{name}.experts.gate_up_proj", f"{ours}.experts.gate_up")
        yield Piece(f"{name}.experts.down_proj", f"{ours}.experts.down")
    else:
        yield from _expert_by_expert(config, family, f"{name}.experts", f"{ours}.experts")
    if config.shared_width:
        yield from _mlp(f"{name}.shared_expert", f"{ours}.shared", config.shared_width)
    if config.shared_width and config.shared_gate:
        yield Piece(f"{name}.shared_expert_gate.weight", f"{ours}.shared_gate.weight")


def _expert_by_expert(config: ModelConfig, family: Family, name: str, ours: str) -> Iterator[Piece]:
    gate, up, down = family.matrices
    for expert in range(config.num_experts):
        yield Piece(f"{name}.{expert}.{gate}.weight", f"{ours}.gate_up", (expert, slice(None, config.expert_width)))
        yield Piece(f"{name}.{expert}.{up}.weight", f"{ours}.gate_up", (expert, slice(config.expert_width, None)))
        yield Piece(f"{name}.{expert}.{down}.weight", f"{ours}.down", (expert,))


def _mlp(name: str, ours: str, hidden: int) -> Iterator[Piece]:
    yield Piece(f"{name}.gate_proj.weight", f"{ours}.gate_up.weight", (slice(None, hidden),))
    yield Piece(f"{name}.up_proj.weight", f"{ours}.gate_up.weight", (slice(hidden, None),))
    yield Piece(f"{name}.down_proj.weight", f"{ours}.down.weight")
