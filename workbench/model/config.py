"""The model's configuration: everything that a checkpoint must remember of its architecture."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from workbench.core.check import at_least, did_you_mean, one_of, within
from workbench.core.html import facts
from workbench.core.spec import Spec

__all__ = ["PRESETS", "ModelConfig", "preset"]

QKNorm = Literal["none", "head", "width"]
Wiring = Literal["residual", "chain", "chain_stream"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder-only MoE transformer.

    Args:
        vocab_size: entries of the vocabulary V.
        width: model width D.
        num_layers: blocks, MoE and dense together.
        num_heads: query heads; `num_kv_heads` divides it.
        head_dim: width of one head.
        num_experts: experts E of each MoE layer.
        expert_width: hidden width F of one expert.
        router: the router of every MoE layer.
        shared_width: hidden width of the always-on shared expert, 0 for none.
        shared_gate: scale the shared expert's output by the sigmoid of a learned score.
        iterations: passes through the same experts in each MoE layer, each with a router of its own.
        wiring: how a layer's experts meet the stream, see `MoELayer`.
        dense_layers: indices of blocks with a dense MLP of `dense_width` instead of experts.
        qk_norm: normalise queries and keys per `head` (Qwen3), over the whole `width` (OLMoE), or not.
        attention_bias: biases on the query, key and value projections.
        clip_qkv: clamp queries, keys and values to this absolute value; None for no clamp.
        norm_eps: added to the mean square in RMSNorm.
        rope_theta: base of the rotary frequencies.
        tie_embeddings: one matrix for the input and the output vocabulary.
        max_positions: longest sequence the model was made for [tokens].

    Raises:
        ValueError: sizes that do not fit each other.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    expert_width: int
    router: Spec = field(default_factory=lambda: Spec("top_k"))
    shared_width: int = 0
    shared_gate: bool = False
    iterations: int = 1
    wiring: Wiring = "residual"
    dense_layers: tuple[int, ...] = ()
    dense_width: int = 0
    qk_norm: QKNorm = "head"
    attention_bias: bool = False
    clip_qkv: float | None = None
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    tie_embeddings: bool = True
    max_positions: int = 2048

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            at_least(name, getattr(self, name), 1)
        one_of("qk_norm", self.qk_norm, ("none", "head", "width"))
        one_of("wiring", self.wiring, ("residual", "chain", "chain_stream"))
        at_least("iterations", self.iterations, 1)
        if self.iterations > 1 and self.wiring == "residual":
            raise ValueError(
                f'iterations={self.iterations} needs wiring="chain" or "chain_stream", got "residual"; '
                "one of these says what happens to the stream between the passes"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, got {self.num_heads} and {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        wrong = [index for index in self.dense_layers if not 0 <= index < self.num_layers]
        if wrong:
            raise ValueError(f"dense_layers must lie in 0..{self.num_layers - 1}, got {wrong}")
        if self.dense_layers:
            at_least("dense_width", self.dense_width, 1, hint="dense_layers need an MLP width")
        if self.moe_layers:
            at_least("num_experts", self.num_experts, 1)
            at_least("expert_width", self.expert_width, 1)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Blocks whose feed-forward part is experts; their order is the MoE layer index."""
        return tuple(index for index in range(self.num_layers) if index not in self.dense_layers)

    def with_router(self, router: Spec) -> "ModelConfig":
        """The same model with another router."""
        return replace(self, router=router)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return {**asdict(self), "router": self.router.to_json(), "dense_layers": list(self.dense_layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ModelConfig":
        """The configuration saved by `to_json`.

        Raises:
            ValueError: a field that this version does not know, or one that is missing.
        """
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise ValueError(f"unknown model field {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
        missing = [f.name for f in fields(cls) if f.name not in data]
        if missing:
            raise ValueError(f"the model configuration lacks {', '.join(missing)}; it was saved by another version")
        plain = dict(data)
        return cls(**{**plain, "router": Spec.from_json(plain["router"]), "dense_layers": tuple(plain["dense_layers"])})

    def _repr_html_(self) -> str:
        rows = {key: value for key, value in self.to_json().items() if value not in (0, False, None, [])}
        return facts("ModelConfig", {**rows, "router": str(self.router)})


def _tiny() -> ModelConfig:
    return ModelConfig(
        vocab_size=4096,
        width=128,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        num_experts=8,
        expert_width=128,
    )


def _small() -> ModelConfig:
    return ModelConfig(
        vocab_size=4096,
        width=256,
        num_layers=4,
        num_heads=8,
        num_kv_heads=4,
        head_dim=32,
        num_experts=16,
        expert_width=512,
    )


def _base() -> ModelConfig:
    return ModelConfig(
        vocab_size=4096,
        width=512,
        num_layers=8,
        num_heads=8,
        num_kv_heads=4,
        head_dim=64,
        num_experts=16,
        expert_width=1024,
    )


PRESETS = {"tiny": _tiny, "small": _small, "base": _base}


def preset(name: str) -> ModelConfig:
    """The configuration of a preset: `tiny`, `small` (the reference) or `base`.

    Fields may be changed, as in `tiny:num_experts=16,expert_width=64`.
    `post_moe=2` puts experts in the last two blocks only; the others get a dense MLP of `dense_width`, by
    default that of two experts (Post-MoE of arXiv 2410.10626, without the forced language slot).

    Raises:
        LookupError: no such preset.
        ValueError: an unknown field, or values that do not fit.
    """
    asked = Spec.parse(name)
    if asked.name not in PRESETS:
        raise LookupError(
            f"no model preset {asked.name!r}{did_you_mean(asked.name, PRESETS)}; presets: {', '.join(PRESETS)}, "
            "or give a folder with a checkpoint"
        )
    config, changes = PRESETS[asked.name](), dict(asked.args)
    if "post_moe" in changes:
        last = changes.pop("post_moe")
        within("post_moe", last, 1, config.num_layers)
        changes.setdefault("dense_width", 2 * changes.get("expert_width", config.expert_width))
        changes["dense_layers"] = tuple(range(config.num_layers - last))
    known = [f.name for f in fields(config) if f.name != "router"]
    for field_name in changes:
        if field_name not in known:
            raise ValueError(
                f"model preset {asked.name} has no field {field_name!r}{did_you_mean(field_name, known)}; "
                f"it has post_moe, {', '.join(known)}"
            )
        _check_type(field_name, changes[field_name], getattr(config, field_name))
    return replace(config, **changes)


def _check_type(name: str, value: object, example: object) -> None:
    allowed = (int, float) if isinstance(example, float) else (type(example),)
    if example is not None and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        raise ValueError(f"{name} must be {type(example).__name__}, got {value!r}")
