"""Attention of the newest token of a few sequences, from stream to stream, in one call: what decoding needs."""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench_kernels.backend import backend_of, tokens_of
from workbench_kernels.tracing import is_traced

__all__ = ["AttentionWeights", "TokenAttention"]

_MOST_SEQUENCES = 4


class AttentionWeights(NamedTuple):
    """What an attention layer has learned; matrices have a row per output, as in `torch.nn.Linear`.

    Args:
        gain: of the norm before the projections.
        query_gain: of a norm of the queries: as wide as a head, or as all heads together; with `key_gain`.
    """

    gain: Float[Tensor, "D"]
    query: Float[Tensor, "HQ D"]
    key: Float[Tensor, "GQ D"]
    value: Float[Tensor, "GQ D"]
    output: Float[Tensor, "D HQ"]
    query_bias: Float[Tensor, "HQ"] | None = None
    key_bias: Float[Tensor, "GQ"] | None = None
    value_bias: Float[Tensor, "GQ"] | None = None
    query_gain: Float[Tensor, "N"] | None = None
    key_gain: Float[Tensor, "M"] | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """Where the numbers lie and in which dtype; training in place does not change it."""
        return (self.query.dtype, *[None if one is None else one.data_ptr() for one in self])

    @property
    def is_plain(self) -> bool:
        """Whether the kernels can read them where they lie."""
        dtype, gains = self.query.dtype, [one for one in (self.gain, *self[8:]) if one is not None]
        return (
            all(one is None or (one.is_contiguous() and one.dtype == dtype) for one in self[1:8])
            and len({one.dtype for one in gains}) == 1
            and gains[0].dtype in (torch.float32, dtype)
            and all(one.is_contiguous() for one in gains)
        )


@final
class TokenAttention:
    """The attention of one layer, made ready once and called for token after token on a CPU.

    The weights are read where they lie. Once `weights.place` has changed, make another.

    Args:
        weights: all of one floating dtype; gains of that or float32.
        channels: of a head.
        clip: bound of what is projected, after norms of the whole width and before norms of heads.

    Raises:
        ValueError: shapes that do not fit each other.
    """

    def __init__(self, weights: AttentionWeights, *, channels: int, epsilon: float, clip: float | None = None):
        queries, width = weights.query.shape
        keys = weights.key.shape[0]
        fits = (
            weights.value.shape == weights.key.shape == (keys, width)
            and weights.output.shape == (width, queries)
            and weights.gain.shape == (width,)
            and queries % channels == keys % channels == 0
            and queries % keys == 0
        )
        if not fits:
            raise ValueError(
                f"heads of {channels} channels must share the keys evenly, over one width; got queries "
                f"{tuple(weights.query.shape)}, keys {tuple(weights.key.shape)}, values {tuple(weights.value.shape)}, "
                f"output {tuple(weights.output.shape)} and gain {tuple(weights.gain.shape)}"
            )
        self.weights, self.place = weights, weights.place
        self.column = (keys // channels, channels)
        self.clip = 0.0 if clip is None or math.isinf(clip) else clip
        tokens = tokens_of(backend_of(weights.query.device, weights.query.dtype))
        self._engine = tokens if weights.is_plain else None
        # the part of a call that is the same for every token.
        self.ready = None
        if self._engine is not None:
            self.ready = self._engine.ready_attention(weights, channels, epsilon, self.clip)

    def can_run(self, stream: Float[Tensor, "B D"]) -> bool:
        """Whether it runs here: with the C++ kernels, without gradients, for up to four sequences."""
        return (
            self._engine is not None
            and not torch.is_grad_enabled()
            and 0 < stream.shape[0] <= _MOST_SEQUENCES
            and stream.dtype == self.weights.query.dtype
            and not torch.is_autocast_enabled("cpu")
            and not is_traced(stream, self.weights.query)
        )

    def __call__(
        self,
        stream: Float[Tensor, "B D"],
        keys: Float[Tensor, "B C G Q"],
        values: Float[Tensor, "B C G Q"],
        *,
        cosine: Float[Tensor, "B Q"],
        sine: Float[Tensor, "B Q"],
        length: int,
        mask: Bool[Tensor, "B P"] | None = None,
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B H Q"]]:
        """Stream + attention(norm(stream)), and the turned queries; the newest key and value go into the cache.

        Args:
            keys: room for C columns, of which the first `length - 1` are filled.
            cosine: of the rotation of each channel, the halves of a head being pairs (arXiv 2104.09864).
            length: columns in use, the newest included.
            mask: False for a column that is padding; None when all are real.

        Raises:
            ValueError: shapes that do not fit, or a place where `can_run` is False.
        """
        if self._engine is None or not self.can_run(stream):
            raise ValueError(
                f"one call for a token needs the C++ kernels, no gradients and at most {_MOST_SEQUENCES} sequences, "
                f"got {len(stream)} on {stream.device}; ask can_run first"
            )
        batch, room, *column = keys.shape
        fits = (
            keys.shape == values.shape
            and keys.dtype == values.dtype == stream.dtype
            and keys.is_contiguous()
            and values.is_contiguous()
            and (batch, *column) == (stream.shape[0], *self.column)
            and 0 < length <= room
            and cosine.shape == sine.shape == (batch, column[-1])
            and (mask is None or mask.shape[1] >= length)
        )
        if not fits:
            raise ValueError(
                f"keys {tuple(keys.shape)} and values {tuple(values.shape)} must be contiguous, of the dtype of the "
                f"stream {tuple(stream.shape)}, with room for {length} columns of {self.column}; rotations "
                f"{tuple(cosine.shape)} are one row per sequence"
            )
        out, turned = self._engine.token_attention(self.ready, stream, keys, values, (cosine, sine), length, mask)
        return out, turned.view(batch, -1, column[-1])
