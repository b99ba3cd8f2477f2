"""Router replay: a host runs with the routing of a trace instead of its routers' own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.records import Output
from workbench.model.host.host_model import HostModel
from workbench.model.host.seam import Decision
from workbench.trace.schema import Trace

__all__ = ["replay_host"]

_PHASES = ("prefill", "decode")


def replay_host(host: HostModel, trace: Trace, token_ids: Sequence[Sequence[int]]) -> Iterator[Output]:
    """What the host gives, pass by pass, with every expert and weight taken from a trace of the same tokens.

    The passes are those of the trace, so a host of the same weights gives equal outputs, on the same device to the
    bit of a forward pass of these tokens. Logits are of all tokens of a pass, padding on the left.

    Args:
        trace: holds the routing of prefill and decode, as `record_host` makes it.
        token_ids: the tokens of every sequence of the trace, in order of the sequences: what the caller believes
            to replay.

    Raises:
        LookupError: the trace has no routing of prefill or decode.
        ValueError: other tokens, other layers, another number of experts, or assignments without a weight or lost
            to capacity.
    """
    if "routing" not in trace.children:
        raise LookupError("the trace has no /routing to replay; record one with record_host")
    routing = trace.children["routing"].to_dataset(inherit=False)
    routing = routing.isel(token=np.isin(routing["phase"].values, _PHASES) & ~routing["is_probe"].values)
    if not routing.sizes["token"]:
        raise LookupError("the trace has no routing of prefill or decode; record one with record_host")
    _check_tokens(routing, token_ids)
    return _outputs(host, _Recorded.of(host, routing), list(_passes(routing)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recorded:
    """The recorded decisions by layer, over all tokens of the trace."""

    token_id: Int[Tensor, "N"]
    layers: Mapping[int, Decision]

    @classmethod
    def of(cls, host: HostModel, routing: xr.Dataset) -> "_Recorded":
        """Those of a trace that fits the host."""
        acting = ~routing["is_shadow"].values & (routing["iteration"].values == 0)
        numbers = routing["layer"].values[acting].tolist()
        expected = [layer.index for layer in host.layers]
        sizes, own = routing["num_experts"].values[acting].tolist(), [layer.num_experts for layer in host.layers]
        if sorted(numbers) != expected or [sizes[numbers.index(n)] for n in expected] != own:
            raise ValueError(
                f"expected a routing of {len(own)} MoE layers with {sorted(set(own))} experts, got {len(numbers)} with "
                f"{sorted(set(sizes))}; replay a trace of this model"
            )
        sites = dict(zip(numbers, np.flatnonzero(acting).tolist(), strict=True))
        layers = {
            layer.index: _decision(routing, sites[layer.index], layer.index, layer.top_k) for layer in host.layers
        }
        return cls(token_id=torch.from_numpy(routing["token_id"].values.astype(np.int64)), layers=layers)

    def at(self, rows: Int[Tensor, "B S"], is_real: Bool[Tensor, "B S"]) -> dict[int, Decision]:
        """The decisions of a padded batch; padding is left to the router."""
        flat, real = rows.flatten(), is_real.flatten().unsqueeze(-1)
        return {
            layer: Decision(expert=one.expert[flat].masked_fill(~real, -1), weight=one.weight[flat])
            for layer, one in self.layers.items()
        }


def _decision(routing: xr.Dataset, site: int, layer: int, top_k: int) -> Decision:
    expert = routing["expert"].values[site].astype(np.int64)
    weight, kept = routing["weight"].values[site], routing["kept"].values[site]
    chosen = (expert >= 0).sum(-1)
    is_full = (expert[:, :top_k] >= 0).all() and (chosen == top_k).all() and kept[:, :top_k].all()
    if not is_full:
        raise ValueError(
            f"expected {top_k} experts for every token in MoE layer {layer}, got {chosen.min()} to {chosen.max()}, "
            f"{int((expert >= 0).sum() - kept.sum())} of them lost to capacity; replay a trace of this model"
        )
    if not np.isfinite(weight[:, :top_k]).all():
        raise ValueError(
            f"the trace does not know the weights of MoE layer {layer} (a dump of another runtime?); record it anew "
            "with record_host"
        )
    return Decision(
        expert=torch.from_numpy(expert[:, :top_k].copy()), weight=torch.from_numpy(weight[:, :top_k].copy())
    )


def _check_tokens(routing: xr.Dataset, token_ids: Sequence[Sequence[int]]) -> None:
    sequence, found = routing["sequence"].values, routing["token_id"].values
    numbers = np.unique(sequence).tolist()
    if len(numbers) != len(token_ids):
        raise ValueError(f"expected the tokens of the trace's {len(numbers)} sequences, got {len(token_ids)}")
    for number, given in zip(numbers, token_ids, strict=True):
        recorded = found[sequence == number].tolist()
        if recorded != list(given):
            place = next(
                (i for i, (a, b) in enumerate(zip(recorded, given, strict=False)) if a != b),
                min(len(recorded), len(given)),
            )
            raise ValueError(
                f"the trace is of other tokens: sequence {number} has {recorded[place : place + 1] or 'none'} at "
                f"position {place}, got {list(given)[place : place + 1] or 'none'} ({len(recorded)} and {len(given)} "
                "tokens); give the tokens that were recorded, without the last one written"
            )


def _passes(routing: xr.Dataset) -> Iterator[tuple[str, list[list[int]]]]:
    """Phase and rows of the trace, by sequence, of every forward pass."""
    keys = list(zip(routing["step"].values.tolist(), routing["phase"].values.tolist(), strict=True))
    sequence = routing["sequence"].values.tolist()
    for (_, phase), places in groupby(range(len(keys)), key=lambda place: keys[place]):
        yield phase, [list(rows) for _, rows in groupby(places, key=lambda place: sequence[place])]


def _outputs(host: HostModel, recorded: _Recorded, passes: list[tuple[str, list[list[int]]]]) -> Iterator[Output]:
    cache, mask = None, torch.zeros(0, 0, dtype=torch.bool)
    for phase, sequences in passes:
        rows, is_real = _padded(sequences)
        if phase == "prefill":
            cache, mask = None, is_real
        elif len(sequences) != len(mask):
            raise ValueError(
                f"a decode pass of {len(sequences)} sequences follows a prefill of {len(mask)}; the trace is not of "
                "one batch"
            )
        else:
            mask = torch.cat((mask, is_real), dim=1)
        token_ids = recorded.token_id[rows].masked_fill(~is_real, 0).to(host.device)
        forced = recorded.at(rows, is_real)
        done = host.forward(token_ids, mask=mask.to(host.device), cache=cache, forced=forced)
        cache = done.cache
        yield done.output


def _padded(sequences: list[list[int]]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    longest = max(map(len, sequences))
    rows = torch.zeros(len(sequences), longest, dtype=torch.int64)
    is_real = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for place, own in enumerate(sequences):
        rows[place, longest - len(own) :] = torch.tensor(own)
        is_real[place, longest - len(own) :] = True
    return rows, is_real
