"""Keys, values and router memory of the tokens seen so far."""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from workbench.core.html import facts
from workbench.core.units import human_bytes

__all__ = ["KVCache", "room_for"]


class KVCache:
    """What attention and stateful routers remember of a batch of sequences.

    Columns are those of the inputs, padding included; `key_mask` says which are real. The one thing
    that a forward pass changes.

    Args:
        batch: sequences B.

    Attributes:
        key_mask: which columns are real; None as long as all are.
        num_bytes: memory held [B].
    """

    def __init__(self, batch: int):
        self.batch = batch
        self.length = 0
        self.key_mask: Bool[Tensor, "B P"] | None = None
        self.num_bytes = 0
        self._device = torch.device("cpu")
        self._store: dict[tuple[object, ...], Tensor] = {}

    @property
    def has_padding(self) -> bool:
        """Whether some column of some sequence holds no real token."""
        return self.key_mask is not None

    @property
    def past(self) -> Int[Tensor, "B"] | None:
        """Real tokens of each sequence so far; None when the cache is empty."""
        if self.length == 0:
            return None
        if self.key_mask is None:
            return torch.full((self.batch,), self.length, device=self._device)
        return self.key_mask[:, : self.length].sum(-1)

    def advance(self, mask: Bool[Tensor, "B S"]) -> None:
        """Make room for new columns; the layers then add theirs."""
        self._device = mask.device
        if self.key_mask is None and bool(mask.all()):
            self.length += mask.shape[1]
            return
        if self.key_mask is None:
            self.key_mask = mask.new_ones(self.batch, self.length)
        self.key_mask = _with_room(self.key_mask, mask, self.length)
        self.key_mask[:, self.length : self.length + mask.shape[1]] = mask
        self.length += mask.shape[1]

    def advance_by_one(self) -> None:
        """As `advance`, for one real column of a cache without padding."""
        assert self.key_mask is None, "the mask says which columns are real"
        self.length += 1

    def extend(self, key: tuple[object, ...], new: Shaped[Tensor, "B S ..."]) -> Shaped[Tensor, "B P ..."]:
        """Add the newest columns under a key and return all columns."""
        start = self.length - new.shape[1]
        columns = self.room(key, new)
        # written in place: a cache serves inference, no gradient flows through it.
        columns[:, start : self.length] = new
        return columns[:, : self.length]

    def room(self, key: tuple[object, ...], new: Shaped[Tensor, "B S ..."]) -> Shaped[Tensor, "B C ..."]:
        """The columns under a key, with room for the newest, which the caller writes."""
        held = self._store.get(key)
        room = _with_room(held, new, self.length - new.shape[1])
        if room is not held:
            self._store[key] = room
            self.num_bytes += room.nbytes - (0 if held is None else held.nbytes)
        return room

    def mask(self) -> Bool[Tensor, "B P"]:
        """Which columns hold a real token."""
        assert self.key_mask is not None, "advance comes first"
        return self.key_mask[:, : self.length]

    def bytes_after(self, columns: int) -> int:
        """Memory that it will hold when so many columns have been added [B]."""
        end = self.length + columns
        rooms = [t.shape[1] if end <= t.shape[1] else room_for(end, self.length) for t in self._store.values()]
        return sum(t.nbytes // t.shape[1] * room for t, room in zip(self._store.values(), rooms, strict=True))

    def _repr_html_(self) -> str:
        rows = {"sequences": self.batch, "columns": self.length, "memory": human_bytes(self.num_bytes)}
        return facts("KVCache", rows)


def room_for(columns: int, held: int = 0) -> int:
    """Columns that are allocated when a cache of `held` columns has to grow to so many."""
    # doubling keeps the number of copies logarithmic in the generated length.
    return max(columns, 2 * held, 16)


def _with_room(old: Shaped[Tensor, "B P ..."] | None, new: Shaped[Tensor, "B S ..."], start: int) -> Tensor:
    end = start + new.shape[1]
    if old is not None and end <= old.shape[1]:
        return old
    bigger = new.new_zeros(new.shape[0], room_for(end, start), *new.shape[2:])
    if old is not None:
        bigger[:, :start] = old[:, :start]
    return bigger
