"""Grouped-query attention, with its norm and its residual."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from workbench.model.config import ModelConfig
from workbench.model.kv_cache import KVCache
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.model.packing import Packing
from workbench.model.rope import Rotation, rotate

__all__ = ["AttentionLayer"]


class AttentionLayer(nn.Module):
    """stream + attention(norm(stream)), over packed tokens.

    Args:
        config: the model's shape.
        index: index of the block.
    """

    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        self.clip_qkv = config.clip_qkv
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.query = Linear(config.width, queries, bias=config.attention_bias)
        self.key = Linear(config.width, keys, bias=config.attention_bias)
        self.value = Linear(config.width, keys, bias=config.attention_bias)
        self.output = Linear(queries, config.width)
        widths = {"head": (config.head_dim, config.head_dim), "width": (queries, keys)}.get(config.qk_norm)
        self.norms_whole_width = config.qk_norm == "width"
        self.query_norm = None if widths is None else RMSNorm(widths[0], eps=config.norm_eps)
        self.key_norm = None if widths is None else RMSNorm(widths[1], eps=config.norm_eps)

    def forward(
        self, stream: Float[Tensor, "T D"], packing: Packing, turn: Rotation, cache: KVCache | None
    ) -> tuple[Float[Tensor, "T D"], "Callable[..., tuple[Tensor, Tensor]]"]:
        """The stream after attention, and the attention itself for routers that read it."""
        x = self.norm(stream)
        query = rotate(self._heads(self.query(x), self.query_norm), turn)
        key = rotate(self._heads(self.key(x), self.key_norm), turn)
        value = self._heads(self.value(x), None)
        keys, values = (self._past(part, packing, cache, name) for part, name in ((key, "key"), (value, "value")))
        allowed = allowed_columns(packing, cache)
        mixed = scaled_dot_product_attention(
            packing.pad(query).transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=allowed,
            is_causal=allowed is None and packing.length > 1,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        out = self.output(packing.pack(mixed.transpose(1, 2)).flatten(1))
        return stream + out, self._reader(query, key, packing, cache)

    def _heads(self, x: Float[Tensor, "T W"], norm: RMSNorm | None) -> Float[Tensor, "T H Q"]:
        if norm is not None and self.norms_whole_width:
            x = norm(x)
        if self.clip_qkv is not None:
            x = x.clamp(-self.clip_qkv, self.clip_qkv)
        heads: Tensor = x.unflatten(-1, (-1, self.head_dim))  # type: ignore[no-untyped-call]
        if norm is not None and not self.norms_whole_width:
            heads = norm(heads)
        return heads

    def _past(
        self, new: Float[Tensor, "T H Q"], packing: Packing, cache: KVCache | None, name: str
    ) -> Float[Tensor, "B P H Q"]:
        padded = packing.pad(new)
        return padded if cache is None else cache.extend((self.index, name), padded)

    def _reader(
        self, query: Tensor, key: Tensor, packing: Packing, cache: KVCache | None
    ) -> "Callable[..., tuple[Tensor, Tensor]]":
        def attend(
            values: Tensor,
            own_query: Tensor | None = None,
            own_key: Tensor | None = None,
            *,
            place: tuple[int, bool] = (0, False),
        ) -> tuple[Tensor, Tensor]:
            q, k = (query, key) if own_query is None or own_key is None else (own_query, own_key)
            # under autocast the layer's are bfloat16, and a router's values are float32.
            q, k = q.to(values.dtype), k.to(values.dtype)
            memory = torch.cat((values, k.flatten(1)), dim=-1)
            columns = packing.pad(memory)
            if cache is not None:
                columns = cache.extend((self.index, "router", *place), columns)
            past_values, past_keys = columns.tensor_split([values.shape[-1]], dim=-1)
            allowed = allowed_columns(packing, cache)
            mixed = scaled_dot_product_attention(
                packing.pad(q).transpose(1, 2),
                past_keys.reshape(*past_keys.shape[:2], *k.shape[1:]).transpose(1, 2),
                past_values.unsqueeze(1).expand(-1, k.shape[1], -1, -1),
                attn_mask=allowed,
                is_causal=allowed is None and packing.length > 1,
                enable_gqa=k.shape[1] != q.shape[1],
            )
            return packing.pack(mixed.transpose(1, 2)), memory

        return attend


def allowed_columns(packing: Packing, cache: KVCache | None) -> Bool[Tensor, "B 1 S P"] | None:
    """Which columns each column may look at; None for plain causal attention or a free single query."""
    if cache is None:
        real, total = packing.mask, packing.length
    else:
        real, total = cache.mask(), cache.length
        if bool(real.all()):
            real = None
    if real is None and (total == packing.length or packing.length == 1):
        return None
    device = packing.position.device
    rows = torch.arange(total - packing.length, total, device=device).unsqueeze(-1)
    columns = torch.arange(total, device=device)
    causal = columns <= rows
    if real is None:
        return causal.expand(packing.batch, 1, -1, -1)
    # a padded query looks at itself: a row without any column would be NaN and spoil the gradients.
    return ((causal & real.unsqueeze(1)) | (columns == rows)).unsqueeze(1)
