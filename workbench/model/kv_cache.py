"""Keys, values and router memory of the tokens seen so far."""

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from workbench.core.html import facts
from workbench.core.units import human_bytes

__all__ = ["KVCache"]


class KVCache:
    """What attention and stateful routers remember of a batch of sequences.

    Columns are those of the inputs, padding included; `key_mask` says which are real. The one thing
    that a forward pass changes.

    Args:
        batch: sequences B.
    """

    def __init__(self, batch: int):
        self.batch = batch
        self.length = 0
        self.key_mask: Bool[Tensor, "B P"] | None = None
        self._store: dict[tuple[object, ...], Tensor] = {}

    @property
    def past(self) -> Int[Tensor, "B"] | None:
        """Real tokens of each sequence so far; None when the cache is empty."""
        return None if self.key_mask is None else self.key_mask[:, : self.length].sum(-1)

    def advance(self, mask: Bool[Tensor, "B S"]) -> None:
        """Make room for new columns; the layers then add theirs."""
        self.key_mask = _grown(self.key_mask, mask, self.length, axis=1)
        self.length += mask.shape[1]

    def extend(self, key: tuple[object, ...], new: Shaped[Tensor, "B S ..."]) -> Shaped[Tensor, "B P ..."]:
        """Add the newest columns under a key and return all columns."""
        start = self.length - new.shape[1]
        self._store[key] = _grown(self._store.get(key), new, start, axis=1)
        return self._store[key][:, : self.length]

    def mask(self) -> Bool[Tensor, "B P"]:
        """Which columns hold a real token."""
        assert self.key_mask is not None, "advance comes first"
        return self.key_mask[:, : self.length]

    @property
    def num_bytes(self) -> int:
        """Memory held [B]."""
        return sum(t.numel() * t.element_size() for t in self._store.values())

    def _repr_html_(self) -> str:
        rows = {"sequences": self.batch, "columns": self.length, "memory": human_bytes(self.num_bytes)}
        return facts("KVCache", rows)


def _grown(old: Float[Tensor, "B P ..."] | Bool[Tensor, "B P"] | None, new: Tensor, start: int, *, axis: int) -> Tensor:
    end = start + new.shape[axis]
    if old is None or end > old.shape[axis]:
        # doubling keeps the number of copies logarithmic in the generated length.
        room = max(end, 2 * start, 16)
        bigger = new.new_zeros(new.shape[0], room, *new.shape[2:])
        if old is not None:
            bigger[:, :start] = old[:, :start]
        old = bigger
    # written in place: a cache serves inference, no gradient flows through it.
    old[:, start:end] = new
    return old
