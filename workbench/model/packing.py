"""Padded batches and packed tokens: T counts real tokens only, so padding can change nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

__all__ = ["Packing", "packing_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """Where the real tokens of a padded batch are.

    Args:
        batch: sequences B.
        length: columns S.
        mask: True for a real token; None when all are.
        place: flat column index of every token; None when all are real.
        sequence: sequence of every token.
        position: place in its sequence, padding not counted, earlier cached tokens counted.
    """

    batch: int
    length: int
    mask: Bool[Tensor, "B S"] | None
    place: Int[Tensor, "T"] | None
    sequence: Int[Tensor, "T"]
    position: Int[Tensor, "T"]

    def pack(self, x: Shaped[Tensor, "B S ..."]) -> Shaped[Tensor, "T ..."]:
        """The real tokens, sequence after sequence."""
        flat = x.flatten(0, 1)
        return flat if self.place is None else flat.index_select(0, self.place)

    def pad(self, x: Shaped[Tensor, "T ..."]) -> Shaped[Tensor, "B S ..."]:
        """Back to columns, zero where the padding is."""
        if self.place is None:
            return x.reshape(self.batch, self.length, *x.shape[1:])
        columns = x.new_zeros(self.batch * self.length, *x.shape[1:]).index_copy(0, self.place, x)
        return columns.reshape(self.batch, self.length, *x.shape[1:])


def packing_of(
    shape: torch.Size, mask: Bool[Tensor, "B S"] | None, past: Int[Tensor, "B"] | None, device: torch.device
) -> Packing:
    """The packing of a batch.

    Args:
        past: real tokens of each sequence that a cache already holds.

    Raises:
        ValueError: the mask has another shape than the batch.
    """
    batch, length = shape
    if mask is not None and mask.shape != shape:
        raise ValueError(f"mask must have the batch's shape {tuple(shape)}, got {tuple(mask.shape)}")
    if mask is not None and bool(mask.all()):
        mask = None
    if mask is None and length == 1 and past is not None:
        # decoding comes here for every token.
        everyone = torch.arange(batch, device=device)
        return Packing(batch=batch, length=1, mask=None, place=None, sequence=everyone, position=past)
    if mask is None:
        position = torch.arange(length, device=device).expand(batch, length)
    else:
        position = (mask.cumsum(-1) - 1).clamp_min(0)
    if past is not None:
        position = position + past.unsqueeze(-1)
    sequence = torch.arange(batch, device=device).unsqueeze(-1).expand(batch, length)
    place = None if mask is None else mask.flatten().nonzero().squeeze(-1)
    everything = (sequence.flatten(), position.flatten())
    tokens = everything if place is None else tuple(part[place] for part in everything)
    return Packing(batch=batch, length=length, mask=mask, place=place, sequence=tokens[0], position=tokens[1])
