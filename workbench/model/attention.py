"""Grouped-query attention, with its norm and its residual."""

from collections.abc import Callable, Sequence
from functools import cache as kept
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from workbench_kernels import AttentionWeights, TokenAttention, attention, linear

from workbench.model.config import ModelConfig
from workbench.model.kv_cache import KVCache
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.model.packing import Packing
from workbench.model.rope import Rotation, rotate

__all__ = ["AttentionLayer", "is_hooked"]

# not on the layer: what holds addresses must not be copied or saved with it.
_READY: WeakKeyDictionary[nn.Module, TokenAttention] = WeakKeyDictionary()


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
        if cache is not None and packing.length == 1 and packing.place is None:
            ready = self._ready()
            if ready is not None and ready.can_run(stream):
                return self._newest(ready, stream, packing, turn, cache)
        x = self.norm(stream)
        query, key, value = self._projected(x)
        query, key, value = (
            self._heads(query, self.query_norm),
            self._heads(key, self.key_norm),
            self._heads(value, None),
        )
        turned = kept(lambda: (rotate(query, turn), rotate(key, turn)))
        mixed = self._mixed(query, key, value, turned, packing, turn, cache)
        return stream + self.output(packing.pack(mixed).flatten(1)), self._reader(turned, packing, cache)

    def _projected(self, x: Float[Tensor, "T D"]) -> Sequence[Float[Tensor, "T W"]]:
        """Queries, keys and values; as one product where they learn, which reads and casts the tokens once."""
        weights = self.weights() if torch.is_grad_enabled() and self.query.bias is None else None
        if weights is None:
            return self.query(x), self.key(x), self.value(x)
        matrices = weights.query, weights.key, weights.value
        return linear(x, torch.cat(matrices)).split_with_sizes([len(matrix) for matrix in matrices], dim=-1)

    def _mixed(
        self,
        query: Float[Tensor, "T H Q"],
        key: Float[Tensor, "T G Q"],
        value: Float[Tensor, "T G Q"],
        turned: Callable[[], tuple[Tensor, Tensor]],
        packing: Packing,
        turn: Rotation,
        cache: KVCache | None,
    ) -> Float[Tensor, "B S H Q"]:
        """What every token gets from those before it; the cache, where there is one, gets what is new."""
        allowed = allowed_columns(packing, cache)
        is_whole = allowed is None and packing.length > 1
        if is_whole and cache is None:
            return attention(packing.pad(query), packing.pad(key), packing.pad(value), turn=turn)
        query, key = turned()
        keys, values = (self._past(part, packing, cache, name) for part, name in ((key, "key"), (value, "value")))
        if is_whole:
            return attention(packing.pad(query), keys, values)
        mixed = scaled_dot_product_attention(
            packing.pad(query).transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=allowed,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return mixed.transpose(1, 2)

    def _newest(
        self, ready: TokenAttention, stream: Float[Tensor, "B D"], packing: Packing, turn: Rotation, cache: KVCache
    ) -> tuple[Float[Tensor, "B D"], "Callable[..., tuple[Tensor, Tensor]]"]:
        """As `forward`, for one new token of every sequence, in one call."""
        column = stream.new_empty(len(stream), 1, *ready.column)
        keys, values = cache.room((self.index, "key"), column), cache.room((self.index, "value"), column)
        mask = cache.mask() if cache.has_padding else None
        out, query = ready(stream, keys, values, cosine=turn[0], sine=turn[1], length=cache.length, mask=mask)
        newest = query, keys[:, cache.length - 1]
        return out, self._reader(lambda: newest, packing, cache)

    def _ready(self) -> TokenAttention | None:
        """The layer as one call per token; None where a matrix was replaced or has a hook."""
        weights = self.weights()
        if weights is None:
            return None
        ready = _READY.get(self)
        if ready is None or ready.place != weights.place:
            ready = TokenAttention(weights, channels=self.head_dim, epsilon=self.norm.eps, clip=self.clip_qkv)
            _READY[self] = ready
        return ready

    def weights(self) -> AttentionWeights | None:
        """What it has learned; None where a matrix was replaced, or a part has a hook."""
        # past nn.Module's look-up by attribute, which is slower than all the rest of this.
        parts = self._modules
        matrices = [parts[name] for name in ("query", "key", "value", "output")]
        learned = [part._parameters for part in matrices if type(part) is Linear and not is_hooked(part)]
        if len(learned) < len(matrices):
            return None
        norms = [parts.get(name) for name in ("norm", "query_norm", "key_norm")]
        if any(norm is not None and is_hooked(norm) for norm in norms):
            return None
        gains: list[Any] = [None if norm is None else norm._parameters["weight"] for norm in norms]
        tensors: list[Any] = [*(one["weight"] for one in learned), *(one["bias"] for one in learned[:3])]
        return AttentionWeights(gains[0], *tensors, *gains[1:])

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
        self, turned: Callable[[], tuple[Tensor, Tensor]], packing: Packing, cache: KVCache | None
    ) -> "Callable[..., tuple[Tensor, Tensor]]":
        def attend(
            values: Tensor,
            own_query: Tensor | None = None,
            own_key: Tensor | None = None,
            *,
            place: tuple[int, bool] = (0, False),
        ) -> tuple[Tensor, Tensor]:
            q, k = turned() if own_query is None or own_key is None else (own_query, own_key)
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


def is_hooked(part: nn.Module) -> bool:
    """Whether somebody listens to a module."""
    return bool(part._forward_hooks or part._forward_pre_hooks)


def allowed_columns(packing: Packing, cache: KVCache | None) -> Bool[Tensor, "B 1 S P"] | None:
    """Which columns each column may look at; None for plain causal attention or a free single query."""
    if cache is None:
        real, total = packing.mask, packing.length
    else:
        real, total = cache.mask() if cache.has_padding else None, cache.length
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
