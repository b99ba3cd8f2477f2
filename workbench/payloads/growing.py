"""A payload that grows by rows: viewers get it whole once, and then only what is new."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from workbench.payloads.container import encode

__all__ = ["Arrays", "Growing"]

Arrays = dict[str, NDArray[Any]]


@final
class Growing:
    """The numbers of a view while they grow, kept so that a new viewer can be sent all of them.

    Args:
        view: that reads them.
        header: as for `encode`; `events` is a list that grows too.
        arrays: what there is so far; axis 0 of those that grow is the row.
        rows_of: the name of the rows that an array belongs to, None for one that does not grow.
        max_rows: of each kind; past it every other row of the older half is left out, and the header says so.
    """

    def __init__(
        self,
        view: str,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        *,
        rows_of: Callable[[str], str | None],
        max_rows: int,
    ):
        self._view, self._header, self._rows_of, self._max_rows = view, dict(header), rows_of, max_rows
        self._statements = list(header.get("statements", []))
        self._fixed = {name: array for name, array in arrays.items() if rows_of(name) is None}
        self._grown: dict[str, list[NDArray[Any]]] = {n: [a] for n, a in arrays.items() if rows_of(n) is not None}
        self._recorded: dict[str, int] = {}
        for name, array in arrays.items():
            if (rows := rows_of(name)) is not None:
                self._recorded[rows] = len(array)

    @property
    def header(self) -> Mapping[str, Any]:
        """The newest header."""
        return self._header

    def last(self, name: str) -> NDArray[Any] | None:
        """The newest row of an array, None before the first."""
        chunks = self._grown.get(name, [])
        return next((np.asarray(chunk[-1]) for chunk in reversed(chunks) if len(chunk)), None)

    def grow(
        self, arrays: Mapping[str, NDArray[Any]], *, events: Sequence[Any] = (), header: Mapping[str, Any] | None = None
    ) -> bytes:
        """Take new rows; the payload that tells a viewer of them and of nothing else.

        Args:
            arrays: rows to append, and fixed arrays that changed.
            events: to append to the header's.
            header: values that changed.
        """
        self._header |= header or {}
        self._header["events"] = [*self._header.get("events", []), *events]
        for name, array in arrays.items():
            rows = self._rows_of(name)
            if rows is None:
                self._fixed[name] = array
            else:
                self._grown.setdefault(name, []).append(array)
        for rows, count in {self._rows_of(name): len(array) for name, array in arrays.items()}.items():
            if rows is not None:
                self._recorded[rows] = self._recorded.get(rows, 0) + count
        how = {name: "append" for name in arrays if self._rows_of(name) is not None}
        return encode(self._view, {**self._header, "events": list(events), "grow": how}, arrays)

    def whole(self) -> bytes:
        """Everything, thinned to what a viewer can use."""
        for name, chunks in self._grown.items():
            self._grown[name] = [_joined(chunks)]
        self._thin()
        said = [*self._statements, *self._thinned()]
        arrays = {**self._fixed, **{name: chunks[0] for name, chunks in self._grown.items()}}
        return encode(self._view, {**self._header, "statements": said}, arrays)

    def _thin(self) -> None:
        counts = {self._rows_of(name): len(chunks[0]) for name, chunks in self._grown.items()}
        for rows, count in counts.items():
            if count <= self._max_rows:
                continue
            half = count // 2
            kept = np.r_[np.arange(0, half, 2), np.arange(half, count)]
            for name, chunks in self._grown.items():
                if self._rows_of(name) == rows:
                    chunks[0] = chunks[0][kept]

    def _thinned(self) -> list[str]:
        sent = {self._rows_of(name): len(chunks[0]) for name, chunks in self._grown.items()}
        return [
            f"Showing {sent[rows]:,} of {recorded:,} recorded rows ({rows}); older ones are further apart."
            for rows, recorded in self._recorded.items()
            if rows in sent and sent[rows] < recorded
        ]


def _joined(chunks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows after one another; narrower ones are filled up with NaN, as where a router brought experts of its own."""
    if len(chunks) == 1:
        return chunks[0]
    widths = {chunk.shape[1:] for chunk in chunks}
    if len(widths) > 1:
        widest = tuple(max(sizes) for sizes in zip(*widths, strict=True))
        chunks = [_padded(chunk, widest) for chunk in chunks]
    return np.concatenate(chunks)


def _padded(chunk: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    missing = [(0, 0), *((0, wanted - own) for own, wanted in zip(chunk.shape[1:], shape, strict=True))]
    return np.pad(chunk, missing, constant_values=np.nan)
