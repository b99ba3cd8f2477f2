"""The same tokens under two routers: how many assignments moved, from where to where."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from workbench.core.html import facts
from workbench.core.routing import Routing

__all__ = ["RoutingDiff", "diff_routings"]

_MOST_SLOTS = 8


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingDiff:
    """What another router does to a fixed text.

    Args:
        moved: share of each layer's assignments that go to another expert, 0 to 1.
        flow: share of a layer's combine weight that goes from an expert before to one after; what can
            stay stays. The last row and column stand for no expert at all. Dimensions `layer`,
            `expert_before`, `expert_after`.
        tokens: the same token by token: `expert` (-1 if empty) and `share` of its combine weight over `side`
            (before, after), `layer`, `token`, `slot`, largest share first, at most 8; `moved` over `layer`,
            `token`, the share of a token's assignments that go to another expert.
        num_tokens: of the text.
        loss_before: mean cross-entropy of the text under the old router [nat/token]; NaN if unknown.
        loss_after: the same under the new one.
    """

    moved: xr.DataArray
    flow: xr.DataArray
    tokens: xr.Dataset
    num_tokens: int
    loss_before: float = float("nan")
    loss_after: float = float("nan")

    @property
    def loss_delta(self) -> float:
        """How much worse the new router is on this text right now [nat/token]."""
        return self.loss_after - self.loss_before

    def with_losses(self, before: float, after: float) -> "RoutingDiff":
        """The same, with the loss of the text before and after [nat/token]."""
        return replace(self, loss_before=before, loss_after=after)

    def __repr__(self) -> str:
        return f"RoutingDiff({self._line()})"

    def _line(self) -> str:
        loss = "" if np.isnan(self.loss_delta) else f", loss {self.loss_delta:+.3f} nat/token"
        return f"{float(self.moved.mean()):.0%} of assignments moved over {self.num_tokens} tokens{loss}"

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            f"layer {layer}": f"{float(share):.1%} moved" for layer, share in enumerate(self.moved.values)
        }
        if not np.isnan(self.loss_delta):
            rows["loss before [nat/token]"] = f"{self.loss_before:.4f}"
            rows["loss after [nat/token]"] = f"{self.loss_after:.4f}"
        return facts(f"the same {self.num_tokens} tokens before and after", rows)


def diff_routings(before: Sequence[Routing], after: Sequence[Routing]) -> RoutingDiff:
    """Compare two routings of the same tokens, layer by layer.

    Args:
        before: the decision in each layer.
        after: the same for the other router.

    Raises:
        ValueError: another number of layers or of tokens.
    """
    if len(before) != len(after) or any(a.num_tokens != b.num_tokens for a, b in zip(before, after, strict=True)):
        raise ValueError(
            f"the two must have the same layers and tokens, got {[r.num_tokens for r in before]} tokens per layer "
            f"before and {[r.num_tokens for r in after]} after; route the same text twice"
        )
    moved, flows, by_token, chosen = [], [], [], []
    for old, new in zip(before, after, strict=True):
        first, second = _shares(old), _shares(new)
        moved.append(_moved(first > 0, second > 0))
        flows.append(_flow(_with_none(first), _with_none(second)))
        by_token.append(_moved_tokens(first > 0, second > 0))
        chosen.append((_chosen(first), _chosen(second)))
    widths = [max(flow.shape[axis] for flow in flows) for axis in (0, 1)] if flows else [0, 0]
    stacked = np.stack([_grown(flow, *widths) for flow in flows]) if flows else np.zeros((0, 0, 0))
    return RoutingDiff(
        moved=xr.DataArray(moved, dims="layer", name="moved", attrs={"units": "1"}),
        flow=xr.DataArray(
            stacked, dims=("layer", "expert_before", "expert_after"), name="flow", attrs={"units": "share of weight"}
        ),
        tokens=_tokens(chosen, by_token),
        num_tokens=before[0].num_tokens if before else 0,
    )


def _shares(routing: Routing) -> Float[np.ndarray, "T E"]:
    """Each token's combine weight over the experts, as shares; a token without expert has none."""
    flat = routing.assignments()
    table = torch.zeros(routing.num_tokens, routing.num_experts, dtype=torch.float64)
    place = (flat.token.cpu(), flat.expert.cpu())
    table.index_put_(place, (flat.weight.detach().cpu().double().abs() * flat.kept.cpu()), accumulate=True)
    total = table.sum(-1, keepdim=True)
    return (table / total.where(total > 0, torch.ones(()))).numpy()


