"""Between traces and plain arrays."""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int

from workbench.core.context import Phase
from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.trace.checks import require_valid
from workbench.trace.record import Recorder
from workbench.trace.sampling import Sampling
from workbench.trace.schema import Trace

__all__ = ["from_arrays", "to_table"]


def from_arrays(
    token_id: Int[np.ndarray, "T"],
    expert: Int[np.ndarray, "T L K"],
    weight: Float[np.ndarray, "T L K"] | None = None,
    *,
    num_experts: int,
    kept: Bool[np.ndarray, "T L K"] | None = None,
    step: Int[np.ndarray, "T"] | None = None,
    sequence: Int[np.ndarray, "T"] | None = None,
    phase: Phase = "prefill",
    router: str = "unknown",
    decode_piece: Callable[[int], str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Trace:
    """A trace of routings that another program wrote down.

    Tokens with the same step and sequence must stand together, in order.

    Args:
        token_id: vocabulary index.
        expert: chosen expert, -1 where a slot is empty.
        weight: factor of each expert's output; equal shares by default.
        num_experts: experts of a layer.
        kept: False where an assignment was lost to capacity; none was, by default.
        step: forward pass of each token, never falling; by default one pass of all.
        sequence: which text a token belongs to; by default one.
        phase: what the model was doing.
        router: public name of the router.
        decode_piece: text of a token id.
        attrs: what the trace says of itself.

    Raises:
        ValueError: lengths that differ, an expert that does not exist, or a step that falls.
    """
    tokens = len(token_id)
    steps = np.zeros(tokens, dtype=np.int64) if step is None else step
    sequences = np.zeros(tokens, dtype=np.int64) if sequence is None else sequence
    _require_fit({"token_id": token_id, "expert": expert, "step": steps, "sequence": sequences}, num_experts)
    filled = expert >= 0
    if weight is None:
        weight = filled / np.maximum(filled.sum(-1, keepdims=True), 1)
    kept = filled if kept is None else kept & filled
    recorder = Recorder(
        sampling=Sampling(train_every=1, train_tokens=max(tokens, 1), probe_every=0),
        attrs=attrs,
        decode_piece=decode_piece,
    )
    start = 0
    for (at, text), same in groupby(zip(steps.tolist(), sequences.tolist(), strict=True)):
        stop = start + len(list(same))
        sites = _sites(expert[start:stop], weight[start:stop], kept[start:stop], num_experts, router)
        batch = Batch(token_ids=torch.from_numpy(np.ascontiguousarray(token_id[None, start:stop])))
        # only the routings are read; there are no scores of a next token.
        output = Output(logits=torch.empty(1, stop - start, 0), sites=sites)
        recorder.add(batch, output, phase=phase, step=at, sequence=torch.tensor([text]))
        start = stop
    trace = recorder.trace()
    require_valid(trace)
    return trace


def to_table(trace: Trace) -> dict[str, npt.NDArray[Any]]:
    """One row per assignment, as columns of equal length: ready for a CSV file or a data frame.

    Raises:
        LookupError: the trace holds no routing.
    """
    if "routing" not in trace.children:
        raise LookupError("the trace has no /routing, so there are no assignments to list")
    routing = trace.children["routing"].to_dataset(inherit=False)
    expert = routing["expert"].values
    site, token, slot = np.nonzero(expert >= 0)
    of_token = ("step", "phase", "sequence", "position", "token_id", "piece", "domain", "is_probe")
    of_site = ("layer", "iteration", "module", "router", "is_shadow")
    table = {name: routing[name].values[token] for name in of_token}
    table |= {name: routing[name].values[site] for name in of_site}
    table["slot"] = slot
    return table | {name: routing[name].values[site, token, slot] for name in ("expert", "weight", "kept")}


def _require_fit(arrays: Mapping[str, npt.NDArray[Any]], num_experts: int) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one row per token expected, got {', '.join(f'{k} {n}' for k, n in lengths.items())}")
    expert = arrays["expert"]
    if expert.size and not -1 <= expert.min() <= expert.max() < num_experts:
        raise ValueError(f"expert must be -1 or below num_experts={num_experts}, got {expert.min()} to {expert.max()}")


def _sites(
    expert: Int[np.ndarray, "T L K"],
    weight: Float[np.ndarray, "T L K"],
    kept: Bool[np.ndarray, "T L K"],
    num_experts: int,
    router: str,
) -> tuple[Site, ...]:
    return tuple(
        Site(
            layer=layer,
            iteration=0,
            module=f"layers.{layer}",
            router=router,
            routing=SparseRouting.from_topk(
                torch.from_numpy(expert[:, layer].astype(np.int64)),
                torch.from_numpy(weight[:, layer].astype(np.float32)),
                num_experts=num_experts,
                keep=torch.from_numpy(kept[:, layer].copy()),
            ),
        )
        for layer in range(expert.shape[1])
    )
