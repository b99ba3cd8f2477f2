"""Room in which experts are put together from their pages just before they compute."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from workbench.offload.precision.plan import Precision

__all__ = ["Decoder"]


@final
class Decoder:
    """Dense tensors for a few experts, part of the budget. Scratch of one tensor beside them is not, as of activations.

    Args:
        room: experts at a time.

    Attributes:
        tensors: one for each tensor of an expert, the first axis is the place.
    """

    def __init__(self, precision: Precision, room: int, device: torch.device):
        self.precision, self.room = precision, room
        self.tensors = tuple(
            torch.empty((room, *part.shape), dtype=part.torch_dtype, device=device) for part in precision.dense.parts
        )

    @property
    def num_bytes(self) -> int:
        """Memory that it takes [B]."""
        return self.room * self.precision.dense.num_bytes

    def put(self, experts: Sequence[Sequence[int]], slots: Sequence[Tensor]) -> None:
        """Put experts together, the first in the first place.

        Args:
            experts: the slots of the pages of each, coarse first.
            slots: one tensor for each part of a page, the first axis is the slot.
        """
        for place, pages in enumerate(experts):
            of_expert = [[part[slot] for part in slots] for slot in pages]
            self.precision.format.decode(of_expert, [tensor[place] for tensor in self.tensors])