def _moved(first: np.ndarray, second: np.ndarray) -> float:
    same, most = _same(first, second)
    return 1 - float(same.sum() / most.sum()) if most.sum() else 0.0


def _moved_tokens(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "T"]:
    same, most = _same(first, second)
    return np.where(most > 0, 1 - same / np.maximum(most, 1), 0.0).astype(np.float32)


def _same(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Experts that each token has in both, and in the larger of the two sets."""
    shared = min(first.shape[1], second.shape[1])
    same = (first[:, :shared] & second[:, :shared]).sum(-1)
    return same, np.maximum(first.sum(-1), second.sum(-1))


def _chosen(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each token's experts by share, the largest first, -1 past the last; and those shares."""
    order = np.argsort(-share, axis=-1, kind="stable")[:, :_MOST_SLOTS]
    sorted_share = np.take_along_axis(share, order, -1)
    return np.where(sorted_share > 0, order, -1).astype(np.int16), sorted_share.astype(np.float32)


def _tokens(chosen: Sequence[tuple[tuple[np.ndarray, np.ndarray], ...]], moved: Sequence[np.ndarray]) -> xr.Dataset:
    """What every token did, all layers in one table as wide as the widest."""
    tables = [table for layer in chosen for table in layer]
    width = max((int((expert >= 0).sum(-1).max(initial=0)) for expert, _ in tables), default=0)
    tokens = len(tables[0][0]) if tables else 0
    expert = np.full((2, len(chosen), tokens, width), -1, np.int16)
    share = np.zeros(expert.shape, np.float32)
    for layer, sides in enumerate(chosen):
        for side, (one, part) in enumerate(sides):
            used = min(width, one.shape[1])
            expert[side, layer, :, :used], share[side, layer, :, :used] = one[:, :used], part[:, :used]
    dims = ("side", "layer", "token", "slot")
    by_layer = np.stack(moved) if moved else np.zeros((0, 0), np.float32)
    return xr.Dataset(
        {
            "expert": (dims, expert),
            "share": (dims, share, {"units": "1"}),
            "moved": (("layer", "token"), by_layer, {"units": "1"}),
        },
        coords={"side": ["before", "after"]},
    )


def _with_none(share: np.ndarray) -> np.ndarray:
    return np.concatenate([share, 1 - share.sum(-1, keepdims=True).clip(0, 1)], axis=1)


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean over tokens of the plan that turns one distribution over experts into the other and keeps what can stay."""
    shared = min(first.shape[1], second.shape[1]) - 1
    stays = np.zeros((len(first), shared + 1))
    stays[:, :shared] = np.minimum(first[:, :shared], second[:, :shared])
    stays[:, shared] = np.minimum(first[:, -1], second[:, -1])
    leaving, coming = first.copy(), second.copy()
    for table in (leaving, coming):
        table[:, :shared] -= stays[:, :shared]
        table[:, -1] -= stays[:, shared]
    total = leaving.sum(-1, keepdims=True)
    flow = np.einsum("te,tf->ef", leaving / np.where(total > 0, total, 1), coming)
    index = np.arange(shared)
    flow[index, index] += stays[:, :shared].sum(0)
    flow[-1, -1] += stays[:, shared].sum()
    return flow / max(len(first), 1)


def _grown(flow: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The same with room for more experts; the last row and column stay those of no expert."""
    out = np.zeros((rows, columns))
    out[: flow.shape[0] - 1, : flow.shape[1] - 1] = flow[:-1, :-1]
    out[-1, : flow.shape[1] - 1], out[: flow.shape[0] - 1, -1], out[-1, -1] = flow[-1, :-1], flow[:-1, -1], flow[-1, -1]
    return out
