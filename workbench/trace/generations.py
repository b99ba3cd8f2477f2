"""Which generation a row of a batch belongs to, and how far it has come."""

from jaxtyping import Int
from torch import Tensor

from workbench.core.context import Phase
from workbench.core.records import Batch

__all__ = ["Generations"]


class Generations:
    """Numbers the sequences of prefill and decode, and counts their tokens.

    Args:
        first: number of the first new generation.
    """

    def __init__(self, first: int = 0):
        self._fresh = first
        self._open: list[int] = []
        self._length: dict[int, int] = {}

    def place(
        self,
        batch: Batch,
        phase: Phase,
        *,
        is_probe: bool,
        sequence: Int[Tensor, "B"] | None,
        position: Int[Tensor, "B"] | None,
    ) -> tuple[list[int], list[int]]:
        """The sequence of every row, and the position of its first token.

        Raises:
            ValueError: a decode step has other rows than the last prefill, and no sequence is given.
        """
        rows, columns = batch.token_ids.shape
        is_generation = phase in ("prefill", "decode") and not is_probe
        if sequence is not None:
            numbers = [int(number) for number in sequence.tolist()]
        elif is_generation:
            numbers = self._numbers(rows, phase)
        else:
            numbers = list(range(rows))
        if position is not None:
            starts = [int(start) for start in position.tolist()]
        else:
            starts = [self._length.get(number, 0) if is_generation else 0 for number in numbers]
        if is_generation:
            lengths = [columns] * rows if batch.mask is None else batch.mask.sum(1).tolist()
            for number, start, length in zip(numbers, starts, lengths, strict=True):
                self._length[number] = start + length
            if phase == "prefill":
                self._open = numbers
        return numbers, starts

    def _numbers(self, rows: int, phase: Phase) -> list[int]:
        if phase == "prefill":
            self._fresh += rows
            return list(range(self._fresh - rows, self._fresh))
        if rows != len(self._open):
            raise ValueError(
                f"a decode step of {rows} rows follows a prefill of {len(self._open)}; "
                "record the prefill first, or say which row is which with sequence="
            )
        return self._open
