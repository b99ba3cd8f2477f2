"""From the passes of a dump to a trace."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from workbench.core.context import Phase
from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.trace.checks import validate
from workbench.trace.record import Recorder
from workbench.trace.schema import Trace

__all__ = ["DumpedPass", "DumpedText", "trace_of_dump"]


class DumpedText(NamedTuple):
    """Tokens of one sequence in one forward pass.

    Args:
        sequence: number of the text.
        position: place of the first token in it.
        token_id: vocabulary index, -1 where the dump has none.
        expert: chosen expert, -1 where a slot is empty.
    """

    sequence: int
    position: int
    token_id: Int[np.ndarray, "T"]
    expert: Int[np.ndarray, "T L K"]


class DumpedPass(NamedTuple):
    """One forward pass."""

    phase: Phase
    texts: Sequence[DumpedText]


def trace_of_dump(
    passes: Sequence[DumpedPass], *, modules: Sequence[str], num_experts: int, origin: str, router: str
) -> Trace:
    """A trace whose weights are NaN, because dumps keep the choices only.

    A token id of -1 becomes 0, since a trace has no unknown token; the attribute `unknown` says so.

    Args:
        modules: name of every MoE layer in the dump.
        origin: what wrote the dump.
        router: name under which its router appears.

    Raises:
        ValueError: the passes do not make a valid trace.
    """
    has_tokens = all((text.token_id >= 0).all() for one in passes for text in one.texts)
    unknown = ["weight", "prob"] if has_tokens else ["weight", "prob", "token_id"]
    recorder = Recorder(attrs={"origin": origin, "unknown": unknown})
    for step, one in enumerate(passes):
        for text in one.texts:
            batch = Batch(token_ids=torch.from_numpy(np.maximum(text.token_id, 0)[None].astype(np.int64)))
            # only the routings are read; there are no scores of a next token.
            output = Output(
                logits=torch.empty(1, len(text.token_id), 0),
                sites=tuple(_site(layer, name, text, num_experts, router) for layer, name in enumerate(modules)),
            )
            recorder.add(
                batch,
                output,
                phase=one.phase,
                step=step,
                sequence=torch.tensor([text.sequence]),
                position=torch.tensor([text.position]),
            )
    trace = recorder.trace()
    _require_valid_but_weights(trace)
    return trace


def _site(layer: int, module: str, text: DumpedText, num_experts: int, router: str) -> Site:
    expert = torch.from_numpy(np.ascontiguousarray(text.expert[:, layer]).astype(np.int64))
    weight = torch.full(expert.shape, torch.nan).masked_fill(expert < 0, 0)
    routing = SparseRouting.from_topk(expert, weight, num_experts=num_experts, keep=expert >= 0)
    return Site(layer=layer, iteration=0, module=module, router=router, routing=routing)


def _require_valid_but_weights(trace: Trace) -> None:
    """The checks of every trace, over a stand-in for the weights that nobody knows."""
    known = trace.copy()
    routing = known.children["routing"].to_dataset(inherit=False)
    known["routing"] = routing.assign(weight=routing["weight"].fillna(0))
    problems = validate(known)
    if problems:
        raise ValueError(f"the dump does not make a valid trace: {problems[0]}")
