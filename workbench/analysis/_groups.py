"""Tokens sorted by a label: their domain or their token id."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int

from workbench.analysis._choices import Choices
from workbench.core.check import one_of

Label = Literal["domain", "token_id"]


class Groups(NamedTuple):
    """The tokens that carry a label which is frequent enough."""

    found: Choices
    names: np.ndarray
    label: Int[np.ndarray, "T"]
    by: str

    @property
    def over(self) -> str:
        """What a measure of these tokens is taken over."""
        return f"{self.found.over}; {len(self.names)} labels by {self.by}"


def labelled_tokens(found: Choices, by: Label, min_count: int, *, at_least_labels: int = 2) -> Groups:
    """The tokens whose label is known and frequent enough, with the labels' names.

    Raises:
        LookupError: fewer labels than needed.
    """
    one_of("by", by, get_args(Label))
    values = found.token(by)
    known = values != "" if by == "domain" else np.ones(values.shape, bool)
    names, index, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    frequent = counts >= min_count
    if frequent.sum() < at_least_labels:
        best = int(counts.max(initial=0))
        raise LookupError(
            f"at least {at_least_labels} labels with min_count={min_count} tokens are needed, got "
            f"{int(frequent.sum())} by {by} (the largest has {best}) in {found.over}; "
            f"record longer text of known {by}, or lower min_count"
        )
    tokens = np.flatnonzero(known)[frequent[index]]
    renamed = np.cumsum(frequent) - 1
    return Groups(found.at(tokens), names[frequent], renamed[index[frequent[index]]], by)
