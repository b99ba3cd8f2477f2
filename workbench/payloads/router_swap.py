"""A router swap on a fixed text, for the view `router_swap`."""

import math
from collections.abc import Sequence

import numpy as np

from workbench.analysis.routing_diff import RoutingDiff
from workbench.payloads.container import encode

__all__ = ["router_swap_payload"]

_NOTHING = "No router has been swapped in this run yet. Swap one, and this view shows which of the same tokens moved."
_SOURCE = "Measured: the probe text was routed by both routers at the same step, with the same weights everywhere else."
_MEANING = (
    "Moved is the share of assignments that go to another expert, against the larger of the two sets. "
    "The flow is combine weight: what can stay with an expert stays."
)


def router_swap_payload(
    diff: RoutingDiff | None,
    *,
    pieces: Sequence[str] = (),
    before: str = "",
    after: str = "",
    step: int = 0,
    stall_seconds: float = math.nan,
) -> bytes:
    """The same tokens before and after a swap: their experts, the share that moved, the flow, and both losses.

    Args:
        diff: how the text was routed by both; None when no swap was made.
        pieces: the tokens as text, one for each token of the diff.
        before: the old router, as `Spec` writes it.
        after: the new one.
        step: the first step with the new one, as a command's record names it.
        stall_seconds: how long training stood still [s].

    Raises:
        ValueError: another number of pieces than tokens.
    """
    if diff is None:
        return encode("router_swap", {"empty": _NOTHING}, {})
    if len(pieces) != diff.num_tokens:
        raise ValueError(
            f"one piece of text per token expected, got {len(pieces)} for {diff.num_tokens} tokens; "
            "pass the pieces of the text that was compared"
        )
    chosen, numbers = diff.tokens, np.array([diff.loss_before, diff.loss_after, stall_seconds])
    said = [_MEANING]
    if (chosen["share"].sum("slot").values < 1 - 1e-3).any() and chosen.sizes["slot"]:
        said.append("Of tokens with many experts the eight with the largest weights are shown.")
    arrays = {
        "expert": chosen["expert"].transpose("side", "token", "layer", "slot").values,
        "share": chosen["share"].transpose("side", "token", "layer", "slot").values,
        "token_moved": chosen["moved"].transpose("token", "layer").values,
        "moved": diff.moved.values.astype(np.float64),
        "flow": diff.flow.values.astype(np.float32),
        "numbers": numbers,
    }
    header = {
        "source": _SOURCE,
        "statements": said,
        "pieces": [str(piece) for piece in pieces],
        "before": before,
        "after": after,
        "step": step,
        "loss_unit": "nats per token",
    }
    return encode("router_swap", header, arrays)
